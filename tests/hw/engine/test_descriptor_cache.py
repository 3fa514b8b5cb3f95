"""DescriptorCache: what it finds is what memory holds, one fetch for all slots at a pc, every failure reported."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.descriptor_cache import DescriptorCache
from fluidnpu.hw.engine.descriptor_check import DescriptorCheck
from fluidnpu.hw.isa import DESCRIPTOR_BYTES, PC_INDEX_BITS, Code, make_pc

from .client_memory import ClientMemory
from .descriptors import broken_rule, exit_fields, jump_fields, to_bytes

REGION = 1 << 16  # bytes between program regions
OPS = 12
BAD, UNREADABLE = {3, 7}, {5}  # indices


class Programs:
    """Program regions of EXITs and JUMPs. ``move`` gives a program new contents at another base; its failures stay."""

    def __init__(self, config, rng):
        self.config, self.rng = config, rng
        self.base = [0] * config.programs
        self.bytes = [OPS * DESCRIPTOR_BYTES] * config.programs
        for n in range(1, config.programs):
            self.bytes[n] -= DESCRIPTOR_BYTES // 2  # the last descriptor is cut off
        self.regions = []  # (base, program, descriptors), every one that ever was
        for n in range(config.programs):
            self.move(n)

    def move(self, n):
        self.base[n] = (len(self.regions) + 1) * REGION + self.rng.randrange(0, 4096, self.config.bus_bytes)
        self.regions.append((self.base[n], n, [self.descriptor(i) for i in range(OPS)]))

    def descriptor(self, index):
        if index in BAD:
            fields = {"op": 9}
        elif index < OPS - 1 and self.rng.random() < 0.5:
            fields = jump_fields(self.rng.randrange(16), self.rng.randrange(index + 1, OPS))
        else:
            fields = exit_fields(self.rng, self.config, self.rng.randrange(16), False)
        assert (broken_rule(self.config, fields, index, OPS) is not None) == (index in BAD)
        return to_bytes(fields)

    def contents(self, n):
        """(present descriptors, those before) of a program."""
        regions = [descriptors for _, m, descriptors in self.regions if m == n]
        return regions[-1], regions[-2] if len(regions) > 1 else None

    def place(self, address):
        base, n, descriptors = self.regions[address // REGION - 1]
        return base, n, descriptors, *divmod(address - base, DESCRIPTOR_BYTES)

    def read(self, address):
        _, _, descriptors, index, offset = self.place(address)
        return descriptors[index][offset : offset + self.config.bus_bytes]

    def failing(self, address):
        *_, index, offset = self.place(address)
        return index in UNREADABLE and offset == 64

    def legal(self, address, size, arena, owner):
        base, n, *_ = self.place(address)
        assert not arena and owner == n
        return base <= address and address + size <= base + self.bytes[n]

    def failure(self, n, index):
        """The code with which a slot at this operation fails, or None."""
        if index >= OPS or index in BAD:
            return Code.DESCRIPTOR
        if (index + 1) * DESCRIPTOR_BYTES > self.bytes[n]:
            return Code.ADDRESS
        return Code.DESCRIPTOR_READ if index in UNREADABLE else None


class Slots:
    """What the engine does with the cache's answers, and what it may expect of them."""

    def __init__(self, cache, programs, rng):
        self.cache, self.programs, self.rng = cache, programs, rng
        n = cache.config.slots
        self.wanted, self.pc, self.entry, self.bytes = [0] * n, [0] * n, [None] * n, [None] * n
        self.giving_up = [0] * n
        self.since = [0] * n
        self.seen = dict.fromkeys(["found", *Code], 0)

    def move(self, ctx, s, cycle):
        """Slot ``s`` goes to a new operation."""
        old = [pc for t, pc in enumerate(self.pc) if t != s]
        index = self.rng.choice([*range(OPS), *range(OPS), OPS, 0x3FFF])
        self.pc[s] = self.rng.choice([*old, make_pc(self.rng.randrange(len(self.programs.base)), index)])
        self.wanted[s], self.entry[s], self.since[s] = 1, None, cycle
        ctx.set(self.cache.pc[s], self.pc[s])

    def drive(self, ctx):
        ctx.set(self.cache.wanted, sum(w << s for s, w in enumerate(self.wanted)))
        used = {e for e in self.entry if e is not None}
        ctx.set(self.cache.used, sum(1 << e for e in used))

    def check_entries(self, ctx):
        """Entries that slots refer to keep their descriptor."""
        for s, entry in enumerate(self.entry):
            if entry is not None:
                ctx.set(self.cache.read_entry, entry)
                got = ctx.get(self.cache.read.as_value()).to_bytes(DESCRIPTOR_BYTES, "little")
                assert got == self.bytes[s], f"slot {s}: entry {entry} has lost its descriptor"

    def answer(self, found, fault, forgotten):
        """Take the cache's answer of a cycle."""
        programs = self.programs
        if found:
            s, entry, op = found
            assert self.wanted[s], f"slot {s} is found, but does not want"
            n, index = divmod(self.pc[s], 1 << PC_INDEX_BITS)
            assert programs.failure(n, index) is None
            new, old = programs.contents(n)
            raw = (old if n in forgotten else new)[index]
            assert op == raw[0] & 15
            self.wanted[s], self.entry[s], self.bytes[s] = 0, entry, raw
            self.seen["found"] += 1
        if fault:
            mask, code, pc = fault
            expected = sum(1 << s for s, w in enumerate(self.wanted) if w and self.pc[s] == pc)
            assert mask == expected, f"fault of pc {pc:x}"
            assert code == programs.failure(*divmod(pc, 1 << PC_INDEX_BITS))
            for s in range(len(self.pc)):
                if mask >> s & 1 and not self.giving_up[s]:
                    self.giving_up[s] = self.rng.randint(1, 4)
            self.seen[code] += 1
        for s, left in enumerate(self.giving_up):
            if left:
                self.giving_up[s] -= 1
                if left == 1:
                    self.wanted[s] = 0


@pytest.mark.parametrize("slots", [2, 4, 8])
@pytest.mark.parametrize("latency, rate", [(1, 1.0), (40, 0.6)])
def test_random(slots, latency, rate):
    config = replace(CONFIGS["tiny"], slots=slots)
    seed = f"cache {slots} {latency}"
    rng = random.Random(seed)
    cache = DescriptorCache(config)
    programs = Programs(config, rng)
    table = Slots(cache, programs, rng)
    memory = ClientMemory(config, cache.client, programs.read, legal=programs.legal, failing=programs.failing,
                          latency=latency, rate=rate, seed=seed)  # fmt: skip
    # A visit of every slot per fetch of every other one
    beats = DESCRIPTOR_BYTES // config.bus_bytes
    patience = (slots + 1) * (latency + beats / rate * 3 + DescriptorCheck.CYCLES + slots + 20)
    forgets = 0

    async def bench(ctx):
        nonlocal forgets
        for n in range(config.programs):
            ctx.set(cache.program_base[n], programs.base[n])
            ctx.set(cache.program_ops[n], OPS)
        for cycle in range(4000):
            # A program moves: nothing that was read before may be found.
            forgotten = set()
            if rng.random() < 0.002:
                n = rng.randrange(config.programs)
                programs.move(n)
                ctx.set(cache.program_base[n], programs.base[n])
                forgotten, forgets = {n}, forgets + 1
                table.since = [
                    cycle if wanted else since for wanted, since in zip(table.wanted, table.since, strict=True)
                ]
            ctx.set(cache.forget, sum(1 << n for n in forgotten))
            for s in range(slots):
                if not table.wanted[s] and rng.random() < 0.03:
                    table.move(ctx, s, cycle)
                assert not table.wanted[s] or cycle - table.since[s] < patience, f"slot {s} waits for ever"
            table.drive(ctx)
            if rng.random() < 0.1:
                table.check_entries(ctx)
            _, _, found, slot, entry, op, fault, code, pc = await ctx.tick().sample(
                cache.found, cache.found_slot, cache.found_entry, cache.found_op, cache.fault, cache.fault_code,
                cache.fetch_pc,
            )  # fmt: skip
            table.answer((slot, entry, op) if found else None, (fault, code, pc) if fault else None, forgotten)

    sim = Simulator(cache)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(memory.serve, background=True)
    sim.run()
    assert table.seen["found"] > 40 and forgets > 1
    assert min(table.seen[code] for code in (Code.DESCRIPTOR, Code.DESCRIPTOR_READ, Code.ADDRESS)) > 0, table.seen


def test_shared_fetch_hit_and_eviction():
    """One read for slots at one pc, none for a hit, which takes slots + 1 cycles; every entry can be replaced."""
    config = CONFIGS["tiny"]
    rng = random.Random("shared")
    cache = DescriptorCache(config)
    programs = Programs(config, rng)
    memory = ClientMemory(config, cache.client, programs.read, legal=programs.legal, failing=programs.failing)
    n = config.slots

    async def find(ctx, wanted, pc):
        """Slots that want ``pc``; returns (cycles, entry) when all have it."""
        left, entries, cycles = set(wanted), set(), 0
        for s in wanted:
            ctx.set(cache.pc[s], pc)
        while left:
            ctx.set(cache.wanted, sum(1 << s for s in left))
            _, _, found, slot, entry = await ctx.tick().sample(cache.found, cache.found_slot, cache.found_entry)
            cycles += 1
            assert cycles < 300
            if found:
                left.discard(slot)
                entries.add(entry)
        ctx.set(cache.wanted, 0)
        assert len(entries) == 1
        return cycles, entries.pop()

    async def bench(ctx):
        for p in range(config.programs):
            ctx.set(cache.program_base[p], programs.base[p])
            ctx.set(cache.program_ops[p], OPS)
        _, first = await find(ctx, range(n), make_pc(1, 0))
        assert sum(beats for _, _, beats, *_ in memory.bursts) * config.bus_bytes == DESCRIPTOR_BYTES
        reads = len(memory.bursts)
        ctx.set(cache.used, 1 << first)
        cycles, entry = await find(ctx, range(n), make_pc(1, 0))
        assert cycles <= n + 1 and entry == first and len(memory.bursts) == reads
        # Others come and go; the entry in use stays, all others serve.
        entries = set()
        for index in (0, 1, 2, 4, 6, 8, 9, 10):
            _, entry = await find(ctx, [index % n], make_pc(2, index))
            assert entry != first
            entries.add(entry)
            ctx.set(cache.used, 1 << first | 1 << entry)
        assert entries
        reads = len(memory.bursts)
        _, entry = await find(ctx, [0], make_pc(1, 0))
        assert entry == first and len(memory.bursts) == reads
        # All but two in use, as many as can be while somebody wants.
        for index in (0, 1, 2, 4):
            ctx.set(cache.used, (1 << n - 1) - 1)
            _, entry = await find(ctx, [1], make_pc(3, index))
            assert entry >= n - 1

    sim = Simulator(cache)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(memory.serve, background=True)
    sim.run()


def test_nobody_is_thrown_out():
    """Slots at different pcs all get their descriptors, whatever the time of a fetch does to the order of visits."""
    config = replace(CONFIGS["tiny"], slots=2)
    rng = random.Random("thrash")
    cache = DescriptorCache(config)
    programs = Programs(config, rng)
    memory = ClientMemory(config, cache.client, programs.read)

    async def bench(ctx):
        for p in range(config.programs):
            ctx.set(cache.program_base[p], programs.base[p])
            ctx.set(cache.program_ops[p], OPS)
        for gap in range(2):
            for delay in range(2):
                ctx.set(cache.forget, (1 << config.programs) - 1)
                await ctx.tick()
                ctx.set(cache.forget, 0)
                for s, index in enumerate((0, 1)):
                    ctx.set(cache.pc[s], make_pc(2 * s, index))
                memory.slower = delay
                entries, cycles = {}, 0
                while len(entries) < 2:
                    ctx.set(cache.used, sum(1 << e for e in entries.values()))
                    late = 2 if cycles >= gap else 0
                    ctx.set(cache.wanted, (1 | late) & ~sum(1 << s for s in entries))
                    _, _, found, slot, entry = await ctx.tick().sample(cache.found, cache.found_slot, cache.found_entry)
                    cycles += 1
                    assert cycles < 4 * (DESCRIPTOR_BYTES // config.bus_bytes + DescriptorCheck.CYCLES), (gap, delay)
                    if found:
                        entries[slot] = entry
                ctx.set(cache.wanted, 0)
                ctx.set(cache.used, 0)

    sim = Simulator(cache)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(memory.serve, background=True)
    sim.run()
