"""A run's trace events as a story: stays of samples in slots, tiles, visits of layers, waits and merges.

Every picture and file of a report is drawn from a `Story`; nothing here knows how it will look.

* A *stay* is one sample in one slot, from its ADMIT to its release.
* A sample is *preempted* when a tile starts without it although it is under way and stands at a layer, because
  a newcomer that it has not been together with leads, a sample of higher priority leads, or the host paused it. The
  wait ends with the next tile that it may ride in. Samples of one group that take turns do not preempt each other.
* A *merge* is the start of a tile whose candidates bring samples together that were apart, one of them under way.

These are narrower than the NPU's counter ``preemptions``: it counts the tiles that nobody of the tile before may ride
in.
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import combinations

from fluidnpu.hw.isa import COMMANDS, PC_INDEX_BITS, ArrayEvent, Code, EngineEvent, Opcode, Status, decode

__all__ = ["Exit", "Merge", "Piece", "Stay", "Story", "StoryError", "Tile", "Visit", "Wait", "read_story"]

ENGINE, ARRAY = 0, 1  # sources of trace events (sim.rtl_shared.EVENT)


class StoryError(ValueError):
    """Trace events that cannot belong together; the message names the cycle."""


@dataclass(eq=False)
class Stay:
    """One sample in one slot, cycles ``begin``..``end``.

    number : 0 for the first sample of that slot; result : its sched.request.Result, or None if unknown
    decided : cycle of the decision it left with, or None; exit, top : of that decision
    status : of its completion ("ok", "cancelled", "failed"), "reset", or "live" where the trace ends
    """

    slot: int
    number: int
    begin: int
    end: int = 0
    status: str = "live"
    decided: int | None = None
    exit: int | None = None
    top: int | None = None
    result: object = None
    began: bool = False  # has had lines in a started tile
    priority: int = 0
    runnable: bool = True

    @property
    def request(self):
        """Name of the request: its id if the record has it."""
        return str(self.result.id) if self.result is not None else f"{self.slot}.{self.number}"


@dataclass(frozen=True)
class Piece:
    """Lines of one sample in one tile: ``lines`` = ((first, last, sub-tile), ...)."""

    stay: Stay
    lines: tuple

    @property
    def text(self):
        """Line ranges, as "0-3, 8-11"."""
        return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b, _ in self.lines)


@dataclass(eq=False)
class Tile:
    """A started tile; ``first``..``end``: from its first MAC to the cycle after its last.

    rows : of the longest sub-tile; kr, kd : stack mode; dealt, started : cycles; candidates, pieces : who could ride,
    who had lines
    """

    number: int
    pc: int
    leader: Stay
    variant: int
    candidates: tuple
    pieces: tuple
    dealt: int
    started: int = 0
    first: int = 0
    end: int = 0
    rows: int = 0
    kr: int = 1
    kd: int = 1


@dataclass(eq=False)
class Visit:
    """A sample's unbroken work on one layer: ``tiles`` = [(Tile, Piece), ...] in order."""

    stay: Stay
    pc: int
    tiles: list

    @property
    def begin(self):
        return self.tiles[0][0].first

    @property
    def end(self):
        return self.tiles[-1][0].end


@dataclass(eq=False)
class Wait:
    """A sample was preempted: ``begin``..``end``. ``merged``: it went on together with samples it had been apart from.

    reason : "newcomer", "priority" or "paused"; by : the Stay that led the first tile past it
    """

    stay: Stay
    begin: int
    by: Stay
    reason: str
    end: int = 0
    merged: bool = False


@dataclass(frozen=True)
class Merge:
    """At ``cycle`` the samples ``stays`` came together; ``caught_up`` of them had been preempted."""

    cycle: int
    stays: tuple
    caught_up: tuple


@dataclass(frozen=True)
class Exit:
    """An exit unit's result: ``left`` with it, or went on."""

    cycle: int
    stay: Stay
    exit: int
    top: int
    spread: int
    left: bool


@dataclass
class Story:
    """All of it, each list in order of time; ``cycles``: length of the run."""

    record: object
    cycles: int = 0
    stays: list = field(default_factory=list)
    tiles: list = field(default_factory=list)
    visits: list = field(default_factory=list)
    waits: list = field(default_factory=list)
    merges: list = field(default_factory=list)
    exits: list = field(default_factory=list)
    revocations: list = field(default_factory=list)  # cycles

    @property
    def slots(self):
        """Slots to draw: of the configuration, or as many as the trace names."""
        return max([self.record.slots, *(stay.slot + 1 for stay in self.stays)])

    def layers(self):
        """pcs of the layers that ran, in order."""
        return sorted({tile.pc for tile in self.tiles})

    def layer(self, pc):
        """Name of the operation at ``pc``; of programs but the first with the program's number."""
        program, index = divmod(pc, 1 << PC_INDEX_BITS)
        names = self.record.operations
        name = names[index] if index < len(names) else f"operation {index}"
        return f"{program}:{name}" if program else name

    def head(self, pc):
        """Exit whose head the operation at ``pc`` belongs to, -1: trunk."""
        index = pc & ((1 << PC_INDEX_BITS) - 1)
        return self.record.heads[index] if index < len(self.record.heads) else -1

    def waiting(self):
        """Steps of the host's queue: [(cycle, requests waiting from then on), ...]."""
        changes = [(0, 0)]
        for r in self.record.results:
            changes += [(r.arrival, 1), (r.stamp if r.admitted is None else r.admitted, -1)]
        return _steps(changes)

    def live(self):
        """Steps of the number of live slots: [(cycle, number from then on), ...]."""
        return _steps([(0, 0), *((s.begin, 1) for s in self.stays), *((s.end, -1) for s in self.stays)])


def _steps(changes):
    level, steps = 0, {}
    for cycle, change in sorted(changes):
        level += change
        steps[cycle] = level
    return list(steps.items())


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
