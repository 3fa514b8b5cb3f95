"""A host that preempts at random moments, and how long each preemption took."""

from dataclasses import dataclass

from fluidnpu.hw import isa
from fluidnpu.hw.isa import ArrayEvent, EngineEvent, Opcode
from fluidnpu.sim.replay import ENGINE_PORT
from npu_host import Player

__all__ = ["Preemption", "load_cycles", "preemptions", "storms"]


async def storms(bench, scenarios, commits):
    """`storm` of each scenario; list of outcomes."""
    return [await storm(bench, scenario, commits) for scenario in scenarios]


async def storm(bench, scenario, commits):
    """Samples of program 0 fill all slots but the last; one of program 1 in the last slot gets to run at ``commits``
    random moments, for a random time, and outranks them all."""
    player = Player(bench, scenario)
    await player.begin()
    rng, last = player.rng, scenario.slots - 1
    ready = [[i for i, s in enumerate(scenario.samples) if s.program == p] for p in (0, 1)]

    async def rest(cycles):
        end = bench.cycle() + cycles
        while bench.cycle() < end:
            await bench.wait(end)
            await player.pop()
            for slot in player.free:
                vip = slot == last
                await player.admit(ready[vip].pop(0), slot, priority=5 if vip else 1, runnable=int(not vip), ride=1)

    async def switch(runnable):
        await player.command(Opcode.BATCH, slot_mask=1 << last, priority=5, runnable=runnable, ride=0, commit=1)

    await rest(2000)
    for _ in range(commits):
        await switch(1)
        await rest(rng.randrange(20, 800))
        await switch(0)
        await rest(rng.randrange(500, 1500))
    await player.command(Opcode.CANCEL, slot_mask=(1 << scenario.slots) - 1)
    while player.busy:
        await bench.wait()
        await player.pop()
    return await player.end()


@dataclass(frozen=True)
class Preemption:
    """A commit that let the last slot run.

    effect : cycle in which the command was executed; others_end : last MAC of the tile in front of the slot's first
    one; first_mac : of that; load : cycles of its stripes; dropped : a dealt tile gave way
    """

    effect: int
    others_end: int
    first_mac: int
    load: int
    dropped: bool

    @property
    def overhead(self):
        """Cycles beyond the rest of one tile and the load of the stripes."""
        return self.first_mac - self.effect - max(0, self.others_end - self.effect) - self.load


def load_cycles(config, memory, story, tile):
    """Cycles of a tile's stripes: its beats, or its bursts (one per input row) if those wait for one another. The beats
    of its second operands come on top."""
    bursts = story.stripe_rows(tile)
    stripes = max(story.stripe_beats(tile), -(-bursts // config.reads_in_flight) * (memory.read_latency + 4))
    return stripes + story.residual_beats(tile)


def preemptions(config, scenario, outcome, story):
    """Every commit after which the last slot, its inputs being there, got a tile."""
    last = config.slots - 1
    array = outcome["events"][outcome["events"]["source"] != ENGINE_PORT]
    first, end = (
        array["cycle"][array["kind"] == kind].astype(int).tolist() for kind in (ArrayEvent.TILE, ArrayEvent.END)
    )
    dealt, started, retired = iter(story.played.tiles), [], 0
    announced = commit = mark = None
    dropped, found = False, []
    for event in outcome["events"][outcome["events"]["source"] == ENGINE_PORT]:
        kind, slot = int(event["kind"]), int(event["slot"])
        if kind == EngineEvent.COMMAND and event["data"] == Opcode.BATCH:
            fields = isa.decode(isa.COMMANDS[Opcode.BATCH], [int(event["data2"])])
            busy = any(last in t.members for t in (*started[retired:], *([announced] if announced else [])))
            commit, dropped = (int(event["cycle"]) if fields["runnable"] and not busy else None), False
        elif kind in (EngineEvent.JUMP, EngineEvent.EXIT_START, EngineEvent.RELEASE) and slot == last:
            commit = None
        elif kind == EngineEvent.REVOKE:
            announced, mark, dropped = None, None, True
        elif kind == EngineEvent.DEAL:
            announced = next(dealt)
            if announced.leader == last and commit is not None:
                mark, commit = (commit, dropped), None
        elif kind == EngineEvent.START:
            n = len(started)
            if mark is not None and n:
                load = load_cycles(config, scenario.memory, story, announced)
                found.append(Preemption(mark[0], end[n - 1], first[n], load, mark[1]))
            started.append(announced)
            announced = mark = None
        elif kind == EngineEvent.RETIRE:
            retired += 1
    return found
