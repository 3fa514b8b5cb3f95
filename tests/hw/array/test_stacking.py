"""Group fields, the don't-care multiplexer, depth sums."""

import random

import pytest
from amaranth.hdl import Const, Module, Signal
from amaranth.sim import Simulator
from fluidnpu.hw.array.stacking import DepthSum, Stacking, select
from fluidnpu.hw.config import CONFIGS


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_fields(name):
    """Every group has its own (r, mid, d), and the fields' ranges multiply to the groups."""
    stacking = Stacking(CONFIGS[name])
    for a, b in stacking.modes:
        fields = [stacking.fields(g, a, b) for g in range(stacking.groups)]
        assert len(set(fields)) == stacking.groups
        assert fields == sorted(fields)
        kr, kd = 1 << a, 1 << b
        assert fields[-1] == (kr - 1, stacking.groups // (kr * kd) - 1, kd - 1)


@pytest.mark.parametrize("numbers", [[0], [0, 1], [1, 2, 3], [0, 5], [2, 3, 6, 7], list(range(8))])
def test_select(numbers):
    """The choice of every number that may occur comes out, whatever the others cost."""
    index, out = Signal(3), Signal(8)
    shared = Const(99, 8)
    choices = {n: shared if n % 4 == 3 else Const(n + 10, 8) for n in numbers}
    m = Module()
    m.d.comb += out.eq(select(index, choices))

    async def bench(ctx):
        for n in numbers:
            ctx.set(index, n)
            assert ctx.get(out) == (99 if n % 4 == 3 else n + 10)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_depth_sum(name):
    """Rows of changing depth, one per cycle: the sum of a depth stack leaves its first group."""
    config = CONFIGS[name]
    rng = random.Random(name)
    width, pes = 5, config.group_pes
    dut = DepthSum(config, width)
    bits = dut.latency

    def pack(values, width):
        return sum((v & ((1 << width) - 1)) << width * i for i, v in enumerate(values))

    async def bench(ctx):
        rows = []
        for cycle in range(60):
            log2_kd = rng.randint(0, bits)
            sums = [[rng.choice((-16, 15, rng.randint(-16, 15))) for _ in range(pes)] for _ in range(1 << bits)]
            rows.append((log2_kd, sums))
            ctx.set(dut.log2_kd, log2_kd)
            for port, lent, values in zip(dut.sums, dut.lent, sums, strict=True):
                ctx.set(port, pack(values, width))
                ctx.set(lent, pack(values, width) if log2_kd else 0)
            outs = [getattr(dut, f"out_{g}") for g in range(1 << bits)]
            _, _, *got = await ctx.tick().sample(*outs)
            if cycle >= bits:
                log2_kd, sums = rows[cycle - bits]
                for g in range(0, 1 << bits, 1 << log2_kd):
                    total = [sum(v) for v in zip(*sums[g : g + (1 << log2_kd)], strict=True)]
                    assert got[g] == pack(total, dut.out_width(g))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
