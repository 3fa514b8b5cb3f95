"""A network as the compiler and the reference executor see it: int8 layers, exits or outputs, who needs what.

Tensors are images [h, w, c] of one sample (a vector is 1 x 1 x c); layers stand in an order in which they can run.
What .tflite calls FULLY_CONNECTED is a Conv here, RESHAPE and SOFTMAX are gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .layers import Add, Concat, Conv, Depthwise, Layer, MaxPool, Mean, Pad, Pool, Tensor, Window

__all__ = [
    "Add",
    "Concat",
    "Conv",
    "Depthwise",
    "Exit",
    "Layer",
    "MaxPool",
    "Mean",
    "Network",
    "Pad",
    "Pool",
    "Section",
    "Tensor",
    "UnsupportedNetwork",
    "Window",
]


class UnsupportedNetwork(ValueError):
    """A network that this project cannot run; the message names file, operator, tensor and what is supported."""


@dataclass(frozen=True)
class Exit:
    """An output of the network: logits (1 x 1 x classes) and the beta of the softmax that followed them."""

    logits: Tensor
    beta: float = 1.0
    output: str = ""  # name of the file's output tensor, which the softmax made

    @property
    def scale(self) -> float:
        return self.logits.scale

    @property
    def zero_point(self) -> int:
        return self.logits.zero_point

    @property
    def classes(self) -> int:
        return self.logits.channels


@dataclass(frozen=True)
class Section:
    """What runs, in this order, between the exit before and the decision of exit ``exit``: indices of layers.

    A network without exits is one section.
    """

    exit: int
    trunk: tuple[int, ...]
    head: tuple[int, ...]  # skipped when the exit is disabled; empty for the last exit


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in a runnable order and exits, shallow to deep; or, if it does not classify, no exits but outputs.

    Every layer is needed by at least one exit or output. ``outputs``: what the network is run for, tensors of any
    shape; the logits of the exits, if there are exits. ``aliases`` maps the names of reshaped tensors of the file to
    the tensor that holds their bytes.
    """

    name: str
    input: Tensor
    layers: tuple[Layer, ...]
    exits: tuple[Exit, ...]
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    outputs: tuple[Tensor, ...] = ()

    def __post_init__(self) -> None:
        known, names = {self.input.name}, set()
        for layer in self.layers:
            missing = [t.name for t in layer.inputs if t.name not in known]
            if missing:
                raise ValueError(f"{self.name}: layer {layer.name} reads '{missing[0]}' before it is made")
            if layer.output.name in known or layer.name in names:
                raise ValueError(f"{self.name}: layer {layer.name} or its output '{layer.output.name}' exists twice")
            known.add(layer.output.name)
            names.add(layer.name)
        if self.exits:
            object.__setattr__(self, "outputs", tuple(exit.logits for exit in self.exits))
        elif not self.outputs:
            raise ValueError(f"{self.name}: a network needs at least one exit or output")
        made = known - {self.input.name}
        for tensor in self.outputs if not self.exits else ():
            if tensor.name not in made:
                raise ValueError(f"{self.name}: output '{tensor.name}' is made by no layer")
        for e, exit in enumerate(self.exits):
            if exit.logits.name not in made or exit.logits.shape[:2] != (1, 1):
                raise ValueError(f"{self.name}: logits '{exit.logits.name}' of exit {e} are no 1 x 1 layer output")

    @property
    def ends(self) -> tuple[Exit, ...]:
        """Where a sample can end: the exits or, without any, one that "decides" from a single value of an output."""
        last = self.outputs[-1]
        return self.exits or (Exit(replace(last, height=1, width=1, channels=1)),)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, the input first."""
        return {t.name: t for t in (self.input, *(layer.output for layer in self.layers))}

    def producer(self, tensor: str) -> int | None:
        """Index of the layer that makes a tensor; None for the input image. KeyError if there is no such tensor."""
        if tensor == self.input.name:
            return None
        return {layer.output.name: i for i, layer in enumerate(self.layers)}[tensor]

    def needed_by(self) -> tuple[frozenset[int], ...]:
        """For every layer the exits whose logits depend on it; without exits {0} for what an output depends on."""
        exits: dict[str, set[int]] = {name: set() for name in self.tensors}
        for e, tensor in enumerate(self.outputs):
            exits[tensor.name].add(e if self.exits else 0)
        for layer in reversed(self.layers):
            for tensor in layer.inputs:
                exits[tensor.name] |= exits[layer.output.name]
        return tuple(frozenset(exits[layer.output.name]) for layer in self.layers)

    def head_of(self) -> tuple[int | None, ...]:
        """For every layer the exit whose head it belongs to, None for the trunk.

        A head is what one exit alone needs; the trunk is what several need or the last one needs.
        """
        last = len(self.ends) - 1
        return tuple(min(exits) if len(exits) == 1 and last not in exits else None for exits in self.needed_by())

    def sections(self) -> tuple[Section, ...]:
        """One section per exit: together they hold every layer once, in an order that can run."""
        needed, heads = self.needed_by(), self.head_of()
        done: set[int] = set()
        sections = []
        for e in range(len(self.ends)):
            trunk = tuple(i for i in range(len(self.layers)) if heads[i] is None and e in needed[i] and i not in done)
            done.update(trunk)
            sections.append(Section(e, trunk, tuple(i for i, head in enumerate(heads) if head == e)))
        return tuple(sections)

    def macs(self, exit: int | None = None) -> int:
        """Useful MACs of one sample: of the layers that ``exit`` needs, or of all."""
        return sum(
            layer.macs
            for layer, exits in zip(self.layers, self.needed_by(), strict=True)
            if exit is None or exit in exits
        )
