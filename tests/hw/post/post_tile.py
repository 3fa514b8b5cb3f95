"""Tiles for the post block's tests: what is given, and the pixels that must come."""

from dataclasses import dataclass, field

from .test_addition import golden_sum, random_addition
from .test_requantize import golden

__all__ = ["Tile", "scale"]


@dataclass
class Tile:
    """A tile as the test makes it. sums: [sub-tile][row][channel]; channels: requantisers per output channel.

    taps : [sub-tile][row]; vector : its rows come one by one, ``words`` of each stack
    residual : add a second operand; ``seconds`` [sub-tile][row][channel], ``addition`` the fields of the descriptor
    """

    sub_rows: list
    out_channels: int
    vector: bool = False
    log2_kr: int = 0
    log2_kd: int = 0
    chunk_beats: int = 255
    mode: dict = field(default_factory=dict)
    pool: dict | None = None
    channels: list = field(default_factory=list)
    sums: list = field(default_factory=list)
    taps: list = field(default_factory=list)
    residual: bool = False
    seconds: list = field(default_factory=list)
    addition: dict = field(default_factory=dict)

    def fill(self, config, rng):
        """Complete with random sums and requantisers."""
        self.mode = {
            "single_rounding": rng.randrange(2),
            "average": 0,
            "padded": 0,
            "half_up": 0,
            "count": 0,
            "taps": 0,
            "zero": rng.randrange(-128, 128),
            "clamp_min": -128,
            "clamp_max": 127,
        } | self.mode
        self.channels = [
            {
                "bias": rng.randrange(-5000, 5000),
                "multiplier": rng.randrange(1 << 30, 1 << 31),
                "shift": rng.randrange(-9, -4),
            }
            for _ in range(self.out_channels)
        ]
        self.sums = [
            [[rng.randrange(-30000, 30000) for _ in range(self.out_channels)] for _ in range(rows)]
            for rows in self.sub_rows
        ]
        self.taps = [[rng.choice([4, 6, 9]) for _ in range(rows)] for rows in self.sub_rows]
        self.addition = random_addition(rng)
        self.seconds = [
            [[rng.randrange(-128, 128) for _ in range(self.out_channels)] for _ in range(rows)]
            for rows in self.sub_rows
        ]
        beats = -(-self.out_channels // config.bus_bytes)
        assert not self.vector or beats % (1 << self.log2_kd) == 0
        self.words = (beats >> self.log2_kd) * config.words_per_beat
        return self

    @property
    def sub_tiles(self):
        """Sub-tiles that have rows."""
        return sum(rows > 0 for rows in self.sub_rows)

    def block_channels(self, config, block):
        """First channel of each depth's word."""
        beat, place = divmod(block, config.words_per_beat)
        kd = 1 << self.log2_kd
        return [(beat * kd + d) * config.bus_bytes + place * config.lanes for d in range(kd)]

    def place(self, config, r, row, used):
        """First beat of a row in the staging and the residual buffer."""
        return (r * config.stage_beats >> self.log2_kr) + row * used

    def chunks(self, config):
        """(first beat, beats) of a pixel in every chunk."""
        beats = -(-self.out_channels // config.bus_bytes)
        return [(first, min(self.chunk_beats, beats - first)) for first in range(0, beats, self.chunk_beats)]

    def pixels(self):
        """(sub-tile, row, bytes of the whole pixel)."""
        for r, sub_tile in enumerate(self.sums):
            for row, sums in enumerate(sub_tile):
                mode = self.mode | {"taps": self.taps[r][row]}
                pixel = [golden(s, self.pool or ch, mode) for s, ch in zip(sums, self.channels, strict=True)]
                if self.residual:
                    seconds = self.seconds[r][row]
                    pixel = [golden_sum(a, b, self.addition) for a, b in zip(pixel, seconds, strict=True)]
                yield r, row, pixel

    def payload(self, config):
        rows = self.sub_rows + [0] * (config.max_stack - len(self.sub_rows))
        pool = self.pool or {"bias": 123, "multiplier": 0x55555555, "shift": 1}
        if self.mode["average"]:
            pool = pool | {"bias": self.mode["count"]}
        return (
            {
                "log2_kr": self.log2_kr,
                "log2_kd": self.log2_kd,
                "sub_rows": rows,
                "out_channels": self.out_channels,
                "out_zero": self.mode["zero"],
                "clamp_min": self.mode["clamp_min"],
                "clamp_max": self.mode["clamp_max"],
                "single_rounding": self.mode["single_rounding"],
                "vector": self.vector,
                "words": self.words,
                "pool": self.pool is not None,
                "average": self.mode["average"],
                "padded_average": self.mode["padded"],
                "half_up": self.mode["half_up"],
                "chunk_beats": self.chunk_beats,
                "residual": self.residual,
            }
            | self.addition
            | pool
        )


def scale(real, shift):
    return {"bias": 77, "multiplier": round(real * (1 << 31)), "shift": shift}
