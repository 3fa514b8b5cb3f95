"""AXI4-Lite port against a plain memory: every order of the channels, stalls, strobes, latencies."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.axi import OKAY, SLVERR
from fluidnpu.hw.command.axi_lite_port import AxiLitePort

from .axi_lite_master import AxiLiteMaster, Read, Write

WIDTH = 6
WORDS = 1 << (WIDTH - 2)
BAD_WORD = 5  # answers every access with an error


def run(writes, reads):
    """Run both lists at once; returns the port's performed writes as (cycle, address, data)."""
    dut = AxiLitePort(WIDTH)
    performed = []

    async def bench(ctx):
        master = AxiLiteMaster(dut.axil, writes, reads)
        memory = [0] * WORDS
        previous = None
        for _ in range(30 * (len(writes) + len(reads)) + 20):
            if master.idle():
                break
            master.drive(ctx)
            address = ctx.get(dut.read.address)
            # Data of the address of one cycle ago, as a memory would answer.
            ctx.set(dut.read.data, memory[previous] if previous is not None else 0xDEAD)
            ctx.set(dut.read.error, address == BAD_WORD)
            ctx.set(dut.write.error, ctx.get(dut.write.address) == BAD_WORD)
            previous = address
            if ctx.get(dut.write.valid):
                at = ctx.get(dut.write.address)
                performed.append((master.cycle, at, ctx.get(dut.write.data)))
                if at != BAD_WORD:
                    memory[at] = ctx.get(dut.write.data)
            master.observe(ctx)
            await ctx.tick()
        assert master.idle(), "a transaction hangs"
        for _ in range(4):
            assert not ctx.get(dut.axil.bvalid) and not ctx.get(dut.axil.rvalid) and not ctx.get(dut.write.valid)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return performed


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stall", [0, 3])
def test_random_writes(seed, stall):
    rng = random.Random(seed)
    writes = [
        Write(rng.randrange(1 << WIDTH) & rng.choice([~3, ~3, ~3, -1]), rng.getrandbits(32), rng.choice([15, 15, 7, 0]),
              rng.randint(0, stall), rng.randint(0, stall), rng.randint(0, stall))
        for _ in range(150)
    ]  # fmt: skip
    performed = run(writes, [])
    legal = [w for w in writes if w.strobes == 15 and w.address % 4 == 0]
    assert [(a, d) for _, a, d in performed] == [(w.address // 4, w.data) for w in legal]
    for w in writes:
        good = w in legal and w.address // 4 != BAD_WORD
        assert w.response == (OKAY if good else SLVERR), w


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("stall", [0, 3])
def test_reads_beside_writes(seed, stall):
    """Reads of words that were written before they start, while writes to other words go on."""
    rng = random.Random(seed)
    first = [Write(4 * i, 100 + i) for i in range(WORDS)]
    second = [Write(4 * rng.randrange(8, WORDS), rng.getrandbits(32), accept=rng.randint(0, stall)) for _ in range(99)]
    reads = [Read(4 * rng.randrange(8) + rng.choice([0, 0, 0, 2]), rng.randint(0, stall), rng.randint(0, stall))
             for _ in range(80)]  # fmt: skip
    reads[0].delay = 2 * len(first) + 8
    run(first + second, reads)
    for r in reads:
        good = r.address % 4 == 0 and r.address // 4 != BAD_WORD
        assert (r.response, r.data) == ((OKAY, 100 + r.address // 4) if good else (SLVERR, 0)), r


def test_cycles():
    """Latency and throughput of the contract, without stalls."""
    writes = [Write(0, i) for i in range(10)]
    reads = [Read(0) for _ in range(10)]
    performed = run(writes, reads)
    assert [c for c, _, _ in performed] == [1 + 3 * i for i in range(10)]  # this master waits for B
    assert [w.cycle for w in writes] == [2 + 3 * i for i in range(10)]
    assert [r.cycle for r in reads] == [AxiLitePort.READ_LATENCY + 4 * i for i in range(10)]


@pytest.mark.parametrize("first", ["aw", "w"])
def test_halves_in_any_order(first):
    write = Write(8, 1, aw_delay=5 * (first == "w"), w_delay=5 * (first == "aw"))
    assert run([write], []) == [(6, 2, 1)]
    assert (write.response, write.cycle) == (OKAY, 7)


def test_write_throughput():
    """A master that does not wait for B gets a write through every two cycles."""
    dut = AxiLitePort(WIDTH)
    performed = []

    async def bench(ctx):
        for port in (dut.axil.awvalid, dut.axil.wvalid, dut.axil.bready):
            ctx.set(port, 1)
        ctx.set(dut.axil.wstrb, 15)
        for cycle in range(20):
            if ctx.get(dut.write.valid):
                performed.append(cycle)
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert performed == list(range(1, 20, 2))
