"""Reader of int8 and uint8 .tflite networks; their outputs are exits, shallow to deep, or tensors of any shape.

The reader keeps track of tensors and exits; tflite_operators.py says what each operator means. Everything else is
refused with an UnsupportedNetwork error.
"""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .exits import MAX_CLASSES
from .graph import Exit, Layer, Network, Tensor, UnsupportedNetwork
from .quantize import Kernels
from .simplify import fold_activations, fold_borders
from .tflite_file import Operator, TfliteFile, TfliteTensor, enum_name
from .tflite_operators import OPERATORS

__all__ = ["Reader", "UnsupportedNetwork", "parse_network", "read_network"]

_Op = schema.BuiltinOperator
_TYPES = (schema.TensorType.INT8, schema.TensorType.UINT8)
_DATA = "int8 or uint8 tensors with one scale and one zero point"
# uint8 data becomes int8 by subtracting 128, from values and zero points: real = scale * (q - zero point) is the same.
UINT8_OFFSET = 128


def offset_of(tensor: TfliteTensor) -> int:
    """What to subtract from a tensor's values and zero points to make them int8's."""
    return UINT8_OFFSET if tensor.type == schema.TensorType.UINT8 else 0


class Reader:
    """Walks the operators of one file; ``layers`` grows, ``made`` knows which image a file tensor holds."""

    def __init__(self, file: TfliteFile, kernels: Kernels):
        self.file = file
        self.kernels = kernels
        self.layers: list[Layer] = []
        self.made: dict[int, Tensor] = {}  # file tensor index -> image; reshaped tensors share theirs
        self.softmax: dict[int, tuple[TfliteTensor, float]] = {}  # index of its output -> input and beta
        self.aliases: dict[str, str] = {}
        self.names: set[str] = set()
        self.input: Tensor | None = None
        self.float_input: TfliteTensor | None = None  # what a QUANTIZE makes the input of

    def network(self) -> Network:
        """The whole file."""
        file = self.file
        if len(file.inputs) != 1:
            file.fail(f"{len(file.inputs)} inputs", "1 input")
        if not self.quantizes_input():
            self.input = self.new_tensor(None, file.inputs[0])
        for op in file.operators:
            if op.code not in OPERATORS:
                supported = ", ".join(sorted(enum_name(_Op, code) for code in OPERATORS))
                file.fail("unsupported operator", supported, op, op.outputs[0] if op.outputs else None)
            OPERATORS[op.code](self, op)
        name = Path(file.name).stem
        ends = self.ends_of_network()
        try:
            network = Network(name, self.input, tuple(self.layers), aliases=MappingProxyType(self.aliases), **ends)
            return self.checked_order(self.simplified(self.without_unused(network)))
        except UnsupportedNetwork:
            raise
        except ValueError as error:
            file.fail(str(error), "outputs made by layers")

    def quantizes_input(self) -> bool:
        """The input is float32 and one QUANTIZE reads it: what it makes is the input of the network."""
        (x,) = self.file.inputs
        readers = [op.code for op in self.file.operators if any(t is x for t in op.inputs)]
        if x.type == schema.TensorType.FLOAT32 and readers == [_Op.QUANTIZE]:
            self.float_input = x
            return True
        return False

    def is_output(self, tensor: TfliteTensor) -> bool:
        """It is an output, or nothing but its type is changed on the way to one."""
        if any(tensor is output for output in self.file.outputs):
            return True
        readers = [op for op in self.file.operators if any(x is tensor for x in op.inputs)]
        return bool(readers) and all(
            op.code in (_Op.QUANTIZE, _Op.DEQUANTIZE) and any(op.outputs[0] is output for output in self.file.outputs)
            for op in readers
        )

    def ends_of_network(self) -> dict[str, tuple]:
        """``exits`` if every output is a vector of classes, otherwise no exits and ``outputs``."""
        if not self.file.outputs:
            self.file.fail("no outputs", "one or several outputs")
        images = []
        for tensor in self.file.outputs:
            image = self.image(None, self.softmax.get(tensor.index, (tensor,))[0])
            if image is self.input:
                self.file.fail("the input is an output", "outputs made by layers", tensor=tensor)
            images.append(image)
        if all(image.shape[:2] == (1, 1) and image.channels <= MAX_CLASSES for image in images):
            return {"exits": tuple(self.exit(tensor) for tensor in self.file.outputs)}
        return {"exits": (), "outputs": tuple(dict.fromkeys(images))}

    def exit(self, tensor: TfliteTensor) -> Exit:
        """What a network output says about an exit: the softmax in front of it is dropped."""
        logits, beta = self.softmax.get(tensor.index, (tensor, 1.0))
        return Exit(self.image(None, logits), beta, tensor.name)

    def simplified(self, network: Network) -> Network:
        """Without the layers that others can do on the way."""
        outputs = {tensor.name for tensor in network.outputs}
        layers = fold_borders(fold_activations(list(network.layers), outputs), outputs)
        return self.without_unused(replace(network, layers=tuple(layers)))

    def without_unused(self, network: Network) -> Network:
        """Leave out what no exit and no output needs."""
        layers = tuple(layer for layer, exits in zip(network.layers, network.needed_by(), strict=True) if exits)
        kept = {network.input.name, *(layer.output.name for layer in layers)}
        aliases = {alias: name for alias, name in network.aliases.items() if name in kept}
        return replace(network, layers=layers, aliases=MappingProxyType(aliases))

    def checked_order(self, network: Network) -> Network:
        """Refuse outputs that are equal or in an order that contradicts the trunk."""
        logits = [exit.logits.name for exit in network.exits]
        if not logits:
            return network
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

    def new_tensor(
        self,
        op: Operator | None,
        tensor: TfliteTensor,
        image_shape: tuple[int, int, int] | None = None,
        other_type: bool = False,
    ) -> Tensor:
        """The image that ``tensor`` will hold, from now on known as made.

        ``image_shape``: (h, w, c) of its bytes, where the tensor may be a flattened image; ``other_type``: it need not
        have the type of the operator's inputs.
        """
        self.check_data(op, tensor)
        if tensor.data is not None or tensor.index in self.made:
            self.file.fail("a constant, or made twice", "tensors made once", op, tensor)
        for x in () if op is None or other_type else op.inputs:
            if x is not None and x.type in _TYPES and x.type != tensor.type:
                names = [enum_name(schema.TensorType, t.type) for t in (x, tensor)]
                self.file.fail(f"input {names[0]}, output {names[1]}", "operators of one type", op, tensor)
        shape = self.image_shape(op, tensor) if image_shape is None else image_shape
        image = self.made[tensor.index] = Tensor(
            self.unique_name(tensor), *shape, tensor.scales[0], tensor.zero_points[0] - offset_of(tensor)
        )
        return image

    def image_shape(self, op: Operator | None, tensor: TfliteTensor) -> tuple[int, int, int]:
        """(h, w, c) of a tensor [1, h, w, c] or [1, c]."""
        shape = tensor.shape[1:]
        if tensor.shape[:1] != (1,) or len(shape) not in (1, 3):
            self.file.fail(f"shape {list(tensor.shape)}", "[1, h, w, c] and [1, c]: batch 1", op, tensor)
        return shape if len(shape) == 3 else (1, 1, *shape)

    def reshape_input(self, tensor: TfliteTensor) -> None:
        """Where the input is reshaped before any layer has read it, it has the shape of ``tensor`` from the start."""
        if self.layers:
            return
        if len(tensor.shape) == 4 and tensor.shape[0] == 1:
            before, self.input = (
                self.input,
                replace(self.input, height=tensor.shape[1], width=tensor.shape[2], channels=tensor.shape[3]),
            )
            self.made = {i: self.input if image is before else image for i, image in self.made.items()}

    def unique_name(self, tensor: TfliteTensor) -> str:
        """The tensor's name, with its index behind it if an earlier tensor has that name."""
        name = tensor.name if tensor.name not in self.names else f"{tensor.name}#{tensor.index}"
        self.names.add(name)
        return name

    def check_data(self, op: Operator | None, tensor: TfliteTensor) -> None:
        """int8 or uint8, one scale, one zero point."""
        if tensor.type not in _TYPES:
            self.file.fail(f"type {enum_name(schema.TensorType, tensor.type)}", _DATA, op, tensor)
        if len(tensor.scales) != 1 or not -128 <= tensor.zero_points[0] - offset_of(tensor) <= 127:
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

    def data_value(self, op: Operator, tensor: TfliteTensor, image: Tensor) -> int:
        """A constant of one value that has the type, scale and zero point of ``image``."""
        self.check_data(op, tensor)
        quantisation = tensor.scales[0], tensor.zero_points[0] - offset_of(tensor)
        if tensor.data is None or tensor.size != 1 or quantisation != image.quantisation:
            self.file.fail(
                f"constant {list(tensor.shape)}, scale and zero point {quantisation}",
                f"one value with the input's {image.quantisation}",
                op,
                tensor,
            )
        return int(tensor.data.reshape(())) - offset_of(tensor)

    def weights(self, op: Operator, tensor: TfliteTensor, rank: int) -> np.ndarray:
        """Constant weights without their zero point: int8, or int16 where uint8 ones minus it do not fit int8."""
        if tensor.type != schema.TensorType.UINT8:
            return self.constant(op, tensor, "weights", schema.TensorType.INT8, rank)
        data = self.constant(op, tensor, "weights", schema.TensorType.UINT8, rank)
        if len(tensor.scales) != 1:
            self.file.fail(f"{len(tensor.scales)} scales of uint8 weights", "uint8 weights with one scale", op, tensor)
        centred = data.astype(np.int16) - tensor.zero_points[0]
        fits = centred.min() >= -128 and centred.max() <= 127
        return centred.astype(np.int8) if fits else centred

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


def parse_network(data: bytes, name: str, rounding: Kernels | str = Kernels.LITERT) -> Network:
    """Network in the bytes of a .tflite file; ``name`` is what errors call the file. See read_network."""
    return Reader(TfliteFile(data, name), _kernels(rounding)).network()


def read_network(path: str | Path, rounding: Kernels | str = Kernels.LITERT) -> Network:
    """Read an int8 or uint8 .tflite file.

    ``rounding``: whose kernels to equal where they differ, "litert" (ai-edge-litert) or "micro" (TensorFlow Lite
    Micro). Raises UnsupportedNetwork, whose message names file, operator, tensor and what is supported, and OSError.
    """
    return Reader(TfliteFile.open(path), _kernels(rounding)).network()


def _kernels(rounding: Kernels | str) -> Kernels:
    try:
        return Kernels(rounding)
    except ValueError:
        raise ValueError(f"rounding is {rounding!r}, it must be one of {', '.join(Kernels)}") from None
