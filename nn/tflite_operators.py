"""What each .tflite operator means: one function per operator, in the table at the end.

A function takes the reader of the file and the operator; it appends a layer or, for RESHAPE and SOFTMAX, notes what
its output stands for. It refuses what the layer cannot express with an UnsupportedNetwork error. Operators with
windows or weights are in tflite_windows.py, those that change shapes and types in tflite_types.py.
"""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Add, Concat, Conv, Mean, Pad, Tensor
from .quantize import Kernels, activation_range, add_factors, mean_multiplier
from .rescale import IDENTITY, float_rescaled, kept, rescaled
from .tflite_file import Operator, TfliteTensor
from .tflite_types import dequantize, quantize, reshape, shape_arithmetic
from .tflite_windows import (
    INT32_MAX,
    MAX_SHIFT,
    average_pool_2d,
    clamp_of,
    conv_2d,
    depthwise_conv_2d,
    fully_connected,
    max_pool_2d,
)

if TYPE_CHECKING:
    from .tflite_reader import Reader

__all__ = ["OPERATORS"]

_Op = schema.BuiltinOperator


def _add(r: "Reader", op: Operator) -> None:
    a, b = r.ends(op, 2, 2)
    out = op.outputs[0]
    options = r.options(op, schema.AddOptionsT)
    for x in (a, b):
        if x.data is not None or x.shape != out.shape:
            kind = "constant" if x.data is not None else "computed"
            r.file.fail(
                f"{kind} operand {list(x.shape)} of a sum {list(out.shape)}", "two computed tensors of one shape", op, x
            )
    image, other = r.image(op, a), r.image(op, b)
    if image.shape != other.shape:
        r.file.fail(f"images {list(image.shape)} and {list(other.shape)}", "two images of one shape", op, b)
    made = r.new_tensor(op, out, image.shape)
    try:
        left, right, result = add_factors(image.scale, other.scale, made.scale)
    except ValueError as error:
        r.file.fail(str(error), "output scales that are not far below the inputs'", op, out)
    clamp = clamp_of(r, op, options.fusedActivationFunction, made)
    r.layers.append(Add(f"add{op.index}", image, made, other=other, left=left, right=right, result=result, clamp=clamp))


def _concatenation(r: "Reader", op: Operator) -> None:
    out = op.outputs[0]
    options = r.options(op, schema.ConcatenationOptionsT)
    parts = [r.image(op, x) for x in r.ends(op, 1, len(op.inputs))]
    if options.axis % len(out.shape) != len(out.shape) - 1 or not -len(out.shape) <= options.axis < len(out.shape):
        r.file.fail(f"concatenation along axis {options.axis}", "the channels, the last axis", op, out)
    if options.fusedActivationFunction != schema.ActivationFunctionType.NONE:
        r.file.fail("fused activation", "concatenations without one", op, out)
    for x, part in zip(op.inputs, parts, strict=True):
        if x.shape[:-1] != out.shape[:-1] or x.shape[-1] != part.channels or x.size != np.prod(part.shape):
            r.file.fail(f"part {list(x.shape)} of {list(out.shape)}", "parts that differ in channels only", op, x)
    made = r.new_tensor(op, out)
    if sum(part.channels for part in parts) != made.channels:
        r.file.fail(f"shape {list(out.shape)}", "consistent shapes", op, out)
    for i, (x, part) in enumerate(zip(op.inputs, parts, strict=True)):
        if part.quantisation != made.quantisation:
            parts[i] = _rescaled_part(r, op, x, part, made, i)
    r.layers.append(Concat(f"concat{op.index}", parts[0], made, parts=tuple(parts)))


def _rescaled_part(r: "Reader", op: Operator, x: TfliteTensor, part: Tensor, made: Tensor, i: int) -> Tensor:
    """A part of a uint8 concatenation with the scale of the whole; the int8 kernels know no such thing."""
    if x.type == schema.TensorType.INT8:
        r.file.fail(
            f"scale and zero point {part.quantisation}, the output has {made.quantisation}",
            "int8 concatenations that keep scale and zero point",
            op,
            x,
        )
    inner = Tensor(f"{made.name}#part{i}", *part.shape, *made.quantisation)
    layer = float_rescaled(f"concat{op.index}.part{i}", part, inner)
    if layer is None:
        r.file.fail(f"no integer factor from {part.quantisation} to {made.quantisation}", "other scales", op, x)
    r.layers.append(layer)
    return inner


def _mean(r: "Reader", op: Operator) -> None:
    x, axes = r.ends(op, 2, 2)
    out = op.outputs[0]
    r.options(op, schema.ReducerOptionsT)
    image = r.image_4d(op, x)
    over = r.constant(op, axes, "axes", schema.TensorType.INT32, 1).tolist()
    if {axis % 4 for axis in over} != {1, 2} or not all(-4 <= axis < 4 for axis in over):
        r.file.fail(f"mean over axes {over}", "the mean over height and width, axes 1 and 2", op, axes)
    made = r.new_tensor(op, out)
    if made.shape != (1, 1, image.channels):
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    count = image.height * image.width
    multiplier, shift = mean_multiplier(image.scale / made.scale, count)
    if shift > MAX_SHIFT or (255 * count) << max(shift, 0) > INT32_MAX:
        r.file.fail(f"mean of {count} pixels scaled by {image.scale / made.scale}", "sums within int32", op, out)
    r.layers.append(Mean(f"mean{op.index}", image, made, -image.zero_point * count, multiplier, shift))


def _pad(r: "Reader", op: Operator) -> None:
    """PAD (with the zero point) and PADV2 (with a constant): of rows and columns a Pad, of channels a Conv."""
    x, amounts, constant = r.ends(op, 2, 3)
    out = op.outputs[0]
    image = r.image_4d(op, x)
    if amounts.shape != (4, 2):
        r.file.fail(f"padding of shape {list(amounts.shape)}", "padding [4, 2] of an image [1, h, w, c]", op, amounts)
    border = r.constant(op, amounts, "padding", schema.TensorType.INT32, 2).tolist()
    if border[0] != [0, 0] or min(map(min, border)) < 0:
        r.file.fail(f"padding {border}", "padding of at least 0 of height, width and channels", op, amounts)
    padded = tuple(n + before + after for n, (before, after) in zip(image.shape, border[1:], strict=True))
    if out.shape != (1, *padded):
        r.file.fail(f"shape {list(out.shape)}, expected {[1, *padded]}", "consistent shapes", op, out)
    (top, bottom), (left, right), channels = border[1:]
    made = r.new_tensor(op, out)
    if made.quantisation != image.quantisation:
        r.file.fail("input and output differ in scale or zero point", "padding that keeps them", op, out)
    value = image.zero_point if constant is None else r.data_value(op, constant, image)
    name, padding = f"pad{op.index}", (top, left, bottom, right)
    if any(channels) and any(padding):
        inner = Tensor(f"{made.name}#rows", *padded[:2], image.channels, *image.quantisation)
        r.layers.append(Pad(f"{name}.rows", image, inner, padding=padding, value=value))
        image = inner
    if any(channels):
        r.layers.append(_channel_pad(f"{name}.channels", image, made, channels[0], value))
    else:
        r.layers.append(Pad(name, image, made, padding=padding, value=value))


def _channel_pad(name: str, image: Tensor, made: Tensor, before: int, value: int) -> Conv:
    """Channels of a constant in front of and behind the image's: a convolution with an identity in its middle."""
    n = made.channels
    weights = np.zeros((n, 1, 1, image.channels), np.int8)
    bias = np.full(n, value - image.zero_point, np.int32)
    kept = np.arange(image.channels)
    weights[before + kept, 0, 0, kept] = 1
    bias[before + kept] = 0
    multiplier, shift = (np.full(n, p, np.int32) for p in IDENTITY)
    return Conv(name, image, made, stride=(1, 1), weights=weights, bias=bias, multiplier=multiplier, shift=shift)


def _relu(activation: str, r: "Reader", op: Operator) -> None:
    """RELU and its like as operators of their own; the reader folds them into the layer before where it can."""
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    image = r.image(op, x)
    if out.shape != x.shape:
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    made = r.new_tensor(op, out, image.shape)
    # TensorFlow Lite Micro's RELU6 takes its bounds from the input and does not look at the output's scale.
    ignorant = activation == "RELU6" and r.kernels is Kernels.MICRO and made.quantisation != image.quantisation
    clamp = activation_range(activation, *(image if ignorant else made).quantisation)
    if clamp[0] > clamp[1]:
        r.file.fail(f"{op.name} leaves no value of its range", "ranges with a value", op, out)
    layer = (kept if ignorant else rescaled)(f"relu{op.index}", image, made, clamp)
    if layer is None:
        r.file.fail(f"scale {image.scale} becomes {made.scale}", "scales of about the same size", op, out)
    r.layers.append(layer)


def _softmax(r: "Reader", op: Operator) -> None:
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    options = r.options(op, schema.SoftmaxOptionsT)
    image = r.image(op, x)
    if x.shape[-1] != image.channels or image.shape[:2] != (1, 1):
        r.file.fail(f"softmax over {list(x.shape)}", "softmax over one vector of classes", op, x)
    if not 0 < options.beta < float("inf"):
        r.file.fail(f"beta {options.beta}", "positive beta", op, out)
    if not r.is_output(out):
        r.file.fail("SOFTMAX is not at an output", "SOFTMAX as the last operator of an exit", op, out)
    r.softmax[out.index] = x, options.beta


# The operators that can be read. A new one needs a function here and a layer in layers.py and reference.py.
OPERATORS = {
    _Op.ADD: _add,
    _Op.AVERAGE_POOL_2D: average_pool_2d,
    _Op.CONCATENATION: _concatenation,
    _Op.CONV_2D: conv_2d,
    _Op.DEQUANTIZE: dequantize,
    _Op.DEPTHWISE_CONV_2D: depthwise_conv_2d,
    _Op.EXPAND_DIMS: reshape,
    _Op.FULLY_CONNECTED: fully_connected,
    _Op.MAX_POOL_2D: max_pool_2d,
    _Op.MEAN: _mean,
    _Op.PACK: shape_arithmetic,
    _Op.PAD: _pad,
    _Op.PADV2: _pad,
    _Op.QUANTIZE: quantize,
    _Op.RELU: partial(_relu, "RELU"),
    _Op.RELU6: partial(_relu, "RELU6"),
    _Op.RELU_N1_TO_1: partial(_relu, "RELU_N1_TO_1"),
    _Op.RESHAPE: reshape,
    _Op.SHAPE: shape_arithmetic,
    _Op.SOFTMAX: _softmax,
    _Op.SQUEEZE: reshape,
    _Op.STRIDED_SLICE: shape_arithmetic,
}
