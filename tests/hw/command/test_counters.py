"""Counters against a model: exclusive causes, increments, the copy of one cycle."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw import isa
from fluidnpu.hw.command.counters import EVENTS, RAW_CAUSES, Counters


def run(bench):
    dut = Counters()
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def testbench(ctx):
        await bench(ctx, dut)

    sim.add_testbench(testbench)
    sim.run()


async def copies(ctx, dut):
    """Read every copy; takes len(isa.COUNTERS) + 1 cycles."""
    values = {}
    for i, name in enumerate(isa.COUNTERS):
        ctx.set(dut.index, i)
        await ctx.tick()
        values[name] = ctx.get(dut.value)
    return values


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 1])
def test_random(density):
    rng = random.Random(density)

    async def bench(ctx, dut):
        truth = dict.fromkeys(isa.COUNTERS, 0)
        for round_ in range(6):
            for _ in range(rng.randint(1, 60)):
                causes = {name: rng.random() < density for name in RAW_CAUSES}
                increments = {name: rng.randrange(256) if rng.random() < density else 0 for name in EVENTS}
                ctx.set(dut.causes, causes)
                ctx.set(dut.increments, increments)
                await ctx.tick()
                truth["cycles_" + next((name for name in RAW_CAUSES if causes[name]), "idle")] += 1
                for name in EVENTS:
                    truth[name] += increments[name]
            # The copy holds what was counted before the cycle of the latch; the reads below are idle cycles.
            elapsed = ctx.get(dut.cycle)
            ctx.set(dut.causes, {})
            ctx.set(dut.increments, {})
            ctx.set(dut.latch, 1)
            await ctx.tick()
            ctx.set(dut.latch, 0)
            found = await copies(ctx, dut)
            assert found == truth, round_
            assert sum(found[f"cycles_{cause}"] for cause in isa.CAUSES) == elapsed
            truth["cycles_idle"] += ctx.get(dut.cycle) - elapsed

    run(bench)


@pytest.mark.parametrize("cause", isa.CAUSES)
def test_priority(cause):
    """A cause wins against everything behind it."""
    at = isa.CAUSES.index(cause)

    async def bench(ctx, dut):
        ctx.set(dut.causes, dict.fromkeys(RAW_CAUSES[at:], 1))
        await ctx.tick().repeat(5)
        ctx.set(dut.latch, 1)
        await ctx.tick()
        ctx.set(dut.latch, 0)
        found = await copies(ctx, dut)
        assert {name: n for name, n in found.items() if n} == {f"cycles_{cause}": 5}

    run(bench)
