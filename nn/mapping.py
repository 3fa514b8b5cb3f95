"""How a layer is laid on the array: stack mode and lines per number of live samples, with the time it takes.

The time of a tile is the contract of the array (docs/architecture.md, "Array: order and time"); what happens between
tiles is estimated: enough to rank variants, not to predict a run.
"""

from dataclasses import dataclass
from math import ceil

from fluidnpu.hw import isa
from fluidnpu.hw.tile import PARAMETER_BYTES

__all__ = ["Geometry", "MappingError", "Variant", "choose_variants", "tile_cycles"]

RMW = 3  # least cycles of a step
LATENCY = 120  # from a tile's last sum to the first sum of one that reads its output, beside the transfers themselves
TILE_GAP = 24  # cycles of a tile that its neighbours do not hide


class MappingError(ValueError):
    """A layer that does not fit a configuration; the message says which limit."""


@dataclass(frozen=True)
class Geometry:
    """What the mapping needs to know of a layer."""

    name: str
    pool: bool
    kh: int
    kw: int
    sy: int
    sx: int
    in_w: int
    in_pixel_beats: int
    in_words: int  # channel words that hold data
    out_w: int
    out_h: int
    out_channels: int
    out_pixel_beats: int
    padded_average: bool = False

    def segments(self, config):
        """(nseg, seg_w): a row wider than ``rows`` is cut into equal segments."""
        nseg = ceil(self.out_w / config.rows)
        return nseg, ceil(self.out_w / nseg)

    def stripe_pixels(self, config):
        """Pixels of a stripe line: the row, or the window of a segment."""
        nseg, seg_w = self.segments(config)
        return self.in_w if nseg == 1 else (seg_w - 1) * self.sx + self.kw

    def lines(self, config):
        return self.out_h * self.segments(config)[0]


@dataclass(frozen=True, order=True)
class Variant:
    """A stack mode (log2) with the most lines of a sub-tile."""

    log2_kr: int
    log2_kd: int
    max_lines: int


def chunk_beats(config, geometry):
    """Beats of a pixel that staging gathers: 64 bytes or the widest c-tile, so that bursts are long."""
    return min(geometry.out_pixel_beats, max(64, config.pes) // config.bus_bytes)


def words_per_tap(config, geometry, log2_kd):
    """Words of a tap that each stack takes."""
    if log2_kd == 0:
        return geometry.in_words
    return geometry.in_pixel_beats * config.words_per_beat >> log2_kd


def _c_tiles(config, geometry, variant):
    """(number of whole c-tiles, channels of the last one or 0)."""
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    return divmod(geometry.out_channels, cols)


def weight_beats(config, geometry, variant):
    """Beats of the weight stream of a tile."""
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    full, part = _c_tiles(config, geometry, variant)

    def c_tile(columns):
        if geometry.pool:
            return ceil(columns / config.lanes) * ceil(columns / config.words_per_beat)
        steps = geometry.kh * geometry.kw * words_per_tap(config, geometry, variant.log2_kd)
        parameters = ceil(columns * PARAMETER_BYTES / config.bus_bytes)
        return steps * ceil((columns << variant.log2_kd) / config.words_per_beat) + parameters

    return full * c_tile(cols) + (c_tile(part) if part else 0)


def tile_cycles(config, geometry, variant, lines, total_lines):
    """Cycles of a tile whose longest sub-tile has ``lines`` lines and that holds ``total_lines`` in all."""
    _, seg_w = geometry.segments(config)
    rows, total_rows = lines * seg_w, total_lines * seg_w
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    full, part = _c_tiles(config, geometry, variant)
    width = min(config.post_lanes, cols)

    def c_tile(columns):
        if geometry.pool:
            words = ceil(columns / config.lanes)
            first = max(rows, ceil(columns / config.words_per_beat), RMW)
            steps = words * (first + (geometry.kh * geometry.kw - 1) * max(rows, RMW))
        else:
            words = ceil((columns << variant.log2_kd) / config.words_per_beat)
            count = geometry.kh * geometry.kw * words_per_tap(config, geometry, variant.log2_kd)
            step = max(rows, words, RMW)
            parameters = ceil(columns * PARAMETER_BYTES / config.bus_bytes)
            steps = max(count * step, count * words + parameters)
        return max(steps, total_rows * ceil(columns / width), total_rows * ceil(columns / config.bus_bytes))

    return full * c_tile(cols) + (c_tile(part) if part else 0)


def layer_cycles(config, geometry, variant, live):
    """Estimated cycles of a layer for ``live`` samples in one group."""
    _, seg_w = geometry.segments(config)
    kr = 1 << variant.log2_kr
    lines = live * geometry.lines(config)
    per_tile = min(lines, variant.max_lines * kr)
    tiles = ceil(lines / per_tile)
    longest = min(variant.max_lines, ceil(per_tile / kr))
    stripe = geometry.stripe_pixels(config) * geometry.in_pixel_beats
    window = min(geometry.sy, geometry.kh)
    fragments = max(kr, ceil(per_tile / geometry.lines(config)))
    stripe_beats = (per_tile * window + fragments * (geometry.kh - window)) * stripe
    written = per_tile * seg_w * geometry.out_pixel_beats
    reads = stripe_beats + weight_beats(config, geometry, variant)
    cycles = max(tile_cycles(config, geometry, variant, longest, per_tile), reads, written) + TILE_GAP
    # The next layer waits for this one's last tile, unless other tiles fill the time.
    columns = min(geometry.out_channels, config.pes >> (variant.log2_kr + variant.log2_kd))
    drain = per_tile * seg_w * ceil(columns / min(config.post_lanes, columns))
    exposed = max(0, LATENCY + drain + written // 2 + stripe_beats - (tiles - 1) * cycles)
    return tiles * cycles + exposed


def fits(config, geometry, variant):
    """None if the variant obeys the rules that the descriptor check has, otherwise the limit it breaks."""
    _, seg_w = geometry.segments(config)
    kr, kd = 1 << variant.log2_kr, 1 << variant.log2_kd
    stripe = geometry.stripe_pixels(config) * geometry.in_pixel_beats
    capacity = config.bank_beats * config.max_stack // kr
    if kr * kd > config.max_stack:
        return f"kr * kd = {kr * kd} is more than max_stack = {config.max_stack}"
    if geometry.in_pixel_beats % kd or stripe % kd or (geometry.pool and kd > 1):
        return f"the input's channel words cannot be dealt to kd = {kd} stacks"
    if geometry.padded_average and kr > 1:
        return "a padded average pool cannot be row stacked"
    if geometry.kh * stripe > capacity:
        return (
            f"a window of {geometry.kh} input lines takes {geometry.kh * stripe * config.bus_bytes} bytes, a bank half "
            f"holds {capacity * config.bus_bytes} (bank_bytes = {config.bank_bytes}, kr = {kr})"
        )
    rows = kr * variant.max_lines * seg_w * chunk_beats(config, geometry)
    if rows > config.stage_beats:
        return f"a tile's output takes {rows} beats of staging, there are {config.stage_beats}"
    chunk, cols = chunk_beats(config, geometry), config.pes >> (variant.log2_kr + variant.log2_kd)
    if chunk < geometry.out_pixel_beats and chunk * config.bus_bytes % cols:
        return f"staging gathers {chunk * config.bus_bytes} channels, no multiple of {cols} columns"
    return None


def choose_variants(config, geometry, max_tile_cycles):
    """(variants, selection): at most VARIANTS variants, number 0 unstacked, and which one n = 1.. live samples take.

    Raises MappingError if the layer does not fit unstacked.
    """
    _, seg_w = geometry.segments(config)
    nseg = geometry.segments(config)[0]
    most = 1 if nseg > 1 else min(config.max_lines, config.rows // seg_w)
    stacks = range(config.max_stack.bit_length())
    options = [
        Variant(kr, kd, lines)
        for kr in stacks
        for kd in stacks
        for lines in range(1, most + 1)
        if fits(config, geometry, Variant(kr, kd, lines)) is None
    ]
    flat = [v for v in options if v.log2_kr == v.log2_kd == 0]
    if not flat:
        raise MappingError(f"{geometry.name} does not fit {config.name}: {fits(config, geometry, Variant(0, 0, 1))}")
    short = [v for v in options if _longest_tile(config, geometry, v) <= max_tile_cycles]
    options = short or options
    flat = [v for v in flat if v in short] or [min(flat, key=lambda v: _longest_tile(config, geometry, v))]
    live = range(1, config.slots + 1)
    cost = {v: [layer_cycles(config, geometry, v, n) for n in live] for v in {*options, *flat}}

    def total(chosen):
        return sum(min(cost[v][i] for v in chosen) / min(c[i] for c in cost.values()) for i in range(len(live)))

    chosen = [min(flat, key=lambda v: sum(cost[v]))]
    while len(chosen) < isa.VARIANTS:
        best = min(options, key=lambda v: total([*chosen, v]))
        if total([*chosen, best]) >= total(chosen) - 1e-9:
            break
        chosen.append(best)
    selection = [min(range(len(chosen)), key=lambda k: cost[chosen[k]][i]) for i in range(len(live))]
    return chosen, selection


def _longest_tile(config, geometry, variant):
    lines = min(variant.max_lines, config.slots * geometry.lines(config))
    return tile_cycles(config, geometry, variant, lines, lines << variant.log2_kr)
