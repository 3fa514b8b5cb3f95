"""Reader of int8 .tflite networks with one or several outputs (exits, shallow to deep).

The reader keeps track of tensors and exits; tflite_operators.py says what each operator means. Everything else is
refused with an UnsupportedNetwork error.
"""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import Exit, Layer, Network, Tensor, UnsupportedNetwork
from .quantize import Rounding
from .tflite_file import Operator, TfliteFile, TfliteTensor, enum_name
from .tflite_operators import OPERATORS

__all__ = ["Reader", "UnsupportedNetwork", "parse_network", "read_network"]

_Op = schema.BuiltinOperator
_DATA = "int8 tensors with one scale and one zero point"


class Reader:
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
            if op.code not in OPERATORS:
                supported = ", ".join(sorted(enum_name(_Op, code) for code in OPERATORS))
                file.fail("unsupported operator", supported, op, op.outputs[0] if op.outputs else None)
            OPERATORS[op.code](self, op)
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
        h, w, c = shape if len(shape) == 3 else (1, 1, *shape)
        image = self.made[tensor.index] = Tensor(
            self.unique_name(tensor), h, w, c, tensor.scales[0], tensor.zero_points[0]
        )
        return image

    def unique_name(self, tensor: TfliteTensor) -> str:
        """The tensor's name, with its index behind it if an earlier tensor has that name."""
        name = tensor.name if tensor.name not in self.names else f"{tensor.name}#{tensor.index}"
        self.names.add(name)
        return name

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


def parse_network(data: bytes, name: str, rounding: Rounding | str = Rounding.SINGLE) -> Network:
    """Network in the bytes of a .tflite file; ``name`` is what errors call the file. See read_network."""
    return Reader(TfliteFile(data, name), Rounding(rounding)).network()


def read_network(path: str | Path, rounding: Rounding | str = Rounding.SINGLE) -> Network:
    """Read an int8 .tflite file.

    ``rounding`` of FULLY_CONNECTED: "single" as ai-edge-litert, "double" as TensorFlow Lite Micro. Raises
    UnsupportedNetwork, whose message names file, operator, tensor and what is supported, and OSError.
    """
    return Reader(TfliteFile.open(path), Rounding(rounding)).network()
