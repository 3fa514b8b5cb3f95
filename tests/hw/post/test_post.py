"""Post against a model that works on whole tiles: bytes in the staging buffer, chunks, order and cycles of a drain."""

import gc
import random
from collections import deque
from dataclasses import dataclass, field, replace

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.post.epilogue import Epilogue
from fluidnpu.hw.post.post import Post

from .test_requantize import golden

ACC_LATENCY = 3


@dataclass
class Tile:
    """A tile as the test makes it. sums: [sub-tile][row][channel]; channels: requantisers per output channel."""

    sub_rows: list
    out_channels: int
    log2_kr: int = 0
    log2_kd: int = 0
    chunk_beats: int = 255
    mode: dict = field(default_factory=dict)
    pool: dict | None = None
    channels: list = field(default_factory=list)
    sums: list = field(default_factory=list)
    taps: list = field(default_factory=list)

    def fill(self, config, rng):
        """Complete with random sums and requantisers."""
        self.mode = {
            "single_rounding": rng.randrange(2),
            "average": 0,
            "padded": 0,
            "count": 0,
            "taps": 0,
            "zero": rng.randrange(-128, 128),
            "clamp_min": -128,
            "clamp_max": 127,
        } | self.mode
        self.channels = [
            {
                "bias": rng.randrange(-5000, 5000),
                "multiplier": rng.randrange(1 << 30, 1 << 31),
                "shift": rng.randrange(-9, -4),
            }
            for _ in range(self.out_channels)
        ]
        self.sums = [
            [[rng.randrange(-30000, 30000) for _ in range(self.out_channels)] for _ in range(rows)]
            for rows in self.sub_rows
        ]
        self.taps = [rng.choice([4, 6, 9]) for _ in range(max(self.sub_rows))]
        return self

    def pixels(self):
        """Bytes of every stage row, whole pixels."""
        for sub_tile in self.sums:
            for row, sums in enumerate(sub_tile):
                mode = self.mode | {"taps": self.taps[row]}
                yield [golden(s, self.pool or ch, mode) for s, ch in zip(sums, self.channels, strict=True)]

    def payload(self, config):
        rows = self.sub_rows + [0] * (config.max_stack - len(self.sub_rows))
        pool = self.pool or {"bias": 123, "multiplier": 0x55555555, "shift": 1}
        if self.mode["average"]:
            pool = pool | {"bias": self.mode["count"]}
        return {
            "log2_kr": self.log2_kr,
            "log2_kd": self.log2_kd,
            "sub_rows": rows,
            "out_channels": self.out_channels,
            "out_zero": self.mode["zero"],
            "clamp_min": self.mode["clamp_min"],
            "clamp_max": self.mode["clamp_max"],
            "single_rounding": self.mode["single_rounding"],
            "pool": self.pool is not None,
            "average": self.mode["average"],
            "padded_average": self.mode["padded"],
            "chunk_beats": self.chunk_beats,
        } | pool


class Bench:
    """Array and writer around the block. ``stalls``: late jobs, late tiles, a slow writer."""

    def __init__(self, config, tiles, seed, stalls, reading_cycles=0):
        self.config, self.tiles, self.stalls, self.reading_cycles = config, tiles, stalls, reading_cycles
        self.rng = random.Random(seed)
        self.dut = Post(config, ACC_LATENCY)
        self.cycle = 0
        self.requests = []  # cycle of every request
        self.drains = []  # (cycle, bank)
        self.taken = []  # cycle at which a job was taken
        self.jobs = []  # (tile, first channel, channels)
        self.chunks = []
        for tile in tiles:
            cols = config.pes >> (tile.log2_kr + tile.log2_kd)
            for first in range(0, tile.out_channels, cols):
                self.jobs.append((tile, first, min(cols, tile.out_channels - first)))

    def pause(self):
        return self.stalls and self.rng.random() < 0.5

    async def write_parameters(self, ctx, number):
        """The parameters of a job into its bank, as the weight stream would bring them."""
        tile, first, used = self.jobs[number]
        raw = bytearray()
        for channel in tile.channels[first : first + used]:
            raw += (channel["bias"] & 0xFFFFFFFF).to_bytes(4, "little") + channel["multiplier"].to_bytes(4, "little")
            raw += (channel["shift"] & 255).to_bytes(1, "little") + self.rng.randbytes(7)
        raw += bytes(-len(raw) % self.config.bus_bytes)
        for beat in range(len(raw) // self.config.bus_bytes):
            word = int.from_bytes(raw[beat * self.config.bus_bytes :][: self.config.bus_bytes], "little")
            ctx.set(self.dut.parameter_write, {"bank": number % 2, "beat": beat, "data": word})
            ctx.set(self.dut.parameter_write_valid, 1)
            await ctx.tick()
            ctx.set(self.dut.parameter_write_valid, 0)

    async def array(self, ctx):
        """Parameters and jobs: job n when bank n % 2 was drained of job n - 2."""
        dut = self.dut
        for number, (tile, first, used) in enumerate(self.jobs):
            while len(self.drains) < number - 1:
                await ctx.tick()
            if tile.pool is None:
                await self.write_parameters(ctx, number)
            while self.pause():
                await ctx.tick()
            ctx.set(dut.job.payload, {"bank": number % 2, "last": first + used == tile.out_channels})
            ctx.set(dut.job.valid, 1)
            await ctx.tick().until(dut.job.ready)
            ctx.set(dut.job.valid, 0)

    async def starter(self, ctx):
        for tile in self.tiles:
            while self.pause():
                await ctx.tick()
            ctx.set(self.dut.tile.payload, tile.payload(self.config))
            ctx.set(self.dut.tile.valid, 1)
            await ctx.tick().until(self.dut.tile.ready)
            ctx.set(self.dut.tile.valid, 0)

    def expected_requests(self):
        """(job number, sub-tile, row, quad) in order."""
        lanes = self.config.post_lanes
        for number, (tile, _, used) in enumerate(self.jobs):
            for sub_tile, rows in enumerate(tile.sub_rows):
                for row in range(rows):
                    for quad in range(-(-used // lanes)):
                        yield number, sub_tile, row, quad

    async def accumulators(self, ctx):
        """Check requests, answer them ACC_LATENCY cycles later, garbage in columns that do not exist."""
        dut, lanes = self.dut, self.config.post_lanes
        expected = deque(self.expected_requests())
        answers = deque([None] * (ACC_LATENCY - 1))
        while True:
            _, _, valid, request, drained, bank, taken = await ctx.tick().sample(
                dut.acc_request_valid,
                dut.acc_request,
                dut.drained,
                dut.drained_bank,
                dut.job.valid & dut.job.ready,
            )
            if taken:
                self.taken.append(self.cycle)
            answer = None
            if valid:
                number, sub_tile, row, quad = expected.popleft()
                assert (request.bank, request.sub_tile, request.row, request.quad) == (number % 2, sub_tile, row, quad)
                tile, first, used = self.jobs[number]
                sums = tile.sums[sub_tile][row][first : first + used] + [self.rng.getrandbits(30)] * lanes
                answer = sums[quad * lanes :][:lanes], tile.taps[row] if tile.mode["padded"] else 777
                self.requests.append((self.cycle, number))
            if drained:
                self.drains.append((self.cycle, bank))
            answers.append(answer)
            values, taps = answers.popleft() or ([self.rng.getrandbits(30)] * lanes, self.rng.randrange(300))
            for lane, value in enumerate(values):
                ctx.set(dut.acc_values[lane], value)
            ctx.set(dut.acc_taps, taps)
            self.cycle += 1
            assert self.cycle < 6000, "the block hangs"

    async def writer(self, ctx):
        """Take chunks and read their halves; then give them back."""
        dut, bus = self.dut, self.config.bus_bytes
        number = 0
        for index, tile in enumerate(self.tiles):
            pixels = list(tile.pixels())
            first_beat = 0
            while True:
                while self.pause():
                    await ctx.tick()
                ctx.set(dut.chunk.ready, 1)
                (chunk,) = await ctx.tick().sample(dut.chunk.payload).until(dut.chunk.valid)
                ctx.set(dut.chunk.ready, 0)
                self.chunks.append(self.cycle - 1)
                used = min(tile.chunk_beats, -(-tile.out_channels // bus) - first_beat)
                for _ in range(self.reading_cycles):
                    await ctx.tick()
                assert chunk.half == number % 2
                assert chunk.last == (bus * (first_beat + used) >= tile.out_channels)
                for n, pixel in enumerate(pixels):
                    for beat in range(used):
                        expected = pixel[bus * (first_beat + beat) :][:bus]
                        ctx.set(dut.stage_read, {"half": chunk.half, "address": n * used + beat})
                        await ctx.tick()
                        got = ctx.get(dut.stage_data).to_bytes(bus, "little")
                        assert list(got[: len(expected)]) == [b & 255 for b in expected], (index, n, beat)
                while self.pause():
                    await ctx.tick()
                ctx.set(dut.chunk_free, 1)
                ctx.set(dut.chunk_free_half, chunk.half)
                await ctx.tick()
                ctx.set(dut.chunk_free, 0)
                number += 1
                first_beat += used
                if chunk.last:
                    break
        for _ in range(30):
            await ctx.tick()
            assert not ctx.get(dut.chunk.valid)
        assert ctx.get(dut.idle)
        assert len(self.requests) == len(list(self.expected_requests()))
        assert [bank for _, bank in self.drains] == [n % 2 for n in range(len(self.jobs))]

    def run(self):
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(self.accumulators, background=True)
        sim.add_testbench(self.array, background=True)
        sim.add_testbench(self.starter, background=True)
        sim.add_testbench(self.writer)
        sim.run()
        self.check_timing()
        return self

    def check_timing(self):
        """Requests of a job follow its acceptance without a gap; drained has its latency."""
        by_job = {}
        for cycle, number in self.requests:
            by_job.setdefault(number, []).append(cycle)
        for number, taken in enumerate(self.taken):
            cycles = by_job[number]
            assert cycles == list(range(taken + 1, taken + 1 + len(cycles)))
            assert self.drains[number][0] == cycles[-1] + ACC_LATENCY - 1


def scale(real, shift):
    return {"bias": 77, "multiplier": round(real * (1 << 31)), "shift": shift}


TINY = CONFIGS["tiny"]
CASES = {
    "one value": [Tile([1], 1)],
    "partial c-tile": [Tile([3], 5), Tile([2], 11)],
    "row stacks": [Tile([3, 3, 3, 2], 8, log2_kr=2), Tile([4, 1], 9, log2_kr=1)],
    "an empty sub-tile": [Tile([4, 4, 0, 0], 7, log2_kr=2), Tile([2], 8, log2_kr=1)],
    "depth stacks": [Tile([4], 12, log2_kd=1), Tile([5], 6, log2_kd=2)],
    "both": [Tile([3, 2], 13, log2_kr=1, log2_kd=1)],
    "chunks": [Tile([5], 40, chunk_beats=2), Tile([5], 44, chunk_beats=1), Tile([2], 20, chunk_beats=2)],
    "chunk of several c-tiles": [Tile([4, 2, 4, 4], 13, log2_kr=2, chunk_beats=1)],
    "mean": [Tile([1, 1], 16, log2_kr=1, pool=scale(0.7, -6)), Tile([2], 8)],
    "average": [
        Tile([4], 8, pool={"bias": 0, "multiplier": -(-(1 << 24) // 9), "shift": 24}, mode={"average": 1, "count": 9})
    ],
    "padded average": [
        Tile([6], 12, pool={"bias": 0, "multiplier": 5, "shift": 3}, mode={"average": 1, "padded": 1, "count": 5}),
        Tile([6], 12),
    ],
    "full staging half": [Tile([32], 64, chunk_beats=8), Tile([32], 64, chunk_beats=8)],
}


@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, stalls):
    rng = random.Random(name)
    tiles = [replace(tile).fill(TINY, rng) for tile in CASES[name]]
    for tile in tiles:
        if tile.mode["average"]:
            limit = 128 * (min(tile.taps) if tile.mode["padded"] else tile.mode["count"])
            tile.sums = [[[rng.randrange(-limit, limit) for _ in row] for row in sub] for sub in tile.sums]
    Bench(TINY, tiles, name, stalls).run()


@pytest.mark.parametrize("name", ["ecp5", "edge", "hub"])
def test_other_configurations(name):
    config = CONFIGS[name]
    rng = random.Random(name)
    deep = config.max_stack.bit_length() - 1
    tiles = [
        Tile([2], config.pes + 5, chunk_beats=max(1, config.pes // config.bus_bytes)),
        Tile([1, 2], config.pes, log2_kr=1, log2_kd=deep - 1),
    ]
    Bench(config, [tile.fill(config, rng) for tile in tiles], name, False).run()


def test_one_lane_on_a_wide_bus():
    """Two columns per parameter beat, one per memory read."""
    config = replace(TINY, bus_bytes=32, post_lanes=1)
    rng = random.Random(1)
    Bench(config, [Tile([2], 11).fill(config, rng)], 1, False).run()


def test_slow_writer():
    """Halves are not written while they are read; no more tiles are taken than can be held."""
    rng = random.Random(5)
    tiles = [Tile([3], 8 * (1 + n % 3), chunk_beats=1).fill(TINY, rng) for n in range(6)]
    bench = Bench(TINY, tiles, 5, False, reading_cycles=120).run()
    first_requests = [next(cycle for cycle, n in bench.requests if n == job) for job in range(len(bench.jobs))]
    assert first_requests[2] - first_requests[1] > 100


def test_drain_cycles():
    """Three jobs in a row and another tile: requests, JOB_CYCLES, TILE_CYCLES, drained and the chunk's latency."""
    rng = random.Random(2)
    pool = scale(0.5, -5)
    tiles = [Tile([6, 5], 10, log2_kr=1, pool=pool).fill(TINY, rng), Tile([4], 8, pool=pool).fill(TINY, rng)]
    bench = Bench(TINY, tiles, 2, False).run()
    cols, lanes = 4, TINY.post_lanes
    counts = [11 * -(-min(cols, 10 - first) // lanes) for first in (0, 4, 8)] + [4 * 2]
    taken = bench.taken
    for n in (1, 2):
        assert taken[n] - taken[n - 1] == counts[n - 1] + Epilogue.JOB_CYCLES
    assert taken[3] - taken[2] == counts[2] + Epilogue.JOB_CYCLES + Epilogue.TILE_CYCLES
    assert bench.chunks[0] == taken[2] + counts[2] + bench.dut.latency + 1


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_bad_latency():
    with pytest.raises(ValueError, match="acc_latency = 0 is not at least 1"):
        Epilogue(TINY, 0)
    gc.collect()
