"""A network as the compiler and the reference executor see it: int8 layers, exits, who needs what.

Tensors are images [h, w, c] of one sample (a vector is 1 x 1 x c); layers stand in an order in which they can run.
What .tflite calls FULLY_CONNECTED is a Conv here, RESHAPE and SOFTMAX are gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from .quantize import INT8_MAX, INT8_MIN, Rounding

__all__ = ["Conv", "Exit", "Layer", "Mean", "Network", "Pool", "Section", "Tensor", "UnsupportedNetwork"]


class UnsupportedNetwork(ValueError):
    """A network that this project cannot run; the message names file, operator, tensor and what is supported."""


@dataclass(frozen=True)
class Tensor:
    """int8 image of one sample: real value = scale * (q - zero_point)."""

    name: str
    height: int
    width: int
    channels: int
    scale: float
    zero_point: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers share. ``name`` is short and unique ("conv3": operator 3 of the file)."""

    name: str
    input: Tensor
    output: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All tensors that the layer reads."""
        return (self.input,)

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of one sample: padded taps count."""
        return 0


@dataclass(frozen=True, eq=False)
class _Window(Layer):
    """A layer that slides a window of kernel = (kh, kw) over its input.

    Output pixel (y, x) reads input rows y * sy - top .. + kh - 1 and columns x * sx - left .. + kw - 1.
    """

    stride: tuple[int, int] = field(kw_only=True)  # (sy, sx)
    padding: tuple[int, int, int, int] = field(kw_only=True, default=(0, 0, 0, 0))  # top, left, bottom, right
    clamp: tuple[int, int] = field(kw_only=True, default=(INT8_MIN, INT8_MAX))  # least and largest output

    def __post_init__(self) -> None:
        top, left, bottom, right = self.padding
        for what, size, out, k, s, pad in (
            ("height", self.input.height, self.output.height, self.kernel[0], self.stride[0], top + bottom),
            ("width", self.input.width, self.output.width, self.kernel[1], self.stride[1], left + right),
        ):
            if k < 1 or s < 1 or size + pad < k or (size + pad - k) // s + 1 != out:
                raise ValueError(
                    f"{self.name}: output {what} {out} does not follow from input {size}, padding {pad}, "
                    f"kernel {k}, stride {s}"
                )

    @property
    def kernel(self) -> tuple[int, int]:
        """(kh, kw)."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class Conv(_Window):
    """Convolution or fully connected layer:

        acc = bias[o] + sum over taps of (x - input.zero_point) * weights[o, ky, kx, c]
        y   = clamp(requantise(acc, multiplier[o], shift[o], rounding) + output.zero_point)

    A tap outside of the image reads the input zero point. The reader guarantees that no accumulator, shifted left
    by ``shift`` if positive, leaves the int32 range.
    """

    weights: np.ndarray = field(kw_only=True)  # int8 [out_channels, kh, kw, in_channels]
    bias: np.ndarray = field(kw_only=True)  # int32 [out_channels], without the input zero point
    multiplier: np.ndarray = field(kw_only=True)  # int32 [out_channels]
    shift: np.ndarray = field(kw_only=True)  # int32 [out_channels], positive: left
    rounding: Rounding = field(kw_only=True, default=Rounding.DOUBLE)

    def __post_init__(self) -> None:
        w = self.weights
        if w.dtype != np.int8 or w.ndim != 4 or (w.shape[0], w.shape[3]) != (self.output.channels, self.input.channels):
            raise ValueError(
                f"{self.name}: weights are {w.dtype} {list(w.shape)}, they must be int8 "
                f"[{self.output.channels}, kh, kw, {self.input.channels}]"
            )
        for what in ("bias", "multiplier", "shift"):
            a = getattr(self, what)
            if a.dtype != np.int32 or a.shape != (self.output.channels,):
                raise ValueError(f"{self.name}: {what} must be int32 [{self.output.channels}]")
        super().__post_init__()

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weights.shape[1], self.weights.shape[2]

    @property
    def macs(self) -> int:
        return self.output.height * self.output.width * self.weights.size


@dataclass(frozen=True, eq=False)
class Pool(_Window):
    """Average pool: y = clamp(average(sum of the taps inside the image, their number)), half away from zero.

    Input and output have the same scale and zero point, which therefore do not appear.
    """

    window: tuple[int, int] = field(kw_only=True)  # (kh, kw)

    @property
    def kernel(self) -> tuple[int, int]:
        return self.window


@dataclass(frozen=True, eq=False)
class Mean(Layer):
    """Mean over the whole image: y = clamp(requantise(sum + bias, multiplier, shift, rounding) + output.zero_point).

    bias is -input.zero_point * height * width and the multiplier holds 1 / (height * width).
    """

    bias: int
    multiplier: int
    shift: int
    rounding: Rounding = Rounding.DOUBLE
    clamp: tuple[int, int] = (INT8_MIN, INT8_MAX)

    @property
    def kernel(self) -> tuple[int, int]:
        """(kh, kw): the image."""
        return self.input.height, self.input.width


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
    """What runs, in this order, between the exit before and the decision of exit ``exit``: indices of layers."""

    exit: int
    trunk: tuple[int, ...]
    head: tuple[int, ...]  # skipped when the exit is disabled; empty for the last exit


@dataclass(frozen=True, eq=False)
class Network:
    """Layers in a runnable order and exits, shallow to deep. Every layer is needed by at least one exit.

    ``aliases`` maps the names of reshaped tensors of the file to the tensor that holds their bytes.
    """

    name: str
    input: Tensor
    layers: tuple[Layer, ...]
    exits: tuple[Exit, ...]
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

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
        if not self.exits:
            raise ValueError(f"{self.name}: a network needs at least one exit")
        made = known - {self.input.name}
        for e, exit in enumerate(self.exits):
            if exit.logits.name not in made or exit.logits.shape[:2] != (1, 1):
                raise ValueError(f"{self.name}: logits '{exit.logits.name}' of exit {e} are no 1 x 1 layer output")

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
        """For every layer the exits whose logits depend on it."""
        exits: dict[str, set[int]] = {name: set() for name in self.tensors}
        for e, exit in enumerate(self.exits):
            exits[exit.logits.name].add(e)
        for layer in reversed(self.layers):
            for tensor in layer.inputs:
                exits[tensor.name] |= exits[layer.output.name]
        return tuple(frozenset(exits[layer.output.name]) for layer in self.layers)

    def head_of(self) -> tuple[int | None, ...]:
        """For every layer the exit whose head it belongs to, None for the trunk.

        A head is what one exit alone needs; the trunk is what several need or the last one needs.
        """
        last = len(self.exits) - 1
        return tuple(min(exits) if len(exits) == 1 and last not in exits else None for exits in self.needed_by())

    def sections(self) -> tuple[Section, ...]:
        """One section per exit: together they hold every layer once, in an order that can run."""
        needed, heads = self.needed_by(), self.head_of()
        done: set[int] = set()
        sections = []
        for e in range(len(self.exits)):
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
