"""WeightStreamer behind a ReadArbiter: order, preloading, revocation, errors, space and throughput."""

import random

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import Client, Code
from fluidnpu.hw.load.weight_streamer import WeightStreamer
from fluidnpu.hw.memory.burst_reader import BurstReader
from fluidnpu.hw.memory.read_arbiter import ReadArbiter

from ..memory.read_bus import ReadMemory, beat_value, split

PROGRAM, SIZE = 0x100000, 0x100000


class Bench:
    """Streamer, arbiter, memory; one region per program."""

    def __init__(self, config, **memory):
        self.dut = WeightStreamer(config)
        self.arbiter = ReadArbiter(config)
        self.memory = ReadMemory(config, self.arbiter.bus, **memory)
        self.top = Module()
        self.top.submodules.dut = self.dut
        self.top.submodules.arbiter = self.arbiter
        connect(self.top, self.dut.client, self.arbiter.clients[Client.WEIGHT])

    def run(self, bench):
        async def with_regions(ctx):
            for n, (base, size) in enumerate(zip(self.arbiter.program_base, self.arbiter.program_bytes, strict=True)):
                ctx.set(base, PROGRAM + n * SIZE)
                ctx.set(size, SIZE)
            await bench(ctx)

        sim = Simulator(self.top)
        sim.add_clock(1e-6)
        sim.add_testbench(with_regions)
        sim.add_testbench(self.memory.serve, background=True)
        sim.run()


class Tile:
    """A weight stream: addresses, the expected beats (None: unreadable) and how many the array preloads."""

    def __init__(self, rng, config, place, bad):
        self.program = rng.randrange(config.programs)
        self.beats = rng.choice(
            (1, rng.randint(1, 30), rng.randint(10, 60), rng.randint(1, config.weight_fifo_beats + 30))
        )
        base = PROGRAM + self.program * SIZE
        self.addr = base + (place * 4096) % (SIZE // 2) + rng.randrange(64) * config.bus_bytes
        if rng.random() < 0.1:  # runs out of its region
            self.addr = base + SIZE - rng.randrange(self.beats) * config.bus_bytes
        self.words = []
        for at, n in split(config, self.addr, self.beats):
            inside = at + n * config.bus_bytes <= base + SIZE
            for k in range(n):
                addr = at + k * config.bus_bytes
                self.words.append(beat_value(config, addr) if inside and addr not in bad else None)
        self.preload = rng.randint(0, min(self.beats, 12))
        self.popped = 0
        self.doomed = rng.random() < 0.5 and rng.choice((1, 30, 200))  # revoked after about so many cycles, or never

    def holds(self, config, addr):
        return self.addr <= addr < self.addr + self.beats * config.bus_bytes


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize(
    "ready_rate, valid_rate, take_rate, latency", [(1, 1, 1, 3), (0.5, 0.7, 0.6, 5), (1, 1, 0.8, 40), (1, 0.5, 1, 12)]
)
def test_random(name, ready_rate, valid_rate, take_rate, latency):
    config = CONFIGS[name]
    seed = f"{name} {ready_rate} {take_rate} {latency}"
    rng = random.Random(seed)
    bench = Bench(config, latency=latency, ready_rate=ready_rate, valid_rate=valid_rate, seed=seed)
    dut, memory = bench.dut, bench.memory
    # Few unreadable addresses, all in program 0.
    memory.bad = {PROGRAM + n * config.bus_bytes for n in range(0, SIZE // config.bus_bytes, 97)}
    done = {"tiles": 0, "revoked": 0, "errors": 0, "preloaded": 0, "taken_back": 0, "late": 0}

    async def drive(ctx):
        running = announced = dropped = None
        place = 0
        drained_in = 0
        cycle = 0
        while cycle < 1500 or running or announced:
            announce = start = revoke = False
            finishing = cycle >= 1500
            if announced is None and not finishing and ctx.get(dut.drained) and rng.random() < 0.2:
                place += 1
                announced, announce = Tile(rng, config, place, memory.bad), True
                ctx.set(dut.next_addr, announced.addr)
                ctx.set(dut.next_beats, announced.beats)
                ctx.set(dut.next_program, announced.program)
            elif announced and announced.doomed:
                revoke = rng.random() * announced.doomed < 1
            elif announced and (running is None or running.popped == running.beats) and rng.random() < 0.2:
                start = True
            ctx.set(dut.announce, announce)
            ctx.set(dut.start, start)
            ctx.set(dut.revoke, revoke)
            # The array takes words of the running tile, then the announced tile's first set.
            source = running if running and running.popped < running.beats else announced if not announce else None
            limit = source and (source.beats if source is running else source.preload)
            take = bool(source and source.popped < limit and rng.random() < take_rate)
            ctx.set(dut.weights.ready, take)
            _, _, valid, bits, error, error_next, code, drained = await ctx.tick().sample(
                dut.weights.valid, dut.weights.payload, dut.error, dut.error_next, dut.error_code, dut.drained
            )
            # The memory drove this cycle's beat after the testbench: look at it now.
            arrival = memory.beats[-1] if memory.beats and memory.beats[-1][0] == cycle else None
            if arrival:
                addr = arrival[2]
                of_running = bool(running and running.holds(config, addr))
                of_next = bool(announced and announced.holds(config, addr))
                of_dropped = not of_running and not of_next
                if of_dropped:
                    assert dropped.holds(config, addr) and not drained
                    done["late"] += 1
                assert error == (addr in memory.bad)
                if error:
                    assert (error_next, code) == (not of_running, Code.WEIGHT_READ)
            elif error:
                assert code == Code.ADDRESS
            done["errors"] += error
            drained_in = 0 if drained else drained_in + 1
            assert drained_in < 1500
            if take and valid:
                expected = source.words[source.popped]
                assert expected is None or bits == expected, (source.popped, source.beats)
                source.popped += 1
                done["preloaded"] += source is announced
            if revoke:
                done["taken_back"] += announced.popped > 0
                dropped, announced = announced, None
                done["revoked"] += 1
            if start:
                running, announced = announced, None
                done["tiles"] += 1
            if running and running.popped == running.beats and finishing and not announced:
                running = None
            cycle += 1
            assert cycle < 6000
        # Nothing is left: no beat is offered and none under way.
        ctx.set(dut.start, 0)
        ctx.set(dut.revoke, 0)
        while not memory.empty:
            assert ctx.get(dut.weights.valid) == 0
            await ctx.tick()
        await ctx.tick().repeat(2)
        assert ctx.get(dut.drained) and not ctx.get(dut.weights.valid)
        assert done["tiles"] > 5 and done["preloaded"], done
        assert done["revoked"] and done["taken_back"], done
        assert done["late"] or latency < 40, done

    bench.run(drive)


def test_streaming():
    """Two tiles leave the memory and the FIFO at one beat per cycle, without a bubble between them."""
    config = CONFIGS["tiny"]
    latency = 20
    bench = Bench(config, latency=latency)
    dut = bench.dut
    lengths = [80, 61]

    async def drive(ctx):
        taken = []
        announce_at = {0: 0, 5: 1}
        for cycle in range(200):
            tile = announce_at.get(cycle)
            ctx.set(dut.announce, tile is not None)
            if tile is not None:
                ctx.set(dut.next_addr, PROGRAM + tile * lengths[0] * config.bus_bytes)
                ctx.set(dut.next_beats, lengths[tile])
            ctx.set(dut.start, cycle == 3 or len(taken) == lengths[0])
            ctx.set(dut.weights.ready, 1)
            _, _, valid, bits = await ctx.tick().sample(dut.weights.valid, dut.weights.payload)
            if valid:
                taken.append((cycle, bits))
        first = 1 + BurstReader.LATENCY + ReadArbiter.LATENCY + latency
        assert [beat[0] for beat in bench.memory.beats] == list(range(first, first + sum(lengths)))
        first += WeightStreamer.LATENCY
        assert taken == [(first + n, beat_value(config, PROGRAM + n * config.bus_bytes)) for n in range(sum(lengths))]

    bench.run(drive)


def test_space_is_taken_before_a_burst():
    """Without a consumer exactly the FIFO and its output register are filled, and nothing is lost."""
    config = CONFIGS["tiny"]
    bench = Bench(config, latency=4)
    dut = bench.dut
    beats = 3 * config.weight_fifo_beats

    async def drive(ctx):
        ctx.set(dut.next_addr, PROGRAM)
        ctx.set(dut.next_beats, beats)
        ctx.set(dut.announce, 1)
        await ctx.tick()
        ctx.set(dut.announce, 0)
        await ctx.tick().repeat(2 * config.weight_fifo_beats)
        assert len(bench.memory.beats) == config.weight_fifo_beats
        ctx.set(dut.weights.ready, 1)
        for n in range(beats):
            (bits,) = await ctx.tick().sample(dut.weights.payload).until(dut.weights.valid)
            assert bits == beat_value(config, PROGRAM + n * config.bus_bytes)

    bench.run(drive)
