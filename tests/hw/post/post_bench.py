"""The array, the operands' loader and the writer around the post block."""

import random
from collections import deque

from amaranth.sim import Simulator
from fluidnpu.hw.post.post import Post

__all__ = ["ACC_LATENCY", "Bench"]

ACC_LATENCY = 3


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
        self.staged, self.read_beats = [0], 0  # beats that were complete before each cycle; such beats that were read
        self.blocks = [(tile, n) for tile in tiles if tile.vector for n in range(tile.words)]
        self.permitted, self.parametered, self.block_drains = [], 0, 0  # cycles; blocks that had parameters
        self.row_cycles = []  # of every row's pulse
        self.full, self.filled = 0, [False, False]  # halves of the residual buffer: not taken yet, not read yet
        for tile in tiles:
            if tile.vector:
                continue
            cols = config.pes >> (tile.log2_kr + tile.log2_kd)
            for first in range(0, tile.out_channels, cols):
                self.jobs.append((tile, first, min(cols, tile.out_channels - first)))

    def pause(self):
        return self.stalls and self.rng.random() < 0.5

    async def write_parameters(self, ctx, channels, bank, vector=0, first_beat=0):
        """The parameters of a job or of a block's word into their bank, as the weight stream would bring them."""
        raw, bus = bytearray(), self.config.bus_bytes
        for channel in channels:
            raw += (channel["bias"] & 0xFFFFFFFF).to_bytes(4, "little") + channel["multiplier"].to_bytes(4, "little")
            raw += (channel["shift"] & 255).to_bytes(1, "little") + self.rng.randbytes(7)
        raw += bytes(-len(raw) % bus)
        for n in range(len(raw) // bus):
            word = int.from_bytes(raw[n * bus :][:bus], "little")
            write = {"vector": vector, "bank": bank, "beat": first_beat + n, "data": word}
            ctx.set(self.dut.parameter_write, write)
            ctx.set(self.dut.parameter_write_valid, 1)
            await ctx.tick()
            ctx.set(self.dut.parameter_write_valid, 0)

    async def permits(self, ctx):
        """Blocks begin as soon as they may, ahead of their rows."""
        dut = self.dut
        for _ in self.blocks:
            while not ctx.get(dut.permit_valid) or self.pause():
                await ctx.tick()
            ctx.set(dut.permit_taken, 1)
            self.permitted.append(self.cycle)
            await ctx.tick()
            ctx.set(dut.permit_taken, 0)

    async def array(self, ctx):
        """The tiles' work in their order."""
        number = block = 0
        for tile in self.tiles:
            if tile.vector:
                for n in range(tile.words):
                    while len(self.permitted) <= block:
                        await ctx.tick()
                    await self.block(ctx, tile, n)
                    block += 1
            else:
                jobs = sum(job[0] is tile for job in self.jobs)
                await self.run_jobs(ctx, range(number, number + jobs))
                number += jobs

    async def block(self, ctx, tile, n):
        """Parameters when the block before the last is drained, then its rows, one per drain time at the fastest."""
        dut, c = self.dut, self.config
        if tile.pool is None:
            while self.block_drains < self.parametered - 1:
                await ctx.tick()
            pitch = max(c.lanes, c.post_lanes) * 16 // c.bus_bytes
            for d, first in enumerate(tile.block_channels(c, n)):
                channels = tile.channels[first : first + c.lanes]
                await self.write_parameters(ctx, channels, self.parametered % 2, 1, d * pitch)
            self.parametered += 1
        rows = max(tile.sub_rows)
        for row in range(rows):
            ctx.set(dut.vector_row, {"last": row == rows - 1, "last_tile": n == tile.words - 1})
            ctx.set(dut.vector_row_valid, 1)
            self.row_cycles.append(self.cycle)
            await ctx.tick()
            ctx.set(dut.vector_row_valid, 0)
            for _ in range(self.drain_cycles(tile) - 1):
                await ctx.tick()
            while self.pause():
                await ctx.tick()

    def drain_cycles(self, tile):
        return (tile.sub_tiles << tile.log2_kd) * max(1, self.config.lanes // self.config.post_lanes)

    async def run_jobs(self, ctx, numbers):
        """Parameters and jobs: job n when bank n % 2 was drained of job n - 2."""
        dut = self.dut
        for number in numbers:
            tile, first, used = self.jobs[number]
            while len(self.drains) < number - 1:
                await ctx.tick()
            if tile.pool is None:
                await self.write_parameters(ctx, tile.channels[first : first + used], number % 2)
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
        """In order: fields of the request; job number or None; sums, taps."""
        number, lanes, garbage = 0, self.config.post_lanes, [self.rng.getrandbits(30)] * self.config.post_lanes
        for tile in self.tiles:
            if tile.vector:
                yield from self.vector_requests(tile, garbage)
                continue
            for _, first, used in (job for job in self.jobs if job[0] is tile):
                for sub_tile, rows in enumerate(tile.sub_rows):
                    for row in range(rows):
                        for quad in range(-(-used // lanes)):
                            sums = tile.sums[sub_tile][row][first : first + used] + garbage
                            fields = {"vector": 0, "bank": number % 2, "sub_tile": sub_tile, "row": row, "quad": quad}
                            yield fields, number, sums[quad * lanes :][:lanes], 777
                number += 1

    def vector_requests(self, tile, garbage):
        c, width = self.config, min(self.config.lanes, self.config.post_lanes)
        for block in range(tile.words):
            for row in range(max(tile.sub_rows)):
                for r in range(tile.sub_tiles):
                    for d, first in enumerate(tile.block_channels(c, block)):
                        for quad in range(c.lanes // width):
                            sums, taps = garbage, 1
                            if row < tile.sub_rows[r]:
                                at = first + quad * width
                                sums, taps = tile.sums[r][row][at : at + width] + garbage, tile.taps[r][row]
                            group = (r * c.max_stack >> tile.log2_kr) | d
                            yield {"vector": 1, "sub_tile": group, "quad": quad}, None, sums[: c.post_lanes], taps

    async def operands(self, ctx):
        """The second operands' loader: fills a half when it was read, chunk after chunk; garbage behind the pixel."""
        dut, bus, half = self.dut, self.config.bus_bytes, 0
        for tile in [tile for tile in self.tiles if tile.residual]:
            for first, used in tile.chunks(self.config):
                while self.filled[half] or self.pause():
                    await ctx.tick()
                self.filled[half] = True
                rows = [(r, row, pixel) for r, rows in enumerate(tile.seconds) for row, pixel in enumerate(rows)]
                for r, row, pixel in rows:
                    for beat in range(used):
                        raw = bytes(b & 255 for b in pixel[bus * (first + beat) :][:bus])
                        word = int.from_bytes(raw + self.rng.randbytes(bus - len(raw)), "little")
                        address = tile.place(self.config, r, row, used) + beat
                        ctx.set(dut.residual_write, {"half": half, "address": address, "data": word})
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
            _, _, staged, valid, request, drained, bank, block_drained, taken = await ctx.tick().sample(
                dut.staged,
                dut.acc_request_valid,
                dut.acc_request,
                dut.drained,
                dut.drained_bank,
                dut.block_drained,
                dut.job.valid & dut.job.ready,
            )
            self.staged.append(self.staged[-1] + staged)
            if taken:
                self.taken.append(self.cycle)
            answer = None
            if valid:
                fields, number, *answer = expected.popleft()
                assert {name: request[name] for name in fields} == fields
                self.requests.append((self.cycle, number))
            self.block_drains += block_drained
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
                assert chunk.half == number % 2 and chunk.complete == bool(tile.vector)
                assert chunk.last == (bus * (first_beat + used) >= tile.out_channels)
                for r, row, pixel in pixels:
                    place = tile.place(self.config, r, row, used)
                    for beat in range(used):
                        expected = pixel[bus * (first_beat + beat) :][:bus]
                        self.read_beats += not chunk.complete
                        while self.staged[-1] < self.read_beats:
                            await ctx.tick()
                        ctx.set(dut.stage_read, {"half": chunk.half, "address": place + beat})
                        await ctx.tick()
                        got = ctx.get(dut.stage_data).to_bytes(bus, "little")
                        assert list(got[: len(expected)]) == [b & 255 for b in expected], (index, r, row, beat)
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
        assert self.staged[-1] == self.read_beats
        assert [bank for _, bank in self.drains] == [n % 2 for n in range(len(self.jobs))]

    def run(self):
        sim = Simulator(self.dut)
        sim.add_clock(1e-6)
        sim.add_testbench(self.accumulators, background=True)
        sim.add_testbench(self.array, background=True)
        sim.add_testbench(self.permits, background=True)
        sim.add_testbench(self.starter, background=True)
        sim.add_testbench(self.operands, background=True)
        sim.add_testbench(self.operands_used, background=True)
        sim.add_testbench(self.writer)
        sim.run()
        self.check_timing()
        return self

    def check_timing(self):
        """Requests of a job or a row follow it without a gap; drained has its latency."""
        by_job = {}
        for cycle, number in self.requests:
            by_job.setdefault(number, []).append(cycle)
        rows = [tile for tile, _ in self.blocks for _ in range(max(tile.sub_rows))]
        expected = [
            cycle + 1 + n
            for tile, cycle in zip(rows, self.row_cycles, strict=True)
            for n in range(self.drain_cycles(tile))
        ]
        assert by_job.pop(None, []) == expected
        for number, taken in enumerate(self.taken):
            cycles = by_job[number]
            assert cycles == list(range(taken + 1, taken + 1 + len(cycles)))
            assert self.drains[number][0] == cycles[-1] + ACC_LATENCY - 1
