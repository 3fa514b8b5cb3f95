"""Tiles for the post block's tests, and the array, the operands' loader and the writer around the block."""

import random
from collections import deque
from dataclasses import dataclass, field

from amaranth.sim import Simulator
from fluidnpu.hw.post.post import Post

from .test_addition import golden_sum, random_addition
from .test_requantize import golden

__all__ = ["ACC_LATENCY", "Bench", "Tile", "scale"]

ACC_LATENCY = 3


@dataclass
class Tile:
    """A tile as the test makes it. sums: [sub-tile][row][channel]; channels: requantisers per output channel.

    residual : add a second operand; ``seconds`` [stage row][channel], ``addition`` the fields of the descriptor
    """

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
    residual: bool = False
    seconds: list = field(default_factory=list)
    addition: dict = field(default_factory=dict)

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
        self.addition = random_addition(rng)
        if self.residual:
            rows = range(sum(self.sub_rows))
            self.seconds = [[rng.randrange(-128, 128) for _ in range(self.out_channels)] for _ in rows]
        return self

    def chunks(self, config):
        """(first beat, beats) of a pixel in every chunk."""
        beats = -(-self.out_channels // config.bus_bytes)
        return [(first, min(self.chunk_beats, beats - first)) for first in range(0, beats, self.chunk_beats)]

    def pixels(self):
        """Bytes of every stage row, whole pixels."""
        rows = [(row, sums) for sub_tile in self.sums for row, sums in enumerate(sub_tile)]
        for stage_row, (row, sums) in enumerate(rows):
            mode = self.mode | {"taps": self.taps[row]}
            pixel = [golden(s, self.pool or ch, mode) for s, ch in zip(sums, self.channels, strict=True)]
            if self.residual:
                pixel = [golden_sum(a, b, self.addition) for a, b in zip(pixel, self.seconds[stage_row], strict=True)]
            yield pixel

    def payload(self, config):
        rows = self.sub_rows + [0] * (config.max_stack - len(self.sub_rows))
        pool = self.pool or {"bias": 123, "multiplier": 0x55555555, "shift": 1}
        if self.mode["average"]:
            pool = pool | {"bias": self.mode["count"]}
        return (
            {
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
                "residual": self.residual,
            }
            | self.addition
            | pool
        )


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
        self.full, self.filled = 0, [False, False]  # halves of the residual buffer: not taken yet, not read yet
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

    async def operands(self, ctx):
        """The second operands' loader: fills a half when it was read, chunk after chunk; garbage behind the pixel."""
        dut, bus, half = self.dut, self.config.bus_bytes, 0
        for tile in [tile for tile in self.tiles if tile.residual]:
            for first, used in tile.chunks(self.config):
                while self.filled[half] or self.pause():
                    await ctx.tick()
                self.filled[half] = True
                for n, pixel in enumerate(tile.seconds):
                    for beat in range(used):
                        raw = bytes(b & 255 for b in pixel[bus * (first + beat) :][:bus])
                        word = int.from_bytes(raw + self.rng.randbytes(bus - len(raw)), "little")
                        ctx.set(dut.residual_write, {"half": half, "address": n * used + beat, "data": word})
                        ctx.set(dut.residual_write_valid, 1)
                        await ctx.tick()
                        ctx.set(dut.residual_write_valid, 0)
                while self.pause():
                    await ctx.tick()
                self.full |= 1 << half
                ctx.set(dut.residual_full, self.full)
                half ^= 1

    async def operands_used(self, ctx):
        """Which halves the epilogue has begun and read."""
        dut = self.dut
        while True:
            _, _, taken, taken_half, read, read_half = await ctx.tick().sample(
                dut.residual_taken, dut.residual_taken_half, dut.residual_read, dut.residual_read_half
            )
            if taken:
                assert self.full >> taken_half & 1, "a half is taken that is not full"
                self.full &= ~(1 << taken_half)
                ctx.set(dut.residual_full, self.full)
            if read:
                assert self.filled[read_half] and not self.full >> read_half & 1
                self.filled[read_half] = False

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
            for first_beat, used in tile.chunks(self.config):
                while self.pause():
                    await ctx.tick()
                ctx.set(dut.chunk.ready, 1)
                (chunk,) = await ctx.tick().sample(dut.chunk.payload).until(dut.chunk.valid)
                ctx.set(dut.chunk.ready, 0)
                self.chunks.append(self.cycle - 1)
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
        sim.add_testbench(self.operands, background=True)
        sim.add_testbench(self.operands_used, background=True)
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
