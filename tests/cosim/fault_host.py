"""A host whose memory answers with errors where a scenario says; runs inside the simulator's process."""

from dataclasses import dataclass, replace

from fluidnpu.hw import isa
from fluidnpu.sim.memory import ErrorWindow
from npu_host import Player
from npu_scenario import Scenario

__all__ = ["FaultPlayer", "FaultScenario", "Window", "play_faults"]


@dataclass(frozen=True)
class Window:
    """Where memory answers with errors: bytes ``offset`` .. of a program's region, or of the arena of a sample.

    sample, program : index of the sample or of the program, the other one None. A window of a sample opens with its
        ADMIT and closes when its completion is popped, before somebody else gets the arena
    read, write, after, count : as ErrorWindow; those of a sample answer every burst
    """

    offset: int
    length: int
    sample: int | None = None
    program: int | None = None
    read: bool = True
    write: bool = True
    after: int = 0
    count: int = 0

    def at(self, base):
        """The ErrorWindow of a region or arena that begins at ``base``."""
        return ErrorWindow(base + self.offset, self.length, self.read, self.write, self.after, self.count)


@dataclass(frozen=True, eq=False)
class FaultScenario(Scenario):
    """A scenario with error responses; windows of samples and of programs do not mix, see `FaultPlayer`.

    sizes : sample index -> bytes of its arena that the NPU is told, instead of all that the program needs
    region_bytes : program index -> bytes of its region that the NPU is told
    """

    windows: tuple = ()
    sizes: dict = None
    region_bytes: dict = None


class FaultPlayer(Player):
    """Opens and closes error windows. Each time the memory's counts of ``after`` and ``count`` begin anew."""

    async def begin(self):
        await super().begin()
        for program, size in (self.scenario.region_bytes or {}).items():
            await self.write("PROGRAM_BYTES", size, program)
        self.open = {}
        for n, w in enumerate(self.scenario.windows):
            if w.program is not None:
                self.open[n] = w.at(self.regions[w.program][0])
        self._apply()

    def _apply(self):
        self.bench.set_memory(replace(self.scenario.memory, errors=tuple(self.open.values())))

    async def command(self, opcode, at=0, **fields):
        sample = self.admissions[-1].sample if opcode == isa.Opcode.ADMIT and self.admissions else None
        if sample is not None and fields["tag"] == self.scenario.samples[sample].tag:
            mine = {n: w.at(fields["arena_base"]) for n, w in enumerate(self.scenario.windows) if w.sample == sample}
            if mine:
                self.open |= mine
                self._apply()
            if self.scenario.sizes and sample in self.scenario.sizes:
                fields["arena_bytes"] = self.scenario.sizes[sample]
        return await super().command(opcode, at, **fields)

    async def pop(self, most=64):
        await super().pop(most)
        ended = {a.sample for a in self.admissions if a.completion is not None}
        closed = [n for n in self.open if self.scenario.windows[n].sample in ended]
        if closed:
            self.open = {n: w for n, w in self.open.items() if n not in closed}
            self._apply()


async def play_faults(bench, scenarios):
    """Run scenarios one after the other; list of outcomes."""
    outcomes = []
    for scenario in scenarios:
        player = FaultPlayer(bench, scenario)
        await player.begin()
        await (player.run_random() if scenario.weights else player.run_plain())
        outcomes.append(await player.end())
    return outcomes
