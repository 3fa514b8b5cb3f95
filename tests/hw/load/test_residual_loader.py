"""ResidualLoader behind a ReadArbiter: contents of the buffer, order, dependencies, revocation, errors, throughput."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth.hdl import Array, Module, Signal
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, NO_PRODUCER, Client, Code, encode, make_pc
from fluidnpu.hw.load.residual_loader import ResidualLoader
from fluidnpu.hw.memory.read_arbiter import ReadArbiter
from fluidnpu.hw.tile import Layouts

from ..memory.read_bus import ReadMemory
from .stripes import ARENA, ARENA_BYTES, arenas

CONTEXTS = 4


@dataclass
class Tile:
    """A dealt tile: descriptor fields and fragments (dicts of Layouts.fragment)."""

    layer: dict
    log2_kr: int
    program: int
    context: int
    fragments: list = field(default_factory=list)

    def chunks(self, config):
        """(first beat, beats) of a pixel per chunk."""
        beats, most = -(-self.layer["out_channels"] // config.bus_bytes), self.layer["chunk_beats"]
        return [(first, min(most, beats - first)) for first in range(0, beats, most)]

    def beats(self, config, chunk):
        """(slot, row, byte address) of every beat of a chunk, in the order of the sub-tiles' rows."""
        for f in self.fragments:
            yield from self.fragment_beats(config, chunk, f)

    def places(self, config, chunk):
        """Of every beat in the buffer: sub-tiles lie stage_beats / kr apart."""
        seen = [0] * (1 << self.log2_kr)
        for f in self.fragments:
            r = f["sub_tile"]
            for _ in self.fragment_beats(config, chunk, f):
                yield (r * config.stage_beats >> self.log2_kr) + seen[r]
                seen[r] += 1

    def fragment_beats(self, config, chunk, f):
        d, (first, used) = self.layer, chunk
        for i in range(f["lines"]):
            row, left = f["row"] + i, f["seg"] * d["seg_w"]
            for x in range(left, min(d["out_w"], left + d["seg_w"])):
                at = row * d["res_line_beats"] + x * d["res_pixel_beats"] + first
                base = ARENA + f["slot"] * ARENA_BYTES + d["res_offset"]
                yield from ((f["slot"], row, base + (at + n) * config.bus_bytes) for n in range(used))

    def need(self, row):
        """Position that the slot's done position must have passed for a row; None: none."""
        d = self.layer
        if d["res_producer"] == NO_PRODUCER:
            return None
        return make_pc(self.program, d["res_producer"]), (row + 1) * d["res_producer_nseg"] - 1


def random_tile(rng, config, context, **fixed):
    nseg = rng.choice([1, 1, 2, 3])
    seg_w = rng.randint(1, 5)
    out_w = seg_w if nseg == 1 else (nseg - 1) * seg_w + rng.randint(1, seg_w)
    pixel = rng.randint(1, 4)
    d = {
        "residual": int(rng.random() < 0.8), "nseg": nseg, "seg_w": seg_w, "out_w": out_w,
        "res_offset": rng.randrange(0, 4096, config.bus_bytes), "res_pixel_beats": pixel,
        "res_line_beats": out_w * pixel + rng.choice([0, 0, 3]), "chunk_beats": rng.choice([1, 2, 3, 255]),
        "res_producer": rng.choice([NO_PRODUCER, 3, 5]), "res_producer_nseg": rng.randint(1, 3),
        "out_channels": rng.randint(1, pixel * config.bus_bytes),
    } | fixed  # fmt: skip
    tile = Tile(d, rng.randint(0, config.max_stack.bit_length() - 1), rng.randrange(config.programs), context)
    used = max(beats for _, beats in tile.chunks(config))
    most = (config.stage_beats >> tile.log2_kr) // used  # rows of a sub-tile
    room, sub_tile = most, 0
    for n in range(rng.randint(1, config.fragments)):
        lines = 1 if nseg > 1 else rng.randint(1, 4)
        room -= lines * seg_w
        if n and (room < 0 or rng.random() < 0.3):
            room, sub_tile = most - lines * seg_w, sub_tile + 1
        if room < 0 or sub_tile >> tile.log2_kr:
            break
        row, seg = rng.randrange(8), rng.randrange(nseg)
        tile.fragments.append(
            {"slot": rng.randrange(config.slots), "sub_tile": sub_tile, "line": row * nseg + seg, "row": row,
             "seg": seg, "lines": lines}
        )  # fmt: skip
    return tile


class Bench:
    """Loader, arbiter and memory; the epilogue takes and reads halves in order, after random times."""

    def __init__(self, config, seed=0, patience=30, **memory):
        self.config, self.rng, self.patience = config, random.Random(f"residual {seed}"), patience
        self.dut = ResidualLoader(config)
        self.arbiter = ReadArbiter(config)
        self.contents = arenas(config, 1)
        self.memory = ReadMemory(config, self.arbiter.bus, value=self.value, seed=seed, **memory)
        count = config.fragments
        self.fragments = [
            [Signal(Layouts(config).fragment, name=f"fragment{c}_{n}") for n in range(count)] for c in range(CONTEXTS)
        ]
        self.done = [Signal(32, name=f"done{n}") for n in range(config.slots)]
        self.positions = [(0, 0)] * config.slots
        self.slots_bytes = [ARENA_BYTES] * config.slots
        self.buffer = {}  # (half, address) -> data
        self.chunks = []  # (tile, chunk) that the epilogue has to find next, of started tiles
        self.half = 0  # of the epilogue
        self.reading = []  # (cycle at which the half is read, half)
        self.cycle = self.refused = self.read = self.expected_faults = 0
        self.top = m = Module()
        m.submodules.dut = dut = self.dut
        m.submodules.arbiter = self.arbiter
        connect(m, dut.client, self.arbiter.clients[Client.RESIDUAL])
        done = Array(self.done)[dut.there_slot]
        lists = Array(Array(f.as_value() for f in part)[dut.fragment_index] for part in self.fragments)
        m.d.comb += [
            dut.fragment.eq(lists[dut.fragment_context]),
            dut.done_line.eq(done[:16]),
            dut.done_pc.eq(done[16:]),
        ]

    def value(self, addr):
        slot, at = divmod(addr - ARENA, ARENA_BYTES)
        return int.from_bytes(self.contents[slot, at : at + self.config.bus_bytes].tobytes(), "little")

    def set_done(self, ctx, slot, pc, line):
        self.positions[slot] = (pc, line)
        ctx.set(self.done[slot], pc << 16 | line)

    async def announce(self, ctx, tile):
        """Announce a tile in a context of which no started tile has chunks to come."""
        dut = self.dut
        while any(other.context == tile.context for other, _ in self.chunks):
            await self.step(ctx)
        words = encode(DESCRIPTOR_FIELDS, tile.layer, DESCRIPTOR_WORDS, "layer")
        ctx.set(dut.layer.as_value(), sum(word << 32 * n for n, word in enumerate(words)))
        for name in ("log2_kr", "program", "context"):
            ctx.set(getattr(dut, name), getattr(tile, name))
        ctx.set(dut.fragments, len(tile.fragments))
        for signal, fragment in zip(self.fragments[tile.context], tile.fragments, strict=False):
            ctx.set(signal, fragment)
        await self.step(ctx, announce=1)

    async def step(self, ctx, announce=0, revoke=0, start=0):
        """One cycle, the epilogue's part included."""
        dut, rng = self.dut, self.rng
        for name, value in (("announce", announce), ("revoke", revoke), ("start", start)):
            ctx.set(getattr(dut, name), value)
        taken = bool(self.chunks) and ctx.get(dut.full) >> self.half & 1 and rng.random() < 0.3
        ctx.set(dut.taken, taken)
        ctx.set(dut.taken_half, self.half)
        if taken:
            self.check_chunk(*self.chunks.pop(0))
            self.reading.append((self.cycle + rng.randint(1, self.patience), self.half))
            self.half ^= 1
        read = bool(self.reading) and self.reading[0][0] <= self.cycle
        ctx.set(dut.read, read)
        if read:
            ctx.set(dut.read_half, self.reading.pop(0)[1])
        write = dut.write
        _, _, valid, half, address, data, fault, code = await ctx.tick().sample(
            dut.write_valid, write.half, write.address, write.data, dut.fault, dut.fault_code
        )
        if valid:
            assert all(half != h for _, h in self.reading), "a half is written before it is read"
            self.buffer[half, address] = data
        arrived = [addr for cycle, _, addr in self.memory.beats[-1:] if cycle == self.cycle]
        if arrived:
            slot = (arrived[0] - ARENA) // ARENA_BYTES
            assert fault == (arrived[0] in self.memory.bad) << slot
            assert not fault or code == Code.RESIDUAL_READ
        elif fault:
            assert code == Code.ADDRESS and self.slots_bytes[fault.bit_length() - 1] == 0
            self.refused += 1
        self.cycle += 1

    def check_chunk(self, tile, chunk):
        """Every beat of a chunk that the epilogue takes is where it will look for it."""
        beats = zip(tile.places(self.config, chunk), tile.beats(self.config, chunk), strict=True)
        for place, (slot, _, addr) in beats:
            if addr not in self.memory.bad and self.slots_bytes[slot]:
                assert self.buffer.pop((self.half, place)) == self.value(addr), (tile, chunk, place)
                self.read += 1

    def started(self, tile):
        if tile.layer["residual"]:
            self.chunks += [(tile, chunk) for chunk in tile.chunks(self.config)]

    def finish(self, ctx, tile):
        """All rows are there from now on."""
        for f in tile.fragments:
            self.set_done(ctx, f["slot"], 0xFFFF, 0)

    async def until_loaded(self, ctx, tile, most=4000):
        for _ in range(most):
            if ctx.get(self.dut.loaded):
                return
            await self.step(ctx)
        raise AssertionError(f"not loaded: {tile}")

    def run(self, bench):
        async def with_regions(ctx):
            for slot in range(self.config.slots):
                base, size = ARENA + slot * ARENA_BYTES, self.slots_bytes[slot]
                ctx.set(self.arbiter.arena_base[slot], base)
                ctx.set(self.arbiter.arena_bytes[slot], size)
                ctx.set(self.dut.arena_base[slot], base)
            await bench(ctx)
            for _ in range(3000):
                await self.step(ctx)
                if not self.chunks and not self.reading:
                    return
            raise AssertionError("chunks are missing")

        sim = Simulator(self.top)
        sim.add_clock(1e-6)
        sim.add_testbench(with_regions)
        sim.add_testbench(self.memory.serve, background=True)
        sim.run()


@pytest.mark.parametrize("name", ["tiny", "edge", "hub"])
@pytest.mark.parametrize("ready_rate, valid_rate, latency", [(1, 1, 6), (0.5, 0.6, 3), (0.8, 0.8, 40)])
def test_contents(name, ready_rate, valid_rate, latency):
    """Tile after tile, each started when its first chunk is there; rows come while it waits, none is read too early."""
    config = CONFIGS[name]
    bench = Bench(config, f"{name} {latency}", latency=latency, ready_rate=ready_rate, valid_rate=valid_rate)
    bench.memory.bad = {ARENA + n * config.bus_bytes for n in range(0, 1 << 18, 97)}
    rng = random.Random(f"{name} {ready_rate}")
    waited = 0

    async def drive(ctx):
        nonlocal waited
        for n in range(25):
            tile = random_tile(rng, config, n % CONTEXTS)
            producer = make_pc(tile.program, tile.layer["res_producer"] & 0x3FFF)
            late = rng.random() < 0.5 and tile.layer["residual"] and tile.layer["res_producer"] != NO_PRODUCER
            while late and bench.chunks:  # positions only grow: the tile before must not miss its rows
                await bench.step(ctx)
            before = len(bench.memory.bursts)
            for f in tile.fragments:
                bench.set_done(ctx, f["slot"], *((producer, rng.randrange(5)) if late else (0xFFFF, 0)))
            await bench.announce(ctx, tile)
            if late:
                for _ in range(300):
                    await bench.step(ctx)
                lost = [row for _, row, _ in tile.beats(config, (0, 1)) if tile.need(row)[1] >= 4]
                if lost:
                    assert ctx.get(dut.waiting) or bench.chunks, tile
                for addr in (addr for *_, addr, _ in bench.memory.bursts[before:]):
                    rows = {row for s, row, a in tile.beats(config, tile.chunks(config)[0]) if a == addr}
                    slot = (addr - ARENA) // ARENA_BYTES
                    assert not rows or tile.need(min(rows)) < bench.positions[slot]
                waited += bool(lost)
            bench.finish(ctx, tile)
            await bench.until_loaded(ctx, tile)
            for _ in range(rng.choice([0, 1, 50])):
                await bench.step(ctx)
            await bench.step(ctx, start=1)
            bench.started(tile)

    dut = bench.dut
    bench.run(drive)
    assert waited and bench.read > 200


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize("latency, patience", [(3, 3), (40, 30), (10, 200)])
def test_revoke(name, latency, patience):
    """Tiles are revoked at any moment, also while the one before still loads its chunks: that one loses nothing."""
    config = CONFIGS[name]
    bench = Bench(config, f"{name} {latency} revoke", patience, latency=latency, valid_rate=0.8)
    rng = random.Random(f"{name} {latency} revoke")
    late = 0

    async def drive(ctx):
        nonlocal late
        dut = bench.dut
        context = 0
        for _ in range(50):
            tile = random_tile(rng, config, context)
            bench.finish(ctx, tile)
            await bench.announce(ctx, tile)
            if rng.random() < 0.6:
                for _ in range(rng.choice((0, 3, 10, 30, 60, 400))):
                    await bench.step(ctx)
                await bench.step(ctx, revoke=1)
                late += not ctx.get(dut.drained)
                for _ in range(600):
                    if ctx.get(dut.drained):
                        break
                    await bench.step(ctx)
                assert ctx.get(dut.drained)
            else:
                await bench.until_loaded(ctx, tile)
                await bench.step(ctx, start=1)
                bench.started(tile)
                context = (context + 1) % CONTEXTS

    bench.run(drive)
    assert late and bench.read > 200


def test_rejected():
    """Rows outside of the arena become faults of their slot; the tile is loaded nevertheless."""
    config = CONFIGS["tiny"]
    rng = random.Random("rejected residual")
    bench = Bench(config, latency=5)
    bench.slots_bytes[1] = 0
    lost = 0

    async def drive(ctx):
        nonlocal lost
        for n in range(8):
            tile = random_tile(rng, config, n % CONTEXTS, residual=1)
            bench.finish(ctx, tile)
            await bench.announce(ctx, tile)
            await bench.until_loaded(ctx, tile)
            await bench.step(ctx, start=1)
            bench.started(tile)
            lost += sum(s == 1 for chunk in tile.chunks(config) for s, *_ in tile.beats(config, chunk))

    bench.run(drive)
    assert bench.refused == lost > 0


def test_no_bubbles():
    """Lines of four beats stream at one beat per cycle, over fragments; latencies as documented."""
    config = CONFIGS["edge"]
    latency = 4 * config.reads_in_flight - 8
    bench = Bench(config, latency=latency)
    layer = {
        **{"residual": 1, "nseg": 1, "seg_w": 4, "out_w": 4, "res_pixel_beats": 1, "res_line_beats": 4},
        **{"res_offset": 0, "chunk_beats": 4, "out_channels": 16, "res_producer": 7, "res_producer_nseg": 1},
    }
    tile = Tile(layer, 0, 0, 0)
    for n in range(8):
        part = {"row": 2 * (n % 3), "line": 2 * (n % 3), "lines": 2, "sub_tile": 0, "seg": 0}
        tile.fragments.append({"slot": n % 4} | part)

    async def drive(ctx):
        for slot in range(config.slots):
            bench.set_done(ctx, slot, 8, 0)
        await bench.announce(ctx, tile)
        await bench.until_loaded(ctx, tile)
        count = len(list(tile.beats(config, (0, 1))))
        first = 10 + ReadArbiter.LATENCY + latency
        assert [beat[0] for beat in bench.memory.beats] == list(range(first, first + count))
        assert bench.cycle == first + count - 1 + 2

    bench.run(drive)
