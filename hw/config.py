"""Named configurations of the NPU: one frozen dataclass, the only source of its sizes."""

import zlib
from dataclasses import asdict, dataclass, replace

__all__ = ["CONFIGS", "ConfigError", "NpuConfig", "get_config"]


class ConfigError(ValueError):
    """A configuration value outside of its allowed range."""


def _power_of_two(value):
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class NpuConfig:
    """Sizes of one NPU. All sizes that address something are powers of two.

    Parameters (units in the names or below)
    ----------------------------------------
    pes : columns of the array, one output channel each when unstacked
    lanes : int8 multipliers of a PE; a *word* is ``lanes`` bytes
    rows : most output pixels of a sub-tile (depth of an accumulator bank)
    max_stack : most stacks, kr * kd; also the number of physical banks
    slots : live samples
    bus_bytes : bytes of a bus beat, a whole number of words; a pixel is a whole number of beats in memory
    post_lanes : values that the epilogue takes per cycle
    bank_bytes : one half (of the ping-pong pair) of all activation banks together
    stage_bytes : one half of the output staging buffer
    max_lines : most lines of a sub-tile (depth of a line table)
    weight_fifo_beats, reads_in_flight (bursts per client), burst_beats (longest burst)
    command_entries, completion_entries, programs (program regions), exits (per program)
    trackers : tiles that may be started and not yet completely written
    """

    name: str
    pes: int
    lanes: int
    rows: int
    max_stack: int
    slots: int
    bus_bytes: int
    post_lanes: int
    bank_bytes: int
    stage_bytes: int
    max_lines: int
    weight_fifo_beats: int = 128
    reads_in_flight: int = 8
    burst_beats: int = 16
    command_entries: int = 16
    completion_entries: int = 32
    programs: int = 4
    exits: int = 16
    trackers: int = 3

    def __post_init__(self):
        powers = (
            "pes lanes rows max_stack slots bus_bytes post_lanes bank_bytes stage_bytes max_lines "
            "weight_fifo_beats reads_in_flight burst_beats command_entries completion_entries programs exits"
        )
        for field in powers.split():
            if not _power_of_two(getattr(self, field)):
                raise ConfigError(f"{self.name}: {field} = {getattr(self, field)} is not a positive power of two")
        self._within("slots", 2, 16)
        self._within("programs", 1, 4)
        self._within("exits", 1, 16)
        self._within("bus_bytes", 8, 32)
        self._within("lanes", 4, self.bus_bytes)
        self._within("pes", self.lanes, 1024)
        self._within("max_stack", 1, min(16, self.pes))
        self._within("post_lanes", 1, min(self.pes, self.bus_bytes))
        self._within("burst_beats", 1, 16)
        self._within("reads_in_flight", 4, 64)
        self._within("trackers", 1, 3)
        self._within("completion_entries", self.slots + 2, 256)
        self._within("weight_fifo_beats", 2 * self.burst_beats, 4096)
        self._within("max_lines", self.slots, self.rows)

    def _within(self, field, low, high):
        if not low <= getattr(self, field) <= high:
            raise ConfigError(f"{self.name}: {field} = {getattr(self, field)} is not within {low}..{high}")

    @property
    def words_per_beat(self):
        return self.bus_bytes // self.lanes

    @property
    def group_pes(self):
        """PEs of a group: the smallest set that stacking moves as a whole (pes / max_stack)."""
        return self.pes // self.max_stack

    @property
    def bank_beats(self):
        """Beats of one half of one physical bank."""
        return self.bank_bytes // self.max_stack // self.bus_bytes

    @property
    def stage_beats(self):
        """Beats of one half of the staging buffer."""
        return self.stage_bytes // self.bus_bytes

    @property
    def contexts(self):
        """Tile contexts: the started ones and the dealt one."""
        return self.trackers + 1

    @property
    def fragments(self):
        """Most fragments of a tile: every further sub-tile can split one slot's run of lines."""
        return self.slots + self.max_stack - 1

    @property
    def peak_macs(self):
        """Multiply-accumulates per cycle."""
        return self.pes * self.lanes

    @property
    def hash(self):
        """32-bit CRC over every size except the name: a program fits a device only if the hashes agree."""
        sizes = {k: v for k, v in asdict(self).items() if k != "name"}
        return zlib.crc32(repr(sorted(sizes.items())).encode())

    def unstackable(self):
        """The same NPU without run-time stacking (``max_stack`` = 1): the price tag of stacking."""
        return replace(self, name=self.name + "-max1", max_stack=1)


_KB = 1024
CONFIGS = {
    c.name: c
    for c in (
        NpuConfig("tiny", 8, 8, 32, 4, 4, 8, 4, 4 * _KB, 2 * _KB, 8, weight_fifo_beats=64),
        NpuConfig("ecp5", 8, 8, 64, 4, 4, 8, 2, 8 * _KB, 4 * _KB, 16),
        NpuConfig("gemmini16", 16, 16, 128, 4, 8, 16, 8, 64 * _KB, 8 * _KB, 32),
        NpuConfig("edge", 32, 16, 128, 4, 8, 16, 16, 64 * _KB, 8 * _KB, 32),
        NpuConfig("hub", 128, 16, 256, 8, 16, 32, 32, 128 * _KB, 32 * _KB, 64),
    )
}


def get_config(name):
    """The named configuration; raises ConfigError that lists the names otherwise."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ConfigError(f"unknown configuration {name!r}; there are {', '.join(CONFIGS)}") from None
