"""From a network to a program: operations, descriptors, weight streams, exit tables, arena."""

from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.tile import DIMENSION_BITS

from . import mapping
from .arena import lay_out
from .blocks import prepare
from .exits import exit_table
from .graph import Conv, Depthwise, MaxPool, Mean, Pad, Pool
from .lowering import CompileError, fold_options, geometry_of, lower
from .packing import packed_geometry, packed_tensors
from .program import FoldedInput, OpInfo, Program, ProgramExit
from .quantize import INT8_MIN
from .rescale import IDENTITY
from .rewrite import View
from .weights import conv_stream, depthwise_stream

__all__ = ["CompileError", "CompileOptions", "compile_network"]


@dataclass(frozen=True)
class CompileOptions:
    """
    max_tile_cycles : a layer whose tile would take longer is split by output channels. Default: 0.2 % of the network's
        least time (MACs / peak), but never below ``least_tile_cycles``: a tile cannot be shorter than its weights
    reuse_arena : False keeps every tensor, so that all can be compared afterwards
    fold : "auto", "none", "columns" (kw into channels), "window" (kh * kw into channels) for first layers
    limits : exit limits to begin with, one per exit (isa.LIMIT_NEVER ..)
    """

    max_tile_cycles: int | None = None
    least_tile_cycles: int = 2400
    reuse_arena: bool = True
    fold: str = "auto"
    limits: tuple | None = None


class _Region:
    """Builds the program region: bytes appended at bus-aligned offsets, equal parts shared."""

    def __init__(self, size, alignment):
        self.parts, self.size, self.alignment, self.known = [], size, alignment, {}

    def add(self, raw):
        """Offset of ``raw`` in the region."""
        if raw not in self.known:
            self.size += -self.size % self.alignment
            self.known[raw] = self.size
            self.parts.append((self.size, raw))
            self.size += len(raw)
        return self.known[raw]

    def image(self, descriptors):
        size = self.size + -self.size % self.alignment
        out = bytearray(size)
        out[: 4 * descriptors.size] = descriptors.astype("<u4").tobytes()
        for offset, raw in self.parts:
            out[offset : offset + len(raw)] = raw
        return bytes(out)


def compile_network(network, config, options=CompileOptions()):
    """Program of ``network`` (nn.graph.Network) for ``config``.

    Raises CompileError (a ValueError) that names the layer, the limit and its value if something does not fit.
    """
    cycles = network.macs() / config.peak_macs
    longest = options.max_tile_cycles or max(options.least_tile_cycles, ceil(0.002 * cycles))
    rewritten = prepare(network, config)
    network, folded = _fold(rewritten.network, config, options)
    rewritten = replace(rewritten, network=network)
    steps = lower(network, config, longest)
    packed = packed_tensors(rewritten, steps, config)
    places, arena_bytes, producer = lay_out(rewritten, steps, config, options.reuse_arena, packed)

    region = _Region(isa.DESCRIPTOR_BYTES * len(steps), max(config.bus_bytes, 64))
    nseg_of = dict.fromkeys(places, 1)  # of the operation that completes a tensor
    words, ops = [], []
    for i, step in enumerate(steps):
        if step.layer is None:
            values = _control(step, network, places, region)
            name = f"{step.op.name.lower()}{step.exit}"
            ops.append(OpInfo(name, step.op.name, exit=step.exit, head=step.head))
        else:
            values, info = _layer(step, config, places, region, longest, nseg_of)
            values["producer"] = producer.get(step.layer.input.name, isa.NO_PRODUCER)
            if step.addition:
                values["res_producer"] = producer.get(step.addition.residual.name, isa.NO_PRODUCER)
            nseg_of |= {name: values["nseg"] for name, last in producer.items() if last == i}
            ops.append(info)
        try:
            words.append(isa.encode(isa.DESCRIPTOR_FIELDS, values, isa.DESCRIPTOR_WORDS, ops[i].name))
        except isa.IsaError as error:
            raise CompileError(f"{network.name}: {error} (configuration {config.name})") from None
    if len(steps) >= 1 << isa.PC_INDEX_BITS:
        raise CompileError(f"{network.name}: {len(steps)} operations, at most {(1 << isa.PC_INDEX_BITS) - 1} fit")

    ends = network.ends
    limits = options.limits or (isa.LIMIT_NEVER,) * len(ends)
    if len(limits) != len(ends):
        raise CompileError(f"{network.name}: {len(limits)} limits for {len(ends)} exits")
    where = {step.exit: i for i, step in enumerate(steps) if step.op == isa.Op.EXIT}
    exits = tuple(
        ProgramExit(where[e], x.logits.name, x.classes, x.scale, x.zero_point, x.beta, limits[e])
        for e, x in enumerate(ends)
    )
    return Program(
        name=network.name,
        config_name=config.name,
        config_hash=config.hash,
        bus_bytes=config.bus_bytes,
        arena_bytes=arena_bytes,
        input=folded,
        input_tensor=network.input.name,
        tensors=places,
        exits=exits,
        outputs=tuple(tensor.name for tensor in network.outputs),
        ops=tuple(ops),
        region=region.image(np.array(words, np.uint32)),
    )


def _fold(network, config, options):
    """The network with its first layer folded as the options say, and how an image becomes its input."""
    plain = FoldedInput(*network.input.shape, zero=network.input.zero_point)
    viewed = any(isinstance(layer, View) and layer.input is network.input for layer in network.layers)
    choices = {"none": (network, plain), **({} if viewed else fold_options(network))}
    if options.fold != "auto":
        if options.fold not in ("none", "columns", "window"):
            raise CompileError(f"fold is {options.fold!r}, it must be auto, none, columns or window")
        return choices.get(options.fold, choices["none"])

    def cost(choice):
        layers = [x for x in choice[0].layers if x.input.name == choice[0].input.name]
        try:
            return sum(mapping.group_cycles(config, packed_geometry(layer, config), 1 << 30) for layer in layers)
        except mapping.MappingError:
            return float("inf")

    return min(choices.values(), key=cost)


def _layer(step, config, places, region, longest, nseg_of):
    """(descriptor values, OpInfo) of a layer or of a part of its output channels."""
    layer = step.layer
    low, high = step.channels
    source, target = _seen(layer.input, places, config), places[step.output.name]
    geometry = geometry_of(layer, config, step.addition, source, target)
    geometry = replace(geometry, out_channels=high - low)
    try:
        variants, selection = mapping.choose_variants(config, geometry, longest)
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
    for k in range(isa.VARIANTS):
        v = variants[min(k, len(variants) - 1)]
        capacity = (config.bank_beats * config.max_stack >> v.log2_kr) // values["stripe_line_beats"]
        words = mapping.words_per_tap(config, geometry, v.log2_kd)
        stream = b""
        if not geometry.pool:
            weights = layer.weights[low:high]
            zero_sum = weights.reshape(high - low, -1).sum(1, dtype=np.int64) * layer.input.zero_point
            bias = (layer.bias[low:high].astype(np.int64) - zero_sum).astype(np.int32)
            parts = (weights, bias, layer.multiplier[low:high], layer.shift[low:high])
            if geometry.depthwise:
                stream = depthwise_stream(config, *parts, v.log2_kd, words)
            else:
                stream = conv_stream(config, *parts, v.log2_kr, v.log2_kd, words, source.pixel_beats)
        beats = mapping.weight_beats(config, geometry, v)
        assert len(stream) == beats * config.bus_bytes, (layer.name, v, len(stream), beats)
        values |= {
            f"log2_kr{k}": v.log2_kr,
            f"log2_kd{k}": v.log2_kd,
            f"max_lines{k}": v.max_lines,
            f"stripe_lines{k}": min(capacity, 0xFFFF),
            f"weights{k}": region.add(stream),
            f"words{k}": words,
            f"weight_beats{k}": beats,
        }
    values["vsel"] = sum(selection[min(n, len(selection) - 1)] << (2 * n) for n in range(16))
    info = OpInfo(
        step.name,
        values["op"].name,
        tensor=step.output.name,
        macs=layer.macs * (high - low) // layer.output.channels,
        head=step.head,
        tile_cycles=max(mapping.longest_tile(config, geometry, v) for v in variants),
        load_beats=max(mapping.longest_load(config, geometry, v) for v in variants),
        variants=[
            {
                "kr": 1 << variants[v].log2_kr,
                "kd": 1 << variants[v].log2_kd,
                "max_lines": variants[v].max_lines,
                "cycles": mapping.layer_cycles(config, geometry, [variants[k] for k in selection], n + 1),
            }
            for n, v in enumerate(selection)
        ],
    )
    return values, info


def _seen(tensor, places, config):
    """TensorPlace of an input; where the layer sees the bytes in another shape, the place of that."""
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


def _control(step, network, places, region):
    """Descriptor values of EXIT and JUMP."""
    if step.op == isa.Op.JUMP:
        return {"op": isa.Op.JUMP, "exit": step.exit, "target": step.target}
    exit = network.ends[step.exit]
    table = exit_table(exit.scale, exit.beta)
    return {
        "op": isa.Op.EXIT,
        "exit": step.exit,
        "last": step.exit == len(network.ends) - 1,
        "in_offset": places[exit.logits.name].offset,
        "out_channels": exit.classes,
        "bias": region.add(table.astype("<u4").tobytes()),
    }
