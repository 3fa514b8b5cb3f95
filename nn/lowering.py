"""Which operations a network becomes: order, jumps over heads, folded first layers, layers split by channels."""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from fluidnpu.hw import isa

from . import mapping
from .estimate import group_cycles, unlimited
from .fusion import Addition, fused_additions, identity_of
from .graph import Add, Conv, Depthwise, Layer, MaxPool, Mean, Pad, Pool, Tensor
from .rewrite import Joined, View

__all__ = ["CompileError", "Step", "geometry_of", "lower"]


READ_AGAIN = 0.015  # of a layer's weights: what its parts may read of inputs that were read before, with all slots live
_OPERATIONS = (Add, Conv, Depthwise, Joined, MaxPool, Mean, Pad, Pool, View)


class CompileError(ValueError):
    """A network that does not fit a configuration."""


@dataclass(frozen=True)
class Step:
    """An operation: a layer (or ``channels`` low..high-1 of its output), or EXIT / JUMP of ``exit``.

    addition : the second tensor that is added to what the layer makes
    """

    op: isa.Op
    name: str
    layer: Layer | None = None
    addition: Addition | None = None
    channels: tuple = (0, 0)
    exit: int = -1
    head: int = -1  # exit whose head it belongs to
    target: int = 0  # JUMP: operation after the head

    @property
    def output(self) -> Tensor:
        """The tensor that a layer's operation writes."""
        return self.addition.add.output if self.addition else self.layer.output

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors that a layer's operation reads."""
        return (*self.layer.inputs, self.addition.residual) if self.addition else self.layer.inputs


def geometry_of(layer, config, addition=None, source=None, target=None):
    """The layer, with what is added to it, as the mapping sees it.

    source, target : TensorPlace of input and output; None: pixels of whole beats, one behind the other
    """
    (kh, kw), (sy, sx) = layer.kernel, getattr(layer, "stride", (1, 1))
    return mapping.Geometry(
        name=layer.name,
        pool=not isinstance(layer, (Conv, Depthwise)),
        kh=kh,
        kw=kw,
        sy=sy,
        sx=sx,
        in_w=layer.input.width,
        in_pixel_beats=source.pixel_beats if source else ceil(layer.input.channels / config.bus_bytes),
        in_words=ceil(layer.input.channels / config.lanes),
        out_w=layer.output.width,
        out_h=layer.output.height,
        out_channels=layer.output.channels,
        out_pixel_beats=target.pixel_beats if target else ceil(layer.output.channels / config.bus_bytes),
        residual=addition is not None,
        depthwise=isinstance(layer, Depthwise),
        twice=isinstance(layer, (Conv, Depthwise)) and layer.weights.dtype != np.int8,
        in_packed=source.packed if source else 1,
        out_packed=target.packed if target else 1,
    )


def lower(network, config, longest):
    """Steps of ``network`` in program order: per exit its trunk, then a jump over its head, the head, the decision.

    ``longest`` : most cycles of a tile; longer ones are split by output channels.
    Raises CompileError for a layer that no operation can do.
    """
    for layer in network.layers:
        if not isinstance(layer, _OPERATIONS):
            raise CompileError(f"{network.name}: layer {layer.name}, a {type(layer).__name__}, has no operation yet")
    steps, fused = [], fused_additions(network)

    def operations(indices, head):
        for i in indices:
            layer, addition = network.layers[i], None
            if isinstance(layer, Add):
                layer = network.layers[fused[i]] if i in fused else identity_of(layer)
                addition = Addition.of(network.layers[i], layer.output)
            if i not in fused.values():
                yield from _split(layer, addition, config, longest, head)

    for section in network.sections():
        last = section.exit == len(network.ends) - 1
        steps += operations(section.trunk, -1)
        head = list(operations(section.head, section.exit))
        if not last:
            target = len(steps) + 1 + len(head) + 1
            steps.append(Step(isa.Op.JUMP, f"jump{section.exit}", exit=section.exit, target=target))
        steps += head
        steps.append(Step(isa.Op.EXIT, f"exit{section.exit}", exit=section.exit, head=-1 if last else section.exit))
    return steps


def _split(layer, addition, config, longest, head):
    """Steps of one layer: as many as it takes to keep tiles short."""
    if isinstance(layer, (Joined, View)):
        return []
    layer = _seen_as_image(layer, config)
    op = {Conv: isa.Op.CONV, Depthwise: isa.Op.DEPTHWISE}.get(type(layer), isa.Op.POOL)
    channels = layer.output.channels
    geometry = geometry_of(layer, config, addition)
    size = _part(config, geometry, longest) if op == isa.Op.CONV else channels
    bounds = [(low, min(low + size, channels)) for low in range(0, channels, size)]
    return [
        Step(op, layer.name if len(bounds) == 1 else f"{layer.name}.{k}", layer, addition, bound, head=head)
        for k, bound in enumerate(bounds)
    ]


def _seen_as_image(layer, config):
    """A fully connected layer whose vector is too long for a pixel reads the same bytes as a row of pixels."""
    most = mapping.MAX_PIXEL_WORDS * config.lanes // config.bus_bytes * config.bus_bytes
    channels = layer.input.channels
    if not isinstance(layer, Conv) or layer.input.shape[:2] != (1, 1) or layer.kernel != (1, 1) or channels <= most:
        return layer
    pixels = ceil(channels / most)
    deep = ceil(channels / pixels / config.bus_bytes) * config.bus_bytes
    weights = np.zeros((len(layer.weights), pixels * deep), layer.weights.dtype)
    weights[:, :channels] = layer.weights.reshape(len(weights), channels)
    image = replace(layer.input, width=pixels, channels=deep)
    return replace(layer, input=image, weights=weights.reshape(-1, 1, pixels, deep), useful=layer.macs)


def _part(config, geometry, longest):
    """Output channels of each part of a CONV layer.

    The largest part of whole staging chunks whose tiles are short enough; or a half or a quarter of it, where longer
    tiles of fewer channels leave the read bus more time. Where no part is short enough and the samples of all slots
    make one tile (fully connected layers: as long as their weights), there are no more parts than may read the inputs
    again.
    """
    channels = geometry.out_channels
    unit = max(config.pes, mapping.chunk_beats(config, geometry) * config.bus_bytes)
    units = ceil(channels / unit)

    def shortest(count):
        """Cycles of the shortest sensible tile of ``count`` parts: one line, unstacked."""
        smaller = replace(geometry, out_channels=min(ceil(units / count) * unit, channels))
        return mapping.tile_cycles(config, smaller, mapping.Variant(0, 0, 1), 1, 1)

    def cost(size):
        sizes = [min(size, channels - low) for low in range(0, channels, size)]
        return sum(group_cycles(config, replace(geometry, out_channels=n), longest) for n in sizes)

    fewest = next((n for n in range(1, units + 1) if shortest(n) <= longest), units)
    if (
        shortest(fewest) > longest
        and config.slots * geometry.lines(config) * geometry.segments(config)[1] <= config.rows
    ):
        window = (geometry.lines(config) - 1) * min(geometry.sy, geometry.kh) + geometry.kh
        inputs = config.slots * window * geometry.stripe_beats(config)
        weights = mapping.weight_beats(config, geometry, mapping.Variant(0, 0, 1))
        fewest = min(fewest, 1 + int(READ_AGAIN * weights / inputs))
    largest = min(ceil(units / fewest) * unit, channels)
    if unlimited(config, replace(geometry, out_channels=largest), longest):
        return largest
    step = max(config.pes, config.bus_bytes)
    return min(dict.fromkeys([largest, *(ceil(largest / n / step) * step for n in (2, 4))]), key=cost)
