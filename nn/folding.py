"""How a first layer of few channels fills its words: taps, or neighbouring pixels, become channels of the image.

The driver lays the image out (Program.pack_input); weights are arranged anew, so results are equal bit for bit.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from .graph import Add, Conv, Network, Tensor
from .program import FoldedInput
from .rewrite import Rewritten, View

__all__ = ["FOLDS", "Fold", "folds_of"]

FOLDS = ("none", "columns", "window", "pairs")


@dataclass(frozen=True, eq=False)
class Fold:
    """A way to see the image. ``seen``: the first layer's output as everybody else sees it, if it makes pairs."""

    rewritten: Rewritten
    image: FoldedInput
    seen: Tensor | None = None


def folds_of(rewritten: Rewritten, config) -> dict[str, Fold]:
    """Ways to fold the first layer by name, "none" among them.

    columns : [o, ky, kx, c] -> channels (kx, c); window : channels (ky, kx, c); pairs : columns of two neighbouring
    output pixels, which are channels too: half as many pixels are read, and pairs lie in memory as their pixels would.
    Only a convolution that alone reads the image, and has more than one tap to fold, is folded.
    """
    network = rewritten.network
    shape = network.input.shape
    folds = {"none": Fold(rewritten, FoldedInput(*shape, zero=network.input.zero_point))}
    readers = [layer for layer in network.layers if any(t.name == network.input.name for t in layer.inputs)]
    if len(readers) != 1 or not isinstance(readers[0], Conv):
        return folds
    conv = readers[0]
    o, kh, kw, c = conv.weights.shape
    (sy, sx), (top, left, bottom, _) = conv.stride, conv.padding
    zero = network.input.zero_point
    if kw > 1:
        image = replace(network.input, width=conv.output.width, channels=kw * c)
        changes = {"input": image, "stride": (sy, 1), "padding": (top, 0, bottom, 0)}
        columns = replace(conv, weights=conv.weights.reshape(o, kh, 1, kw * c), **changes)
        folds["columns"] = Fold(
            _with_first(rewritten, image, columns), FoldedInput(*shape, 1, kw, 1, sx, 0, left, zero)
        )
    if kh * kw > 1:
        image = replace(network.input, height=conv.output.height, width=conv.output.width, channels=kh * kw * c)
        changes = {"input": image, "stride": (1, 1), "padding": (0, 0, 0, 0)}
        window = replace(conv, weights=conv.weights.reshape(o, 1, 1, kh * kw * c), **changes)
        folds["window"] = Fold(
            _with_first(rewritten, image, window), FoldedInput(*shape, kh, kw, sy, sx, top, left, zero)
        )
    wide = sx + kw  # columns that two neighbouring windows see
    if kw > 1 and ceil(wide * c / config.lanes) < 2 * ceil(kw * c / config.lanes) and _pairs(conv, rewritten, config):
        image = replace(network.input, width=conv.output.width // 2, channels=wide * c)
        weights = np.zeros((2, o, kh, wide, c), conv.weights.dtype)
        weights[0, :, :, :kw], weights[1, :, :, sx:] = conv.weights, conv.weights
        pairs = replace(
            conv,
            input=image,
            output=replace(conv.output, width=conv.output.width // 2, channels=2 * o),
            weights=weights.reshape(2 * o, kh, 1, wide * c),
            **{name: np.tile(getattr(conv, name), 2) for name in ("bias", "multiplier", "shift")},
            stride=(sy, 1),
            padding=(top, 0, bottom, 0),
            useful=conv.macs,
        )
        layout = FoldedInput(*shape, 1, wide, 1, 2 * sx, 0, left, zero)
        folds["pairs"] = Fold(_with_first(rewritten, image, pairs), layout, conv.output)
    return folds


def _pairs(conv: Conv, rewritten: Rewritten, config) -> bool:
    """Two pixels of the output lie in memory like one of twice the channels, and nobody minds who made them."""
    name, network = conv.output.name, rewritten.network
    joined = name in rewritten.inside or any(outer == name for outer, _ in rewritten.inside.values())
    kept = any(tensor.name == name for tensor in network.outputs)
    added = [isinstance(layer, Add) for layer in network.layers if any(t.name == name for t in layer.inputs)] == [True]
    viewed = any(isinstance(layer, View) and layer.input.name == name for layer in network.layers)
    whole = conv.output.channels % config.bus_bytes == 0 and conv.output.width % 2 == 0
    return whole and not (joined or kept or added or viewed)


def _with_first(rewritten: Rewritten, image: Tensor, first: Conv) -> Rewritten:
    """The network with another image and first layer."""
    network: Network = rewritten.network
    layers = tuple(first if layer.input.name == image.name else layer for layer in network.layers)
    return replace(rewritten, network=replace(network, input=image, layers=layers))
