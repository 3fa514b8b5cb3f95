"""Estimated times of layers: dealing played through, with the read bus and the write bus beside the array.

Enough to rank variants, not to predict a run; `timed_tables` asks a cycle model where the compiler has one.
"""

from functools import cache
from math import ceil
from typing import NamedTuple

from fluidnpu.hw import isa

from .mapping import Variant, check_fits, fits, longest_tile, tile_cycles, weight_beats

__all__ = [
    "VariantTable",
    "array_cycles",
    "choose_variants",
    "deal",
    "group_cycles",
    "layer_cycles",
    "legal_variants",
    "unlimited",
]

LATENCY = 120  # from a tile's last sum to the first sum of one that reads its output, beside the transfers themselves
LOAD_DELAY = 90  # from a tile's start to the next one's first stripe beat: dealing and the memory's latency


class VariantTable(NamedTuple):
    """A layer's variants, number 0 unstacked, and which of them n = 1 .. slots candidates take.

    variants : tuple of at most isa.VARIANTS Variant; selection : tuple of indices, n - 1 -> variant
    """

    variants: tuple
    selection: tuple

    @property
    def by_candidates(self):
        """Variant of n = 1 .. slots candidates, tuple."""
        return tuple(self.variants[v] for v in self.selection)


@cache
def _tile_period(config, geometry, variant, subtiles):
    """Estimated cycles from one tile's start to the next's. ``subtiles``: lines of each fragment, tuple of tuples."""
    _, seg_w = geometry.segments(config)
    total = sum(map(sum, subtiles))
    stripe = geometry.stripe_beats(config)
    window = min(geometry.sy, geometry.kh)
    loads = sum((lines - 1) * window + geometry.kh for subtile in subtiles for lines in subtile) * stripe
    reads = LOAD_DELAY + loads + weight_beats(config, geometry, variant)
    if geometry.residual:
        reads += total * seg_w * ceil(geometry.out_channels / config.bus_bytes) // geometry.out_packed
    written = total * seg_w * geometry.out_pixel_beats // geometry.out_packed
    return max(tile_cycles(config, geometry, variant, max(map(sum, subtiles)), total), reads, written)


@cache
def deal(variant, left):
    """(lines of each fragment per sub-tile, lines that are left) of a tile that takes lines of candidates with ``left``
    lines each; tuples."""
    kr = 1 << variant.log2_kr
    most = min(variant.max_lines, ceil(sum(left) / kr))
    left = list(left)
    subtiles, at = [], 0
    for _ in range(kr):
        subtile, room = [], most
        while room and at < len(left):
            taken = min(room, left[at])
            left[at] -= taken
            room -= taken
            if taken:
                subtile.append(taken)
            at += left[at] == 0
        if subtile:
            subtiles.append(tuple(subtile))
    return tuple(subtiles), tuple(sorted((n for n in left if n), reverse=True))  # laggards lead


def layer_cycles(config, geometry, table, live):
    """Estimated cycles of a layer for ``live`` samples that arrive together.

    table : variant for 1, 2, ... candidates; a candidate whose lines are all dealt goes on, so the number shrinks.
    """
    left = (geometry.lines(config),) * live
    periods = []
    while left:
        variant = table[len(left) - 1]
        subtiles, left = deal(variant, left)
        periods.append(_tile_period(config, geometry, variant, subtiles))
    # The next layer waits for the first tile that completes a sample, unless tiles behind it fill the time.
    rows = sum(map(sum, subtiles)) * geometry.segments(config)[1]
    columns = min(geometry.out_channels, config.pes >> (variant.log2_kr + variant.log2_kd))
    drain = rows * ceil(columns / min(config.post_lanes, columns))
    if geometry.vector:  # short beside its loads, which its last tile follows
        drain = tile_cycles(config, geometry, variant, max(map(sum, subtiles)), sum(map(sum, subtiles)))
    written = rows * geometry.out_pixel_beats // geometry.out_packed
    exposed = LATENCY + drain + 3 * written // 2  # written, and read again by the next
    return sum(periods) + max(0, exposed - sum(periods[1:]))


def array_cycles(config, geometry, table, live):
    """Cycles of a layer's tiles alone, by the array's contract: no run is shorter. Arguments of `layer_cycles`."""
    left, cycles = (geometry.lines(config),) * live, 0
    while left:
        variant = table[len(left) - 1]
        subtiles, left = deal(variant, left)
        cycles += tile_cycles(config, geometry, variant, max(map(sum, subtiles)), sum(map(sum, subtiles)))
    return cycles


def group_cycles(config, geometry, max_tile_cycles):
    """Estimated cycles per sample of a layer with the variants chosen for it, summed over all numbers of samples."""
    table = choose_variants(config, geometry, max_tile_cycles).by_candidates
    return sum(layer_cycles(config, geometry, table, n) / n for n in range(1, config.slots + 1))


@cache
def legal_variants(config, geometry, max_tile_cycles):
    """(unstacked, all) variants of a layer that fit and whose tiles are short enough, tuples of Variant.

    A tile is never shorter than its weights: where even the shortest one is too long, nothing longer is taken.
    Raises MappingError if the layer does not fit unstacked.
    """
    check_fits(config, geometry)
    options = [v for v in _options(config, geometry) if fits(config, geometry, v) is None]
    flat = [v for v in options if v.log2_kr == v.log2_kd == 0]

    def short(variants):
        longest = [longest_tile(config, geometry, v) for v in variants]
        limit = max(max_tile_cycles, min(longest))
        return tuple(v for v, cycles in zip(variants, longest, strict=True) if cycles <= limit)

    return short(flat), short(options)


@cache
def choose_variants(config, geometry, max_tile_cycles):
    """VariantTable of a layer.

    Grows the set one variant at a time, each time by the one that saves most over all numbers of live samples.
    Raises MappingError if the layer does not fit unstacked.
    """
    flat, options = legal_variants(config, geometry, max_tile_cycles)

    def plan(chosen):
        """(relative cost, selection) of a set of variants; each count builds on the smaller ones."""
        table, selection, cost = [], [], 0.0
        for n in range(1, config.slots + 1):
            cycles = [layer_cycles(config, geometry, [*table, v], n) for v in chosen]
            best = min(range(len(chosen)), key=cycles.__getitem__)
            table.append(chosen[best])
            selection.append(best)
            cost += cycles[best] / n
        return cost, selection

    chosen = [min(flat, key=lambda v: plan([v])[0])]
    cost, selection = plan(chosen)
    while len(chosen) < isa.VARIANTS:
        better, v = min(((plan([*chosen, v])[0], v) for v in options), key=lambda pair: pair[0])
        if better > 0.995 * cost:
            break
        chosen.append(v)
        cost, selection = plan(chosen)
    return VariantTable(tuple(chosen), tuple(selection))


def unlimited(config, geometry, max_tile_cycles):
    """No tile of the layer takes longer than ``max_tile_cycles``, whatever the variant."""
    options = (v for v in _options(config, geometry) if fits(config, geometry, v) is None)
    return all(longest_tile(config, geometry, v) <= max_tile_cycles for v in options)


def _options(config, geometry):
    """Stack modes with numbers of lines that divide or multiply a sample's, or fill the array."""
    nseg, seg_w = geometry.segments(config)
    most = 1 if nseg > 1 else min(config.max_lines, config.rows // seg_w)
    lines = {most, *(1 << k for k in range(most.bit_length()))}
    lines |= {geometry.out_h * k for k in range(1, most // geometry.out_h + 1)}
    lines |= {ceil(geometry.out_h / k) for k in range(1, 9)}
    stacks = range(config.max_stack.bit_length())
    return [Variant(kr, kd, n) for kr in stacks for kd in stacks for n in sorted(lines) if n <= most]
