"""Layers that treat every channel for itself, and whose window does not fit the banks, take a few channels at a time.

A window of an average pool or a mean may be the whole image. Where kh lines of it do not fit a bank half, blocks of
channels are copied to tensors of their own, which need fewer bytes per pixel; each block is a layer, and their outputs
lie side by side in the layer's output.
"""

from dataclasses import replace
from math import ceil

from . import mapping
from .graph import Depthwise, Layer, MaxPool, Mean, Pool
from .lowering import geometry_of
from .rewrite import Joined, Rewritten, View, rewrite

__all__ = ["prepare"]


def prepare(network, config) -> Rewritten:
    """``network`` as layers that are operations of ``config``: rewritten, and cut into blocks where it must be."""
    rewritten = rewrite(network, config)
    inside, layers = dict(rewritten.inside), []
    for layer in rewritten.network.layers:
        per_channel = isinstance(layer, (Depthwise, MaxPool, Mean, Pool))
        channels = _block_channels(layer, config) if per_channel else None
        layers += [layer] if channels is None else _blocks(layer, channels, inside)
    return Rewritten(replace(rewritten.network, layers=tuple(layers)), inside)


def _block_channels(layer: Layer, config) -> int | None:
    """Channels of a block, as many as fit; None if the layer fits as it is, or not even one beat of it does."""
    total = layer.output.channels
    if _fits(layer, config):
        return None
    for blocks in range(2, ceil(total / config.bus_bytes) + 1):
        channels = ceil(ceil(total / blocks) / config.bus_bytes) * config.bus_bytes
        if _fits(_part(layer, 0, channels, layer.input.name, layer.output.name), config):
            return channels
    return None


def _fits(layer: Layer, config) -> bool:
    try:
        mapping.check_fits(config, geometry_of(layer, config))
    except mapping.MappingError:
        return False
    return True


def _part(layer: Layer, first: int, end: int, source: str, made: str) -> Layer:
    """The layer for output (and input) channels first .. end - 1."""
    end = min(end, layer.output.channels)
    changes = {
        name: getattr(layer, name)[first:end]
        for name in ("weights", "bias", "multiplier", "shift")
        if isinstance(layer, Depthwise)
    }
    if isinstance(layer, Depthwise) and layer.useful is not None:
        changes["useful"] = layer.useful * (end - first) // layer.output.channels
    return replace(
        layer,
        input=replace(layer.input, name=source, channels=end - first),
        output=replace(layer.output, name=made, channels=end - first),
        **changes,
    )


def _blocks(layer: Layer, channels: int, inside: dict) -> list[Layer]:
    """Copies and layers of every block; adds their places to ``inside``."""
    layers, parts = [], []
    for k, first in enumerate(range(0, layer.output.channels, channels)):
        seen, copied, made = (f"{layer.output.name}#{what}{k}" for what in ("seen", "copied", "block"))
        part = replace(_part(layer, first, first + channels, copied, made), name=f"{layer.name}.block{k}")
        view = View(f"{layer.name}.seen{k}", layer.input, replace(part.input, name=seen), first)
        copy = Pool(f"{layer.name}.copy{k}", view.output, part.input, window=(1, 1), stride=(1, 1))
        inside |= {seen: (layer.input.name, first), made: (layer.output.name, first)}
        layers += [view, copy, part]
        parts.append(part.output)
    return [*layers, Joined(layer.name, parts[0], layer.output, tuple(parts))]
