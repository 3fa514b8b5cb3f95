"""From a network to a program: operations, descriptors, weight streams, exit tables, arena."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from fluidnpu.hw import isa

from .blocks import prepare
from .estimate import layer_cycles
from .folding import FOLDS, folds_of
from .lowering import CompileError, geometry_of
from .mapping import MappingError, check_fits, longest_load, longest_tile
from .operations import draft_of
from .program import OpInfo, Program, ProgramExit
from .rewrite import View
from .timed_tables import TimedTables, Timing
from .variant_tables import described, estimated_tables, variant_values

__all__ = ["CompileError", "CompileOptions", "compile_network"]


@dataclass(frozen=True)
class CompileOptions:
    """
    max_tile_cycles : a layer whose tile would take longer is split by output channels. Default: 0.2 % of the network's
        least time (MACs / peak), but never below ``least_tile_cycles``: a tile cannot be shorter than its weights
    reuse_arena : False keeps every tensor, so that all can be compared afterwards
    fold : for first layers, "auto" or one of folding.FOLDS
    limits : exit limits to begin with, one per exit (isa.LIMIT_NEVER ..)
    timing : what measures groups of samples on a cycle model (timed_tables.Timing); variants and fold are chosen by it.
        None: by the compiler's estimate
    status : told what takes the time, a string
    """

    max_tile_cycles: int | None = None
    least_tile_cycles: int = 2400
    reuse_arena: bool = True
    fold: str = "auto"
    limits: tuple | None = None
    timing: Timing | None = None
    status: Callable[[str], None] | None = None


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
    folds = _folds(rewritten, config, options)
    drafts = [draft_of(fold, config, longest, options.reuse_arena) for fold in folds]
    draft, tables = _choose(drafts, config, options)
    network = draft.fold.rewritten.network

    region = _Region(isa.DESCRIPTOR_BYTES * len(draft.operations), max(config.bus_bytes, 64))
    words, ops = [], []
    for i, operation in enumerate(draft.operations):
        step, values = operation.step, dict(operation.values)
        if operation.geometry:
            values |= variant_values(config, operation.geometry, tables[i])
            streams = {}
            for k, v in enumerate(described(tables[i])):
                mode = v.log2_kr, v.log2_kd
                if mode not in streams:
                    streams[mode] = operation.stream(config, v)
                values[f"weights{k}"] = region.add(streams[mode])
                assert len(streams[mode]) == values[f"weight_beats{k}"] * config.bus_bytes, (step.name, v)
        elif operation.constant:
            values["bias"] = region.add(operation.constant)
        ops.append(_info(operation, config, tables.get(i)))
        try:
            words.append(isa.encode(isa.DESCRIPTOR_FIELDS, values, isa.DESCRIPTOR_WORDS, step.name))
        except isa.IsaError as error:
            raise CompileError(f"{network.name}: {error} (configuration {config.name})") from None

    ends = network.ends
    limits = options.limits or (isa.LIMIT_NEVER,) * len(ends)
    if len(limits) != len(ends):
        raise CompileError(f"{network.name}: {len(limits)} limits for {len(ends)} exits")
    where = {o.step.exit: i for i, o in enumerate(draft.operations) if o.step.op == isa.Op.EXIT}
    exits = tuple(
        ProgramExit(where[e], x.logits.name, x.classes, x.scale, x.zero_point, x.beta, limits[e])
        for e, x in enumerate(ends)
    )
    return Program(
        name=network.name,
        config_name=config.name,
        config_hash=config.hash,
        bus_bytes=config.bus_bytes,
        arena_bytes=draft.arena_bytes,
        input=draft.fold.image,
        input_tensor=network.input.name,
        tensors=draft.places,
        exits=exits,
        outputs=tuple(tensor.name for tensor in network.outputs),
        ops=tuple(ops),
        region=region.image(np.array(words, np.uint32)),
    )


def _folds(rewritten, config, options):
    """Folds of the first layer as the options say; "auto": all ways that fit."""
    choices = folds_of(rewritten, config)
    if options.fold != "auto":
        if options.fold not in FOLDS:
            raise CompileError(f"fold is {options.fold!r}, it must be auto, {', '.join(FOLDS[:-1])} or {FOLDS[-1]}")
        return [choices.get(options.fold, choices["none"])]

    def fits(fold):
        """Every layer that reads the image fits."""
        network = fold.rewritten.network
        layers = [x for x in network.layers if x.input.name == network.input.name and not isinstance(x, View)]
        try:
            for layer in layers:
                check_fits(config, geometry_of(layer, config))
        except MappingError:
            return False
        return True

    return [fold for fold in choices.values() if fits(fold)] or [choices["none"]]


def _choose(drafts, config, options):
    """(Draft, dict operation -> VariantTable): the best way to fold, and every layer's variants."""
    tables = [estimated_tables(config, draft) for draft in drafts]
    if options.timing is None:
        costs = [_first_cycles(config, *pair) for pair in zip(drafts, tables, strict=True)]
        best = costs.index(min(costs))
        return drafts[best], tables[best]
    timed = [TimedTables(config, *pair, options.timing, options.status) for pair in zip(drafts, tables, strict=True)]
    if len(timed) > 1:
        timed = [min(timed, key=TimedTables.first_cycles)]
    return timed[0].draft, timed[0].chosen()


def _first_cycles(config, draft, tables):
    """Estimated cycles per sample of the layers that read the image, summed over all numbers of samples."""
    image = draft.fold.rewritten.network.input.name
    total = 0.0
    for i in draft.layers:
        operation = draft.operations[i]
        if operation.step.layer.input.name == image:
            table = tables[i].by_candidates
            counts = range(1, config.slots + 1)
            total += sum(layer_cycles(config, operation.geometry, table, n) / n for n in counts)
    return total


def _info(operation, config, table):
    """OpInfo of an operation with its VariantTable."""
    step, geometry = operation.step, operation.geometry
    if geometry is None:
        return OpInfo(f"{step.op.name.lower()}{step.exit}", step.op.name, exit=step.exit, head=step.head)
    low, high = step.channels
    chosen = table.by_candidates
    return OpInfo(
        step.name,
        step.op.name,
        tensor=step.output.name,
        macs=step.layer.macs * (high - low) // step.layer.output.channels,
        head=step.head,
        tile_cycles=max(longest_tile(config, geometry, v) for v in table.variants),
        load_beats=max(longest_load(config, geometry, v) for v in table.variants),
        variants=[
            {
                "kr": 1 << v.log2_kr,
                "kd": 1 << v.log2_kd,
                "max_lines": v.max_lines,
                "cycles": layer_cycles(config, geometry, chosen, n),
            }
            for n, v in enumerate(chosen, 1)
        ],
    )
