"""BurstReader behind a ReadArbiter: splitting, order, tags, errors, rejected bursts, flush, room and throughput."""

import random
from collections import deque

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import Client
from fluidnpu.hw.memory.burst_reader import BurstReader
from fluidnpu.hw.memory.read_arbiter import ReadArbiter

from .read_bus import ReadMemory, beat_value, split

ARENA, SIZE = 0x10000, 0x10000


class Bench:
    """Reader, arbiter and memory; ``run(bench)`` simulates until the testbench ends."""

    def __init__(self, config, reader, client=Client.STRIPE, **memory):
        self.reader = reader
        self.arbiter = ReadArbiter(config)
        self.memory = ReadMemory(config, self.arbiter.bus, **memory)
        self.top = Module()
        self.top.submodules.reader = reader
        self.top.submodules.arbiter = self.arbiter
        connect(self.top, reader.client, self.arbiter.clients[client])

    def run(self, bench):
        async def with_regions(ctx):
            for n, (base, size) in enumerate(zip(self.arbiter.arena_base, self.arbiter.arena_bytes, strict=True)):
                ctx.set(base, ARENA + n * SIZE)
                ctx.set(size, SIZE)
            await bench(ctx)

        sim = Simulator(self.top)
        sim.add_clock(1e-6)
        sim.add_testbench(with_regions)
        sim.add_testbench(self.memory.serve, background=True)
        sim.run()


def sampled(reader):
    return (
        reader.data,
        reader.error,
        reader.rejected,
        reader.tag,
        reader.offset,
        reader.burst_last,
        reader.last,
    )


def expected_beats(config, request, bad):
    """Beats (data or None, error, rejected, tag, offset, burst_last, last) of a request, from its address alone."""
    base = ARENA + request["owner"] * SIZE
    beats = []
    for addr, n in split(config, request["addr"], request["beats"]):
        inside = base <= addr and addr + n * config.bus_bytes <= base + SIZE
        for k in range(n):
            at = addr + k * config.bus_bytes
            offset = len(beats)
            error = at in bad if inside else True
            beats.append(
                [beat_value(config, at) if inside else None, error, not inside, request["tag"], offset, k == n - 1, 0]
            )
    beats[-1][-1] = 1
    return [tuple(beat) for beat in beats]


def random_request(rng, config, tag):
    owner = rng.randrange(config.slots)
    beats = rng.choice((1, 2, 4, rng.randint(1, 5), rng.randint(1, 40)))
    room = SIZE // config.bus_bytes - beats
    position = rng.choice((rng.randint(0, room), 4096 // config.bus_bytes - rng.randint(0, 8)))
    if rng.random() < 0.1:
        position = rng.choice((-rng.randint(1, beats), room + rng.randint(1, beats)))
    addr = ARENA + owner * SIZE + position * config.bus_bytes
    return {"addr": addr, "beats": beats, "arena": 1, "owner": owner, "tag": tag}


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize("depth, flush_rate", [(0, 0), (2, 0), (0, 0.01), (2, 0.01)])
@pytest.mark.parametrize("ready_rate, valid_rate, ask", [(1, 1, 1), (0.4, 0.6, 0.5)])
def test_random(name, depth, flush_rate, ready_rate, valid_rate, ask):
    config = CONFIGS[name]
    seed = f"{name} {depth} {flush_rate} {ready_rate}"
    rng = random.Random(seed)
    reader = BurstReader(config, 8, requests_depth=depth)
    bench = Bench(config, reader, latency=9, ready_rate=ready_rate, valid_rate=valid_rate, seed=seed)
    bench.memory.bad = {ARENA + n * config.bus_bytes for n in range(0, SIZE, 3)}

    async def drive(ctx):
        expected = deque()  # per request: its beats
        formed = deque()  # bursts: their beats
        request, tag, got = None, 0, 0
        room = (1 << len(reader.room)) - 1
        for cycle in range(900):
            if request is None and cycle < 650 and rng.random() < ask:
                request = random_request(rng, config, tag % 256)
                tag += 1
            flush = rng.random() < flush_rate
            ctx.set(reader.flush, flush)
            ctx.set(reader.request.valid, request is not None)
            if request:
                ctx.set(reader.request.payload, request)
            if cycle % 25 == 0:
                room = rng.choice((3, config.burst_beats, (1 << len(reader.room)) - 1)) if cycle < 650 else room | 31
                ctx.set(reader.room, room)
            _, _, ready, valid, busy, outstanding, is_formed, length, formed_tag, *beat = await ctx.tick().sample(
                reader.request.ready,
                reader.beat_valid,
                reader.busy,
                reader.outstanding,
                reader.formed,
                reader.formed_beats,
                reader.formed_tag,
                *sampled(reader),
            )
            assert outstanding == bool(formed)
            assert busy == bool(formed or expected)
            assert len(formed) <= config.reads_in_flight + 1
            if valid:
                if not beat[1] or not beat[2]:
                    assert beat[0] == formed[0][0][0]
                assert tuple(beat[1:]) == formed[0][0][1:]
                got += 1
                formed[0].popleft()
                if not formed[0]:
                    formed.popleft()
            if is_formed:
                assert length <= room and formed_tag == expected[0][0][3]
                formed.append(deque(expected[0][:length]))
                assert formed[-1][-1][5], "a burst ends where the rules say"
                del expected[0][:length]
                if not expected[0]:
                    expected.popleft()
            if request and ready:
                expected.append(expected_beats(config, request, bench.memory.bad))
                request = None
            if flush:
                expected.clear()
        assert not expected and not formed and got > 150
        assert bench.memory.empty

    bench.run(drive)


@pytest.mark.parametrize("beats, count", [(1, 40), (4, 30), (16, 12), (64, 4)])
def test_no_bubbles(beats, count):
    """Requests stream at one beat per cycle while reads_in_flight bursts cover the latency."""
    config = CONFIGS["tiny"]
    reader = BurstReader(config, 8, requests_depth=0)
    latency = min(20, beats * (config.reads_in_flight - 3) - 1)
    bench = Bench(config, reader, latency=latency)

    async def drive(ctx):
        ctx.set(reader.request.valid, 1)
        for n in range(count):
            addr = ARENA + n * beats * config.bus_bytes
            ctx.set(reader.request.payload, {"addr": addr, "beats": beats, "arena": 1, "owner": 0, "tag": n})
            await ctx.tick().until(reader.request.ready)
        ctx.set(reader.request.valid, 0)
        await ctx.tick().until(~reader.busy)
        cycles = [cycle for cycle, _, _ in bench.memory.beats]
        first = BurstReader.LATENCY + ReadArbiter.LATENCY + latency
        assert cycles == list(range(first, first + beats * count))

    bench.run(drive)
