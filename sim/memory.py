"""The simulated external memory: its settings, and its bytes as a numpy array.

Timing, in rising edges (``sim/rtl/memory.cpp``). An address taken at edge t gives its first read beat at
t + ``read_latency`` or later, one beat per edge, in the order of acceptance; a write whose last beat is taken at t is
answered at t + ``write_latency`` or later. Reads and writes do not disturb one another; bursts follow one another
without a gap. On top of that, per direction:

* ``burst_overhead``: idle edges of the data channel per burst, before the first beat of a read, after the last of a
  write;
* ``beats_per_256``: the long-run bandwidth; a token bucket that holds one beat.

A read samples its bytes when its address is taken, a write changes them when its response is taken: reading too early
gives old data.
"""

import ctypes
from dataclasses import dataclass, field

import numpy as np

from .rtl_shared import library

__all__ = [
    "CHANNELS",
    "IDEAL",
    "ErrorWindow",
    "MemorySettings",
    "MemoryStatistics",
    "Stall",
    "limited",
    "memory_view",
    "random_stalls",
]

CHANNELS = ("ar", "r", "aw", "w", "b")
_STALL_MODES = ("none", "random", "slow", "burst")
_ORDERS = ("in_order", "shuffle", "interleave")
_WINDOWS = 8


def _check(name, value, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} = {value}: must be {low} to {high}")


@dataclass(frozen=True)
class Stall:
    """When a channel pauses: ready (AR, AW, W) or a new valid (R, B) stays low.

    mode ``none``; ``random``: each cycle with ``probability``; ``slow``: ``cycles`` after every transfer;
    ``burst``: with ``probability`` a pause of ``cycles`` begins.
    """

    mode: str = "none"
    probability: float = 0.5
    cycles: int = 4

    def __post_init__(self):
        if self.mode not in _STALL_MODES:
            raise ValueError(f"stall mode {self.mode!r}: must be one of {', '.join(_STALL_MODES)}")
        _check("stall probability", self.probability, 0, 0.99)
        _check("stall cycles", self.cycles, 1, 10000)


@dataclass(frozen=True)
class ErrorWindow:
    """Bursts that touch ``base .. base + length - 1`` are answered SLVERR for the beats inside; writes change nothing
    there. The first ``after`` such bursts are served, then ``count`` (0: all) fail.
    """

    base: int
    length: int
    read: bool = True
    write: bool = True
    after: int = 0
    count: int = 0

    def __post_init__(self):
        _check("error window base", self.base, 0, 2**32 - 1)
        _check("error window length", self.length, 1, 2**32 - self.base)
        _check("error window after", self.after, 0, 2**32 - 1)
        _check("error window count", self.count, 0, 2**32 - 1)


@dataclass(frozen=True)
class MemorySettings:
    """Behaviour of the external memory; latencies in cycles. The default is the *ideal memory*.

    ``beats_per_256``: most beats in 256 cycles, each way (0: no limit). ``read_jitter``, ``write_jitter``: up to that
    many cycles of random extra latency. ``order``: of responses, ``in_order``; ``shuffle``: bursts of different IDs
    overtake one another; ``interleave``: their beats mix. ``stalls``: a Stall per channel (CHANNELS).
    ``errors``: at most eight ErrorWindow.
    """

    read_latency: int = 32
    write_latency: int = 16
    beats_per_256: int = 0
    burst_overhead: int = 0
    read_jitter: int = 0
    write_jitter: int = 0
    order: str = "in_order"
    stalls: dict[str, Stall] = field(default_factory=dict)
    errors: tuple[ErrorWindow, ...] = ()
    seed: int = 1

    def __post_init__(self):
        _check("read_latency", self.read_latency, 1, 100000)
        _check("write_latency", self.write_latency, 1, 100000)
        _check("beats_per_256", self.beats_per_256, 0, 256)
        _check("burst_overhead", self.burst_overhead, 0, 1000)
        _check("read_jitter", self.read_jitter, 0, 100000)
        _check("write_jitter", self.write_jitter, 0, 100000)
        _check("seed", self.seed, 0, 2**32 - 1)
        _check("number of error windows", len(self.errors), 0, _WINDOWS)
        if self.order not in _ORDERS:
            raise ValueError(f"order {self.order!r}: must be one of {', '.join(_ORDERS)}")
        if unknown := set(self.stalls) - set(CHANNELS):
            raise ValueError(f"stalls of {sorted(unknown)}: channels are {', '.join(CHANNELS)}")

    def apply(self):
        """Makes these the settings of the running simulator, from the next edge on; restarts the random generator."""
        lib = library()
        target = lib.fluid_memory_settings().contents
        for name in ("read_latency", "write_latency", "beats_per_256", "burst_overhead", "read_jitter", "write_jitter"):
            setattr(target, name, getattr(self, name))
        target.order = _ORDERS.index(self.order)
        target.seed = self.seed
        for i, channel in enumerate(CHANNELS):
            stall = self.stalls.get(channel, Stall())
            target.stall[i].mode = _STALL_MODES.index(stall.mode)
            target.stall[i].probability = round(65536 * stall.probability)
            target.stall[i].cycles = stall.cycles
        for i in range(_WINDOWS):
            target.error[i].enabled = 0
        for i, window in enumerate(self.errors):
            slot = target.error[i]
            slot.base, slot.last = window.base, window.base + window.length - 1
            slot.on_read, slot.on_write = window.read, window.write
            slot.after, slot.count, slot.hits, slot.enabled = window.after, window.count, 0, 1
        lib.fluid_memory_restart()


IDEAL = MemorySettings()


def limited(beats_per_256=128, **changes):
    """The *limited memory*: the ideal one with a bandwidth cap and 2 cycles per burst."""
    return MemorySettings(beats_per_256=beats_per_256, burst_overhead=2, **changes)


def random_stalls(seed, probability=0.5, **changes):
    """Random stalls on all five channels; ``changes`` are further fields of MemorySettings."""
    stalls = dict.fromkeys(CHANNELS, Stall("random", probability))
    return MemorySettings(stalls=stalls, seed=seed, **changes)


@dataclass(frozen=True)
class MemoryStatistics:
    """What the memory has done since the last reset; ``most_*``: largest number of bursts in flight at a time."""

    read_bursts: int
    read_beats: int
    write_bursts: int
    write_beats: int
    written_bytes: int
    error_bursts: int
    beyond_bursts: int
    most_reads: int
    most_writes: int
    reads_in_flight: int
    writes_in_flight: int

    @classmethod
    def read(cls):
        """The present values in the running simulator."""
        raw = library().fluid_memory_statistics().contents
        return cls(**{name: getattr(raw, name) for name in cls.__dataclass_fields__})


def memory_view(memory_bytes=None):
    """The simulated memory as a numpy uint8 array, index = address; the simulator works on the same bytes.

    ``memory_bytes``: replace it by a fresh one, all zero, of that many bytes (a multiple of 4096). Earlier views
    must not be used any more. Pages that nobody touches take no room.
    """
    lib = library()
    if memory_bytes is not None:
        _check("memory_bytes", memory_bytes, 4096, 2**32)
        if memory_bytes % 4096:
            raise ValueError(f"memory_bytes = {memory_bytes}: must be a multiple of 4096")
        lib.fluid_memory_allocate(memory_bytes)
    count = ctypes.c_uint64()
    address = lib.fluid_memory(ctypes.byref(count))
    return np.ctypeslib.as_array((ctypes.c_uint8 * count.value).from_address(address))
