"""Reads the story of a run out of its trace events."""

from collections import deque
from itertools import combinations

from fluidnpu.hw.isa import COMMANDS, ArrayEvent, Code, EngineEvent, Opcode, Status, decode

from .story import Exit, Merge, Piece, Stay, Story, StoryError, Tile, Visit, Wait

__all__ = ["read_story"]

ENGINE = 0  # source of the engine's trace events (sim.rtl_shared.EVENT); the array's is 1


def read_story(record):
    """Story of a RunRecord. StoryError if the array's tiles do not follow the engine's."""
    return _Reader(record).read()


class _Reader:
    def __init__(self, record):
        self.record = record
        self.story = Story(record)
        self.slots = {}  # slot -> Stay
        self.numbers = {}  # slot -> samples so far
        self.pending = {}  # BATCH entries that wait for a commit: slot -> (priority, runnable)
        self.fragments, self.next = [], None
        self.started, self.running = deque(), None
        self.together = set()  # pairs of stays (frozensets of ids) that could ride in one tile and did not part
        self.waits, self.visits = {}, {}  # open ones, by slot
        self.at_exit = set()  # slots in the exit unit
        self.results = self._results_by_slot()

    def _results_by_slot(self):
        found = {}
        for r in sorted((r for r in self.record.results if r.admitted is not None), key=lambda r: r.admitted):
            if r.status != "error":  # the NPU refused it: it never was in the slot
                found.setdefault(r.slot, deque()).append(r)
        return found

    def read(self):
        events = self.record.events
        columns = (events[name].tolist() for name in ("cycle", "source", "kind", "slot", "pc", "line", "data", "data2"))
        cycle = 0
        for cycle, source, kind, slot, pc, line, data, data2 in zip(*columns, strict=True):
            name = (EngineEvent if source == ENGINE else ArrayEvent)(kind).name.lower()
            handler = getattr(self, f"_{name}", None)
            if handler is not None:
                handler(cycle, slot, pc, line, data, data2)
        self._finish(max(cycle, self.record.cycles))
        return self.story

    def _finish(self, last):
        self.story.cycles = last
        if self.running is not None:
            self.started.appendleft(self.running)
        for tile in self.started:  # the trace ends before they did
            tile.first, tile.end = tile.first or last, last
        for slot, stay in list(self.slots.items()):
            self._leave(slot, last, stay.status)
        self.story.waits.sort(key=lambda w: w.begin)

    # --- commands ---------------------------------------------------------------------------------------------

    def _command(self, cycle, slot, pc, line, opcode, word):
        if line != Code.NONE or opcode not in (Opcode.ADMIT, Opcode.BATCH):
            return
        fields = decode([f for f in COMMANDS[opcode] if f.word == 0], [word])
        if opcode == Opcode.ADMIT:
            self._admit(cycle, fields)
            return
        for s in self.slots:
            if fields["slot_mask"] >> s & 1:
                self.pending[s] = fields["priority"], bool(fields["runnable"])
        if fields["commit"]:
            for s, (priority, runnable) in self.pending.items():
                self.slots[s].priority, self.slots[s].runnable = priority, runnable
            self.pending = {}

    def _admit(self, cycle, fields):
        slot = fields["slot"]
        number = self.numbers[slot] = self.numbers.get(slot, -1) + 1
        stay = Stay(slot, number, cycle, priority=fields["priority"], runnable=bool(fields["runnable"]))
        if self.results.get(slot):
            stay.result = self.results[slot].popleft()
        self.slots[slot] = stay
        self.story.stays.append(stay)

    # --- exits and release ------------------------------------------------------------------------------------

    def _exit_start(self, cycle, slot, *_):
        self.waits.pop(slot, None)  # it waited for the exit unit, not for the array
        self.at_exit.add(slot)

    def _exit_result(self, cycle, slot, pc, line, data, spread):
        self.at_exit.discard(slot)
        stay, top, number = self.slots[slot], data & 0xFFFF, data >> 20 & 15
        left = bool(data >> 16 & 1)
        if stay.result is not None and stay.result.ok:  # rigid mode: decided here, finished later
            left = number == stay.result.exit
        if left and stay.decided is None:
            stay.decided, stay.exit, stay.top = cycle, number, top
        self.story.exits.append(Exit(cycle, stay, number, top, spread, left))

    def _release(self, cycle, slot, pc, line, data, data2):
        self._leave(slot, cycle, Status(data & 15).name.lower())

    def _reset(self, cycle, *_):
        for slot in list(self.slots):
            self._leave(slot, cycle, "reset")
        self.pending, self.next = {}, None

    def _leave(self, slot, cycle, status):
        stay = self.slots.pop(slot)
        stay.end, stay.status = cycle, status
        self.pending.pop(slot, None)
        self.visits.pop(slot, None)
        self.at_exit.discard(slot)
        self._resume(slot, cycle, merged=False)
        self.together = {pair for pair in self.together if id(stay) not in pair}

    def _resume(self, slot, cycle, merged):
        wait = self.waits.pop(slot, None)
        if wait is not None and cycle > wait.begin:
            wait.end, wait.merged = cycle, merged
            self.story.waits.append(wait)

    # --- tiles ------------------------------------------------------------------------------------------------

    def _fragment(self, cycle, slot, pc, line, data, data2):
        self.fragments.append((slot, line, line + (data & 0xFFFF) - 1, data >> 16))

    def _deal(self, cycle, slot, pc, line, data, data2):
        lines = {}
        for s, *place in self.fragments:
            lines.setdefault(s, []).append(tuple(place))
        pieces = tuple(Piece(self.slots[s], tuple(places)) for s, places in lines.items())
        candidates = tuple(stay for s, stay in sorted(self.slots.items()) if data >> s & 1)
        tile = Tile(len(self.story.tiles), pc, self.slots[slot], data >> 16, candidates, pieces, cycle)
        passed = [stay for s, stay in self.slots.items() if s not in self.at_exit and stay not in candidates]
        self.next, self.fragments = (tile, passed), []

    def _revoke(self, cycle, *_):
        self.next = None
        self.story.revocations.append(cycle)

    def _start(self, cycle, slot, pc, line, data, data2):
        if self.next is None:
            raise StoryError(f"cycle {cycle}: a tile starts, but none is dealt")
        (tile, passed), self.next = self.next, None
        tile.number, tile.started = len(self.story.tiles), cycle
        self.story.tiles.append(tile)
        self.started.append(tile)
        self._preempt(cycle, tile, passed)
        self._meet(cycle, tile)
        for piece in tile.pieces:
            slot, piece.stay.began = piece.stay.slot, True
            visit = self.visits.get(slot)
            if visit is None or visit.pc != tile.pc:
                visit = self.visits[slot] = Visit(piece.stay, tile.pc, [])
                self.story.visits.append(visit)
            visit.tiles.append((tile, piece))

    def _preempt(self, cycle, tile, passed):
        """``passed``: who could have had lines of the tile when it was dealt, but was not even a candidate."""
        for stay in passed:
            slot = stay.slot
            gone = self.slots.get(slot) is not stay
            if gone or not stay.began or stay.decided is not None or slot in self.waits or slot in self.at_exit:
                continue
            if not stay.runnable:
                reason = "paused"
            elif tile.leader.priority < stay.priority:
                continue  # it would lead: it has no line to deal
            elif tile.leader.priority > stay.priority:
                reason = "priority"
            elif frozenset((id(stay), id(tile.leader))) not in self.together:
                reason = "newcomer"
            else:
                continue
            self.waits[slot] = Wait(stay, cycle, tile.leader, reason)
            self.visits.pop(slot, None)
            self.together -= {frozenset((id(stay), id(other))) for other in tile.candidates}

    def _meet(self, cycle, tile):
        pairs = {frozenset(map(id, pair)): pair for pair in combinations(tile.candidates, 2)}
        new = [pair for key, pair in pairs.items() if key not in self.together]
        self.together |= set(pairs)
        met = {stay for pair in new if any(stay.began for stay in pair) for stay in pair}
        caught_up = tuple(stay for stay in tile.candidates if stay in met and stay.slot in self.waits)
        for stay in tile.candidates:
            self._resume(stay.slot, cycle, merged=stay in met)
        if met:
            self.story.merges.append(Merge(cycle, tuple(tile.candidates), caught_up))

    # --- the array's side -------------------------------------------------------------------------------------

    def _tile(self, cycle, slot, pc, line, data, data2):
        if not self.started:
            raise StoryError(f"cycle {cycle}: the array begins a tile that was not started")
        tile = self.running = self.started.popleft()
        tile.first, tile.rows = cycle, data & 0xFFFF
        tile.kr, tile.kd = 1 << (data >> 16 & 15), 1 << (data >> 20 & 15)

    def _end(self, cycle, *_):
        if self.running is None:
            raise StoryError(f"cycle {cycle}: the array ends a tile that it did not begin")
        self.running.end, self.running = cycle + 1, None
