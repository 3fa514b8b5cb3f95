"""One PE: dot products, latency, double-buffered weights."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.array.pe import ONES, TAP_ADDRESS_BITS, LaneElement, ProcessingElement


@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_dot_product(lanes):
    """A word per cycle, weights loaded and swapped at random, the extremes included."""
    rng = random.Random(lanes)
    dut = ProcessingElement(lanes)

    def word():
        if rng.random() < 0.3:
            return [-128] * lanes  # twice this: the largest sum there is
        return [rng.choice((-128, 127, rng.randint(-128, 127))) for _ in range(lanes)]

    def pack(values):
        return sum((v & 0xFF) << 8 * i for i, v in enumerate(values))

    async def bench(ctx):
        shadow = active = [0] * lanes
        lends = False
        expected = []
        for cycle in range(300):
            x, weight = word(), word()
            load, swap = rng.random() < 0.4, rng.random() < 0.4
            ctx.set(dut.x, pack(x))
            ctx.set(dut.weight, pack(weight))
            ctx.set(dut.load, load)
            ctx.set(dut.swap, swap)
            lent_now, lends = lends, rng.random() < 0.5
            ctx.set(dut.lend, lends)
            _, _, out, lent = await ctx.tick().sample(dut.out, dut.lent)
            expected.append(sum(a * b for a, b in zip(x, active, strict=True)))
            if cycle >= dut.LATENCY:
                assert out == expected[cycle - dut.LATENCY]
                assert lent == (out if lent_now else 0)
            if swap:
                active = shadow
            if load:
                shadow = weight

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("lanes", [4, 16])
def test_lanes(lanes):
    """Sums of every lane over random runs of ``keep``; the dot product where nothing is kept; the word of ones."""
    rng = random.Random(f"lanes {lanes}")
    dut = LaneElement(lanes)
    words = {ONES | half << TAP_ADDRESS_BITS: [1] * lanes for half in range(2)}
    words |= {n: [rng.randint(-128, 127) for _ in range(lanes)] for n in (0, 5, ONES - 1, 1 << TAP_ADDRESS_BITS)}

    def pack(values):
        return sum((v & 0xFF) << 8 * i for i, v in enumerate(values))

    async def bench(ctx):
        for address, word in words.items():
            ctx.set(dut.write, address)
            ctx.set(dut.weight, pack(word))
            ctx.set(dut.load, address & ONES != ONES)  # the ones are there from the start
            await ctx.tick()
        ctx.set(dut.load, 0)
        sums, products, weights = [0] * lanes, [], None
        for cycle in range(200):
            x = [rng.choice((-128, 127, rng.randint(-128, 127))) for _ in range(lanes)]
            keep, address = cycle > 2 and rng.random() < 0.6, rng.choice(list(words))
            ctx.set(dut.x, pack(x))
            ctx.set(dut.keep, keep)
            ctx.set(dut.read, address)
            await ctx.tick()
            if weights:
                sums = [a * b + s * keep for a, b, s in zip(x, weights, sums, strict=True)]
                assert [ctx.get(dut.sums[i]) for i in range(lanes)] == sums
            products.append(None if keep or not weights else sum(sums))
            weights = words[address]
            if cycle >= dut.LATENCY and products[cycle - dut.LATENCY + 1] is not None:
                assert ctx.get(dut.out) == products[cycle - dut.LATENCY + 1]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
