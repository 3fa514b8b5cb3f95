"""How a layer is laid on the array: stack modes and lines that fit, with the time that a tile takes.

The time of a tile is the contract of the array (docs/architecture.md, "Array: order and time").
"""

from dataclasses import dataclass
from functools import cache
from math import ceil

from fluidnpu.hw.tile import PARAMETER_BYTES, RMW_DISTANCE, VECTOR_TAPS

__all__ = [
    "Geometry",
    "MappingError",
    "Variant",
    "check_fits",
    "chunk_beats",
    "chunk_limit",
    "fits",
    "longest_load",
    "longest_tile",
    "tile_cycles",
    "weight_beats",
    "words_per_tap",
]

MAX_PIXEL_WORDS = 1023  # of an input pixel
MAX_SEGMENTS = 255  # of a row: a field of the descriptor


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
    residual: bool = False  # a second operand of the output's shape is read
    depthwise: bool = False
    twice: bool = False  # every word or tap is visited twice
    in_packed: int = 1  # pixels to a beat
    out_packed: int = 1  # the same, of the second operand too

    @property
    def vector(self):
        """The vector path does it."""
        return self.pool or self.depthwise

    @property
    def taps(self):
        """Visits of a window."""
        return self.kh * self.kw << self.twice

    def segments(self, config):
        """(nseg, seg_w): a row wider than ``rows``, or too wide for the banks or staging, is cut into segments.

        As few as will do; where none will, as many as there can be.
        """
        return _segments(self, config)

    def stripe_pixels(self, config):
        """Pixels of a stripe line: the row, or the window of a segment."""
        return self.pixels_of_segments(*self.segments(config))

    def pixels_of_segments(self, nseg, seg_w):
        """The same if a row had ``nseg`` segments of ``seg_w`` pixels."""
        return self.in_w if nseg == 1 else (seg_w - 1) * self.sx + self.kw

    def stripe_beats(self, config):
        """Beats of a stripe line."""
        return self.beats_of_segments(*self.segments(config))

    def beats_of_segments(self, nseg, seg_w):
        """The same if a row had ``nseg`` segments of ``seg_w`` pixels."""
        return ceil(self.pixels_of_segments(nseg, seg_w) / self.in_packed) * self.in_pixel_beats

    def lines(self, config):
        return self.out_h * self.segments(config)[0]


@cache
def _segments(geometry, config):
    most = min(geometry.out_w, MAX_SEGMENTS)
    widths = sorted({ceil(geometry.out_w / n) for n in range(1, most + 1)}, reverse=True)
    choices = [(ceil(geometry.out_w / w), w) for w in widths if w <= config.rows]
    if not choices:
        raise MappingError(
            f"{geometry.name} does not fit {config.name}: a row of {geometry.out_w} pixels is more than "
            f"{MAX_SEGMENTS} segments of {config.rows} rows"
        )
    for nseg, seg_w in choices:
        window = geometry.kh * geometry.beats_of_segments(nseg, seg_w)
        staged = ceil(seg_w / geometry.out_packed) * chunk_beats(config, geometry)
        if window <= config.bank_beats * config.max_stack and staged <= config.stage_beats:
            return nseg, seg_w
    return choices[-1]


@dataclass(frozen=True, order=True)
class Variant:
    """A stack mode (log2) with the most lines of a sub-tile."""

    log2_kr: int
    log2_kd: int
    max_lines: int


def chunk_limit(config):
    """Most beats of a pixel that staging gathers: 64 bytes or the widest c-tile, so that bursts are long."""
    return max(64, config.pes) // config.bus_bytes


def chunk_beats(config, geometry):
    """Beats of a pixel that staging gathers for a layer."""
    return min(geometry.out_pixel_beats, chunk_limit(config))


def words_per_tap(config, geometry, log2_kd):
    """Words of a tap that each stack takes; blocks of a vector layer."""
    if geometry.vector:
        out_beats = ceil(geometry.out_channels / config.bus_bytes)
        return (
            ceil(geometry.out_channels / config.lanes) if log2_kd == 0 else out_beats * config.words_per_beat >> log2_kd
        )
    if log2_kd == 0:
        return geometry.in_words
    return geometry.in_pixel_beats * config.words_per_beat >> log2_kd


def _c_tiles(config, geometry, variant):
    """(number of whole c-tiles, channels of the last one or 0)."""
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    return divmod(geometry.out_channels, cols)


def _block_beats(config, geometry, variant):
    """Beats of a block's weights and parameters."""
    if geometry.pool:
        return 0
    tap = ceil((1 << variant.log2_kd) / config.words_per_beat)
    return geometry.taps * tap + (config.lanes * PARAMETER_BYTES // config.bus_bytes << variant.log2_kd)


def weight_beats(config, geometry, variant):
    """Beats of the weight stream of a tile."""
    if geometry.vector:
        return words_per_tap(config, geometry, variant.log2_kd) * _block_beats(config, geometry, variant)
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    full, part = _c_tiles(config, geometry, variant)

    def c_tile(columns):
        steps = geometry.taps * words_per_tap(config, geometry, variant.log2_kd)
        parameters = ceil(columns * PARAMETER_BYTES / config.bus_bytes)
        return steps * ceil((columns << variant.log2_kd) / config.words_per_beat) + parameters

    return full * c_tile(cols) + (c_tile(part) if part else 0)


def tile_cycles(config, geometry, variant, lines, total_lines):
    """Cycles of a tile whose longest sub-tile has ``lines`` lines and that holds ``total_lines`` in all."""
    _, seg_w = geometry.segments(config)
    rows, total_rows = lines * seg_w, total_lines * seg_w
    if geometry.vector:
        blocks = words_per_tap(config, geometry, variant.log2_kd)
        sub_tiles = min(1 << variant.log2_kr, ceil(total_lines / lines))
        drain = (sub_tiles << variant.log2_kd) * max(1, config.lanes // config.post_lanes)
        written = total_rows * ceil((config.lanes << variant.log2_kd) / config.bus_bytes)
        block = max(rows * max(geometry.taps, drain), _block_beats(config, geometry, variant), written)
        return blocks * block
    cols = config.pes >> (variant.log2_kr + variant.log2_kd)
    full, part = _c_tiles(config, geometry, variant)
    width = min(config.post_lanes, cols)

    def c_tile(columns):
        words = ceil((columns << variant.log2_kd) / config.words_per_beat)
        count = geometry.taps * words_per_tap(config, geometry, variant.log2_kd)
        step = max(rows, words, RMW_DISTANCE)
        parameters = ceil(columns * PARAMETER_BYTES / config.bus_bytes)
        steps = max(count * step, count * words + parameters)
        written = total_rows * ceil(columns / config.bus_bytes) // geometry.out_packed
        return max(steps, total_rows * ceil(columns / width), written)

    return full * c_tile(cols) + (c_tile(part) if part else 0)


def fits(config, geometry, variant):
    """None if the variant obeys the rules that the descriptor check has, otherwise the limit it breaks."""
    _, seg_w = geometry.segments(config)
    kr, kd = 1 << variant.log2_kr, 1 << variant.log2_kd
    stripe = geometry.stripe_beats(config)
    capacity = config.bank_beats * config.max_stack // kr
    if geometry.in_pixel_beats * config.words_per_beat > MAX_PIXEL_WORDS:
        return (
            f"a pixel of its input takes {geometry.in_pixel_beats * config.bus_bytes} bytes, at most "
            f"{MAX_PIXEL_WORDS * config.lanes} can be"
        )
    if kr * kd > config.max_stack:
        return f"kr * kd = {kr * kd} is more than max_stack = {config.max_stack}"
    out_beats = ceil(geometry.out_channels / config.bus_bytes)
    if geometry.in_pixel_beats % kd or stripe % kd or (geometry.vector and out_beats % kd):
        return f"the input's channel words cannot be dealt to kd = {kd} stacks"
    if geometry.depthwise and geometry.taps > VECTOR_TAPS:
        return f"a depthwise window takes {geometry.taps} weights per channel, at most {VECTOR_TAPS}"
    if geometry.kh * stripe > capacity:
        return (
            f"a window of {geometry.kh} input lines takes {geometry.kh * stripe * config.bus_bytes} bytes, a bank half "
            f"holds {capacity * config.bus_bytes} (bank_bytes = {config.bank_bytes}, kr = {kr})"
        )
    rows = kr * variant.max_lines * seg_w // geometry.out_packed * chunk_beats(config, geometry)
    if rows > config.stage_beats:
        return f"a tile's output takes {rows} beats of staging, there are {config.stage_beats}"
    chunk, cols = chunk_beats(config, geometry), config.pes >> (variant.log2_kr + variant.log2_kd)
    if chunk < geometry.out_pixel_beats and geometry.vector and chunk % kd:
        return f"staging gathers {chunk} beats, no multiple of kd = {kd}"
    if chunk < geometry.out_pixel_beats and not geometry.vector and chunk * config.bus_bytes % cols:
        return f"staging gathers {chunk * config.bus_bytes} channels, no multiple of {cols} columns"
    return None


def check_fits(config, geometry):
    """Raise MappingError that says which limit it is if the layer does not fit, unstacked and line by line."""
    broken = fits(config, geometry, Variant(0, 0, 1))
    if broken is not None:
        raise MappingError(f"{geometry.name} does not fit {config.name}: {broken}")


def longest_load(config, geometry, variant):
    """Most beats that are loaded before a tile starts: every sub-tile full, split over as many samples as there are
    slots; of a second operand the first chunk."""
    lines = min(variant.max_lines, config.slots * geometry.lines(config))
    fragments = min(lines, config.slots)
    window = min(geometry.sy, geometry.kh)
    stripe = geometry.stripe_beats(config)
    capacity = (config.bank_beats * config.max_stack >> variant.log2_kr) // stripe
    loads = min(capacity, fragments * geometry.kh + (lines - fragments) * window) * stripe << variant.log2_kr
    pixels = (lines << variant.log2_kr) * geometry.segments(config)[1]
    return loads + (pixels // geometry.out_packed * chunk_beats(config, geometry) if geometry.residual else 0)


def longest_tile(config, geometry, variant):
    """Most cycles of a tile of this variant."""
    lines = min(variant.max_lines, config.slots * geometry.lines(config))
    return tile_cycles(config, geometry, variant, lines, lines << variant.log2_kr)
