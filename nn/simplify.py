"""Layers that need no work of their own: activations move into the clamp before them, borders into windows behind.

Both change no value of any tensor that is left.
"""

from dataclasses import replace

from .graph import Add, Conv, Depthwise, Layer, MaxPool, Mean, Pad, Pool
from .quantize import INT8_MIN

__all__ = ["fold_activations", "fold_borders"]

MAX_PADDING = 255  # what a window may have on one side


def fold_activations(layers: list[Layer], outputs: set[str]) -> list[Layer]:
    """Move the clamp of every 1 x 1 pool into the layer before, where nobody else reads that layer.

    ``outputs``: names of tensors that must stay.
    """
    layers = list(layers)
    for pool in [layer for layer in layers if _is_activation(layer)]:
        maker = next((x for x in layers if x.output is pool.input), None)
        readers = [x for x in layers if any(t is pool.input for t in x.inputs)]
        clamped = isinstance(maker, (Add, Conv, Depthwise, MaxPool, Mean, Pool))
        if clamped and readers == [pool] and pool.input.name not in outputs:
            low, high = pool.clamp
            clamp = tuple(min(max(bound, low), high) for bound in maker.clamp)
            layers[layers.index(maker)] = replace(maker, output=pool.output, clamp=clamp)
            layers.remove(pool)
    return layers


def _is_activation(layer: Layer) -> bool:
    return isinstance(layer, Pool) and layer.window == layer.stride == (1, 1) and not any(layer.padding)


def fold_borders(layers: list[Layer], outputs: set[str]) -> list[Layer]:
    """Make every Pad the padding of the windows that read it, where all of them can take it.

    Convolutions take a border of the zero point; a MaxPool one of the least value, of which it sees less than its
    window.
    """
    layers = list(layers)
    for pad in [layer for layer in layers if isinstance(layer, Pad)]:
        pad = next(x for x in layers if x.output is pad.output)  # as it is now, a Pad before it may be gone
        readers = [x for x in layers if any(t is pad.output for t in x.inputs)]
        if pad.output.name in outputs or not all(_takes(reader, pad) for reader in readers):
            continue
        for reader in readers:
            padding = tuple(a + b for a, b in zip(reader.padding, pad.padding, strict=True))
            layers[layers.index(reader)] = replace(reader, input=pad.input, padding=padding)
        layers.remove(pad)
    return layers


def _takes(reader: Layer, pad: Pad) -> bool:
    if not isinstance(reader, (Conv, Depthwise, MaxPool, Pad)):
        return False
    padding = [a + b for a, b in zip(reader.padding, pad.padding, strict=True)]
    if isinstance(reader, MaxPool):
        (kh, kw), (top, left, bottom, right) = reader.window, padding
        return pad.value == INT8_MIN and max(top, bottom) < kh and max(left, right) < kw
    if isinstance(reader, Pad):
        return pad.value == reader.value and max(padding) <= MAX_PADDING
    return pad.value == pad.input.zero_point and max(padding) <= MAX_PADDING
