"""LeaderScan against min() over (-priority, pc, line, age)."""

import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.leader import LeaderScan


def random_case(rng, slots):
    """Live slots by age, a mask of some of them, and keys that often tie."""
    order = rng.sample(range(slots), rng.randint(1, slots))
    mask = rng.sample(order, rng.randint(1, len(order)))
    few = rng.choice([1, 2, 4])
    keys = [
        (rng.choice([0, 255, *range(few)]), rng.choice([0, 0x4001, 0xFFFF, *range(few)]), rng.choice([0, 0xFFFF, 1, 2]))
        for _ in range(slots)
    ]
    return order, mask, keys


@pytest.mark.parametrize("slots", [2, 4, 8, 16])
def test_random(slots):
    rng = random.Random(f"leader {slots}")
    scan = LeaderScan(replace(CONFIGS["hub"], slots=slots))

    async def bench(ctx):
        for case in range(150):
            order, mask, keys = random_case(rng, slots)
            for s, (priority, pc, line) in enumerate(keys):
                ctx.set(scan.priority[s], priority)
                ctx.set(scan.pc[s], pc)
                ctx.set(scan.line[s], line)
            for i in range(slots):
                ctx.set(scan.order[i], order[i] if i < len(order) else rng.randrange(slots))
            ctx.set(scan.count, len(order))
            ctx.set(scan.mask, sum(1 << s for s in mask))
            ctx.set(scan.go, 1)
            await ctx.tick()
            ctx.set(scan.go, 0)
            cycles = 0
            while not ctx.get(scan.done):
                await ctx.tick()
                cycles += 1
                assert cycles < 50, f"case {case}: no end"
            assert cycles + 1 == len(order) + 1, f"case {case}: {cycles + 1} cycles for {len(order)} slots"
            leader = min(mask, key=lambda s: (-keys[s][0], *keys[s][1:], order.index(s)))
            assert ctx.get(scan.leader) == leader, f"case {case}: {order} {mask} {keys}"
            await ctx.tick().repeat(rng.choice([1, 1, 3]))
            assert not ctx.get(scan.done), f"case {case}: done twice"
            assert ctx.get(scan.leader) == leader, f"case {case}: the result does not stay"

    sim = Simulator(scan)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
