"""A small writer of int8 .tflite files with any number of outputs: one method per operator, shapes inferred.

    net = TfliteWriter("two layers")
    x = net.input((1, 32, 32, 1), scale=1 / 255, zero_point=-128)
    x = net.conv_2d(x, weights, bias, weight_scale, scale=0.02, zero_point=-128, stride=2, activation="RELU")
    x = net.average_pool_2d(x, 4)
    x = net.fully_connected(net.flatten(x), matrix, offsets, matrix_scale, scale=0.1, zero_point=0)
    net.save("two_layers.tflite", outputs=[net.softmax(x)])

The quantisation follows the TensorFlow Lite int8 specification (tensorflow.org/lite/performance/quantization_spec):
real = scale * (q - zero_point), weights symmetric in -127..127, bias int32 of scale input scale * weight scale.
Operators run in the order in which they were added. All constants are stored 16-byte aligned, as the schema demands.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["Tensor", "TfliteWriter", "quantise_weights"]

Op = schema.BuiltinOperator
OptionsKind = schema.BuiltinOptions

ACTIVATIONS = {
    "NONE": schema.ActivationFunctionType.NONE,
    "RELU": schema.ActivationFunctionType.RELU,
    "RELU6": schema.ActivationFunctionType.RELU6,
}
PADDINGS = {"SAME": schema.Padding.SAME, "VALID": schema.Padding.VALID}
TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}

# The operator versions that introduced int8 (FULLY_CONNECTED 12: per-channel weights).
VERSIONS = {
    Op.ADD: 2,
    Op.AVERAGE_POOL_2D: 2,
    Op.CONV_2D: 3,
    Op.DEPTHWISE_CONV_2D: 3,
    Op.FULLY_CONNECTED: 4,
    Op.MAX_POOL_2D: 2,
    Op.MEAN: 2,
    Op.RESHAPE: 1,
    Op.SOFTMAX: 2,
}
FULLY_CONNECTED_PER_CHANNEL = 12

SOFTMAX_SCALE, SOFTMAX_ZERO_POINT = 1 / 256, -128  # the only output quantisation int8 SOFTMAX has


@dataclass(frozen=True)
class Tensor:
    """An int8 activation of the network being written: its index in the file, shape and quantisation."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    name: str


def quantise_weights(weights: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric int8 weights in -127..127 and their float32 scales: one per index of `axis`, or one if it is None."""
    weights = np.asarray(weights, np.float64)
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis % weights.ndim)
    peak = np.abs(weights).max(axis=others, keepdims=True)
    scale = (np.where(peak > 0, peak, 1.0) / 127).astype(np.float32)
    return np.rint(weights / scale).clip(-127, 127).astype(np.int8), scale.reshape(-1)


class _AlignedBuffer(schema.BufferT):
    """A constant whose bytes start at a multiple of 16: the object API itself ignores the schema's force_align."""

    def Pack(self, builder):
        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class TfliteWriter:
    """Collects the operators of one network; `to_bytes` or `save` writes them with the outputs that are named there.

    Every method returns the Tensor it defines. All raise ValueError naming the operator, what is wrong and what is
    allowed. `scale` and `zero_point` are those of the operator's output; operators without them keep their input's.
    """

    def __init__(self, description: str = ""):
        self.description = description
        self._tensors: list[schema.TensorT] = []
        self._buffers: list[schema.BufferT] = [schema.BufferT()]  # buffer 0 means "no data"
        self._codes: dict[tuple[int, int], int] = {}
        self._operators: list[schema.OperatorT] = []
        self._inputs: list[int] = []

    # ---- tensors

    def input(self, shape, *, scale: float, zero_point: int, name: str = "input") -> Tensor:
        """An input of the network, NHWC for images."""
        tensor = self._activation(name, tuple(int(n) for n in shape), scale, zero_point)
        self._inputs.append(tensor.index)
        return tensor

    def _activation(self, name: str, shape: tuple[int, ...], scale: float, zero_point: int) -> Tensor:
        if not shape or min(shape) < 1:
            raise ValueError(f"{name}: shape {list(shape)} must have sizes of at least 1")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{name}: scale {scale} must be finite and above 0")
        if not -128 <= zero_point <= 127:
            raise ValueError(f"{name}: zero point {zero_point} must be in -128..127")
        scale = float(np.float32(scale))
        index = self._tensor(name, shape, "int8", [scale], [int(zero_point)])
        return Tensor(index, shape, scale, int(zero_point), name)

    def _tensor(self, name, shape, type_name, scale=None, zero_point=None, axis=0, buffer=0) -> int:
        quantization = schema.QuantizationParametersT()
        if scale is not None:
            quantization.scale = [float(s) for s in scale]
            quantization.zeroPoint = list(zero_point)
            quantization.quantizedDimension = axis
        tensor = schema.TensorT(
            shape=list(shape), type=TYPES[type_name], buffer=buffer, name=name, quantization=quantization
        )
        tensor.hasRank = True
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _constant(self, name: str, array: np.ndarray, scale=None, axis: int = 0) -> int:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self._buffers.append(_AlignedBuffer(data=data))
        zeros = None if scale is None else [0] * len(scale)
        return self._tensor(name, array.shape, array.dtype.name, scale, zeros, axis, len(self._buffers) - 1)

    def _weights(self, name, x, weights, bias, weight_scale, *, shape, axis) -> tuple[int, int]:
        """Add checked weights and bias; `shape` has None where any size will do, `axis` holds the output channels."""
        weights, bias = np.asarray(weights), np.asarray(bias)
        scales = np.atleast_1d(np.asarray(weight_scale, np.float32))
        fits = weights.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, weights.shape, strict=True)
        )
        if weights.dtype != np.int8 or not fits:
            wanted = [("any" if n is None else n) for n in shape]
            raise ValueError(f"{name}: weights {weights.dtype} {list(weights.shape)} must be int8 {wanted}")
        if weights.min() < -127:
            raise ValueError(f"{name}: weight -128 must be in -127..127")
        channels = weights.shape[axis]
        if bias.dtype != np.int32 or bias.shape != (channels,):
            raise ValueError(f"{name}: bias {bias.dtype} {list(bias.shape)} must be int32 [{channels}]")
        if scales.shape not in ((1,), (channels,)) or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"{name}: weight_scale must be 1 or {channels} finite numbers above 0")
        bias_scale = (np.float32(x.scale) * scales).astype(np.float32)
        return (
            self._constant(f"{name}/weights", weights, scales, axis),
            self._constant(f"{name}/bias", bias, bias_scale),
        )

    # ---- operators

    def _operator(self, code: int, inputs: list[int], output: Tensor, options, version: int = 0) -> Tensor:
        key = (code, version or VERSIONS[code])
        kind = type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault(key, len(self._codes)),
                inputs=inputs,
                outputs=[output.index],
                builtinOptionsType=getattr(OptionsKind, kind),
                builtinOptions=options,
            )
        )
        return output

    def _name(self, given: str | None, operator: str) -> str:
        return given or f"{operator}_{len(self._operators)}"

    def conv_2d(self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, **window) -> Tensor:
        """CONV_2D. weights int8 [out_channels, kh, kw, in_channels], bias int32 [out_channels], weight_scale per
        channel or one number. window: stride=1, dilation=1 (one number or (height, width)), padding="SAME",
        activation="NONE", name=None."""
        return self._convolution("conv_2d", x, weights, bias, weight_scale, scale, zero_point, **window)

    def depthwise_conv_2d(self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, **window) -> Tensor:
        """DEPTHWISE_CONV_2D. weights int8 [1, kh, kw, in_channels * multiplier], the rest as in `conv_2d`."""
        return self._convolution("depthwise_conv_2d", x, weights, bias, weight_scale, scale, zero_point, **window)

    def _convolution(
        self, operator, x, weights, bias, weight_scale, scale, zero_point, *,
        stride=1, dilation=1, padding="SAME", activation="NONE", name=None,
    ) -> Tensor:  # fmt: skip
        name = self._name(name, operator)
        batch, in_height, in_width, in_channels = _image(name, x)
        depthwise = operator == "depthwise_conv_2d"
        axis, shape = (3, (1, None, None, None)) if depthwise else (0, (None, None, None, in_channels))
        parameters = self._weights(name, x, weights, bias, weight_scale, shape=shape, axis=axis)
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
        self, x: Tensor, weights, bias, weight_scale, *, scale, zero_point, activation="NONE", name=None
    ) -> Tensor:
        """FULLY_CONNECTED. x [batch, n], weights int8 [outputs, n], bias int32 [outputs]."""
        name = self._name(name, "fully_connected")
        if len(x.shape) != 2:
            raise ValueError(f"{name}: input shape {list(x.shape)} must be [batch, features]; flatten it first")
        parameters = self._weights(name, x, weights, bias, weight_scale, shape=(None, x.shape[1]), axis=0)
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = _choice(name, "activation", activation, ACTIVATIONS)
        output = self._activation(name, (x.shape[0], np.shape(weights)[0]), scale, zero_point)
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

    def reshape(self, x: Tensor, shape, *, name=None) -> Tensor:
        """RESHAPE to `shape`, without unknown sizes."""
        name = self._name(name, "reshape")
        shape = tuple(int(n) for n in shape)
        if math.prod(shape) != math.prod(x.shape):
            raise ValueError(f"{name}: {list(x.shape)} to {list(shape)} must keep the number of elements")
        constant = self._constant(f"{name}/shape", np.array(shape, np.int32))
        output = self._activation(name, shape, x.scale, x.zero_point)
        return self._operator(Op.RESHAPE, [x.index, constant], output, schema.ReshapeOptionsT(newShape=list(shape)))

    def flatten(self, x: Tensor, *, name=None) -> Tensor:
        """RESHAPE to [batch, everything else]."""
        return self.reshape(x, (x.shape[0], math.prod(x.shape[1:])), name=name)

    def softmax(self, x: Tensor, *, beta: float = 1.0, name=None) -> Tensor:
        """SOFTMAX over the last axis; output scale 1/256, zero point -128."""
        output = self._activation(self._name(name, "softmax"), x.shape, SOFTMAX_SCALE, SOFTMAX_ZERO_POINT)
        return self._operator(Op.SOFTMAX, [x.index], output, schema.SoftmaxOptionsT(beta=beta))

    # ---- file

    def to_bytes(self, outputs: list[Tensor]) -> bytes:
        """The .tflite file, its outputs in the order given."""
        if not self._inputs or not self._operators or not outputs:
            raise ValueError("a network must have at least one input, one operator and one output")
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=self._inputs,
            outputs=[tensor.index for tensor in outputs],
            operators=self._operators,
            name="main",
        )
        codes = [
            schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=version)
            for code, version in self._codes
        ]
        model = schema.ModelT(
            version=3, operatorCodes=codes, subgraphs=[subgraph], buffers=self._buffers, description=self.description
        )
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def save(self, path: Path | str, outputs: list[Tensor]) -> None:
        """Write `to_bytes(outputs)` to `path`."""
        Path(path).write_bytes(self.to_bytes(outputs))


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
