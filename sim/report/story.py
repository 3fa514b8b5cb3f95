"""A run as a story: stays of samples in slots, tiles, visits of layers, waits and merges.

Every picture and file of a report is drawn from a `Story`; nothing here knows how it will look.

* A *stay* is one sample in one slot, from its ADMIT to its release.
* A sample is *preempted* when a tile starts without it although it is under way and stands at a layer, because
  a newcomer that it has not been together with leads, a sample of higher priority leads, or the host paused it. The
  wait ends with the next tile that it may ride in. Samples of one group that take turns do not preempt each other.
* A *merge* is the start of a tile whose candidates bring samples together that were apart, one of them under way.

These are narrower than the NPU's counter ``preemptions``: it counts the tiles that nobody of the tile before may ride
in.
"""

from dataclasses import dataclass, field

from fluidnpu.hw.isa import PC_INDEX_BITS

__all__ = ["Exit", "Merge", "Piece", "Stay", "Story", "StoryError", "Tile", "Visit", "Wait"]


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
