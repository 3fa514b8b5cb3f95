"""ExitUnit against nn.exits.top_and_spread: any number of classes, ties, saturation, kept tables, errors, cycles."""

import random
from math import ceil

import numpy as np
import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.exit_unit import ExitUnit
from fluidnpu.hw.isa import EXIT_TABLE_BYTES, MAX_CLASSES, Code
from fluidnpu.nn.exits import exit_table, top_and_spread

from .client_memory import ClientMemory

TABLES = 0x100000  # from here on: program regions


class Bench:
    """An exit unit, its memory (``bytes`` at ``address``) and what it should say."""

    def __init__(self, name, **memory):
        self.config = CONFIGS[name]
        self.rng = random.Random(f"exit {name} {memory}")
        self.unit = ExitUnit(self.config)
        self.content = {}  # address of a beat -> bytes
        self.bad = set()  # addresses of beats that fail
        self.refused = range(0)  # addresses that no burst may reach
        self.memory = ClientMemory(
            self.config, self.unit.client, self.read, failing=self.bad.__contains__, legal=self.legal, **memory
        )
        self.owner = None  # (slot, program) of the decision

    def read(self, address):
        return self.content.get(address) or self.rng.randbytes(self.config.bus_bytes)

    def legal(self, address, size, arena, owner):
        assert arena == (address < TABLES) and owner == self.owner[not arena]
        return not (set(range(address, address + size)) & set(self.refused))

    def put(self, address, raw):
        """Lay bytes at a beat address; what is behind them in the last beat is random."""
        bus = self.config.bus_bytes
        raw += self.rng.randbytes(-len(raw) % bus)
        self.content |= {address + i: raw[i : i + bus] for i in range(0, len(raw), bus)}

    def table(self, address, entries):
        """The upper bits of an entry are reserved: random."""
        words = [int(e) | self.rng.getrandbits(15) << 17 for e in entries]
        self.put(address, np.array(words, "<u4").tobytes())

    async def decide(self, ctx, *, classes, logits, table, slot=0, program=0, exit=0):
        """One decision: (top, spread, code or 0, cycles from go to done, beats read)."""
        unit, memory = self.unit, self.memory
        self.owner = (slot, program)
        values = {"slot": slot, "program": program, "exit": exit, "logits": logits, "table": table, "classes": classes}
        for name, value in values.items():
            ctx.set(getattr(unit, name), value)
        first = len(memory.bursts)
        ctx.set(unit.go, 1)
        await ctx.tick()
        ctx.set(unit.go, 0)
        cycles = 1
        while not ctx.get(unit.done):
            await ctx.tick()
            cycles += 1
            assert cycles < 20_000, "no decision"
        code = ctx.get(unit.fault_code) if ctx.get(unit.fault) else 0
        result = ctx.get(unit.top), ctx.get(unit.spread), code, cycles, sum(b[2] for b in memory.bursts[first:])
        await ctx.tick()
        assert not ctx.get(unit.done)
        return result

    def run(self, bench):
        sim = Simulator(self.unit)
        sim.add_clock(1e-6)
        sim.add_testbench(bench)
        sim.add_testbench(self.memory.serve, background=True)
        sim.run()


def random_logits(rng, classes):
    """int8 logits, often with ties for the top class."""
    kind = rng.choice(["any", "few", "equal", "edges"])
    values = {"any": range(-128, 128), "few": range(-2, 2), "equal": [rng.randint(-128, 127)], "edges": [-128, 127]}
    return np.array(rng.choices(values[kind], k=classes), np.int8)


@pytest.mark.parametrize(
    "name, memory",
    [("tiny", {}), ("gemmini16", {"latency": 30, "rate": 0.5}), ("hub", {})],
    ids=["fast", "slow", "wide"],
)
def test_random(name, memory):
    bench = Bench(name, **memory)
    rng, config = bench.rng, bench.config
    bus = config.bus_bytes
    tables = [np.array([rng.getrandbits(17) for _ in range(256)]), np.full(256, (1 << 17) - 1), np.zeros(256, int)]
    tables += [exit_table(scale).astype(int) for scale in (0.01, 0.1, 1.0)]
    # (program, exit) -> address and entries of its table; exits that share a way replace each other
    kept = {}
    sizes = [
        1,
        2,
        bus - 1,
        bus,
        bus + 1,
        10,
        10,
        10,
        100,
        MAX_CLASSES - 1,
        MAX_CLASSES,
        *rng.choices(range(1, 80), k=12),
    ]
    rng.shuffle(sizes)

    async def decisions(ctx):
        for number, classes in enumerate(sizes):
            program, exit = rng.randrange(config.programs), rng.choice([0, 1, 4, 5, 15])
            if (program, exit) not in kept or rng.random() < 0.1:
                address = TABLES + (number + 1) * EXIT_TABLE_BYTES + rng.randrange(0, EXIT_TABLE_BYTES, bus)
                kept[program, exit] = address + (number << 13), rng.choice(tables)
                bench.table(*kept[program, exit])
            logits = random_logits(rng, classes)
            place = rng.randrange(0, TABLES - 2 * MAX_CLASSES, bus)
            bench.put(place, logits.tobytes())
            address, entries = kept[program, exit]
            top, spread, code, cycles, beats = await bench.decide(
                ctx, classes=classes, logits=place, table=address, slot=rng.randrange(config.slots),
                program=program, exit=exit,
            )  # fmt: skip
            want_top, want_spread = top_and_spread(logits, entries)
            assert (top, spread, code) == (want_top, want_spread, 0), f"decision {number}: {classes} classes"
            logit_beats = ceil(classes / bus)
            assert beats in (logit_beats, logit_beats + EXIT_TABLE_BYTES // bus)
            if not memory:  # the first beat comes one cycle after its burst
                least = 2 * classes + logit_beats + 8
                assert cycles == least if beats == logit_beats else least < cycles <= least + beats + 4

    bench.run(decisions)


def test_tables_are_kept():
    """A table is read once, until another exit takes its place or its program changes."""
    bench = Bench("tiny")
    config, unit = bench.config, bench.unit
    rng, table_beats = bench.rng, EXIT_TABLE_BYTES // config.bus_bytes
    logits = random_logits(rng, 8)
    bench.put(0, logits.tobytes())
    tables = {e: TABLES + e * EXIT_TABLE_BYTES for e in range(8)}
    for address in tables.values():
        bench.table(address, [rng.getrandbits(17) for _ in range(256)])

    async def decisions(ctx):
        async def reads_table(exit, program=0):
            _, spread, code, _, beats = await bench.decide(
                ctx, classes=8, logits=0, table=tables[exit], exit=exit, program=program
            )
            entries = b"".join(bench.read(tables[exit] + 8 * i) for i in range(table_beats))
            assert spread == top_and_spread(logits, np.frombuffer(entries, "<u4").astype(int) & 0x1FFFF)[1] and not code
            assert beats - 1 in (0, table_beats)
            return beats > 1

        assert [await reads_table(e) for e in range(unit.TABLES)] == [True] * unit.TABLES
        assert [await reads_table(e) for e in range(unit.TABLES)] == [False] * unit.TABLES
        assert await reads_table(unit.TABLES)  # takes the place of exit 0
        assert [await reads_table(0), await reads_table(0), await reads_table(1)] == [True, False, False]
        assert await reads_table(1, program=1)  # the same address, another program
        assert [await reads_table(1, program=1), await reads_table(2), await reads_table(1)] == [False, False, True]
        ctx.set(unit.forget, 0b0010)
        await ctx.tick()
        ctx.set(unit.forget, 0)
        assert not await reads_table(2)
        ctx.set(unit.forget, 0b0001)
        await ctx.tick()
        ctx.set(unit.forget, 0)
        for e, address in tables.items():
            bench.table(address, [rng.getrandbits(17) for _ in range(256)])
            assert e > 3 or await reads_table(e)

    bench.run(decisions)


def test_largest_sum():
    """MAX_CLASSES equal logits with the largest entry."""
    bench = Bench("tiny")
    bench.put(0, bytes(MAX_CLASSES))
    bench.table(TABLES, [(1 << 17) - 1] * 256)

    async def decisions(ctx):
        top, spread, code, *_ = await bench.decide(ctx, classes=MAX_CLASSES, logits=0, table=TABLES)
        assert (top, spread, code) == (0, MAX_CLASSES * ((1 << 17) - 1), 0)

    bench.run(decisions)


@pytest.mark.parametrize("memory", [{}, {"latency": 30, "rate": 0.5}], ids=["fast", "slow"])
def test_errors(memory):
    """An error ends the decision with its code; the table is read again afterwards; nothing else changes."""
    bench = Bench("tiny", **memory)
    rng, bus = bench.rng, bench.config.bus_bytes
    table_beats = EXIT_TABLE_BYTES // bus
    entries = exit_table(0.1)

    async def decisions(ctx):
        for number in range(12):
            classes = rng.choice([1, 8, 20, 300])
            logits = random_logits(rng, classes)
            place, table = rng.randrange(0, 1 << 16, bus), TABLES + (number << 12)
            bench.put(place, logits.tobytes())
            bench.table(table, entries)
            in_table = rng.random() < 0.5
            start, beats = (table, table_beats) if in_table else (place, ceil(classes / bus))
            where = start + bus * rng.choice([0, beats - 1, rng.randrange(beats)])
            expected = Code.EXIT_READ
            if rng.random() < 0.5:
                expected, bench.refused = Code.ADDRESS, range(where, where + bus)
            else:
                bench.bad.add(where)
            job = {"classes": classes, "logits": place, "table": table, "exit": number % 5}
            *_, code, _, _ = await bench.decide(ctx, **job)
            assert code == expected, f"decision {number}"
            bench.bad.clear()
            bench.refused = range(0)
            top, spread, code, _, beats = await bench.decide(ctx, **job)
            want_top, want_spread = top_and_spread(logits, entries)
            assert (top, spread, code) == (want_top, want_spread, 0), f"decision {number} after an error"
            assert beats == ceil(classes / bus) + table_beats

    bench.run(decisions)
