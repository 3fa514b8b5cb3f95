"""Hosts that do what no driver does: broken programs, full queues, resets in the middle.

They run in the simulator's process."""

from dataclasses import dataclass, field

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import Opcode, register_address
from fluidnpu.sim.memory import IDEAL
from fluidnpu.sim.replay import ENGINE_PORT
from fluidnpu.sim.rtl_bench import Transaction
from npu_host import Player
from npu_scenario import Admission, Scenario

__all__ = [
    "Mutant",
    "Rounds",
    "fill_completion_queue",
    "fill_queues",
    "play_resets",
    "play_rounds",
    "send_wrong_commands",
]

RESETTING = 2  # bit of STATUS
OVERFLOW = 8
ROUND_CYCLES = 1_000_000  # far more than any round takes


@dataclass(frozen=True, eq=False)
class Mutant:
    """A program to try: its region, its number of operations, the index at which the sample starts."""

    region: bytes
    ops: int
    start: int


@dataclass(frozen=True, eq=False)
class Rounds(Scenario):
    """``rounds``: lists of Mutant; in each round they run beside a sample of program 0, in programs 1, 2, ...

    ``samples``: of program 0, one per round. ``programs``: program 0 and as many of the mutants' size. Mutants' arenas
    hold random bytes.
    """

    rounds: tuple = field(default=())


class RoundPlayer(Player):
    """Round after round. Slots and arenas stay: slot i holds the sample of program i."""

    async def run(self):
        s, memory = self.scenario, self.bench.memory
        self.marks = []  # (number of events so far, program, region, operations)
        self.lasted = []
        bases = [self.place(p.arena_bytes) for p in s.programs]
        for number, mutants in enumerate(s.rounds):
            for p, mutant in enumerate(mutants, 1):
                base, size = self.regions[p]
                self.marks.append((len(self.bench.events()), p, mutant.region, mutant.ops))
                memory[base : base + size] = np.frombuffer(mutant.region.ljust(size, b"\xaa"), np.uint8)
                await self.write("PROGRAM_OPS", mutant.ops, p)
            self.held = [memory[base : base + size].copy() for base, size in self.regions]
            begin = self.bench.cycle()
            order = list(range(len(mutants) + 1))
            self.rng.shuffle(order)
            for p in order:
                start = 0 if p == 0 else mutants[p - 1].start
                await self._admit_to(number, p, bases[p], start)
                await self.bench.wait(self.bench.cycle() + self.rng.choice([1, 1, 100, 400]), irq=False)
            while self.busy:
                if self.bench.cycle() > begin + ROUND_CYCLES:
                    states = [f"{await self.read('SLOT_STATE', i):#x}" for i in range(s.slots)]
                    raise AssertionError(f"round {number}: no end in {ROUND_CYCLES} cycles, SLOT_STATE {states}")
                await self.bench.wait(begin + ROUND_CYCLES + 1)
                await self.pop()
            self.lasted.append(self.bench.cycle() - begin)
            for p, (base, size) in enumerate(self.regions):
                assert (memory[base : base + size] == self.held[p]).all(), f"round {number}: program {p} was written to"

    async def _admit_to(self, number, p, base, start):
        """A sample of program ``p`` into slot ``p``; its tag is 4 * round + p."""
        s, memory = self.scenario, self.bench.memory
        size = s.programs[p].arena_bytes
        arena = memory[base : base + size]
        arena[:] = np.random.default_rng(self.rng.getrandbits(32)).integers(0, 256, size, np.uint8)
        if p == 0:
            payload = s.samples[number].payload
            offset = s.programs[0].input_offset
            arena[offset : offset + len(payload)] = payload
        admission = Admission(number, 4 * number + p, p, p, base, size, 0xFFFF, arena.copy())
        self.holder[p] = admission
        self.admissions.append(admission)
        await self.command(
            Opcode.ADMIT, slot=p, tag=admission.tag, pc=isa.make_pc(p, start), arena_base=base, arena_bytes=size,
            exits=self.rng.choice([0xFFFF, self.rng.getrandbits(16)]) if p else 0xFFFF, runnable=1,
            ride=self.rng.getrandbits(1), priority=self.rng.choice([1, 1, 2]),
        )  # fmt: skip


async def play_rounds(bench, scenario):
    """All rounds in one run; the outcome also has ``marks`` (changes of programs) and ``lasted`` (cycles)."""
    player = RoundPlayer(bench, scenario)
    await player.begin()
    await player.run()
    return await player.end() | {"marks": player.marks, "lasted": player.lasted}


# --- commands -------------------------------------------------------------------------------------------------------


async def send_wrong_commands(bench, scenario, wrong):
    """Wrong commands while samples live. ``wrong``: (doorbell, command words).

    Slots 0 and 1 hold samples that may not run until the end, the other samples run one after the other in slot 2.
    At the end one more: an ADMIT into the slot of a sample whose completion is not popped.
    """
    player = Player(bench, scenario)
    await player.begin()
    run = {"ride": 1, "priority": 1}
    for slot in (0, 1):
        await player.admit(slot, slot, runnable=0, **run)
    waiting = list(range(2, len(scenario.samples)))
    for doorbell, words in wrong:
        while not await player.read("COMMAND_FREE"):
            await player.pop()
        assert (await _ring(player, doorbell, words)).response == 0
        if waiting and player.holder[2] is None:
            await player.admit(waiting.pop(0), 2, runnable=1, **run)
        await bench.wait(bench.cycle() + player.rng.choice([1, 40, 150]), irq=False)
    await player.command(Opcode.BATCH, slot_mask=1, priority=1, runnable=1, ride=1, commit=1)
    while not any(_is_release(event) and event["slot"] == 0 for event in bench.events()):
        await bench.wait(bench.cycle() + 200, irq=False)
    fields = {"slot": 0, "tag": 0xBAD, "arena_base": player.holder[0].base, "arena_bytes": 64}
    words = isa.encode(isa.COMMANDS[Opcode.ADMIT], fields, isa.COMMAND_WORDS, "ADMIT")
    while not await player.read("COMMAND_FREE"):
        await player.pop(1)
    await _ring(player, Opcode.ADMIT, words)
    await bench.wait(bench.cycle() + 100, irq=False)
    await player.command(Opcode.BATCH, slot_mask=2, priority=1, runnable=1, ride=1, commit=1)
    player.waiting = waiting
    await player.run_plain()
    return await player.end()


def _is_release(event):
    return event["source"] == ENGINE_PORT and event["kind"] == isa.EngineEvent.RELEASE


async def _ring(player, doorbell, words):
    """Stage all words and ring; returns the doorbell's Transaction, whatever its response."""
    writes = [Transaction(True, register_address("ARGUMENT", i), w) for i, w in enumerate(words)]
    done = await player.bench.transact(
        [*writes, Transaction(True, register_address("DOORBELL"), doorbell)], check=False
    )
    return done[-1]


def _no_such_slot(tag):
    return isa.encode(isa.COMMANDS[Opcode.ADMIT], {"slot": 15, "tag": tag}, isa.COMMAND_WORDS, "ADMIT")


async def fill_queues(bench, scenario):
    """A FENCE that waits for a slow cancelled sample, commands behind it until the queue is full, and beyond.

    Returns the outcome with: ``free`` (COMMAND_FREE before each accepted command, then at the end), ``refused``
    (responses of doorbells beyond), ``status`` words (full, after writing 0, after writing the bit), ``tags`` sent.
    """
    player = Player(bench, scenario)
    await player.begin()
    await player.admit(0, 0, runnable=1, ride=1, priority=1)
    await bench.wait(bench.cycle() + 30, irq=False)
    await player.command(Opcode.CANCEL, slot_mask=1)
    await player.command(Opcode.FENCE, tag=0xFE)
    free, tags, refused, status = [], [], [], [await player.read("STATUS")]
    while True:
        free.append(await player.read("COMMAND_FREE"))
        if not free[-1]:
            break
        tags.append(100 + len(tags))
        assert (await _ring(player, Opcode.ADMIT, _no_such_slot(tags[-1]))).response == 0
    for opcode, words in (
        (Opcode.ADMIT, _no_such_slot(99)),
        (Opcode.CANCEL, [0xFFFF, 0, 0, 0, 0]),
        (99, [0] * 5),
    ):
        refused.append((await _ring(player, opcode, words)).response)
    status.append(await player.read("STATUS"))
    assert player.holder[0].completion is None
    await player.write("STATUS", 0)
    status.append(await player.read("STATUS"))
    while player.busy or len(player.answers) < len(tags) + 1:
        await bench.wait()
        await player.pop(1)  # and look: nothing may come without a command
    await player.write("STATUS", OVERFLOW)
    status.append(await player.read("STATUS"))
    empty = await bench.transact([Transaction(True, register_address("COMPLETION_POP"), 1)], check=False)
    level = await player.read("COMPLETION_LEVEL")
    bench.set_memory(IDEAL)
    player.waiting = list(range(1, len(scenario.samples)))
    await player.run_plain()
    extra = {"free": free, "tags": tags, "refused": refused, "words": status, "pop": empty[0].response, "level": level}
    return await player.end() | extra


async def fill_completion_queue(bench, scenario):
    """Nobody pops until every completion entry is taken; two samples complete all the same.

    Returns the outcome with ``levels``: (COMMAND_FREE, COMPLETION_LEVEL) when the host cannot go on, when the samples
    are done, and after one pop; ``refused``: response of a doorbell without room; ``tags`` sent.
    """
    player = Player(bench, scenario)
    await player.begin()
    for n in range(2):
        await player.admit(n, n, runnable=0, ride=1, priority=1)
    await player.command(Opcode.BATCH, slot_mask=3, priority=1, runnable=1, ride=1, commit=1)
    tags = []
    while True:
        await bench.wait(bench.cycle() + 20, irq=False)  # until the command is executed
        if not await player.read("COMMAND_FREE"):
            break
        tags.append(100 + len(tags))
        await _ring(player, Opcode.ADMIT, _no_such_slot(tags[-1]))
    names = ("COMMAND_FREE", "COMPLETION_LEVEL")
    levels = [[await player.read(n) for n in names]]
    refused = (await _ring(player, Opcode.ADMIT, _no_such_slot(99))).response
    most = (await player.read("CONFIG_QUEUE")) >> 16
    while await player.read("COMPLETION_LEVEL") < most:
        await bench.wait(bench.cycle() + 200, irq=False)
    levels.append([await player.read(n) for n in names])
    await player.pop(1)
    levels.append([await player.read(n) for n in names])
    await player.pop()
    player.waiting = list(range(2, len(scenario.samples)))
    await player.run_plain()
    return await player.end() | {"levels": levels, "refused": refused, "tags": tags}


# --- soft reset -----------------------------------------------------------------------------------------------------


class ResetPlayer(Player):
    """Random life, a soft reset at a random moment, then one sample from beginning to end; again and again."""

    async def run(self, resets):
        self.moments = []  # cycle of each reset's write
        self.survivors = []
        for _ in range(resets):
            await self._live(self.rng.randrange(30, 4000))
            await self._reset()
            await self._one_sample()

    async def _live(self, cycles):
        """Commands of all kinds; confident exits."""
        end = self.bench.cycle() + cycles
        for e in range(len(self.scenario.programs[0].limits)):
            await self.command(Opcode.LIMIT, program=0, exit=e, limit=isa.LIMIT_ALWAYS)
        self.waiting = list(range(1, len(self.scenario.samples)))
        names, weights = list(self.scenario.weights), list(self.scenario.weights.values())
        while self.bench.cycle() < end and self.waiting:
            await getattr(self, f"_{self.rng.choices(names, weights)[0]}")()

    async def _reset(self):
        done = await self.bench.write(register_address("SOFT_RESET"), self.rng.getrandbits(32))
        self.moments.append(done.accepted)
        addresses = [register_address(n) for n in ("STATUS", "COMMAND_FREE", "COMPLETION_LEVEL", "STATUS")]
        for _ in range(10000):
            before, free, level, after = await self.bench.read_many(addresses)
            if not after & RESETTING:
                break
            if before & RESETTING:
                assert (free, level) == (0, 0), f"COMMAND_FREE {free}, COMPLETION_LEVEL {level} in a soft reset"
                refused = await _ring(self, Opcode.FENCE, [0, 0, 0, 0, 0])
                assert refused.response in (0, 2)
                if refused.response == 0:  # the reset was over meanwhile
                    await self.bench.wait(self.bench.cycle() + 20, irq=False)
        else:
            raise AssertionError("a soft reset does not end")
        await self.bench.wait(self.bench.cycle() + 20, irq=False)
        await self.pop()  # nothing but such FENCEs
        states = await self.bench.read_many([register_address("SLOT_STATE", i) for i in range(self.scenario.slots)])
        assert not any(state & 7 for state in states), f"SLOT_STATE {states} after a soft reset"
        self.holder = [None] * self.scenario.slots
        self.admissions = [a for a in self.admissions if a.completion is not None]
        await self.write("STATUS", OVERFLOW)
        self.cut, self.arenas = self.floor, []

    async def _one_sample(self):
        """The first sample, not confident at any exit: limits are forgotten."""
        before = self.bench.memory.copy()
        await self.admit(0, self.rng.randrange(self.scenario.slots), runnable=1, ride=1, priority=1)
        while self.busy:
            await self.bench.wait()
            await self.pop()
        last = self.admissions[-1]
        changed = np.flatnonzero(before != self.bench.memory)
        inside = (changed >= last.base) & (changed < last.base + last.size)
        assert inside.all(), f"bytes at {changed[~inside][:4]} changed after a soft reset"
        self.survivors.append(last)


async def play_resets(bench, scenario, resets):
    """``resets`` soft resets; the outcome also has ``moments`` and ``survivors`` (the Admissions after each)."""
    player = ResetPlayer(bench, scenario)
    await player.begin()
    player.floor = player.cut
    await player.run(resets)
    return await player.end() | {"moments": player.moments, "survivors": player.survivors}
