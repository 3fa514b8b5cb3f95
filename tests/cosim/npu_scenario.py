"""What is done in a run of the whole NPU, and what is remembered of every sample, on both sides of the simulator."""

from dataclasses import dataclass, field

import numpy as np
from fluidnpu.sim.memory import IDEAL, MemorySettings

__all__ = ["GUARD", "Admission", "Loaded", "Sample", "Scenario"]

GUARD = 256  # bytes that stay unused at both ends of memory


@dataclass(frozen=True, eq=False)
class Loaded:
    """A program in the device: region (bytes), operations, limits of its exits, bytes of an arena, offset of the
    input."""

    region: bytes
    ops: int
    limits: tuple
    arena_bytes: int
    input_offset: int


@dataclass(frozen=True, eq=False)
class Sample:
    """One to be admitted: tag, index of its program and of the image, bytes of its input tensor, enabled exits."""

    tag: int
    program: int
    image: int
    payload: np.ndarray
    exits: int = 0xFFFF


@dataclass(frozen=True, eq=False)
class Scenario:
    """What is done in one run.

    weights : how often the random host does what (`Player.ACTIONS`); empty: it admits everything at once
    together : samples are admitted not runnable, and one BATCH starts all of them
    script : (cycle, opcode, fields) instead of random commands; the doorbell rings at that cycle or later. ADMIT takes
        the field ``sample`` (an index) instead of tag, pc, arena and exits
    nap : most cycles between two actions of the random host
    """

    seed: int
    programs: tuple
    samples: tuple
    slots: int
    bus_bytes: int
    memory: MemorySettings = IDEAL
    memory_bytes: int = 1 << 20
    rigid: bool = False
    unstacked: bool = False
    weights: dict = field(default_factory=dict)
    together: bool = False
    script: tuple = ()
    nap: int = 600

    def initial_memory(self):
        """Random bytes."""
        return np.random.default_rng(self.seed).integers(0, 256, self.memory_bytes, np.uint8)


@dataclass(eq=False)
class Admission:
    """A sample that was admitted (its ADMIT was queued): slot, arena, and the arena's bytes before and after."""

    sample: int
    tag: int
    program: int
    slot: int
    base: int
    size: int
    exits: int
    before: np.ndarray
    after: np.ndarray | None = None
    completion: dict | None = None
    popped: int = 0  # number of its completion
