"""A host that does random or scripted things to the NPU; runs inside the simulator's process.

`play` runs scenarios one after the other, each from reset, and returns what happened: every register access, every
event, every completion with the sample's arena at the moment of its pop, and how memory differs from the random bytes
that it held before.
"""

import random

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import Opcode, Status, register_address
from fluidnpu.sim.rtl_bench import Transaction
from npu_scenario import GUARD, Admission

__all__ = ["Player", "play", "play_all"]

WATCHDOG = 4_000_000


async def play(bench, scenario):
    """Run one scenario; returns its outcome as a dict."""
    player = Player(bench, scenario)
    await player.begin()
    if scenario.script:
        await player.run_script()
    elif scenario.weights:
        await player.run_random()
    else:
        await player.run_plain()
    return await player.end()


async def play_all(bench, scenarios):
    """Run scenarios one after the other; list of outcomes."""
    return [await play(bench, scenario) for scenario in scenarios]


class Player:
    """The host of one scenario."""

    ACTIONS = ("admit", "batch", "commit", "leave", "cancel", "fence", "limit", "wrong", "nap", "pop")

    def __init__(self, bench, scenario):
        self.bench, self.scenario = bench, scenario
        self.rng = random.Random(scenario.seed)
        self.waiting = list(range(len(scenario.samples)))
        self.holder = [None] * scenario.slots  # admission in each slot
        self.admissions = []
        self.answers = []  # completions of commands
        self.arenas = []  # (base, size) that can be used again
        self.cut = GUARD  # memory below is in use
        self.fences = self.popped = 0

    # --- memory -------------------------------------------------------------------------------------------------

    def place(self, size):
        """Address for ``size`` bytes at some multiple of the bus width; sometimes right behind the last one."""
        bus = self.scenario.bus_bytes
        gap = self.rng.choice([0, bus, self.rng.randrange(0, 2048, bus)])
        base = self.cut + -self.cut % bus + gap
        self.cut = base + size
        assert self.cut + GUARD <= self.scenario.memory_bytes, "the scenario's memory is too small"
        return base

    def arena(self, size):
        """A new arena, or one that a completed sample had."""
        fitting = [a for a in self.arenas if a[1] >= size]
        if fitting and self.rng.random() < 0.6:
            self.arenas.remove(fitting[0])
            return fitting[0][0]
        return self.place(size)

    # --- registers ----------------------------------------------------------------------------------------------

    async def write(self, name, value, index=0):
        await self.bench.write(register_address(name, index), value)

    async def read(self, name, index=0):
        return await self.bench.read(register_address(name, index))

    async def begin(self):
        """Reset, random memory, programs, limits, modes."""
        s, bench = self.scenario, self.bench
        await bench.start(s.memory, memory_bytes=s.memory_bytes, watchdog=WATCHDOG)
        bench.memory[:] = s.initial_memory()
        self.regions = []
        for i, p in enumerate(s.programs):
            base = self.place(len(p.region))
            self.regions.append((base, len(p.region)))
            bench.memory[base : base + len(p.region)] = np.frombuffer(p.region, np.uint8)
            for name, value in (("BASE", base), ("BYTES", len(p.region)), ("OPS", p.ops)):
                await self.write(f"PROGRAM_{name}", value, i)
        await self.write("CONTROL", s.rigid | s.unstacked << 1 | 4)
        for i, p in enumerate(s.programs):
            for e, limit in enumerate(p.limits):
                await self.command(Opcode.LIMIT, program=i, exit=e, limit=limit)
        self.original = bench.memory.copy()

    async def room(self):
        """Wait until a command can be queued; completions that stand in the way are popped."""
        while not await self.read("COMMAND_FREE"):
            await self.pop()
            await self.bench.wait(self.bench.cycle() + 20, irq=False)

    async def command(self, opcode, at=0, **fields):
        """Queue a command, its doorbell not before cycle ``at``; waits for a free entry. Returns the doorbell."""
        layout = isa.COMMANDS.get(opcode, ())
        words = isa.encode(layout, fields, isa.COMMAND_WORDS, str(opcode))
        await self.room()
        used = {f.word for f in layout}
        writes = [Transaction(True, register_address("ARGUMENT", w), words[w]) for w in sorted(used)]
        done = await self.bench.transact(
            [*writes, Transaction(True, register_address("DOORBELL"), int(opcode), not_before=at)]
        )
        return done[-1]

    async def admit(self, index, slot, at=0, **fields):
        """Queue the ADMIT of a sample into a free slot."""
        sample = self.scenario.samples[index]
        program = self.scenario.programs[sample.program]
        base = self.arena(program.arena_bytes)
        end = base + program.arena_bytes
        start = base + program.input_offset
        memory = self.bench.memory
        memory[start : start + len(sample.payload)] = sample.payload
        admission = Admission(
            index, sample.tag, sample.program, slot, base, program.arena_bytes, sample.exits, memory[base:end].copy()
        )
        self.holder[slot] = admission
        self.admissions.append(admission)
        pc = isa.make_pc(sample.program, 0)
        place = {"arena_base": base, "arena_bytes": program.arena_bytes}
        await self.command(
            Opcode.ADMIT, at, slot=slot, tag=sample.tag, pc=pc, exits=sample.exits, **place, **fields
        )  # fmt: skip

    async def pop(self, most=64):
        """Take completions out of the queue, keep their samples' arenas."""
        for _ in range(min(most, await self.read("COMPLETION_LEVEL"))):
            addresses = [register_address("COMPLETION", w) for w in range(isa.COMPLETION_WORDS)]
            words = await self.bench.read_many(addresses)
            completion = isa.decode(isa.COMPLETION_FIELDS, words)
            if completion["status"] in (Status.ERROR, Status.FENCE):
                self.answers.append(completion)
            else:
                held = self.holder[completion["slot"]]
                assert held is not None and held.completion is None, f"completion of an empty slot: {completion}"
                held.completion, held.popped = completion, self.popped
                self.popped += 1
                held.after = self.bench.memory[held.base : held.base + held.size].copy()
                self.arenas.append((held.base, held.size))
                self.holder[completion["slot"]] = None
            await self.write("COMPLETION_POP", 1)

    @property
    def busy(self):
        return any(h is not None for h in self.holder)

    @property
    def free(self):
        return [s for s, h in enumerate(self.holder) if h is None]

    # --- what hosts do ------------------------------------------------------------------------------------------

    async def run_plain(self):
        """Everybody as soon as a slot is free."""
        while self.waiting or self.busy:
            first = len(self.admissions)
            for slot in self.free[: len(self.waiting)]:
                run = {"runnable": int(not self.scenario.together), "ride": 1, "priority": 1}
                await self.admit(self.waiting.pop(0), slot, **run)
            if self.scenario.together and len(self.admissions) > first:
                mask = sum(1 << a.slot for a in self.admissions[first:])
                await self.command(Opcode.BATCH, slot_mask=mask, priority=1, runnable=1, ride=1, commit=1)
            if self.scenario.together:  # groups one after the other
                while self.busy:
                    await self.bench.wait()
                    await self.pop()
            else:
                await self.bench.wait()
                await self.pop()

    async def run_script(self):
        """The script, then wait for everybody."""
        for cycle, opcode, fields in self.scenario.script:
            await self.bench.wait(max(0, cycle - 60), irq=False)
            fields = dict(fields)
            if opcode == Opcode.ADMIT:
                await self.admit(fields.pop("sample"), fields.pop("slot"), cycle, **fields)
            else:
                await self.command(opcode, cycle, **fields)
        while self.busy:
            await self.bench.wait()
            await self.pop()

    async def run_random(self):
        """Random actions until every sample was admitted; then everybody may run, and all complete."""
        names, weights = list(self.scenario.weights), list(self.scenario.weights.values())
        while self.waiting:
            await getattr(self, f"_{self.rng.choices(names, weights)[0]}")()
        mask = (1 << self.scenario.slots) - 1
        while self.busy:
            for slot in range(self.scenario.slots):
                await self._batch(1 << slot)
            await self.command(Opcode.BATCH, slot_mask=0, commit=1)
            priority = self.rng.randrange(256)
            await self.command(Opcode.BATCH, slot_mask=mask, priority=priority, runnable=1, ride=1, commit=1)
            await self.bench.wait(self.bench.cycle() + self.rng.randrange(1, 5000))
            await self.pop()

    def _mask(self):
        return self.rng.getrandbits(self.scenario.slots)

    async def _admit(self):
        if self.free and self.waiting:
            slot = self.rng.choice(self.free)
            run = {"runnable": int(self.rng.random() < 0.85), "ride": int(self.rng.random() < 0.85)}
            await self.admit(self.waiting.pop(0), slot, priority=self.rng.choice([0, 1, 1, 1, 2, 255]), **run)
        else:
            await self._nap()

    async def _batch(self, mask=None):
        r = self.rng
        await self.command(
            Opcode.BATCH,
            slot_mask=self._mask() if mask is None else mask,
            priority=r.choice([0, 1, 1, 2, r.randrange(256)]),
            runnable=int(r.random() < 0.75),
            ride=int(r.random() < 0.75),
            commit=int(r.random() < 0.5),
        )

    async def _commit(self):
        await self.command(Opcode.BATCH, slot_mask=0, commit=1)

    async def _leave(self):
        await self.command(Opcode.LEAVE, slot_mask=1 << self.rng.randrange(self.scenario.slots))

    async def _cancel(self):
        await self.command(Opcode.CANCEL, slot_mask=1 << self.rng.randrange(self.scenario.slots))
        if self.rng.random() < 0.3:
            await self._fence()

    async def _fence(self):
        self.fences += 1
        await self.command(Opcode.FENCE, tag=self.fences)

    async def _limit(self):
        program = self.rng.randrange(len(self.scenario.programs))
        limits = self.scenario.programs[program].limits
        e = self.rng.randrange(len(limits))
        limit = self.rng.choice([isa.LIMIT_NEVER, isa.LIMIT_ALWAYS, limits[e], limits[e]])
        await self.command(Opcode.LIMIT, program=program, exit=e, limit=limit)

    async def _wrong(self):
        """A command that is answered by ERROR whenever it executes; it may name a live slot, where nothing changes."""
        fields = {"slot": self.rng.randrange(self.scenario.slots), "tag": 0xBAD, "runnable": 1}
        fields |= {"arena_base": GUARD + 1, "arena_bytes": 64}  # not aligned
        kind = self.rng.randrange(3)
        if kind == 0:
            await self.command(99)
        else:
            await self.command(Opcode.ADMIT, **(fields | ({"pc": 0x3FFF} if kind == 1 else {})))

    async def _nap(self):
        most = self.rng.choice([3, 50, self.scenario.nap, self.scenario.nap * 4])
        await self.bench.wait(self.bench.cycle() + self.rng.randrange(1, most + 1), irq=self.rng.random() < 0.5)

    async def _look(self):
        """All that the host can see of a slot that was used: tags and S of others mean nothing."""
        used = [slot for slot, held in enumerate(self.holder) if held is not None]
        if used:
            slot = self.rng.choice(used)
            await self.bench.read_many([register_address(name, slot) for name in isa.SLOT_WORDS])

    async def _pop(self):
        await self.pop(self.rng.choice([1, 1, 64]))

    # --- the end ------------------------------------------------------------------------------------------------

    async def end(self):
        """Counters, and everything that the checks need."""
        await self.pop()
        latch = await self.bench.write(register_address("COUNTER_LATCH"), 1)
        count = len(isa.COUNTERS)
        low = await self.bench.read_many([register_address("COUNTER_LOW", i) for i in range(count)])
        high = await self.bench.read_many([register_address("COUNTER_HIGH", i) for i in range(count)])
        counters = {name: low[i] | high[i] << 32 for i, name in enumerate(isa.COUNTERS)}
        changed = np.flatnonzero(self.bench.memory != self.original)
        return {
            "admissions": self.admissions,
            "answers": self.answers,
            "regions": self.regions,
            "counters": counters,
            "latched": latch.accepted,
            "statistics": self.bench.statistics(),
            "status": await self.read("STATUS"),
            "changed": changed,
            "bytes": self.bench.memory[changed],
            "events": self.bench.events(),
            "transactions": self.bench.transactions(),
        }
