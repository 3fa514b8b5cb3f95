"""Descriptor values of a network's operations: everything but the stack modes and where constants lie."""

from dataclasses import dataclass, field, replace
from math import ceil, prod

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.tile import DIMENSION_BITS

from . import mapping
from .arena import lay_out
from .exits import exit_table
from .folding import Fold
from .graph import Conv, Depthwise, MaxPool, Mean, Pad, Pool
from .lowering import CompileError, Step, geometry_of, lower
from .mapping import Geometry
from .packing import packed_tensors
from .quantize import INT8_MIN
from .rescale import IDENTITY
from .weights import conv_stream, depthwise_stream

__all__ = ["Draft", "Operation", "draft_of"]


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation without its variants. ``constant``: bytes of an exit's table; ``pixel_beats``: of its input."""

    step: Step
    values: dict
    geometry: Geometry | None = None
    pixel_beats: int = 0
    constant: bytes = b""

    def stream(self, config, variant):
        """Weight stream of a layer for one stack mode, bytes."""
        layer, (low, high) = self.step.layer, self.step.channels
        if self.geometry.pool:
            return b""
        words = mapping.words_per_tap(config, self.geometry, variant.log2_kd)
        weights = layer.weights[low:high]
        zero_sum = weights.reshape(high - low, -1).sum(1, dtype=np.int64) * layer.input.zero_point
        bias = (layer.bias[low:high].astype(np.int64) - zero_sum).astype(np.int32)
        parts = (weights, bias, layer.multiplier[low:high], layer.shift[low:high])
        if self.geometry.depthwise:
            return depthwise_stream(config, *parts, variant.log2_kd, words)
        return conv_stream(config, *parts, variant.log2_kr, variant.log2_kd, words, self.pixel_beats)


@dataclass(frozen=True, eq=False)
class Draft:
    """A network as operations of a configuration, before variants are chosen.

    places : dict name -> TensorPlace; longest : most cycles of a tile
    """

    fold: Fold
    places: dict
    arena_bytes: int
    longest: int
    operations: list[Operation] = field(default_factory=list)

    @property
    def layers(self):
        """Indices of the operations that are layers."""
        return [i for i, operation in enumerate(self.operations) if operation.geometry]


def draft_of(fold, config, longest, reuse_arena=True):
    """Draft of a folded network. ``longest``: a layer whose tile takes longer is split.

    Raises CompileError that names the layer, the limit and its value if something does not fit.
    """
    rewritten, network = fold.rewritten, fold.rewritten.network
    steps = lower(network, config, longest)
    if len(steps) >= 1 << isa.PC_INDEX_BITS:
        raise CompileError(f"{network.name}: {len(steps)} operations, at most {(1 << isa.PC_INDEX_BITS) - 1} fit")
    packed = packed_tensors(rewritten, steps, config)
    places, arena_bytes, producer = lay_out(rewritten, steps, config, reuse_arena, packed)
    if fold.seen:
        places[fold.seen.name] = _seen(fold.seen, places, config)
    draft = Draft(fold, places, arena_bytes, longest)
    nseg_of = dict.fromkeys(places, 1)  # of the operation that completes a tensor
    for i, step in enumerate(steps):
        if step.layer is None:
            operation = _control(step, network, places)
        else:
            operation = _layer(step, config, places, nseg_of)
            operation.values["producer"] = producer.get(step.layer.input.name, isa.NO_PRODUCER)
            if step.addition:
                operation.values["res_producer"] = producer.get(step.addition.residual.name, isa.NO_PRODUCER)
            nseg_of |= {name: operation.values["nseg"] for name, last in producer.items() if last == i}
        draft.operations.append(operation)
    return draft


def _layer(step, config, places, nseg_of):
    """Operation of a layer or of a part of its output channels."""
    layer = step.layer
    low, high = step.channels
    source, target = (_seen(tensor, places, config) for tensor in (layer.input, step.output))
    geometry = geometry_of(layer, config, step.addition, source, target)
    geometry = replace(geometry, out_channels=high - low)
    try:
        mapping.check_fits(config, geometry)
    except mapping.MappingError as error:
        raise CompileError(f"{error}; {_would_do(layer)}") from None
    nseg, seg_w = geometry.segments(config)
    stripe_pixels = geometry.stripe_pixels(config)
    clamp = layer.clamp
    values = {
        "op": step.op,
        "producer_nseg": nseg_of[layer.input.name],
        "nseg": nseg,
        "in_offset": source.offset,
        "in_w": source.width,
        "in_h": source.height,
        "in_line_beats": source.line_beats,
        "in_pixel_beats": source.pixel_beats,
        "out_offset": target.offset + low,
        "out_w": target.width,
        "out_h": target.height,
        "out_line_beats": target.line_beats,
        "out_pixel_beats": target.pixel_beats,
        "kh": geometry.kh,
        "kw": geometry.kw,
        "sy": geometry.sy,
        "sx": geometry.sx,
        "seg_w": seg_w,
        "lines": geometry.lines(config),
        "out_channels": high - low,
        "clamp_min": clamp[0],
        "clamp_max": clamp[1],
        "chunk_beats": mapping.chunk_beats(config, geometry),
        "stripe_pixels": stripe_pixels,
        "stripe_line_beats": geometry.stripe_beats(config),
        "in_packed": source.packed > 1,
        "out_packed": target.packed > 1,
        **_arithmetic(layer),
        **_residual(step.addition, places, nseg_of, low),
    }
    for what in ("in_w", "in_h", "out_w", "out_h"):
        if values[what] >> DIMENSION_BITS:
            raise CompileError(f"{layer.name}: {what} is {values[what]}, at most {(1 << DIMENSION_BITS) - 1}")
    if isinstance(layer, Pool) and any(layer.padding) and prod(layer.window) > isa.RECIPROCAL_MAX:
        raise CompileError(
            f"{layer.name}: a padded average pool of {prod(layer.window)} taps, at most {isa.RECIPROCAL_MAX}"
        )
    return Operation(step, values, geometry, source.pixel_beats)


def _seen(tensor, places, config):
    """TensorPlace of an input or output; where the layer sees the bytes in another shape, the place of that."""
    place = places[tensor.name]
    if tensor.shape == (place.height, place.width, place.channels):
        return place
    beats = ceil(tensor.channels / config.bus_bytes)
    return replace(
        place,
        height=tensor.height,
        width=tensor.width,
        channels=tensor.channels,
        pixel_beats=beats,
        line_beats=tensor.width * beats,
    )


def _would_do(layer):
    """Named configurations that take ``layer``, in words."""
    names = []
    for config in CONFIGS.values():
        try:
            mapping.check_fits(config, geometry_of(layer, config))
        except mapping.MappingError:
            continue
        names.append(config.name)
    return f"it fits {', '.join(names)}" if names else "no named configuration would do"


def _arithmetic(layer):
    """Descriptor fields of zero points, padding and requantisation."""
    if isinstance(layer, (Conv, Depthwise)):
        return {
            "twice": layer.weights.dtype != np.int8,
            "pad_top": layer.padding[0],
            "pad_left": layer.padding[1],
            "in_zero": layer.input.zero_point,
            "out_zero": layer.output.zero_point,
            "single_rounding": layer.rounding == "single",
        }
    if isinstance(layer, Mean):
        return {
            "out_zero": layer.output.zero_point,
            "single_rounding": layer.rounding == "single",
            "bias": layer.bias,
            "multiplier": layer.multiplier,
            "shift": layer.shift,
        }
    padding = {"pad_top": layer.padding[0], "pad_left": layer.padding[1]}
    if isinstance(layer, (MaxPool, Pad)):
        multiplier, shift = IDENTITY
        kind = {"maximum": 1, "in_zero": INT8_MIN} if isinstance(layer, MaxPool) else {"in_zero": layer.value}
        return padding | kind | {"multiplier": multiplier, "shift": shift}
    taps = prod(layer.window)
    values = padding | {"average": 1, "half_up": layer.half_up}
    if any(layer.padding):
        return values | {"padded_average": 1}
    bits, reciprocal = _reciprocal(taps)
    return values | {"bias": taps, "multiplier": reciprocal, "shift": bits}


def _residual(addition, places, nseg_of, low):
    """Descriptor fields of a second operand, from channel ``low`` on, and of its addition."""
    if addition is None:
        return {}
    add, place = addition.add, places[addition.residual.name]
    values = {
        "residual": 1,
        "res_offset": place.offset + low,
        "res_line_beats": place.line_beats,
        "res_pixel_beats": place.pixel_beats,
        "res_producer_nseg": nseg_of[place.name],
        "add_left_zero": addition.own.zero_point,
        "add_right_zero": addition.residual.zero_point,
        "add_zero": add.output.zero_point,
        "add_clamp_min": add.clamp[0],
        "add_clamp_max": add.clamp[1],
    }
    for name, (multiplier, shift) in (("left_", addition.left), ("right_", addition.right), ("", add.result)):
        values |= {f"add_{name}multiplier": multiplier, f"add_{name}shift": shift}
    return values


def _reciprocal(count):
    """(bits, m) with (n * m) >> bits == n // count for every sum n that an average of int8 values can have."""
    largest = 128 * count + count // 2
    for bits in range(63):
        m = -(-(1 << bits) // count)
        if largest * (m * count - (1 << bits)) < 1 << bits:
            return bits, m
    raise CompileError(f"no reciprocal for a pool of {count} taps")


def _control(step, network, places):
    """Operation of an EXIT or JUMP."""
    if step.op == isa.Op.JUMP:
        return Operation(step, {"op": isa.Op.JUMP, "exit": step.exit, "target": step.target})
    exit = network.ends[step.exit]
    values = {
        "op": isa.Op.EXIT,
        "exit": step.exit,
        "last": step.exit == len(network.ends) - 1,
        "in_offset": places[exit.logits.name].offset,
        "out_channels": exit.classes,
    }
    return Operation(step, values, constant=exit_table(exit.scale, exit.beta).astype("<u4").tobytes())
