"""A small writer of int8 or uint8 .tflite files with any number of outputs: one method per operator, shapes inferred.

    net = TfliteWriter("two layers")
    x = net.input((1, 32, 32, 1), scale=1 / 255, zero_point=-128)
    x = net.conv_2d(x, weights, bias, weight_scale, scale=0.02, zero_point=-128, stride=2, activation="RELU")
    x = net.average_pool_2d(x, 4)
    x = net.fully_connected(net.flatten(x), matrix, offsets, matrix_scale, scale=0.1, zero_point=0)
    net.save("two_layers.tflite", outputs=[net.softmax(x)])

The quantisation follows the TensorFlow Lite int8 specification (tensorflow.org/lite/performance/quantization_spec):
real = scale * (q - zero_point), weights symmetric in -127..127, bias int32 of scale input scale * weight scale.
uint8 files (the format before that one) have uint8 weights with one scale and one zero point.
Operators run in the order in which they were added.
"""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .tflite_builder import RANGES, Op, Tensor, TfliteBuilder

__all__ = ["Tensor", "TfliteWriter", "quantise_weights"]

ACTIVATIONS = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
}
PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
RELUS = {"RELU": Op.RELU, "RELU6": Op.RELU6, "RELU_N1_TO_1": Op.RELU_N1_TO_1}
FULLY_CONNECTED_PER_CHANNEL = 12

SOFTMAX_SCALE = 1 / 256  # with the least value as zero point the only output quantisation that SOFTMAX has


def quantise_weights(weights: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 weights in -127..127 and their float32 scales: one per index of `axis`, or one if it is None."""
    weights = np.asarray(weights, np.float64)
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    peak = np.abs(weights).max(axis=others, keepdims=True)
    scale = (np.where(peak > 0, peak, 1.0) / 127).astype(np.float32)
    return np.rint(weights / scale).clip(-127, 127).astype(np.int8), scale.reshape(-1)


class TfliteWriter(TfliteBuilder):
    """Collects the operators of one network; `to_bytes` or `save` writes them with the outputs that are named there.

    Every method returns the Tensor it defines. All raise ValueError naming the operator, what is wrong and what is
    allowed. `scale` and `zero_point` are those of the operator's output; operators without them keep their input's.
    """

    def conv_2d(self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, **window) -> Tensor:
        """CONV_2D. weights int8 [out_channels, kh, kw, in_channels], bias int32 [out_channels], weight_scale per
        channel or one number. window: stride=1, dilation=1 (one number or (height, width)), padding="SAME",
        activation="NONE", weight_zero_point=0 (uint8 networks), groups=1 (in_channels is of one), name=None."""
        return self._convolution("conv_2d", x, weights, bias, weight_scale, scale, zero_point, **window)

    def depthwise_conv_2d(self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, **window) -> Tensor:
        """DEPTHWISE_CONV_2D. weights int8 [1, kh, kw, in_channels * multiplier], the rest as in `conv_2d`."""
        return self._convolution("depthwise_conv_2d", x, weights, bias, weight_scale, scale, zero_point, **window)

    def _convolution(
        self, operator, x, weights, bias, weight_scale, scale, zero_point, *, weight_zero_point=0,
        groups=1, stride=1, dilation=1, padding="SAME", activation="NONE", name=None,
    ) -> Tensor:  # fmt: skip
        name = self._name(name, operator)
        batch, in_height, in_width, in_channels = _image(name, x)
        depthwise = operator == "depthwise_conv_2d"
        axis, shape = (3, (1, None, None, None)) if depthwise else (0, (None, None, None, in_channels // groups))
        parameters = self._weights(name, x, weights, bias, weight_scale, weight_zero_point, shape=shape, axis=axis)
        channels, kernel = np.shape(weights)[axis], np.shape(weights)[1:3]
        if depthwise and channels % in_channels:
            raise ValueError(f"{name}: {channels} channels must be a multiple of the input's {in_channels}")
        stride, dilation = _pair(name, "stride", stride), _pair(name, "dilation", dilation)
        height, width = _window(name, (in_height, in_width), kernel, stride, dilation, padding)
        options = schema.DepthwiseConv2DOptionsT() if depthwise else schema.Conv2DOptionsT()
        if depthwise:
            options.depthMultiplier = channels // in_channels
        options.padding = PADDINGS[padding]
        options.strideH, options.strideW = stride
        options.dilationHFactor, options.dilationWFactor = dilation
        options.fusedActivationFunction = _choice(name, "activation", activation, ACTIVATIONS)
        output = self._activation(name, (batch, height, width, channels), scale, zero_point)
        code = Op.DEPTHWISE_CONV_2D if depthwise else Op.CONV_2D
        return self._operator(code, [x.index, *parameters], output, options)

    def fully_connected(
        self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, weight_zero_point=0, activation="NONE",
        name=None,
    ) -> Tensor:  # fmt: skip
        """FULLY_CONNECTED. x [batch, n], weights int8 [outputs, n], bias int32 [outputs]. An image x [1, h, w, n]
        keeps its height and width: every pixel is multiplied."""
        name = self._name(name, "fully_connected")
        if len(x.shape) not in (2, 4):
            raise ValueError(f"{name}: input shape {list(x.shape)} must be [batch, features] or an image")
        shape = (None, x.shape[-1])
        parameters = self._weights(name, x, weights, bias, weight_scale, weight_zero_point, shape=shape, axis=0)
        options = schema.FullyConnectedOptionsT(keepNumDims=len(x.shape) == 4)
        options.fusedActivationFunction = _choice(name, "activation", activation, ACTIVATIONS)
        output = self._activation(name, (*x.shape[:-1], np.shape(weights)[0]), scale, zero_point)
        version = FULLY_CONNECTED_PER_CHANNEL if np.size(weight_scale) > 1 else 0
        return self._operator(Op.FULLY_CONNECTED, [x.index, *parameters], output, options, version)

    def average_pool_2d(self, x: Tensor, window, *, stride=None, padding="VALID", activation="NONE", name=None):
        """AVERAGE_POOL_2D; the stride is the window unless given. Keeps the input's quantisation."""
        return self._pool(Op.AVERAGE_POOL_2D, "average_pool_2d", x, window, stride, padding, activation, name)

    def max_pool_2d(self, x: Tensor, window, *, stride=None, padding="VALID", activation="NONE", name=None):
        """MAX_POOL_2D; the stride is the window unless given. Keeps the input's quantisation."""
        return self._pool(Op.MAX_POOL_2D, "max_pool_2d", x, window, stride, padding, activation, name)

    def _pool(self, code, operator, x, window, stride, padding, activation, name) -> Tensor:
        name = self._name(name, operator)
        batch, in_height, in_width, channels = _image(name, x)
        window = _pair(name, "window", window)
        stride = window if stride is None else _pair(name, "stride", stride)
        height, width = _window(name, (in_height, in_width), window, stride, (1, 1), padding)
        options = schema.Pool2DOptionsT(padding=PADDINGS[padding])
        options.strideH, options.strideW = stride
        options.filterHeight, options.filterWidth = window
        options.fusedActivationFunction = _choice(name, "activation", activation, ACTIVATIONS)
        output = self._activation(name, (batch, height, width, channels), x.scale, x.zero_point)
        return self._operator(code, [x.index], output, options)

    def mean(self, x: Tensor, *, scale=None, zero_point=None, keep_dims=False, name=None) -> Tensor:
        """MEAN over height and width; keeps the input's quantisation unless another is given."""
        name = self._name(name, "mean")
        batch, _, _, channels = _image(name, x)
        scale = x.scale if scale is None else scale
        zero_point = x.zero_point if zero_point is None else zero_point
        axes = self._constant(f"{name}/axes", np.array([1, 2], np.int32))
        shape = (batch, 1, 1, channels) if keep_dims else (batch, channels)
        output = self._activation(name, shape, scale, zero_point)
        return self._operator(Op.MEAN, [x.index, axes], output, schema.ReducerOptionsT(keepDims=keep_dims))

    def add(self, a: Tensor, b: Tensor, *, scale, zero_point, activation="NONE", name=None) -> Tensor:
        """ADD of two tensors of the same shape."""
        name = self._name(name, "add")
        if a.shape != b.shape:
            raise ValueError(f"{name}: shapes {list(a.shape)} and {list(b.shape)} must be equal")
        options = schema.AddOptionsT(
            fusedActivationFunction=_choice(name, "activation", activation, ACTIVATIONS), potScaleInt16=False
        )
        output = self._activation(name, a.shape, scale, zero_point)
        return self._operator(Op.ADD, [a.index, b.index], output, options)

    def concatenation(self, parts: list[Tensor], *, scale=None, zero_point=None, name=None) -> Tensor:
        """CONCATENATION along the channels, the last axis; the first part's quantisation unless another is given."""
        name = self._name(name, "concatenation")
        if not parts or any(x.shape[:-1] != parts[0].shape[:-1] for x in parts):
            raise ValueError(f"{name}: shapes {[list(x.shape) for x in parts]} must differ in channels only")
        options = schema.ConcatenationOptionsT(axis=len(parts[0].shape) - 1)
        shape = (*parts[0].shape[:-1], sum(x.shape[-1] for x in parts))
        scale = parts[0].scale if scale is None else scale
        output = self._activation(name, shape, scale, parts[0].zero_point if zero_point is None else zero_point)
        return self._operator(Op.CONCATENATION, [x.index for x in parts], output, options)

    def pad(self, x: Tensor, amounts, *, value: int | None = None, name=None) -> Tensor:
        """PAD with the zero point, or PADV2 with the quantised ``value``. amounts: (before, after) of each axis."""
        name = self._name(name, "pad")
        amounts = np.asarray(amounts, np.int32)
        if amounts.shape != (len(x.shape), 2) or amounts.min() < 0:
            raise ValueError(f"{name}: amounts {amounts.tolist()} must be {len(x.shape)} pairs of at least 0")
        inputs = [x.index, self._constant(f"{name}/amounts", amounts)]
        if value is not None:
            constant = np.array([value], self.dtype)
            inputs.append(self._constant(f"{name}/value", constant, [x.scale], zero_point=x.zero_point))
        shape = tuple(int(n) for n in np.array(x.shape) + amounts.sum(1))
        output = self._activation(name, shape, x.scale, x.zero_point)
        if value is None:
            return self._operator(Op.PAD, inputs, output, schema.PadOptionsT())
        return self._operator(Op.PADV2, inputs, output, schema.PadV2OptionsT())

    def relu(self, x: Tensor, activation="RELU", *, scale=None, zero_point=None, name=None) -> Tensor:
        """RELU, RELU6 or RELU_N1_TO_1 as an operator; keeps the input's quantisation unless another is given."""
        name = self._name(name, activation.lower())
        code = _choice(name, "activation", activation, RELUS)
        scale = x.scale if scale is None else scale
        output = self._activation(name, x.shape, scale, x.zero_point if zero_point is None else zero_point)
        return self._operator(code, [x.index], output, None)

    def reshape(self, x: Tensor, shape, *, name=None) -> Tensor:
        """RESHAPE to `shape`, without unknown sizes."""
        name = self._name(name, "reshape")
        shape = tuple(int(n) for n in shape)
        if math.prod(shape) != math.prod(x.shape):
            raise ValueError(f"{name}: {list(x.shape)} to {list(shape)} must keep the number of elements")
        constant = self._constant(f"{name}/shape", np.array(shape, np.int32))
        output = self._activation(name, shape, x.scale, x.zero_point)
        return self._operator(Op.RESHAPE, [x.index, constant], output, schema.ReshapeOptionsT(newShape=list(shape)))

    def squeeze(self, x: Tensor, *, name=None) -> Tensor:
        """SQUEEZE of height and width that are 1."""
        name = self._name(name, "squeeze")
        if len(x.shape) != 4 or x.shape[1:3] != (1, 1):
            raise ValueError(f"{name}: shape {list(x.shape)} must be [batch, 1, 1, channels]")
        output = self._activation(name, (x.shape[0], x.shape[3]), x.scale, x.zero_point)
        return self._operator(Op.SQUEEZE, [x.index], output, schema.SqueezeOptionsT(squeezeDims=[1, 2]))

    def quantize(self, x: Tensor, *, scale, zero_point, dtype=None, name=None) -> Tensor:
        """QUANTIZE of a float32 input, or to another scale, zero point or type."""
        output = self._activation(self._name(name, "quantize"), x.shape, scale, zero_point, dtype)
        return self._operator(Op.QUANTIZE, [x.index], output, schema.QuantizeOptionsT())

    def dequantize(self, x: Tensor, *, name=None) -> Tensor:
        """DEQUANTIZE to float32, at an output."""
        name = self._name(name, "dequantize")
        output = Tensor(self._tensor(name, x.shape, "float32"), x.shape, 1.0, 0, name)
        return self._operator(Op.DEQUANTIZE, [x.index], output, schema.DequantizeOptionsT())

    def flatten(self, x: Tensor, *, name=None) -> Tensor:
        """RESHAPE to [batch, everything else]."""
        return self.reshape(x, (x.shape[0], math.prod(x.shape[1:])), name=name)

    def softmax(self, x: Tensor, *, beta: float = 1.0, name=None) -> Tensor:
        """SOFTMAX over the last axis; output scale 1/256, zero point -128 (uint8: 0)."""
        output = self._activation(self._name(name, "softmax"), x.shape, SOFTMAX_SCALE, RANGES[self.dtype][0])
        return self._operator(Op.SOFTMAX, [x.index], output, schema.SoftmaxOptionsT(beta=beta))


def _image(name: str, x: Tensor) -> tuple[int, ...]:
    if len(x.shape) != 4:
        raise ValueError(f"{name}: input shape {list(x.shape)} must be [batch, height, width, channels]")
    return x.shape


def _pair(name: str, what: str, value) -> tuple[int, int]:
    pair = (value, value) if np.isscalar(value) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name}: {what} {value} must be one number or two, at least 1")
    return int(pair[0]), int(pair[1])


def _choice(name: str, what: str, value: str, table: dict) -> int:
    if value not in table:
        raise ValueError(f"{name}: {what} {value!r} must be one of {', '.join(table)}")
    return table[value]


def _window(name, sizes, kernel, stride, dilation, padding) -> list[int]:
    """Output height and width of a sliding window, as TensorFlow's SAME and VALID define them."""
    _choice(name, "padding", padding, PADDINGS)
    result = []
    for size, taps, step, spread in zip(sizes, kernel, stride, dilation, strict=True):
        extent = (taps - 1) * spread + 1
        if padding == "VALID" and extent > size:
            raise ValueError(f"{name}: a window of {extent} pixels must fit in the input's {size}")
        result.append(-(-size // step) if padding == "SAME" else (size - extent) // step + 1)
    return result
