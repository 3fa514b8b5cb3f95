"""Operators that slide a window or multiply by weights: convolutions, fully connected layers, pools.

One function per operator, as tflite_operators.py describes them.
"""

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Conv, Depthwise, MaxPool, Pool, Tensor
from .quantize import Rounding, activation_range, quantize_multiplier
from .tflite_file import Operator, TfliteTensor, enum_name

if TYPE_CHECKING:
    from .tflite_reader import Reader

__all__ = ["average_pool_2d", "clamp_of", "conv_2d", "depthwise_conv_2d", "fully_connected", "max_pool_2d"]

INT32_MAX = 2**31 - 1
MAX_SHIFT = 30  # TensorFlow Lite's own bound


# --- parameters -----------------------------------------------------------------------------------------------


def clamp_of(r: "Reader", op: Operator, activation: int, out: Tensor) -> tuple[int, int]:
    """Output range that the fused activation leaves."""
    name = enum_name(schema.ActivationFunctionType, activation)
    try:
        low, high = activation_range(name, out.scale, out.zero_point)
    except KeyError:
        r.file.fail(f"fused activation {name}", "NONE, RELU, RELU6, RELU_N1_TO_1", op, op.outputs[0])
    if low > high:
        r.file.fail(f"fused activation {name} leaves no value of its range", "ranges with a value", op, op.outputs[0])
    return low, high


def _window(
    r: "Reader", op: Operator, image: Tensor, out: TfliteTensor, kernel: tuple[int, int], options
) -> dict[str, tuple[int, ...]]:
    """stride and explicit padding of a convolution or pool, checked against the shape of ``out``."""
    stride = options.strideH, options.strideW
    if min(*stride, *kernel) < 1:
        r.file.fail(f"kernel {kernel}, stride {stride}", "kernels and strides of at least 1", op, out)
    padding_name = enum_name(schema.Padding, options.padding)
    before, after, shape = [], [], []
    for size, k, s in zip(image.shape[:2], kernel, stride, strict=True):
        if padding_name == "SAME":
            pixels = -(-size // s)
            total = max(0, (pixels - 1) * s + k - size)  # the odd one goes after the image
        elif padding_name == "VALID":
            pixels, total = (size - k) // s + 1, 0
        else:
            r.file.fail(f"padding {padding_name}", "SAME, VALID", op, out)
        before.append(total // 2)
        after.append(total - total // 2)
        shape.append(pixels)
    if min(shape) < 1 or tuple(shape) != out.shape[1:3]:
        r.file.fail(f"shape {list(out.shape)}, expected height and width {shape}", "consistent shapes", op, out)
    return {"stride": stride, "padding": (*before, *after)}


def _scaling(
    r: "Reader", op: Operator, image: Tensor, weights: TfliteTensor, out: Tensor, acc_bound: np.ndarray, axis: int
) -> tuple[np.ndarray, np.ndarray]:
    """(multiplier, shift) int32 [out_channels]: input scale * weight scale / output scale in float64.

    The uint8 kernels of convolutions multiply the two scales in float32, FULLY_CONNECTED does not.
    """
    channels = weights.shape[axis]
    int8 = weights.type == schema.TensorType.INT8
    if (int8 and any(weights.zero_points)) or len(weights.scales) not in (1, channels):
        r.file.fail(
            f"{len(weights.scales)} scales, zero points {sorted(set(weights.zero_points))}",
            f"1 scale or one per output channel ({channels}), zero points 0",
            op,
            weights,
        )
    if len(weights.scales) > 1 and weights.axis != axis:
        r.file.fail(f"scales along dimension {weights.axis}", f"scales along dimension {axis}", op, weights)
    scales = weights.scales * (channels // len(weights.scales))
    in_float32 = not int8 and op.code != schema.BuiltinOperator.FULLY_CONNECTED
    products = [float(np.float32(image.scale) * np.float32(s)) if in_float32 else image.scale * s for s in scales]
    multiplier, shift = np.array([quantize_multiplier(p / out.scale) for p in products], np.int32).T
    largest = [int(a) << max(int(s), 0) for a, s in zip(acc_bound, shift, strict=True)]
    if max(largest) > INT32_MAX or max(shift) > MAX_SHIFT:
        r.file.fail(
            f"accumulators may reach {max(largest)} (shifted by the scales)", f"at most {INT32_MAX}", op, weights
        )
    return multiplier.copy(), shift.copy()


def _append_weighted(
    r: "Reader",
    kind: type[Conv] | type[Depthwise],
    op: Operator,
    image: Tensor,
    weights: TfliteTensor,
    kernels: np.ndarray,
    bias: TfliteTensor | None,
    activation: int,
    **geometry,
) -> None:
    """Append the layer of a CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED.

    ``kernels`` are the weights with output channels first, as the layer wants them.
    """
    channels, out = len(kernels), op.outputs[0]
    if bias is None:
        biases = np.zeros(channels, np.int32)
    else:
        biases = r.constant(op, bias, "bias", schema.TensorType.INT32, 1).astype(np.int32)
        if len(biases) != channels:
            r.file.fail(f"{len(biases)} biases", f"one per output channel ({channels})", op, bias)
    made = r.new_tensor(op, out)
    farthest = max(127 - image.zero_point, image.zero_point + 128)
    taps = np.abs(kernels.astype(np.int64)).reshape(channels, -1).sum(1)
    bound = taps * farthest + np.abs(biases.astype(np.int64))
    multiplier, shift = _scaling(r, op, image, weights, made, bound, 3 if kind is Depthwise else 0)
    fully_connected = op.code == schema.BuiltinOperator.FULLY_CONNECTED
    for array in (kernels, biases, multiplier, shift):
        array.flags.writeable = False
    prefix = "fc" if fully_connected else "depthwise" if kind is Depthwise else "conv"
    r.layers.append(
        kind(
            f"{prefix}{op.index}",
            image,
            made,
            weights=kernels,
            bias=biases,
            multiplier=multiplier,
            shift=shift,
            rounding=r.kernels.fully_connected if fully_connected else Rounding.DOUBLE,
            clamp=clamp_of(r, op, activation, made),
            **geometry,
        )
    )


# --- operators ------------------------------------------------------------------------------------------------


def conv_2d(r: "Reader", op: Operator) -> None:
    """CONV_2D; dilation and groups are zeros among the weights."""
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.Conv2DOptionsT)
    image = r.image_4d(op, x)
    kernels = r.weights(op, w, 4)
    groups, rest = divmod(image.channels, kernels.shape[3])
    if rest or not groups or len(kernels) % groups:
        r.file.fail(f"{kernels.shape[3]} input channels of {image.channels}", "whole groups of channels", op, w)
    kernels, useful = _ungrouped(_dilated(r, op, kernels, options), groups), kernels.size
    geometry = _window(r, op, image, out, kernels.shape[1:3], options)
    if out.shape != (1, *out.shape[1:3], len(kernels)):
        r.file.fail(f"shape {list(out.shape)} for {len(kernels)} kernels", "consistent shapes", op, out)
    if kernels.size != useful:
        geometry["useful"] = useful * out.shape[1] * out.shape[2]
    _append_weighted(r, Conv, op, image, w, kernels, bias, options.fusedActivationFunction, **geometry)


def _dilated(r: "Reader", op: Operator, kernels: np.ndarray, options) -> np.ndarray:
    """Kernels [n, kh, kw, c] with zeros between their taps, as the dilation says."""
    dilation = options.dilationHFactor, options.dilationWFactor
    if min(dilation) < 1:
        r.file.fail(f"dilation {dilation}", "dilation of at least 1", op, op.outputs[0])
    if dilation == (1, 1):
        return kernels
    n, kh, kw, c = kernels.shape
    spread = np.zeros((n, (kh - 1) * dilation[0] + 1, (kw - 1) * dilation[1] + 1, c), kernels.dtype)
    spread[:, :: dilation[0], :: dilation[1]] = kernels
    return spread


def _ungrouped(kernels: np.ndarray, groups: int) -> np.ndarray:
    """Kernels [n, kh, kw, c] of ``groups`` groups over all channels [n, kh, kw, groups * c]."""
    if groups == 1:
        return kernels
    n, kh, kw, c = kernels.shape
    whole = np.zeros((n, kh, kw, groups * c), kernels.dtype)
    for g in range(groups):
        members = slice(g * n // groups, (g + 1) * n // groups)
        whole[members, :, :, g * c : (g + 1) * c] = kernels[members]
    return whole


def depthwise_conv_2d(r: "Reader", op: Operator) -> None:
    """DEPTHWISE_CONV_2D; any depth multiplier, dilation is zeros among the weights."""
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.DepthwiseConv2DOptionsT)
    image = r.image_4d(op, x)
    kernels = r.weights(op, w, 4)
    channels = kernels.shape[3]
    if kernels.shape[0] != 1 or channels % image.channels:
        r.file.fail(
            f"weights {list(w.shape)} for {image.channels} input channels",
            f"[1, kh, kw, a multiple of {image.channels}]",
            op,
            w,
        )
    kernels, useful = _dilated(r, op, kernels, options), kernels.size
    geometry = _window(r, op, image, out, kernels.shape[1:3], options)
    if out.shape != (1, *out.shape[1:3], channels):
        r.file.fail(f"shape {list(out.shape)} for {channels} kernels", "consistent shapes", op, out)
    if kernels.size != useful:
        geometry["useful"] = useful * out.shape[1] * out.shape[2]
    kernels = np.ascontiguousarray(kernels[0].transpose(2, 0, 1))
    _append_weighted(r, Depthwise, op, image, w, kernels, bias, options.fusedActivationFunction, **geometry)


def fully_connected(r: "Reader", op: Operator) -> None:
    """FULLY_CONNECTED: of the whole input as one vector, or of the channels of each pixel."""
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.FullyConnectedOptionsT)
    image = r.image(op, x)
    matrix = r.weights(op, w, 2)
    units = len(matrix)
    if options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        r.file.fail("shuffled weights", "weights in the default format", op, w)
    if matrix.shape[1] == x.size and out.size == units:
        if out.shape[-1] != units:
            r.file.fail(f"shape {list(out.shape)}", f"a vector of {units}", op, out)
        # A flattened image is the window of a convolution that has one position.
        kernels = matrix.reshape(units, *image.shape)
    elif x.shape == (1, *image.shape) and matrix.shape[1] == image.channels and out.shape == (*x.shape[:3], units):
        kernels = matrix.reshape(units, 1, 1, image.channels)
    else:
        r.file.fail(
            f"weights {list(matrix.shape)} from {list(x.shape)} to {list(out.shape)}",
            "the whole input as one vector, or the channels of each pixel",
            op,
            w,
        )
    _append_weighted(r, Conv, op, image, w, kernels, bias, options.fusedActivationFunction, stride=(1, 1))


def average_pool_2d(r: "Reader", op: Operator) -> None:
    """AVERAGE_POOL_2D of any window."""
    _pool(r, op, Pool, "pool")


def max_pool_2d(r: "Reader", op: Operator) -> None:
    """MAX_POOL_2D of any window."""
    _pool(r, op, MaxPool, "maxpool")


def _pool(r: "Reader", op: Operator, kind: type[Pool] | type[MaxPool], prefix: str) -> None:
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    options = r.options(op, schema.Pool2DOptionsT)
    image = r.image_4d(op, x)
    kernel = options.filterHeight, options.filterWidth
    geometry = _window(r, op, image, out, kernel, options)
    made = r.new_tensor(op, out)
    if made.channels != image.channels:
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    if made.quantisation != image.quantisation:
        r.file.fail("input and output differ in scale or zero point", "pools that keep them", op, out)
    clamp = clamp_of(r, op, options.fusedActivationFunction, made)
    if kind is Pool:
        geometry["half_up"] = out.type == schema.TensorType.UINT8
    r.layers.append(kind(f"{prefix}{op.index}", image, made, window=kernel, clamp=clamp, **geometry))
