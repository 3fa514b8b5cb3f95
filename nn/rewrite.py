"""Layers that are no operation of their own become some that are; every tensor of the network stays as it is.

A Depthwise with a multiplier becomes a dense Conv or, if the input has more channels than a word, a Conv that repeats
every channel and a Depthwise without multiplier; one of more taps than the vector path holds becomes a dense Conv. A
Conv with weights that two int8 weights cannot make up (255: the largest uint8 weight above zero point 0) reads their
channels twice. A Concat becomes nothing: its parts are written to their places inside the joined tensor; copies only
where that cannot be.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from fluidnpu.hw.tile import VECTOR_TAPS

from .layers import Concat, Conv, Depthwise, Layer, Pool, Tensor
from .rescale import IDENTITY
from .weights import MAX_WEIGHT

__all__ = ["Joined", "Rewritten", "View", "rewrite"]


@dataclass(frozen=True, eq=False)
class Joined(Layer):
    """Nothing to do: ``parts`` lie inside of the output, as Rewritten says, and may overlap where a copy fills a beat.

    ``input`` is parts[0].
    """

    parts: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.parts


@dataclass(frozen=True, eq=False)
class View(Layer):
    """Nothing to do: the output is the channels from ``first`` on of the input, where they lie."""

    first: int


@dataclass(frozen=True, eq=False)
class Rewritten:
    """A network of layers that are operations, and which tensors lie inside of others.

    ``inside``: name of a tensor -> (name of the tensor that it lies in, first channel there).
    """

    network: object
    inside: Mapping[str, tuple[str, int]]

    def place_of(self, name: str) -> tuple[str, int]:
        """(outermost tensor that ``name`` lies in, first channel there)."""
        channel = 0
        while name in self.inside:
            name, first = self.inside[name]
            channel += first
        return name, channel


def rewrite(network, config) -> Rewritten:
    """``network`` as Rewritten for ``config``."""
    layers: list[Layer] = []
    for layer in network.layers:
        for made in _without_multiplier(layer, config.lanes):
            layers += _doubled(made) if _has_odd_weights(made) else [made]
    inside: dict[str, tuple[str, int]] = {}
    joined: list[Layer] = []
    for layer in layers:
        whole = isinstance(layer, Concat)
        joined += _joined(layer, network.input, inside, config.bus_bytes) if whole else [layer]
    return Rewritten(replace(network, layers=tuple(joined)), inside)


def _without_multiplier(layer: Layer, lanes: int) -> list[Layer]:
    """A Depthwise as what the vector path can do, or the array."""
    if not isinstance(layer, Depthwise):
        return [layer]
    if _taps(layer) > VECTOR_TAPS or _has_odd_weights(layer):
        return [_dense(layer)]
    return _multiplied(layer, lanes) if layer.depth_multiplier > 1 else [layer]


def _has_odd_weights(layer: Layer) -> bool:
    """Whether two int8 weights cannot make up some weight."""
    return isinstance(layer, (Conv, Depthwise)) and layer.weights.max(initial=0) > MAX_WEIGHT


def _doubled(layer: Conv) -> list[Layer]:
    """A Conv that reads channels with a weight over MAX_WEIGHT a second time, behind the others, with what is over."""
    over = np.maximum(layer.weights - MAX_WEIGHT, 0)
    again = np.flatnonzero(over.any((0, 1, 2)))
    sources = np.concatenate([np.arange(layer.input.channels), again])
    doubled = replace(layer.input, name=f"{layer.output.name}#doubled", channels=len(sources))
    copy = _selection(f"{layer.name}.double", layer.input, doubled, np.arange(len(sources)), sources)
    weights = np.concatenate([layer.weights - over, over[..., again]], 3)
    return [copy, replace(layer, input=doubled, weights=weights, useful=layer.macs)]


def _taps(layer: Depthwise) -> int:
    """Weights of a channel as the vector path keeps them."""
    return layer.kernel[0] * layer.kernel[1] << (layer.weights.dtype != np.int8)


def _dense(layer: Depthwise) -> Conv:
    """A Depthwise as a Conv of all channels, filled up with zeros."""
    channels, outputs = layer.input.channels, layer.output.channels
    weights = np.zeros((*layer.weights.shape, channels), layer.weights.dtype)
    weights[np.arange(outputs), :, :, np.arange(outputs) // layer.depth_multiplier] = layer.weights
    shared = {name: getattr(layer, name) for name in _WINDOW}
    return Conv(layer.name, layer.input, layer.output, weights=weights, useful=layer.macs, **shared)


def _multiplied(layer: Depthwise, lanes: int) -> list[Layer]:
    """A Depthwise whose channels have several outputs, by layers of one output each."""
    channels, outputs = layer.input.channels, layer.output.channels
    if channels <= lanes:  # a tap is one word anyway
        return [_dense(layer)]
    repeated = replace(layer.input, name=f"{layer.output.name}#repeated", channels=outputs)
    source = np.arange(outputs) // layer.depth_multiplier  # input channel of each output
    copy = _selection(f"{layer.name}.repeat", layer.input, repeated, np.arange(outputs), source)
    return [copy, replace(layer, input=repeated)]


_WINDOW = ("stride", "padding", "clamp", "bias", "multiplier", "shift", "rounding")


def _selection(name: str, image: Tensor, made: Tensor, outputs: np.ndarray, sources: np.ndarray) -> Conv:
    """1 x 1 convolution that copies channels ``sources`` to ``outputs``; the others become the zero point."""
    n = made.channels
    weights = np.zeros((n, 1, 1, image.channels), np.int8)
    weights[outputs, 0, 0, sources] = 1
    multiplier, shift = (np.full(n, p, np.int32) for p in IDENTITY)
    bias = np.zeros(n, np.int32)
    return Conv(
        name, image, made, stride=(1, 1), weights=weights, bias=bias, multiplier=multiplier, shift=shift, useful=0
    )


def _joined(layer: Concat, image: Tensor, inside: dict, bus_bytes: int) -> list[Layer]:
    """The copies that a Concat needs, and the Joined that it becomes; adds to ``inside``.

    A part that begins in the middle of a beat is copied together with channels in front of it that fill the beat;
    the part before it is copied afterwards and puts them right. So copies run from the last part to the first.
    """
    copies, parts, behind_fills = [], list(layer.parts), False
    for i in reversed(range(len(parts))):
        part, first = parts[i], layer.offsets[i]
        fill = first % bus_bytes
        if not fill and not behind_fills and part is not image and part.name not in inside:
            inside[part.name] = layer.output.name, first
            continue
        copy = replace(part, name=f"{layer.output.name}#copy{i}", channels=fill + part.channels)
        if fill:
            kept = np.arange(part.channels)
            copies.append(_selection(f"{layer.name}.copy{i}", part, copy, fill + kept, kept))
        else:
            copies.append(Pool(f"{layer.name}.copy{i}", part, copy, window=(1, 1), stride=(1, 1)))
        inside[copy.name] = layer.output.name, first - fill
        parts[i], behind_fills = copy, fill > 0
    return [*copies, Joined(layer.name, parts[0], layer.output, tuple(parts))]
