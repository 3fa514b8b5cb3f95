"""A tile for the array: random images and weights, what the loaders write for it, and its sums by a plain loop nest."""

from dataclasses import dataclass, field

import numpy as np
from fluidnpu.hw.tile import PARAMETER_BYTES, Layouts

__all__ = ["Shape", "TileCase", "random_shape"]


@dataclass(frozen=True)
class Shape:
    """Geometry of a tile. sub_lines: lines of each of the kr sub-tiles; fragment_lines: lines of one image in a row.

    vector : "" (CONV), "depthwise", "sum" or "maximum"; twice : two sets per word or tap
    """

    kr: int = 1
    kd: int = 1
    vector: str = ""
    twice: bool = False
    sub_lines: tuple = (2,)
    fragment_lines: int = 8
    seg_w: int = 4
    segments: int = 1
    kh: int = 3
    kw: int = 3
    sy: int = 1
    sx: int = 1
    pad_top: int = 1
    pad_left: int = 1
    in_h: int = 6
    in_w: int = 4
    pixel_beats: int = 1
    words: int = 1
    out_channels: int = 8
    ragged: bool = False


def _log2(n):
    return n.bit_length() - 1


def random_shape(rng, config, kr, kd, vector="", **fixed):
    """A Shape in mode (kr, kd) that fits the configuration; ``fixed`` overrides what is drawn."""
    most = min(config.max_lines, 4)
    seg_w = rng.randint(1, min(5, config.rows // most))
    segments = rng.choice((1, 1, 2, 3))
    pixel_beats = kd * rng.randint(1, 2)
    stack_words = pixel_beats // kd * config.words_per_beat
    kh, kw = rng.randint(1, 3), rng.randint(1, 3)
    drawn = dict(
        kr=kr,
        kd=kd,
        vector=vector,
        twice=vector in ("", "depthwise") and rng.random() < 0.2,
        sub_lines=tuple(rng.randint(1 if r == 0 else 0, 1 if segments > 1 else most) for r in range(kr)),
        fragment_lines=rng.randint(1, most),
        seg_w=seg_w,
        segments=segments,
        kh=kh,
        kw=kw,
        sy=rng.randint(1, 3),
        sx=rng.randint(1, 3),
        pad_top=rng.randint(0, kh - 1),
        pad_left=rng.randint(0, kw - 1),
        in_h=rng.randint(kh, 6),
        in_w=rng.randint(kw, 7),
        pixel_beats=pixel_beats,
        words=rng.randint(1, stack_words),
        out_channels=rng.randint(1, config.pes // (kr * kd) * 2),
        ragged=rng.random() < 0.5,
    )
    return Shape(**(drawn | fixed))


@dataclass
class TileCase:
    """Everything about one tile.

    tile : fields of Layouts.array_tile
    fills : (banks, address, data) of the stripes; line_writes : (banks, index, fields of Layouts.line)
    beats : weight stream; parameters : per c-tile, the beats of its parameters (empty for pools)
    used : columns of each c-tile; vector: values per row of each block
    sets : per weight set (beats, cycles of its step without padding, parameter beats behind it); vector: per block
        (beats, cycles of its rows, 0)
    macs : cycles in which it multiplies; drains : of the vector path, with waiting for results
    drain_cycles, row_cycles : of a row of the vector path
    sums : per c-tile, per sub-tile, array [row, column]; masks : per sub-tile, array [row], False: masked row
    inside : per sub-tile, array [row]: taps in the image
    """

    config: object
    shape: Shape
    seed: int
    half: int = 0
    context: int = 0
    tile: dict = field(init=False)
    fills: list = field(init=False, default_factory=list)
    line_writes: list = field(init=False, default_factory=list)
    beats: list = field(init=False, default_factory=list)
    parameters: list = field(init=False, default_factory=list)
    sets: list = field(init=False, default_factory=list)
    sums: list = field(init=False, default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)
        self.layouts = Layouts(self.config)
        c, s = self.config, self.shape
        self.cols = c.pes // (s.kr * s.kd)
        self.used = [min(self.cols, s.out_channels - n) for n in range(0, s.out_channels, self.cols)]
        if s.vector:
            self.used = [s.kd * c.lanes] * s.words
        self.drain_cycles = sum(n > 0 for n in s.sub_lines) * s.kd * max(1, c.lanes // c.post_lanes)
        self.row_cycles = max(s.kh * s.kw << s.twice, self.drain_cycles)
        self.stack_pixel_beats = s.pixel_beats // s.kd
        window = (s.seg_w - 1) * s.sx + s.kw
        self.stripe_pixels = s.in_w if s.segments == 1 else min(window, s.in_w)
        self.in_zero = -128 if s.vector == "maximum" else int(self.rng.integers(-128, 128))
        lines = list(s.sub_lines) + [0] * (c.max_stack - len(s.sub_lines))
        self.tile = dict(
            context=self.context,
            half=self.half,
            vector=int(bool(s.vector)),
            pool=int(s.vector in ("sum", "maximum")),
            maximum=int(s.vector == "maximum"),
            twice=int(s.twice),
            log2_kr=_log2(s.kr),
            log2_kd=_log2(s.kd),
            lines=max(lines),
            sub_lines=lines,
            seg_w=s.seg_w,
            kh=s.kh,
            kw=s.kw,
            sx=s.sx,
            words=s.words,
            pixel_words=self.stack_pixel_beats * c.words_per_beat,
            line_words=self.stripe_pixels * self.stack_pixel_beats * c.words_per_beat,
            in_w=s.in_w,
            in_h=s.in_h,
            in_zero=self.in_zero,
            out_channels=s.out_channels,
        )
        self.rows = max(lines) * s.seg_w
        self._deal()
        self._vector_weights() if s.vector else self._conv_weights()
        self.drains = len(self.used) * self.rows * self.row_cycles
        self.macs = (len(self.used) * self.rows * s.kh * s.kw << s.twice) * (1 if s.vector else s.words)

    # --- stripes ----------------------------------------------------------------------------------------------

    def _banks(self, r, mid=None, d=None):
        """Mask of the banks with these fields."""
        c, s = self.config, self.shape
        bits = _log2(c.max_stack)
        a, b = _log2(s.kr), _log2(s.kd)
        mask = 0
        for bank in range(c.max_stack):
            text = format(bank, f"0{bits}b") if bits else ""
            fields = [int(part or "0", 2) for part in (text[:a], text[a : bits - b], text[bits - b :])]
            if fields[0] == r and mid in (None, fields[1]) and d in (None, fields[2]):
                mask |= 1 << bank
        return mask

    def _deal(self):
        """Fragments of random images into the sub-tiles; patches[r]: array [row, ky, kx, channel]."""
        s = self.shape
        self.patches, self.masks, self.inside = [], [], []
        for r, count in enumerate(s.sub_lines):
            patches, masks, inside = [], [], []
            used_beats = int(self.rng.integers(0, 3))
            line = 0
            while line < count:
                lines = min(s.fragment_lines, count - line)
                used_beats = self._fragment(r, line, lines, used_beats, patches, masks, inside)
                line += lines
            self.patches.append(np.array(patches, dtype=np.int64))
            self.masks.append(np.array(masks, dtype=bool))
            self.inside.append(np.array(inside, dtype=np.int64))

    def _fragment(self, r, index, lines, start, patches, masks, inside):
        c, s, rng = self.config, self.shape, self.rng
        image = rng.integers(-128, 128, (s.in_h, s.in_w, s.pixel_beats * c.bus_bytes))
        out_h = max(lines, -(-s.in_h // s.sy))
        first = int(rng.integers(0, out_h - lines + 1))
        segment = int(rng.integers(0, s.segments))
        x_left = segment * s.seg_w * s.sx - s.pad_left
        y_top = first * s.sy - s.pad_top
        x0 = min(max(0, x_left), s.in_w - self.stripe_pixels) if s.segments > 1 else 0
        rows = range(max(0, y_top), min(s.in_h, y_top + (lines - 1) * s.sy + s.kh))
        for n, y in enumerate(rows):
            for x in range(self.stripe_pixels):
                for j in range(s.pixel_beats):
                    address = start + (n * self.stripe_pixels + x) * self.stack_pixel_beats + j // s.kd
                    mid, address = divmod(address, c.bank_beats)
                    value = image[y, x0 + x, j * c.bus_bytes :][: c.bus_bytes].astype(np.int8).tobytes()
                    banks = self._banks(r, mid, j % s.kd)
                    assert banks, "the stripe does not fit"
                    self.fills.append((banks, address, int.from_bytes(value, "little")))
        first_row = rows.start if len(rows) else 0
        for n in range(lines):
            top = y_top + n * s.sy
            base = start * c.words_per_beat
            base += (top - first_row) * self.tile["line_words"] + (x_left - x0) * self.tile["pixel_words"]
            width = int(rng.integers(1, s.seg_w + 1)) if s.ragged else s.seg_w
            entry = dict(base=base % (1 << self.layouts.word_address), y_top=top, x_left=x_left, width=width)
            self.line_writes.append((self._banks(r), index + n, entry))
            for x in range(s.seg_w):
                patch = np.full((s.kh, s.kw, image.shape[2]), self.in_zero)
                count = 0
                for ky in range(s.kh):
                    for kx in range(s.kw):
                        y, column = top + ky, x_left + x * s.sx + kx
                        if 0 <= y < s.in_h and 0 <= column < s.in_w:
                            patch[ky, kx] = image[y, column] if x < width else 0
                            count += 1
                patches.append(patch)
                masks.append(x < width)
                inside.append(count)
        return start + len(rows) * self.stripe_pixels * self.stack_pixel_beats

    # --- weights ----------------------------------------------------------------------------------------------

    def _append_beats(self, payload):
        """Bytes as whole beats; returns how many."""
        size = self.config.bus_bytes
        payload = payload + bytes(-len(payload) % size)
        beats = [int.from_bytes(payload[i : i + size], "little") for i in range(0, len(payload), size)]
        self.beats += beats
        return beats

    def _channels(self, word, d):
        """Channels of word ``word`` of depth stack d: beats of a pixel are dealt to the stacks."""
        c = self.config
        beat, place = divmod(word, c.words_per_beat)
        first = (beat * self.shape.kd + d) * c.bus_bytes + place * c.lanes
        return slice(first, first + c.lanes)

    def _conv_weights(self):
        c, s = self.config, self.shape
        for used in self.used:
            weights = self.rng.integers(-128, 128, (used, s.kh, s.kw, s.pixel_beats * c.bus_bytes))
            parts = [weights, self.rng.integers(-128, 128, weights.shape)]
            if s.twice:
                weights = weights + parts[1]
            read = np.zeros(weights.shape[-1], dtype=bool)
            first = True
            for ky in range(s.kh):
                for kx in range(s.kw):
                    for n in range(s.words << s.twice):
                        word, part = divmod(n, 2) if s.twice else (n, 0)
                        payload = b""
                        for n in range(used * s.kd):
                            channels = self._channels(word, n % s.kd)
                            read[channels] = True
                            payload += parts[part][n // s.kd, ky, kx, channels].astype(np.int8).tobytes()
                        size = len(self._append_beats(payload))
                        parameters = []
                        if first:
                            parameters = self._append_beats(self.rng.bytes(used * PARAMETER_BYTES))
                            self.parameters.append(parameters)
                        self.sets.append((size, self.rows, len(parameters)))
                        first = False
            weights = np.where(read, weights, 0)
            self.sums.append([np.einsum("ryxc,nyxc->rn", p, weights) if len(p) else p for p in self.patches])

    def _vector_weights(self):
        s = self.shape
        for word in range(s.words):
            channels = np.concatenate([np.arange(self._channels(word, d).start, self._channels(word, d).stop)
                                       for d in range(s.kd)])  # fmt: skip
            weights = np.ones((s.kh, s.kw, len(channels)), dtype=np.int64)
            before = len(self.beats)
            parameters = []
            if s.vector == "depthwise":
                visits = self.rng.integers(-128, 128, (s.kh * s.kw, 1 + s.twice, len(channels)))
                for taps in visits.reshape(-1, len(channels)):
                    self._append_beats(taps.astype(np.int8).tobytes())
                weights = visits.sum(axis=1).reshape(weights.shape)
                parameters = self._append_beats(self.rng.bytes(len(channels) * PARAMETER_BYTES))
            self.parameters.append(parameters)
            self.sets.append((len(self.beats) - before, self.rows * self.row_cycles, 0))
            products = [p[..., channels] * weights if len(p) else p for p in self.patches]
            reduce = np.max if s.vector == "maximum" else np.sum
            self.sums.append([reduce(p, axis=(1, 2)) if len(p) else p for p in products])
