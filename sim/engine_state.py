"""Architectural state of the fluid-batching engine, and what can be read off it: the algorithm's predicates.

`EngineState` says who is eligible, dealable, first at the exit unit, releasable, and which actions are possible;
`engine_model.EngineModel` changes it. Positions are (pc, line) and compare lexicographically; a complete layer is
(pc + 1, 0).
"""

from dataclasses import dataclass

from fluidnpu.hw.isa import PC_INDEX_BITS, SPREAD_NONE, Code, Status

from .engine_layers import Bad, Exit, Jump, Layer

__all__ = ["Completion", "EngineState", "ExitOutcome", "ModelViolation", "Slot"]


class ModelViolation(AssertionError):
    """An action that the algorithm does not allow in the present state."""


@dataclass(frozen=True)
class Completion:
    """An entry of the completion queue, fields as isa.COMPLETION_FIELDS (stamp: cycles, both halves)."""

    status: Status
    slot: int = 0
    tag: int = 0
    code: Code = Code.NONE
    exit: int = 0
    top: int = 0
    spread: int = 0
    stamp: int = 0


@dataclass(frozen=True)
class ExitOutcome:
    """What an exit result did: the slot is finished or goes on at ``pc``."""

    finished: bool
    pc: int


@dataclass
class Slot:
    """A slot's entry: a live sample, or one that was released and whose completion was not popped (``posted``)."""

    tag: int
    arena_base: int
    arena_bytes: int
    priority: int
    runnable: bool
    ride: bool
    exits: int
    age: int
    issued: tuple  # (pc, line) dealt so far
    done: tuple  # (pc, line) in memory
    pending: tuple | None = None  # BATCH entry not committed: (priority, runnable, ride)
    leave: bool = False
    cancelled: bool = False
    failed: Code = Code.NONE
    finished: bool = False
    posted: bool = False
    decision: tuple = (0, 0, 0)  # exit, class, spread
    decided: bool = False
    stamp: int = 0
    spread: int = SPREAD_NONE  # of the last head that decided

    @property
    def pc(self):
        """Where the slot stands."""
        return self.issued[0]

    @property
    def live(self):
        """Admitted and not released."""
        return not self.posted

    @property
    def ending(self):
        """Finished, cancelled or failed: released as soon as nothing is outstanding."""
        return self.finished or self.cancelled or self.failed != Code.NONE


class EngineState:
    """State of the engine.

    Parameters
    ----------
    config : NpuConfig (slots, max_stack, trackers, programs, exits and bus_bytes matter)
    programs : dict program number -> sequence of operations
    rigid, unstacked : the ablations' mode bits
    strict : actions of the sequencer must also respect its priority

    Members
    -------
    slots : list of Slot, or None for a free slot
    next : the Tile that is dealt and not started, or None
    started : list of [Tile, set of members whose last write response is to come], oldest first
    dropped : members of a revoked tile whose reads are being discarded, or None
    exit_slot : the slot in the exit unit, or None
    resetting : a soft reset was asked for; `reset` completes it
    group : rigid mode, the slots of the living group
    admitted, dealt : samples admitted and tiles dealt so far (the next age and tile number)
    """

    def __init__(self, config, programs, *, rigid=False, unstacked=False, strict=False):
        self.config = config
        self.programs = {number: tuple(ops) for number, ops in programs.items()}
        self.rigid, self.unstacked, self.strict = rigid, unstacked, strict
        self.reset()

    def reset(self):
        """Soft reset: every slot free, nothing dealt, no exit enabled by a limit."""
        self.slots = [None] * self.config.slots
        self.limits = {}  # (program, exit) -> limit
        self.next = None
        self.started = []
        self.dropped = None
        self.exit_slot = None
        self.resetting = False
        self.group = set()
        self.admitted = 0
        self.dealt = 0

    def live(self):
        """Slots that hold a live sample."""
        return [s for s, slot in enumerate(self.slots) if slot is not None and slot.live]

    def op(self, s):
        """The operation at which slot ``s`` stands; past the end of a program: `Bad`."""
        program, index = divmod(self.slots[s].pc, 1 << PC_INDEX_BITS)
        ops = self.programs.get(program, ())
        return ops[index] if index < len(ops) else Bad()

    def in_next(self, s):
        """Slot ``s`` is a member of the dealt tile."""
        return self.next is not None and s in self.next.end

    def writing(self, s):
        """A started tile holds lines of slot ``s`` that are not all in memory."""
        return any(s in waiting for _, waiting in self.started)

    def eligible(self, s):
        """May get lines and pass jumps."""
        slot = self.slots[s]
        if slot is None or not slot.live or not slot.runnable or slot.ending:
            return False
        return not (self.rigid and self.group) or s in self.group

    def dealable(self):
        """Eligible slots at a layer."""
        return [s for s in self.live() if self.eligible(s) and isinstance(self.op(s), Layer)]

    def there(self, s, position):
        """The producer line at ``position`` of slot ``s`` is in memory (None: the input image).

        Nobody waits for the lines of a sample that ends: it has no use for the result, and they may never come.
        """
        return position is None or self.slots[s].ending or position < self.slots[s].done

    def all_there(self, s, positions):
        """Every one of ``positions`` of slot ``s`` is in memory."""
        return all(self.there(s, position) for position in positions)

    def fence_blocks(self):
        """A FENCE at the head of the queue has to wait: a slot that a CANCEL marked is not released."""
        return any(self.slots[s].cancelled for s in self.live())

    def leader_order(self, s):
        """Sorting key: the first slot leads."""
        slot = self.slots[s]
        return -slot.priority, slot.pc, slot.issued[1], slot.age

    def waits_for_exit(self, s):
        """Slot ``s`` stands at an EXIT and everything that it computed is in memory."""
        slot = self.slots[s]
        if slot is None or not slot.live or slot.ending or s == self.exit_slot:
            return False
        return isinstance(self.op(s), Exit) and not self.in_next(s) and not self.writing(s)

    def exit_candidate(self):
        """The slot that the exit unit takes next, or None."""
        waiting = [s for s in self.live() if self.waits_for_exit(s)]
        return min(waiting, key=self.leader_order, default=None)

    def revocable(self):
        """The dealt tile has to give way: nobody in it may run, somebody outside outranks all who may, or reset."""
        if self.next is None or self.resetting:
            return self.next is not None
        ranks = [self.slots[s].priority for s in self.next.members if self.eligible(s)]
        return not ranks or any(
            self.slots[s].priority > max(ranks) for s in self.dealable() if not self.in_next(s)
        )  # fmt: skip

    def startable(self):
        """A tracker entry is free and the dealt tile's inputs are in memory."""
        return self.next is not None and len(self.started) < self.config.trackers and not self.missing()

    def releasable(self, s):
        """Slot ``s`` ends and nothing of it is outstanding."""
        slot = self.slots[s]
        if slot is None or not slot.live or not slot.ending:
            return False
        reading = self.in_next(s) or s == self.exit_slot or (self.dropped is not None and s in self.dropped)
        return not reading and not self.writing(s)

    def jumpable(self, s):
        """Slot ``s`` stands at a jump and may pass it."""
        return self.eligible(s) and isinstance(self.op(s), Jump) and not self.in_next(s)

    def enabled_actions(self):
        """Actions possible now, as tuples (method name, slot if any), in the sequencer's priority; `start` last."""
        actions = [("jump", s) for s in self.live() if self.jumpable(s)]
        if self.exit_slot is None and (s := self.exit_candidate()) is not None:
            actions.append(("exit_start", s))
        actions += [("release", s) for s in self.live() if self.releasable(s)]
        if self.revocable():
            actions.append(("revoke",))
        if self.next is None and self.dropped is None and self.dealable():
            actions.append(("deal",))
        if self.startable():
            actions.append(("start",))
        return actions

    def available(self, s, leader, layer):
        """Lines of candidate ``s`` that may be dealt: one of lower priority than the leader must not wait."""
        slot = self.slots[s]
        line = slot.issued[1]
        if slot.priority >= self.slots[leader].priority:
            return layer.lines - line
        program = slot.pc >> PC_INDEX_BITS
        count = 0
        while line + count < layer.lines and self.all_there(s, layer.needed_positions(program, line + count)):
            count += 1
        return count

    def missing(self):
        """(slot, line) of the dealt tile whose inputs are not in memory."""
        program, index = divmod(self.next.pc, 1 << PC_INDEX_BITS)
        layer = self.programs[program][index]
        lasts = [(f.slot, f.first + f.lines - 1) for f in self.next.fragments]
        return [(s, line) for s, line in lasts if not self.all_there(s, layer.needed_positions(program, line))]
