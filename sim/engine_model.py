"""The fluid-batching engine as an executable model: its architectural state and one method per atomic action.

Implements the algorithm of docs/architecture.md (the engine). The hardware's sequencer does one action at a time; in
this priority when several are possible: command, write responses and errors, jump, exit start, exit result, release,
revoke, deal. `start` is independent of the sequencer. Each method checks that its action is legal in the present
state, raises `ModelViolation` otherwise, and returns what the algorithm determines, so that an event trace of the RTL
can be replayed line for line.

Positions are (pc, line) and compare lexicographically; a complete layer is (pc + 1, 0).

Our definitions, where the algorithm leaves a choice: the status of a completion is FAILED before CANCELLED before OK
(the first failure's code stays); exit, class and spread of a completion mean something only with status OK; the exit
unit's result takes effect on a cancelled slot as on any other; nobody waits for lines of a slot that ends; a slot is
"in a tile" until its own last write response.
"""

from fluidnpu.hw.isa import LIMIT_ALWAYS, LIMIT_NEVER, PC_INDEX_BITS, Code, Opcode, Status, make_pc

from .engine_layers import Cursor, Tile, deal_subtiles
from .engine_state import Completion, EngineState, ExitOutcome, ModelViolation, Slot

__all__ = ["Completion", "EngineModel", "ExitOutcome", "ModelViolation", "Slot"]

ADDRESS_SPACE = 1 << 32
ACTIONS = ("jump", "exit_start", "release", "revoke", "deal")  # of the sequencer alone, highest priority first


class EngineModel(EngineState):
    """The engine's actions on its state (parameters and members: see `EngineState`)."""

    # --- commands ---------------------------------------------------------------------------------------------

    def execute_command(self, opcode, stamp=0, **fields):
        """Execute a command (fields as isa.COMMANDS, absent = 0); returns its Completion (ERROR, FENCE) or None."""
        if opcode == Opcode.FENCE:
            self._check(not self.fence_blocks(), "FENCE passes while a cancelled slot is live")
            return Completion(Status.FENCE, tag=fields.get("tag", 0), stamp=stamp)
        if opcode == Opcode.ADMIT:
            code = self._admit(**fields)
        elif opcode == Opcode.LIMIT:
            code = self._limit(**fields)
        elif opcode in (Opcode.BATCH, Opcode.LEAVE, Opcode.CANCEL):
            code = Code.NONE
            mask = fields.get("slot_mask", 0)
            for slot in [self.slots[s] for s in self.live() if mask >> s & 1]:
                if opcode == Opcode.LEAVE:
                    slot.leave = True
                elif opcode == Opcode.CANCEL:
                    slot.cancelled = True
                else:
                    slot.pending = tuple(fields.get(name, 0) for name in ("priority", "runnable", "ride"))
            if opcode == Opcode.BATCH and fields.get("commit", 0):
                self._commit()
        else:
            code = Code.OPCODE
        if code == Code.NONE:
            return None
        return Completion(Status.ERROR, fields.get("slot", 0), fields.get("tag", 0), code)

    def _admit(
        self, slot=0, pc=0, arena_base=0, arena_bytes=0, tag=0, priority=0, runnable=0, ride=0, exits=0
    ):  # fmt: skip
        if slot >= self.config.slots:
            return Code.SLOT
        if self.slots[slot] is not None:
            return Code.OCCUPIED
        program, index = divmod(pc, 1 << PC_INDEX_BITS)
        if program >= self.config.programs or index >= len(self.programs.get(program, ())):
            return Code.PC
        if not arena_bytes or arena_base % self.config.bus_bytes or arena_base + arena_bytes > ADDRESS_SPACE:
            return Code.ARENA
        age, self.admitted = self.admitted, self.admitted + 1
        place = (pc, 0)
        self.slots[slot] = Slot(
            tag, arena_base, arena_bytes, priority, bool(runnable), bool(ride), exits, age, place, place
        )
        return Code.NONE

    def _limit(self, program=0, exit=0, limit=0):
        if program >= self.config.programs or exit >= self.config.exits:
            return Code.EXIT
        self.limits[program, exit] = limit
        return Code.NONE

    def _commit(self):
        for slot in [self.slots[s] for s in self.live()]:
            if slot.pending is not None:
                priority, runnable, ride = slot.pending
                slot.priority, slot.runnable, slot.ride, slot.pending = priority, bool(runnable), bool(ride), None

    def pop(self, s):
        """The host popped the completion of slot ``s``: the slot is free."""
        self._check(self.slots[s] is not None and self.slots[s].posted, f"slot {s} has no completion to pop")
        self.slots[s] = None

    def begin_reset(self):
        """The host asked for a soft reset: a dealt tile may be dropped without another reason."""
        self.resetting = True

    # --- memory -----------------------------------------------------------------------------------------------

    def write_line(self, s):
        """The last write response of slot ``s``'s next line in its oldest unfinished tile; returns the new done
        position."""
        entry = next((e for e in self.started if e[1]), None)  # one AXI ID, tile order: responses cannot overtake
        self._check(entry is not None and s in entry[1], f"no write of slot {s} is next in tile order")
        tile, waiting = entry
        pc, line = max(self.slots[s].done, tile.before[s])
        program, index = divmod(pc, 1 << PC_INDEX_BITS)
        done = (pc, line + 1) if line + 1 < self.programs[program][index].lines else (pc + 1, 0)
        if done == tile.end[s]:
            waiting.discard(s)
        self.slots[s].done = done
        return done

    def write_done(self, s):
        """Every write response of slot ``s`` in its oldest unfinished tile; returns the new done position."""
        tile = next((tile for tile, waiting in self.started if s in waiting), None)
        while self.write_line(s) != tile.end[s]:
            pass
        return self.slots[s].done

    def tile_drained(self, number=None):
        """Every write response of the oldest started tile arrived: its tracker entry is free. Returns the Tile."""
        self._check(self.started, "no started tile to retire")
        tile, waiting = self.started[0]
        self._check(number in (None, tile.number), f"tile {number} retires, but {tile.number} is the oldest")
        self._check(not waiting, f"tile {tile.number} retires with writes of slots {sorted(waiting)} outstanding")
        del self.started[0]
        return tile

    def memory_error(self, code, slots):
        """Mark the owners of an error as failed (weights: all members of the tile). Returns those newly marked.

        An owner must be live: an error response cannot come after its sample's release. An error of the exit unit's
        reads ends the decision without a result.
        """
        newly = []
        for s in slots:
            self._check(s in self.live(), f"an error ({Code(code).name}) of slot {s}, which is not live")
            if self.slots[s].failed == Code.NONE:
                self.slots[s].failed = Code(code)
                newly.append(s)
            if s == self.exit_slot:
                self.exit_slot = None
        return newly

    def drained(self):
        """The dropped tile's reads are all discarded."""
        self._check(self.dropped is not None, "no dropped tile to drain")
        self.dropped = None

    # --- the sequencer ----------------------------------------------------------------------------------------

    def jump(self, s):
        """Slot ``s`` passes its jump; returns the pc at which it goes on."""
        self._ranked("jump")
        self._check(s in self.live() and self.jumpable(s), f"slot {s} is not at a jump that it may pass")
        slot, op = self.slots[s], self.op(s)
        into_head = slot.leave or slot.exits >> op.exit & 1
        pc = slot.pc + 1 if into_head else make_pc(slot.pc >> PC_INDEX_BITS, op.target)
        slot.issued = (pc, 0)
        return pc

    def exit_start(self, s):
        """The exit unit takes slot ``s``: strict, the first in leader order.

        Otherwise any that waits: the hardware sees only those whose descriptor it has fetched already.
        """
        self._ranked("exit_start")
        self._check(self.exit_slot is None, f"exit of slot {s} starts while slot {self.exit_slot} is in the unit")
        first = self.exit_candidate() if self.strict else s
        self._check(s == first, f"exit of slot {s} starts, but slot {first} is the first that waits")
        self._check(self.waits_for_exit(s), f"exit of slot {s} starts, which is not ready for one")
        self.exit_slot = s

    def exit_result(self, s, top, spread, stamp=0):
        """The exit unit has decided on slot ``s``: class ``top``, sum ``spread`` (S). Returns an ExitOutcome."""
        self._check(s is not None and s == self.exit_slot, f"exit result of slot {s}, but {self.exit_slot} is in it")
        self.exit_slot = None
        slot, op = self.slots[s], self.op(s)
        slot.spread = spread
        limit = self.limits.get((slot.pc >> PC_INDEX_BITS, op.exit), LIMIT_NEVER)
        confident = limit == LIMIT_ALWAYS or (limit != LIMIT_NEVER and spread <= limit)
        if (slot.leave or confident or op.last) and not slot.decided:
            slot.decided, slot.decision, slot.stamp = True, (op.exit, top, spread), stamp
        if op.last or (slot.decided and not self.rigid):
            slot.finished = True
        else:
            slot.issued = (slot.pc + 1, 0)
        return ExitOutcome(slot.finished, slot.pc)

    def release(self, s, stamp=0):
        """Slot ``s`` leaves; returns its Completion. The slot is free once that is popped."""
        self._ranked("release")
        self._check(s in self.live() and self.releasable(s), f"slot {s} has no reason to leave, or work outstanding")
        slot = self.slots[s]
        slot.posted, slot.pending = True, None
        self.group.discard(s)
        status = Status.CANCELLED if slot.cancelled else Status.OK
        if slot.failed != Code.NONE:
            status = Status.FAILED
        stamp = slot.stamp if slot.decided else stamp
        return Completion(status, s, slot.tag, slot.failed, *slot.decision, stamp)

    def revoke(self):
        """The dealt tile is dropped; returns slot -> position that its members are back at."""
        self._ranked("revoke")
        self._check(self.revocable(), "the dealt tile has no reason to give way")
        before = dict(self.next.before)
        for s, position in before.items():
            self.slots[s].issued = position
        self.dropped, self.next = set(before), None
        return before

    def deal(self):
        """Deal the next tile: leader, candidates, variant and every line. Returns the Tile."""
        self._ranked("deal")
        self._check(self.next is None, "a tile is dealt while another one waits to start")
        self._check(self.dropped is None, "a tile is dealt while a dropped tile's reads are outstanding")
        dealable = self.dealable()
        self._check(dealable, "a tile is dealt with no slot at a layer")
        leader = min(dealable, key=self.leader_order)
        pc, layer = self.slots[leader].pc, self.op(leader)
        riders = [s for s in dealable if s != leader and self.slots[s].pc == pc and self.slots[s].ride]
        candidates = (leader, *sorted(riders, key=lambda s: self.slots[s].age))
        index = 0 if self.unstacked else layer.variant_index(len(candidates))
        variant = layer.variants[index]
        kr = min(variant.kr, self.config.max_stack)
        cursors = [Cursor(s, self.slots[s].issued[1], self.available(s, leader, layer)) for s in candidates]
        subtiles = deal_subtiles(layer, variant, kr, cursors)
        before, end = {}, {}
        for fragment in (f for subtile in subtiles for f in subtile):
            slot = self.slots[fragment.slot]
            before.setdefault(fragment.slot, slot.issued)
            line = fragment.first + fragment.lines
            slot.issued = end[fragment.slot] = (pc, line) if line < layer.lines else (pc + 1, 0)
        if self.rigid and not self.group:
            self.group = set(candidates)
        self.next = Tile(self.dealt, pc, leader, candidates, index, kr, variant.kd, subtiles, before, end)
        self.dealt += 1
        return self.next

    def start(self, number=None):
        """The array takes the dealt tile, which from now on always finishes. Returns the Tile."""
        tile = self.next
        self._check(tile is not None, "a tile starts, but none is dealt")
        self._check(number in (None, tile.number), f"tile {number} starts, but {tile.number} is dealt")
        self._check(len(self.started) < self.config.trackers, f"tile {tile.number} starts without a tracker entry")
        self._check(not self.missing(), f"tile {tile.number} starts before its inputs are written: {self.missing()}")
        gone = [s for s in tile.members if s not in self.live() or self.slots[s].finished]
        self._check(not gone, f"tile {tile.number} starts with slots {gone}, which left")
        self.started.append([tile, set(tile.members)])
        self.next = None
        return tile

    # --- checks -----------------------------------------------------------------------------------------------

    def _ranked(self, action):
        """Strict: nothing of a higher priority is possible."""
        if self.strict:
            ranks = [ACTIONS.index(a[0]) for a in self.enabled_actions() if a[0] in ACTIONS]
            before = ACTIONS[min(ranks)] if ranks else action
            self._check(ACTIONS.index(action) <= ACTIONS.index(before), f"{action} while {before} is possible")

    def _check(self, condition, text):
        if not condition:
            raise ModelViolation(text)
