"""The tile model behind the interface of `sched.Driver`: the serving loop and the policies run on it unchanged.

Commands and queries take the bus cycles that the driver's register accesses take (sim/cycle/device.py); registers and
memory themselves do not exist.
"""

import numpy as np
from fluidnpu.hw.isa import SPREAD_NONE, Code, Status
from fluidnpu.sched.driver import Completion, DriverError, Position, SlotRecord

from ..cycle.device import PERFORMED, READ, WRITTEN, ModelStopped
from ..memory import IDEAL
from .machine import ADMIT, BATCH, CANCEL, LEAVE, advance, command
from .state import COMPLETIONS, MACHINE, NEVER, new_machine

__all__ = ["TileDriver"]

_COMPLETION_READS = 5
_STATUS = {int(s): s for s in Status}


class TileDriver:
    """A started driver over the tile model.

    Parameters
    ----------
    config, memory : NpuConfig, MemorySettings
    programs : list of Program, loaded as 0, 1, ...
    operations : of these programs (operations.combine), calibrated (calibration.py)
    decided : decisions.Decided, by tag
    rigid, unstacked : mode bits

    ``there`` [slots, operations, lines]: cycle from which on a line of the slot's sample is in memory.
    Members as of `sched.Driver`: ``device`` (``cycle``, ``wait``, ``busy``), ``sizes``, ``programs``, ``slots``. An
    image is not looked at. ``statistics``: dict of counts since the start.
    """

    def __init__(self, config, programs, operations, decided, *, memory=IDEAL, rigid=False, unstacked=False):
        self.config, self.decided = config, decided
        self.programs = dict(enumerate(programs))
        self.sizes = {"slots": config.slots}
        self.slots = [SlotRecord() for _ in range(config.slots)]
        self.device = self
        self._machine, self.rigid = new_machine(config, memory, rigid, unstacked), rigid
        self._m = self._machine[0]
        self._m["operations"] = len(operations) // len(programs)
        self._raw = self._machine.view("i8")
        self.operations = operations
        self._operations = operations.view("i8").reshape(len(operations), -1)
        lines = max(1, int(operations["lines"].max()))
        self.there = np.zeros((config.slots, int(self._m["operations"]), lines), np.int64)
        self._at = {name: MACHINE.fields[name][1] // 8 for name in MACHINE.names}
        self._now = self._issue = 0
        self._credit = 0
        self._staged = [None] * 5
        self._open = 0  # completion entries that commands and samples hold
        self.wakes = 0

    # --- device ---------------------------------------------------------------------------------------------------

    async def cycle(self):
        """The present cycle."""
        return self._now

    async def wait(self, until_cycle=None):
        """As `Device.wait`."""
        raw = self._raw
        advance(raw, self._operations, self.there, self._now, False)
        if raw[self._at["c_level"]]:
            return True
        if until_cycle is not None and until_cycle <= self._now:
            return False
        self.wakes += 1
        limit = NEVER if until_cycle is None else until_cycle
        self._now = int(advance(raw, self._operations, self.there, limit, True))
        self._issue = self._now + 1
        if raw[self._at["c_level"]]:
            return True
        if until_cycle is None:
            raise ModelStopped("the host waits for a completion although nothing can happen any more")
        return False

    async def busy(self, cycles):
        """As `Device.busy`."""
        if cycles:
            self._now += cycles
            self._issue = self._now + 1

    def _access(self, writes, reads=0):
        """The bus is busy with accesses; returns the cycle in which the last write is performed."""
        end = self._issue + WRITTEN * writes + READ * reads
        self._now, self._issue = end, end + 1
        return end - WRITTEN + PERFORMED

    # --- commands -------------------------------------------------------------------------------------------------

    async def admit(self, slot, image, tag, *, program=0, priority=1, runnable=True, ride=True, exits=None):
        """As `Driver.admit`."""
        state = self.slots[slot]
        if state.tag is not None:
            raise DriverError(f"slot {slot} is taken by the sample with tag {state.tag}")
        if program not in self.programs:
            raise DriverError(f"no program is loaded at index {program}; there are {sorted(self.programs)}")
        loaded = self.programs[program]
        exits = (1 << len(loaded.exits)) - 1 if exits is None else exits
        switches = priority | bool(runnable) << 8 | bool(ride) << 9
        state.program, state.tag = program, tag
        self._open += 1
        self._command(
            (slot | switches << 8 | program << 20, tag, slot, loaded.arena_bytes, exits),
            ADMIT, slot, tag, switches, exits | self.decided.mask(tag) << 16, program,
        )  # fmt: skip

    async def batch(self, mask, priority=1, runnable=True, ride=True, commit=True):
        """As `Driver.batch`."""
        word = mask | priority << 16 | bool(runnable) << 24 | bool(ride) << 25 | bool(commit) << 26
        self._command((word,), BATCH, mask, priority, bool(runnable), bool(ride), bool(commit))

    async def leave(self, mask):
        """As `Driver.leave`."""
        self._command((mask,), LEAVE, mask, 0, 0, 0, 0)

    async def cancel(self, mask):
        """As `Driver.cancel`."""
        self._command((mask,), CANCEL, mask, 0, 0, 0, 0)

    def _command(self, words, opcode, mask, a, b, c, e):
        """Words that the device still holds are not written again (as `Driver.command`)."""
        if self._credit < 1:
            self._access(0, 2)
            room = self.config.completion_entries - self._open
            self._credit = min(self.config.command_entries, room)
        writes = 1
        for i, word in enumerate(words):
            writes += self._staged[i] != word
            self._staged[i] = word
        at = self._access(writes) + 2
        advance(self._raw, self._operations, self.there, at, False)
        command(self._raw, self._operations, opcode, mask, a, int(b), int(c), int(e))
        self._credit -= 1

    # --- what comes back ------------------------------------------------------------------------------------------

    async def completions(self):
        """As `Driver.completions`."""
        self._access(0, 1)
        raw, at = self._raw, self._at
        advance(raw, self._operations, self.there, self._now, False)
        level, head, found = int(raw[at["c_level"]]), int(raw[at["c_head"]]), []
        for n in range(level):
            i = (head + n) % COMPLETIONS
            slot, status, exit, tag, stamp = (
                int(raw[at[f"c_{k}"] + i]) for k in ("slot", "status", "exit", "tag", "stamp")
            )
            answer = self.decided.answer(tag, exit)
            found.append(Completion(_STATUS[status], slot, exit, Code.NONE, answer[0], tag, answer[1], stamp))
            self.slots[slot].tag = None
        raw[at["c_head"]], raw[at["c_level"]] = (head + level) % COMPLETIONS, 0
        self._open -= level
        self._access(level, level * _COMPLETION_READS)
        return found

    async def positions(self, slots, spreads=False):
        """As `Driver.positions`."""
        slots = list(slots)
        self._access(0, len(slots) * (2 if spreads else 1))
        raw, at = self._raw, self._at
        advance(raw, self._operations, self.there, self._now, False)
        return {
            s: Position(int(raw[at["op"] + s]), int(raw[at["line"] + s]), self._spread(s) if spreads else None)
            for s in slots
        }

    def _spread(self, slot):
        """S of the last head that decided on the slot's sample, None: there is none yet, or it is not known."""
        head = int(self._raw[self._at["head"] + slot])
        spread = self.decided.answer(int(self._raw[self._at["tag"] + slot]), head - 1)[1] if head else SPREAD_NONE
        return None if spread == SPREAD_NONE else spread

    @property
    def statistics(self):
        """Counts since the start: tiles, preemptions, revocations, busy cycles of the array, beats."""
        names = ("tiles", "preemptions", "revocations", "busy", "read_beats", "written_beats")
        return {name: int(self._m[name]) for name in names}
