"""Queue against collections.deque: values, order, level and the latency of one cycle."""

import random
from collections import deque

import pytest
from amaranth.lib import data
from amaranth.sim import Simulator
from fluidnpu.hw.queue import Queue


def run(dut, bench):
    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("put_rate, get_rate", [(1, 1), (0.5, 1), (1, 0.5), (0.6, 0.6)])
def test_random(depth, put_rate, get_rate):
    rng = random.Random(f"{depth} {put_rate} {get_rate}")
    dut = Queue(data.StructLayout({"a": 5, "b": 8}), depth)
    model = deque()

    async def bench(ctx):
        for n in range(300):
            # Cycle n: the outputs depend on what happened up to cycle n - 1 only.
            assert ctx.get(dut.level) == len(model)
            assert ctx.get(dut.i.ready) == (len(model) < depth)
            assert ctx.get(dut.o.valid) == (len(model) > 0)
            if model:
                assert ctx.get(dut.o.payload) == dut.shape.const(model[0])
            offer = rng.random() < put_rate
            take = rng.random() < get_rate
            item = {"a": rng.randrange(32), "b": n & 255}
            ctx.set(dut.i.payload, item)
            ctx.set(dut.i.valid, offer)
            ctx.set(dut.o.ready, take)
            room = len(model) < depth
            if take and model:
                model.popleft()
            if offer and room:
                model.append(item)
            await ctx.tick()

    run(dut, bench)


def test_one_transfer_per_cycle():
    dut = Queue(8, 2)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        ctx.set(dut.o.ready, 1)
        for n in range(50):
            ctx.set(dut.i.payload, n)
            assert ctx.get(dut.i.ready) == 1
            if n:
                assert (ctx.get(dut.o.valid), ctx.get(dut.o.payload)) == (1, n - 1)
            await ctx.tick()

    run(dut, bench)


def test_no_depth():
    with pytest.raises(ValueError, match="Queue: depth = 0 is not at least 1"):
        Queue(8, 0)
