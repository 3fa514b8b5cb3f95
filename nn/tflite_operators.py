"""What each .tflite operator means: one function per operator, in the table at the end.

A function takes the reader of the file and the operator; it appends a layer or, for RESHAPE and SOFTMAX, notes what
its output stands for. It refuses what the layer cannot express with an UnsupportedNetwork error.
"""

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Conv, Mean, Pool, Tensor
from .quantize import Rounding, activation_range, mean_multiplier, quantize_multiplier
from .tflite_file import Operator, TfliteTensor, enum_name

if TYPE_CHECKING:
    from .tflite_reader import Reader

__all__ = ["OPERATORS"]

_Op = schema.BuiltinOperator
_INT32_MAX = 2**31 - 1
_MAX_SHIFT = 30  # TensorFlow Lite's own bound


# --- parameters -----------------------------------------------------------------------------------------------


def _clamp(r: "Reader", op: Operator, activation: int, out: TfliteTensor) -> tuple[int, int]:
    """Output range that the fused activation leaves."""
    name = enum_name(schema.ActivationFunctionType, activation)
    try:
        low, high = activation_range(name, out.scales[0], out.zero_points[0])
    except KeyError:
        r.file.fail(f"fused activation {name}", "NONE, RELU, RELU6, RELU_N1_TO_1", op, out)
    if low > high:
        r.file.fail(f"fused activation {name} leaves no value of its range", "ranges with a value", op, out)
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
    r: "Reader", op: Operator, image: Tensor, weights: TfliteTensor, out: Tensor, acc_bound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(multiplier, shift) int32 [out_channels]: input scale * weight scale / output scale in float64."""
    channels = weights.shape[0]
    if any(weights.zero_points) or len(weights.scales) not in (1, channels):
        r.file.fail(
            f"{len(weights.scales)} scales, zero points {sorted(set(weights.zero_points))}",
            f"1 scale or one per output channel ({channels}), zero points 0",
            op,
            weights,
        )
    if len(weights.scales) > 1 and weights.axis != 0:
        r.file.fail(f"scales along dimension {weights.axis}", "scales along dimension 0", op, weights)
    scales = weights.scales * (channels // len(weights.scales))
    multiplier, shift = np.array([quantize_multiplier(image.scale * s / out.scale) for s in scales], np.int32).T
    largest = [int(a) << max(int(s), 0) for a, s in zip(acc_bound, shift, strict=True)]
    if max(largest) > _INT32_MAX or max(shift) > _MAX_SHIFT:
        r.file.fail(
            f"accumulators may reach {max(largest)} (shifted by the scales)", f"at most {_INT32_MAX}", op, weights
        )
    return multiplier.copy(), shift.copy()


def _append_conv(
    r: "Reader",
    op: Operator,
    image: Tensor,
    weights: TfliteTensor,
    kernels: np.ndarray,
    bias: TfliteTensor | None,
    activation: int,
    **geometry,
) -> None:
    """Append the Conv of a CONV_2D or FULLY_CONNECTED; ``kernels`` are the weights as [out, kh, kw, in]."""
    channels, out = len(kernels), op.outputs[0]
    if bias is None:
        biases = np.zeros(channels, np.int32)
    else:
        biases = r.constant(op, bias, "bias", schema.TensorType.INT32, 1).astype(np.int32)
        if len(biases) != channels:
            r.file.fail(f"{len(biases)} biases", f"one per output channel ({channels})", op, bias)
    made = r.new_tensor(op, out)
    farthest = max(127 - image.zero_point, image.zero_point + 128)
    bound = np.abs(kernels.astype(np.int64)).sum((1, 2, 3)) * farthest + np.abs(biases.astype(np.int64))
    multiplier, shift = _scaling(r, op, image, weights, made, bound)
    fully_connected = op.code == _Op.FULLY_CONNECTED
    for array in (biases, multiplier, shift):
        array.flags.writeable = False
    r.layers.append(
        Conv(
            f"{'fc' if fully_connected else 'conv'}{op.index}",
            image,
            made,
            weights=kernels,
            bias=biases,
            multiplier=multiplier,
            shift=shift,
            rounding=r.fully_connected_rounding if fully_connected else Rounding.DOUBLE,
            clamp=_clamp(r, op, activation, out),
            **geometry,
        )
    )


# --- operators ------------------------------------------------------------------------------------------------


def _conv_2d(r: "Reader", op: Operator) -> None:
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.Conv2DOptionsT)
    image = r.image_4d(op, x)
    kernels = r.constant(op, w, "weights", schema.TensorType.INT8, 4)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        r.file.fail(f"dilation {options.dilationHFactor} x {options.dilationWFactor}", "dilation 1 x 1", op, out)
    if kernels.shape[3] != image.channels:
        r.file.fail(f"{kernels.shape[3]} input channels of {image.channels}", "convolutions without groups", op, w)
    geometry = _window(r, op, image, out, kernels.shape[1:3], options)
    if out.shape != (1, *out.shape[1:3], len(kernels)):
        r.file.fail(f"shape {list(out.shape)} for {len(kernels)} kernels", "consistent shapes", op, out)
    _append_conv(r, op, image, w, kernels, bias, options.fusedActivationFunction, **geometry)


def _fully_connected(r: "Reader", op: Operator) -> None:
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.FullyConnectedOptionsT)
    image = r.image(op, x)
    matrix = r.constant(op, w, "weights", schema.TensorType.INT8, 2)
    if options.weightsFormat != schema.FullyConnectedOptionsWeightsFormat.DEFAULT:
        r.file.fail("shuffled weights", "weights in the default format", op, w)
    if matrix.shape[1] != x.size or out.size != len(matrix):
        r.file.fail(
            f"weights {list(matrix.shape)} from {list(x.shape)} to {list(out.shape)}",
            "the whole input as one vector",
            op,
            w,
        )
    if out.shape[-1] != len(matrix):
        r.file.fail(f"shape {list(out.shape)}", f"a vector of {len(matrix)}", op, out)
    # A flattened image is the window of a convolution that has one position.
    kernels = matrix.reshape(len(matrix), *image.shape)
    _append_conv(r, op, image, w, kernels, bias, options.fusedActivationFunction, stride=(1, 1))


def _average_pool_2d(r: "Reader", op: Operator) -> None:
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    options = r.options(op, schema.Pool2DOptionsT)
    image = r.image_4d(op, x)
    kernel = options.filterHeight, options.filterWidth
    geometry = _window(r, op, image, out, kernel, options)
    made = r.new_tensor(op, out)
    if made.channels != image.channels:
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    if (made.scale, made.zero_point) != (image.scale, image.zero_point):
        r.file.fail("input and output differ in scale or zero point", "pools that keep them", op, out)
    clamp = _clamp(r, op, options.fusedActivationFunction, out)
    r.layers.append(Pool(f"pool{op.index}", image, made, window=kernel, clamp=clamp, **geometry))


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
    if shift > _MAX_SHIFT or (255 * count) << max(shift, 0) > _INT32_MAX:
        r.file.fail(f"mean of {count} pixels scaled by {image.scale / made.scale}", "sums within int32", op, out)
    r.layers.append(Mean(f"mean{op.index}", image, made, -image.zero_point * count, multiplier, shift))


def _reshape(r: "Reader", op: Operator) -> None:
    x, _ = r.ends(op, 1, 2)  # the output tensor has the new shape
    out = op.outputs[0]
    image = r.image(op, x)
    r.check_data(op, out)
    if out.size != x.size or (out.scales, out.zero_points) != (x.scales, x.zero_points):
        r.file.fail(f"{list(x.shape)} to {list(out.shape)}, or other scales", "reshapes that keep every byte", op, out)
    if out.data is not None or out.index in r.made:
        r.file.fail("a constant, or made twice", "tensors made once", op, out)
    r.made[out.index] = image
    r.aliases[r.unique_name(out)] = image.name


def _softmax(r: "Reader", op: Operator) -> None:
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    options = r.options(op, schema.SoftmaxOptionsT)
    image = r.image(op, x)
    if x.shape[-1] != image.channels or image.shape[:2] != (1, 1):
        r.file.fail(f"softmax over {list(x.shape)}", "softmax over one vector of classes", op, x)
    if not 0 < options.beta < float("inf"):
        r.file.fail(f"beta {options.beta}", "positive beta", op, out)
    if all(out is not tensor for tensor in r.file.outputs):
        r.file.fail("SOFTMAX is not at an output", "SOFTMAX as the last operator of an exit", op, out)
    r.softmax[out.index] = x, options.beta


# The operators that can be read. A new one needs a function here and a layer in graph.py and reference.py.
OPERATORS = {
    _Op.AVERAGE_POOL_2D: _average_pool_2d,
    _Op.CONV_2D: _conv_2d,
    _Op.FULLY_CONNECTED: _fully_connected,
    _Op.MEAN: _mean,
    _Op.RESHAPE: _reshape,
    _Op.SOFTMAX: _softmax,
}
