"""Reader of int8 .tflite networks with one or several outputs (exits, shallow to deep).

One function per operator, in the table at the end; each turns an operator into layers or, like RESHAPE and SOFTMAX,
into knowledge about tensors. Everything else is refused with an UnsupportedNetwork error.
"""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Conv, Exit, Layer, Mean, Network, Pool, Tensor, UnsupportedNetwork
from .quantize import Rounding, activation_range, mean_multiplier, quantize_multiplier
from .tflite_file import Operator, TfliteFile, TfliteTensor, enum_name

__all__ = ["UnsupportedNetwork", "parse_network", "read_network"]

_Op = schema.BuiltinOperator
_INT32_MAX = 2**31 - 1
_DATA = "int8 tensors with one scale and one zero point"


class _Reader:
    """Walks the operators of one file; ``layers`` grows, ``made`` knows which image a file tensor holds."""

    def __init__(self, file: TfliteFile, fully_connected_rounding: Rounding):
        self.file = file
        self.fully_connected_rounding = fully_connected_rounding
        self.layers: list[Layer] = []
        self.made: dict[int, Tensor] = {}  # file tensor index -> image; reshaped tensors share theirs
        self.softmax: dict[int, tuple[TfliteTensor, float]] = {}  # index of its output -> input and beta
        self.aliases: dict[str, str] = {}
        self.names: set[str] = set()

    def network(self) -> Network:
        """The whole file."""
        file = self.file
        if len(file.inputs) != 1:
            file.fail(f"{len(file.inputs)} inputs", "1 input")
        self.input = self.new_tensor(None, file.inputs[0])
        for op in file.operators:
            if op.code not in _OPERATORS:
                supported = ", ".join(sorted(enum_name(_Op, code) for code in _OPERATORS))
                file.fail("unsupported operator", supported, op, op.outputs[0] if op.outputs else None)
            _OPERATORS[op.code](self, op)
        exits = tuple(self.exit(tensor) for tensor in file.outputs)
        if not exits:
            file.fail("no outputs", "one or several outputs, one per exit")
        name = Path(file.name).stem
        try:
            network = Network(name, self.input, tuple(self.layers), exits, MappingProxyType(self.aliases))
        except ValueError as error:
            file.fail(str(error), "outputs made by layers")
        return self.checked_order(self.without_unused(network))

    def exit(self, tensor: TfliteTensor) -> Exit:
        """What a network output says about an exit: the softmax in front of it is dropped."""
        logits, beta = self.softmax.get(tensor.index, (tensor, 1.0))
        image = self.image(None, logits)
        if image.shape[:2] != (1, 1):
            self.file.fail(f"exit of shape {list(image.shape)}", "exits of 1 x 1 x classes", tensor=logits)
        if image is self.input:
            self.file.fail("the input is an output", "outputs made by layers", tensor=tensor)
        return Exit(image, beta, tensor.name)

    def without_unused(self, network: Network) -> Network:
        """Leave out what no exit needs."""
        layers = tuple(layer for layer, exits in zip(network.layers, network.needed_by(), strict=True) if exits)
        kept = {network.input.name, *(layer.output.name for layer in layers)}
        aliases = {alias: name for alias, name in network.aliases.items() if name in kept}
        return replace(network, layers=layers, aliases=MappingProxyType(aliases))

    def checked_order(self, network: Network) -> Network:
        """Refuse outputs that are equal or in an order that contradicts the trunk."""
        logits = [exit.logits.name for exit in network.exits]
        if len(set(logits)) != len(logits):
            self.file.fail(f"two outputs show the same logits, {logits}", "one output per exit")
        trunk = [head is None for head in network.head_of()]
        depth = [
            sum(t and e in exits for t, exits in zip(trunk, network.needed_by(), strict=True))
            for e in range(len(logits))
        ]
        if depth != sorted(depth):
            names = [exit.output for exit in network.exits]
            self.file.fail(
                f"outputs {names} leave the trunk after {depth} layers", "outputs in the order shallow to deep"
            )
        return network

    # --- tensors ------------------------------------------------------------------------------------------------

    def new_tensor(self, op: Operator | None, tensor: TfliteTensor) -> Tensor:
        """The image that ``tensor`` will hold, from now on known as made."""
        self.check_data(op, tensor)
        shape = tensor.shape[1:]
        if tensor.shape[:1] != (1,) or len(shape) not in (1, 3):
            self.file.fail(f"shape {list(tensor.shape)}", "[1, h, w, c] and [1, c]: batch 1", op, tensor)
        if tensor.data is not None or tensor.index in self.made:
            self.file.fail("a constant, or made twice", "tensors made once", op, tensor)
        name = tensor.name if tensor.name not in self.names else f"{tensor.name}#{tensor.index}"
        self.names.add(name)
        h, w, c = shape if len(shape) == 3 else (1, 1, *shape)
        image = self.made[tensor.index] = Tensor(name, h, w, c, tensor.scales[0], tensor.zero_points[0])
        return image

    def check_data(self, op: Operator | None, tensor: TfliteTensor) -> None:
        """int8, one scale, one zero point."""
        if tensor.type != schema.TensorType.INT8:
            self.file.fail(f"type {enum_name(schema.TensorType, tensor.type)}", _DATA, op, tensor)
        if len(tensor.scales) != 1 or not -128 <= tensor.zero_points[0] <= 127:
            self.file.fail(f"scales {tensor.scales}, zero points {tensor.zero_points}", _DATA, op, tensor)

    def image(self, op: Operator | None, tensor: TfliteTensor) -> Tensor:
        """The image behind a tensor that an earlier operator made, however reshaped."""
        if tensor.index in self.softmax:
            self.file.fail("SOFTMAX is not at an output", "SOFTMAX as the last operator of an exit", op, tensor)
        if tensor.index not in self.made:
            self.file.fail("not made by an earlier operator", "operators in the order in which they run", op, tensor)
        return self.made[tensor.index]

    def image_4d(self, op: Operator, tensor: TfliteTensor) -> Tensor:
        """The image behind a tensor that must still have its shape [1, h, w, c]."""
        image = self.image(op, tensor)
        if tensor.shape != (1, *image.shape):
            self.file.fail(
                f"shape {list(tensor.shape)} reshaped from {[1, *image.shape]}", "flattening reshapes", op, tensor
            )
        return image

    def ends(self, op: Operator, least: int, most: int) -> tuple[TfliteTensor | None, ...]:
        """Inputs of ``op``, padded with None to ``most``."""
        if not least <= len(op.inputs) <= most or len(op.outputs) != 1 or None in op.inputs[:least]:
            self.file.fail(
                f"{len(op.inputs)} inputs, {len(op.outputs)} outputs", f"{least}..{most} inputs, 1 output", op
            )
        return op.inputs + (None,) * (most - len(op.inputs))

    def options(self, op: Operator, kind: type):
        """Options table of ``op``, which must be there and of this kind."""
        if not isinstance(op.options, kind):
            self.file.fail("options missing or of another operator", "whole .tflite files", op)
        return op.options

    # --- parameters -----------------------------------------------------------------------------------------------

    def constant(self, op: Operator, tensor: TfliteTensor, what: str, dtype: int, rank: int) -> np.ndarray:
        """Data of a constant input."""
        if tensor.type != dtype or tensor.data is None or len(tensor.shape) != rank:
            kind = "constant" if tensor.data is not None else "computed"
            self.file.fail(
                f"{what} are {kind} {enum_name(schema.TensorType, tensor.type)} of rank {len(tensor.shape)}",
                f"constant {enum_name(schema.TensorType, dtype)} of rank {rank}",
                op,
                tensor,
            )
        return tensor.data

    def clamp(self, op: Operator, activation: int, out: TfliteTensor) -> tuple[int, int]:
        """Output range that the fused activation leaves."""
        name = enum_name(schema.ActivationFunctionType, activation)
        try:
            low, high = activation_range(name, out.scales[0], out.zero_points[0])
        except KeyError:
            self.file.fail(f"fused activation {name}", "NONE, RELU, RELU6, RELU_N1_TO_1", op, out)
        if low > high:
            self.file.fail(f"fused activation {name} leaves no value of its range", "ranges with a value", op, out)
        return low, high

    def window(
        self, op: Operator, image: Tensor, out: TfliteTensor, kernel: tuple[int, int], options
    ) -> dict[str, tuple[int, ...]]:
        """stride and explicit padding of a convolution or pool, checked against the shape of ``out``."""
        stride = options.strideH, options.strideW
        if min(*stride, *kernel) < 1:
            self.file.fail(f"kernel {kernel}, stride {stride}", "kernels and strides of at least 1", op, out)
        padding_name = enum_name(schema.Padding, options.padding)
        before, after, shape = [], [], []
        for size, k, s in zip(image.shape[:2], kernel, stride, strict=True):
            if padding_name == "SAME":
                pixels = -(-size // s)
                total = max(0, (pixels - 1) * s + k - size)  # the odd one goes after the image
            elif padding_name == "VALID":
                pixels, total = (size - k) // s + 1, 0
            else:
                self.file.fail(f"padding {padding_name}", "SAME, VALID", op, out)
            before.append(total // 2)
            after.append(total - total // 2)
            shape.append(pixels)
        if min(shape) < 1 or tuple(shape) != out.shape[1:3]:
            self.file.fail(f"shape {list(out.shape)}, expected height and width {shape}", "consistent shapes", op, out)
        return {"stride": stride, "padding": (*before, *after)}

    def scaling(
        self, op: Operator, image: Tensor, weights: TfliteTensor, out: Tensor, acc_bound: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(multiplier, shift) int32 [out_channels]: input scale * weight scale / output scale in float64."""
        channels = weights.shape[0]
        if any(weights.zero_points) or len(weights.scales) not in (1, channels):
            self.file.fail(
                f"{len(weights.scales)} scales, zero points {sorted(set(weights.zero_points))}",
                f"1 scale or one per output channel ({channels}), zero points 0",
                op,
                weights,
            )
        if len(weights.scales) > 1 and weights.axis != 0:
            self.file.fail(f"scales along dimension {weights.axis}", "scales along dimension 0", op, weights)
        scales = weights.scales * (channels // len(weights.scales))
        multiplier, shift = np.array([quantize_multiplier(image.scale * s / out.scale) for s in scales], np.int32).T
        largest = [int(a) << max(int(s), 0) for a, s in zip(acc_bound, shift, strict=True)]
        if max(largest) > _INT32_MAX:
            self.file.fail(
                f"accumulators may reach {max(largest)} (shifted by the scales)", f"at most {_INT32_MAX}", op, weights
            )
        return multiplier.copy(), shift.copy()

    def conv(
        self,
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
            biases = self.constant(op, bias, "bias", schema.TensorType.INT32, 1).astype(np.int32)
            if len(biases) != channels:
                self.file.fail(f"{len(biases)} biases", f"one per output channel ({channels})", op, bias)
        made = self.new_tensor(op, out)
        farthest = max(127 - image.zero_point, image.zero_point + 128)
        bound = np.abs(kernels.astype(np.int64)).sum((1, 2, 3)) * farthest + np.abs(biases.astype(np.int64))
        multiplier, shift = self.scaling(op, image, weights, made, bound)
        fully_connected = op.code == _Op.FULLY_CONNECTED
        for array in (biases, multiplier, shift):
            array.flags.writeable = False
        self.layers.append(
            Conv(
                f"{'fc' if fully_connected else 'conv'}{op.index}",
                image,
                made,
                weights=kernels,
                bias=biases,
                multiplier=multiplier,
                shift=shift,
                rounding=self.fully_connected_rounding if fully_connected else Rounding.DOUBLE,
                clamp=self.clamp(op, activation, out),
                **geometry,
            )
        )


# --- operators --------------------------------------------------------------------------------------------------------


def _conv_2d(r: _Reader, op: Operator) -> None:
    x, w, bias = r.ends(op, 2, 3)
    out = op.outputs[0]
    options = r.options(op, schema.Conv2DOptionsT)
    image = r.image_4d(op, x)
    kernels = r.constant(op, w, "weights", schema.TensorType.INT8, 4)
    if (options.dilationHFactor, options.dilationWFactor) != (1, 1):
        r.file.fail(f"dilation {options.dilationHFactor} x {options.dilationWFactor}", "dilation 1 x 1", op, out)
    if kernels.shape[3] != image.channels:
        r.file.fail(f"{kernels.shape[3]} input channels of {image.channels}", "convolutions without groups", op, w)
    geometry = r.window(op, image, out, kernels.shape[1:3], options)
    if out.shape != (1, *out.shape[1:3], len(kernels)):
        r.file.fail(f"shape {list(out.shape)} for {len(kernels)} kernels", "consistent shapes", op, out)
    r.conv(op, image, w, kernels, bias, options.fusedActivationFunction, **geometry)


def _fully_connected(r: _Reader, op: Operator) -> None:
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
    r.conv(op, image, w, kernels, bias, options.fusedActivationFunction, stride=(1, 1))


def _average_pool_2d(r: _Reader, op: Operator) -> None:
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    options = r.options(op, schema.Pool2DOptionsT)
    image = r.image_4d(op, x)
    kernel = options.filterHeight, options.filterWidth
    geometry = r.window(op, image, out, kernel, options)
    made = r.new_tensor(op, out)
    if made.channels != image.channels:
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    if (made.scale, made.zero_point) != (image.scale, image.zero_point):
        r.file.fail("input and output differ in scale or zero point", "pools that keep them", op, out)
    clamp = r.clamp(op, options.fusedActivationFunction, out)
    r.layers.append(Pool(f"pool{op.index}", image, made, window=kernel, clamp=clamp, **geometry))


def _mean(r: _Reader, op: Operator) -> None:
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
    if (255 * count) << max(shift, 0) > _INT32_MAX:
        r.file.fail(f"mean of {count} pixels scaled by {image.scale / made.scale}", "sums within int32", op, out)
    r.layers.append(Mean(f"mean{op.index}", image, made, -image.zero_point * count, multiplier, shift))


def _reshape(r: _Reader, op: Operator) -> None:
    x, _ = r.ends(op, 1, 2)  # the output tensor has the new shape
    out = op.outputs[0]
    image = r.image(op, x)
    r.check_data(op, out)
    if out.size != x.size or (out.scales, out.zero_points) != (x.scales, x.zero_points):
        r.file.fail(f"{list(x.shape)} to {list(out.shape)}, or other scales", "reshapes that keep every byte", op, out)
    if out.data is not None or out.index in r.made:
        r.file.fail("a constant, or made twice", "tensors made once", op, out)
    r.made[out.index] = image
    r.aliases[out.name] = image.name


def _softmax(r: _Reader, op: Operator) -> None:
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
_OPERATORS = {
    _Op.AVERAGE_POOL_2D: _average_pool_2d,
    _Op.CONV_2D: _conv_2d,
    _Op.FULLY_CONNECTED: _fully_connected,
    _Op.MEAN: _mean,
    _Op.RESHAPE: _reshape,
    _Op.SOFTMAX: _softmax,
}


def parse_network(data: bytes, name: str, rounding: Rounding | str = Rounding.SINGLE) -> Network:
    """Network in the bytes of a .tflite file; ``name`` is what errors call the file. See read_network."""
    return _Reader(TfliteFile(data, name), Rounding(rounding)).network()


def read_network(path: str | Path, rounding: Rounding | str = Rounding.SINGLE) -> Network:
    """Read an int8 .tflite file.

    ``rounding`` of FULLY_CONNECTED: "single" as ai-edge-litert, "double" as TensorFlow Lite Micro. Raises
    UnsupportedNetwork, whose message names file, operator, tensor and what is supported, and OSError.
    """
    return _Reader(TfliteFile.open(path), Rounding(rounding)).network()
