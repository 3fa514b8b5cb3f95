"""OutputWriter against a model that knows tensors, fragments and AXI rules: memory, bursts, events, cycles."""

import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import memory
from amaranth.lib.wiring import Component
from amaranth.sim import Simulator
from fluidnpu.hw.axi import OKAY, SLVERR
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import Code
from fluidnpu.hw.memory.output_writer import OutputWriter
from fluidnpu.hw.tile import Layouts

TINY = CONFIGS["tiny"]
PAGE = 4096


@dataclass
class Fragment:
    """``lines`` lines of ``slot`` from ``line`` on."""

    slot: int
    line: int
    lines: int
    sub_tile: int = 0


@dataclass
class Tile:
    """A layer's output tensor and the fragments of it that the tile makes."""

    fragments: list
    out_w: int = 3
    lines: int = 20
    channels: int = 8
    nseg: int = 1
    seg_w: int = 0
    pixel_beats: int = 0
    line_beats: int = 0
    chunk_beats: int = 255
    out_offset: int = 0
    pc: int = 5
    log2_kr: int = 0

    def resolve(self, config):
        """Fill in the sizes that follow from the others."""
        self.seg_w = self.seg_w or self.out_w
        self.pixel_beats = self.pixel_beats or -(-self.channels // config.bus_bytes)
        self.line_beats = self.line_beats or self.out_w * self.pixel_beats
        return self

    def chunks(self, config):
        """(first beat, beats) of the pixel, up to the one with the last channel."""
        first = 0
        while first * config.bus_bytes < self.channels:
            used = min(self.chunk_beats, -(-self.channels // config.bus_bytes) - first)
            yield first, used
            first += used

    def pixels(self, fragment):
        """Per line of the fragment: the row and the columns of its pixels."""
        for line in range(fragment.line, fragment.line + fragment.lines):
            row, seg = divmod(line, self.nseg)
            yield row, range(seg * self.seg_w, min(self.out_w, (seg + 1) * self.seg_w))


@dataclass
class Expected:
    """What the writer must do."""

    bursts: list = field(default_factory=list)  # (addr, beats) that reach the bus
    memory: dict = field(default_factory=dict)  # byte address -> value
    events: list = field(default_factory=list)
    stage: list = field(default_factory=list)  # per chunk: beats in stage order
    places: list = field(default_factory=list)  # per chunk: those that are sent, in order
    tokens: list = field(default_factory=list)  # per chunk: half, last, beats of a pixel


def model(config, tiles, arenas, bad, rng):
    """Expected behaviour; ``bad``: numbers of the sent bursts that get an error response."""
    bus = config.bus_bytes
    out = Expected()
    for index, tile in enumerate(tiles):
        chunks = list(tile.chunks(config))
        for number, (first, used) in enumerate(chunks):
            stage, sub_tile, places = [], 0, []
            last_chunk = number == len(chunks) - 1
            for f, fragment in enumerate(tile.fragments):
                base, size = arenas[fragment.slot]
                bursts = []
                if fragment.sub_tile != sub_tile:  # its rows begin in its own part of the half
                    sub_tile = fragment.sub_tile
                    start = sub_tile * config.stage_beats >> tile.log2_kr
                    assert start >= len(stage)
                    stage += [rng.randbytes(bus) for _ in range(start - len(stage))]
                for line, (row, columns) in enumerate(tile.pixels(fragment), fragment.line + 1):
                    start = [
                        base + tile.out_offset + bus * (row * tile.line_beats + x * tile.pixel_beats) for x in columns
                    ]
                    runs = [(a + bus * first, used) for a in start]
                    if used == tile.pixel_beats:
                        runs = [(start[0], len(start) * used)]
                    for addr, beats in runs:
                        while beats:
                            n = min(beats, config.burst_beats, (PAGE - addr % PAGE) // bus)
                            bursts.append((addr, n, line))
                            addr, beats = addr + n * bus, beats - n
                for i, (addr, n, line) in enumerate(bursts):
                    inside = base <= addr and addr + n * bus <= base + size
                    for beat in range(n):
                        raw = rng.randbytes(bus)
                        place = len(places) % used
                        places.append(len(stage))
                        stage.append(raw)
                        real = tile.channels - (first + place) * bus
                        for b in range(min(bus, real) if inside else 0):
                            out.memory[addr + beat * bus + b] = raw[b]
                    code = Code.NONE if inside else Code.ADDRESS
                    if inside:
                        if len(out.bursts) in bad:
                            code = Code.WRITE
                        out.bursts.append((addr, n))
                    ends = i == len(bursts) - 1
                    done = last_chunk and (ends or bursts[i + 1][2] != line)
                    retire = last_chunk and ends and f == len(tile.fragments) - 1
                    if code or done or retire:
                        position = (tile.pc + 1, 0) if ends and line == tile.lines else (tile.pc, line)
                        context = index % config.contexts
                        out.events.append((fragment.slot, context, done, *position, retire, code != 0, int(code)))
            out.stage.append(stage)
            out.places.append(places)
            out.tokens.append((len(out.tokens) % 2, last_chunk, used))
    return out


class Harness(Component):
    """The writer with a fragment table."""

    def __init__(self, config):
        self.writer = OutputWriter(config)
        layouts = Layouts(config)
        self.table = memory.Memory(
            shape=layouts.fragment, depth=1 << (layouts.context + layouts.fragment_index), init=[]
        )
        self.per_context = 1 << layouts.fragment_index
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.submodules.writer = w = self.writer
        m.submodules.table = self.table
        read = self.table.read_port(domain="comb")
        m.d.comb += [read.addr.eq(Cat(w.fragment_index, w.fragment_context)), w.fragment.eq(read.data)]
        return m


class Bench:
    """Engine, staging buffer and memory around the writer. ``rate``: how often each side is ready or valid."""

    def __init__(self, config, tiles, *, arenas=None, bad=(), rate=1.0, latency=6, seed=0):
        self.config = config
        self.tiles = [tile.resolve(config) for tile in tiles]
        self.arenas = arenas or [(0x10000 * (s + 1) + config.bus_bytes * 3, 0x8000) for s in range(config.slots)]
        self.rng = random.Random(seed)
        self.bad, self.rate, self.latency = bad, rate, latency
        self.expected = model(config, self.tiles, self.arenas, bad, self.rng)
        self.harness = Harness(config)
        self.dut = self.harness.writer
        self.halves = [[], []]
        self.free = [True, True]
        self.cycle = 0
        self.bursts, self.memory, self.events = [], {}, []
        self.aw_cycles, self.w_cycles, self.b_cycles, self.event_cycles, self.chunk_cycles = [], [], [], [], []
        self.retired = self.counted_beats = self.counted_bursts = 0

    def go(self):
        return self.rng.random() < self.rate

    async def engine(self, ctx):
        dut, config = self.dut, self.config
        for slot, (base, size) in enumerate(self.arenas):
            ctx.set(dut.arena_base[slot], base)
            ctx.set(dut.arena_bytes[slot], size)
        for index, tile in enumerate(self.tiles):
            while index - self.retired >= config.trackers or not self.go():
                await ctx.tick()
            context = index % config.contexts
            for i, f in enumerate(tile.fragments):
                entry = {
                    "slot": f.slot,
                    "line": f.line,
                    "row": f.line // tile.nseg,
                    "seg": f.line % tile.nseg,
                    "lines": f.lines,
                    "sub_tile": f.sub_tile,
                }
                table = self.harness.table.data[context * self.harness.per_context + i]
                ctx.set(table, entry)
            payload = {
                "context": context,
                "log2_kr": tile.log2_kr,
                "fragments": len(tile.fragments),
                "pc": tile.pc,
                "lines": tile.lines,
                "nseg": tile.nseg,
                "seg_w": tile.seg_w,
                "out_w": tile.out_w,
                "out_offset": tile.out_offset,
                "out_line_beats": tile.line_beats,
                "out_pixel_beats": tile.pixel_beats,
                "out_channels": tile.channels,
                "chunk_beats": tile.chunk_beats,
            }
            ctx.set(dut.tile.payload, payload)
            ctx.set(dut.tile.valid, 1)
            await ctx.tick().until(dut.tile.ready)
            ctx.set(dut.tile.valid, 0)

    async def chunks(self, ctx):
        """Fill a half when it is free: before it is offered, or (``rate`` below 1) pixel by pixel behind the first."""
        dut = self.dut
        for _ in range(12):
            await ctx.tick()
        expected = self.expected
        for (half, last, used), stage, places in zip(expected.tokens, expected.stage, expected.places, strict=True):
            while not self.free[half] or not self.go():
                await ctx.tick()
            self.free[half] = False
            complete = self.rate < 1 and self.rng.random() < 0.3
            self.halves[half] = stage.copy() if complete else [b"\xee" * self.config.bus_bytes] * len(stage)
            staged = len(places) if complete else 0
            offered = taken = False
            while not taken or staged < len(places):
                grown = 0
                if staged < len(places) and (not staged or self.go()):
                    grown = min(255, len(places) - staged) if self.rate == 1 else used
                ctx.set(dut.staged, grown)
                if not offered and staged and (self.rate < 1 or staged == len(places)):
                    offered = True
                    ctx.set(dut.chunk.payload, {"half": half, "last": last, "complete": complete})
                    self.chunk_cycles.append(self.cycle)
                ctx.set(dut.chunk.valid, offered and not taken)
                _, _, ready = await ctx.tick().sample(dut.chunk.ready & dut.chunk.valid)
                taken |= bool(ready)
                for place in places[staged : staged + grown]:
                    self.halves[half][place] = stage[place]
                staged += grown
            ctx.set(dut.staged, 0)
            ctx.set(dut.chunk.valid, 0)

    async def staging(self, ctx):
        dut = self.dut
        while True:
            _, _, read, free, half = await ctx.tick().sample(dut.stage_read, dut.chunk_free, dut.chunk_free_half)
            stage = self.halves[read.half]
            ctx.set(
                dut.stage_data,
                int.from_bytes(stage[read.address] if read.address < len(stage) else b"\xee", "little"),
            )
            if free:
                assert not self.free[half]
                self.free[half] = True
                self.halves[half] = []

    async def bus(self, ctx):
        """The memory: AW and W with stalls, B ``latency`` cycles after both, in order."""
        dut, bus, width = self.dut, self.dut.bus, self.config.bus_bytes
        pending, beats, answers = deque(), deque(), deque()
        held_aw = held_w = None
        responding = False
        sent = 0
        while True:
            ctx.set(bus.awready, self.go())
            ctx.set(bus.wready, self.go())
            if not responding and answers and answers[0] <= self.cycle and self.go():
                responding = True
                ctx.set(bus.bresp, SLVERR if sent in self.bad else OKAY)
                sent += 1
            ctx.set(bus.bvalid, responding)
            _, _, *now = await ctx.tick().sample(
                Cat(bus.awvalid, bus.awready, bus.wvalid, bus.wready, bus.bvalid & bus.bready),
                Cat(bus.awaddr, bus.awlen),
                Cat(bus.wdata, bus.wstrb, bus.wlast),
                Cat(dut.beat, dut.burst),
                Cat(bus.awid, bus.awsize, bus.awburst),
            )
            flags, aw, w, counts, constants = now
            awvalid, awready, wvalid, wready, answered = (flags >> i & 1 for i in range(5))
            assert held_aw in (None, aw if awvalid else -1) and held_w in (None, w if wvalid else -1)
            held_aw = aw if awvalid and not awready else None
            held_w = w if wvalid and not wready else None
            self.counted_beats += counts & 1
            self.counted_bursts += counts >> 1
            if awvalid and awready:
                addr, length = aw & 0xFFFFFFFF, (aw >> 32) + 1
                assert constants == (width.bit_length() - 1) << 3 | 1 << 6
                assert addr % width == 0 and length <= self.config.burst_beats
                assert addr // PAGE == (addr + length * width - 1) // PAGE
                self.bursts.append((addr, length))
                self.aw_cycles.append(self.cycle)
                pending.append((addr, length))
            if wvalid and wready:
                self.w_cycles.append(self.cycle)
                beats.append(w)
            while pending and len(beats) >= pending[0][1]:
                addr, length = pending.popleft()
                for n in range(length):
                    value = beats.popleft()
                    assert value >> 9 * width == (n == length - 1)
                    for b in range(width):
                        if value >> (8 * width + b) & 1:
                            self.memory[addr + n * width + b] = value >> 8 * b & 255
                answers.append(self.cycle + self.latency)
            if answered:
                responding = False
                answers.popleft()
                self.b_cycles.append(self.cycle)
            assert len(self.bursts) - len(self.b_cycles) <= dut.outstanding
            self.cycle += 1
            assert self.cycle < 8000, "the writer hangs"

    async def listener(self, ctx):
        dut = self.dut
        while len(self.events) < len(self.expected.events):
            ctx.set(dut.event.ready, self.go())
            _, _, valid, ready, e = await ctx.tick().sample(dut.event.valid, dut.event.ready, dut.event.payload)
            if valid and ready:
                names = ("slot", "context", "done", "pc", "line", "retire", "error", "code")
                got = tuple(getattr(e, name) for name in names)
                self.events.append(got)
                self.event_cycles.append(self.cycle - 1)
                self.retired += e.retire
                want = self.expected.events[len(self.events) - 1]
                assert got == want, names
        ctx.set(dut.event.ready, 0)
        for _ in range(20):
            await ctx.tick()
            assert not ctx.get(dut.event.valid)
        assert ctx.get(dut.idle)
        assert not ctx.get(dut.bus.awvalid) and not ctx.get(dut.bus.wvalid)

    def run(self):
        sim = Simulator(self.harness)
        sim.add_clock(1e-6)
        for bench in (self.bus, self.staging, self.engine, self.chunks):
            sim.add_testbench(bench, background=True)
        sim.add_testbench(self.listener)
        sim.run()
        assert self.bursts == self.expected.bursts
        assert self.memory == self.expected.memory
        assert self.counted_bursts == len(self.bursts)
        assert self.counted_beats == sum(n for _, n in self.bursts)
        assert self.free == [True, True]
        return self


CASES = {
    "one pixel": lambda: [Tile([Fragment(0, 0, 1)], out_w=1, lines=1, channels=3)],
    "whole pixels": lambda: [Tile([Fragment(1, 4, 3)], out_w=5, channels=13)],
    "gaps between lines": lambda: [Tile([Fragment(1, 4, 3)], out_w=5, channels=16, line_beats=23)],
    "pixel by pixel": lambda: [Tile([Fragment(2, 0, 2), Fragment(0, 3, 1)], channels=40, chunk_beats=2)],
    "beat by beat": lambda: [Tile([Fragment(2, 0, 2)], channels=21, chunk_beats=1)],
    "fragments of one slot": lambda: [
        Tile([Fragment(0, 2, 2), Fragment(0, 4, 1), Fragment(3, 19, 1), Fragment(1, 0, 1)])
    ],
    "segments": lambda: [
        Tile([Fragment(0, line, 1) for line in range(3, 6)], out_w=20, seg_w=8, nseg=3, channels=16),
        Tile([Fragment(1, 5, 1), Fragment(0, 11, 1)], out_w=20, seg_w=8, nseg=3, channels=24, chunk_beats=1, lines=12),
    ],
    "sub-tiles": lambda: [
        Tile([Fragment(0, 0, 2, sub_tile=0), Fragment(1, 0, 1, 1), Fragment(1, 1, 2, sub_tile=3)], log2_kr=2),
        Tile([Fragment(0, 4, 1), Fragment(0, 5, 1, sub_tile=1)], log2_kr=1, channels=24, chunk_beats=2),
        Tile([Fragment(0, 6, 1)]),
    ],
    "long lines": lambda: [Tile([Fragment(1, 2, 2)], out_w=32, channels=32)],
    "page borders": lambda: [Tile([Fragment(1, 0, 4)], out_w=10, channels=48, out_offset=PAGE - 200 + 8 * 5 - 24)],
    "padded pixels": lambda: [
        Tile([Fragment(1, 0, 2)], channels=9, pixel_beats=4),
        Tile([Fragment(1, 0, 2)], channels=9, pixel_beats=4, chunk_beats=2),
        Tile([Fragment(1, 0, 2)], channels=8, pixel_beats=4, chunk_beats=1),
    ],
    "tiles in a row": lambda: [
        Tile([Fragment(s % 4, s, 1), Fragment((s + 1) % 4, s, 2)], pc=0x4003 + s, channels=8 + s, chunk_beats=1 + s % 3)
        for s in range(7)
    ],
}


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, rate):
    Bench(TINY, CASES[name](), rate=rate, seed=name).run()


@pytest.mark.parametrize("rate", [1.0, 0.4])
def test_error_responses(rate):
    tiles = [Tile([Fragment(0, 0, 2), Fragment(1, 0, 2)], channels=24, chunk_beats=1 + i, pc=i) for i in range(3)]
    Bench(TINY, tiles, bad={0, 3, 4, 11, 40}, rate=rate, latency=12).run()


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_address_violations(rate):
    """Behind the arena, past the end of the address space, in an empty arena; neighbours go on."""
    arenas = [(0x1000, 0x100), (0xFFFFFF00, 0x100), (0x3000, 0), (0x4000, 0x4000)]
    tiles = [
        Tile([Fragment(0, 6, 4), Fragment(3, 0, 2)], out_w=5, channels=8),
        Tile([Fragment(1, 6, 4), Fragment(2, 0, 1), Fragment(3, 2, 1)], out_w=5, channels=16, chunk_beats=1),
        Tile([Fragment(3, 19, 1), Fragment(2, 19, 1)], out_w=5, channels=4),
        Tile([Fragment(3, 2, 1), Fragment(1, 0, 1)], out_offset=0xFFFFFF00, lines=3),
        Tile([Fragment(3, 0xFFF, 1)], out_w=4095, seg_w=32, nseg=1, line_beats=0xFFFF, lines=0x1000),
        Tile([Fragment(3, 1, 1)], out_offset=0xFFFFFFF8),  # inside of the arena, were it not for the carry
        Tile([Fragment(3, 0, 1), Fragment(0, 0, 1)]),
    ]
    tiles[4].out_w = 32
    bench = Bench(TINY, tiles, arenas=arenas, bad={2}, rate=rate, seed=3).run()
    codes = [event[-1] for event in bench.events]
    assert Code.ADDRESS in codes and Code.WRITE in codes and Code.NONE in codes


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["tiny", "edge", "hub"])
def test_random(name, seed):
    config = CONFIGS[name]
    rng = random.Random(f"{name} {seed}")
    tiles = []
    for _ in range(4):
        nseg = rng.choice([1, 1, 3])
        seg_w = rng.randrange(1, 7)
        out_w = seg_w if nseg == 1 else rng.randrange(2 * seg_w + 1, 3 * seg_w + 1)
        slots = rng.sample(range(config.slots), rng.randrange(1, 4))
        fragments = []
        for slot in slots:
            line = rng.randrange(10)
            for _ in range(rng.randrange(1, 3)):
                lines = 1 if nseg > 1 else rng.randrange(1, 4)
                fragments.append(Fragment(slot, line, lines))
                line += lines
        channels = rng.randrange(1, 4 * config.bus_bytes)
        tiles.append(
            Tile(
                fragments,
                out_w=out_w,
                seg_w=seg_w,
                nseg=nseg,
                lines=fragments[-1].line + fragments[-1].lines,
                channels=channels,
                pixel_beats=-(-channels // config.bus_bytes) + rng.randrange(2),
                chunk_beats=rng.choice([1, 2, 255]),
                out_offset=config.bus_bytes * rng.randrange(600),
                pc=rng.randrange(1 << 14),
            )
        )
    bad = {n for n in range(200) if rng.random() < 0.02}
    Bench(config, tiles, bad=bad, rate=rng.choice([1.0, 0.7, 0.4]), latency=rng.randrange(1, 20), seed=seed).run()


def check_cadence(bench):
    """Latencies and a beat per cycle of a single chunk."""
    dut, start = bench.dut, bench.chunk_cycles[0]
    assert bench.aw_cycles[0] == start + dut.AW_LATENCY
    beats = sum(n for _, n in bench.bursts)
    first = start + dut.W_LATENCY
    assert bench.w_cycles == list(range(first, first + beats))
    assert bench.event_cycles[-1] == bench.b_cycles[-1] + 1


def test_a_beat_per_cycle_in_long_bursts():
    bench = Bench(TINY, [Tile([Fragment(0, 0, 2), Fragment(1, 3, 2)], out_w=16, channels=32)], latency=4)
    check_cadence(bench.run())


def test_a_beat_per_cycle_in_bursts_of_one():
    """Pixel by pixel; a burst per cycle as long as the responses come back in time."""
    bench = Bench(
        TINY,
        [Tile([Fragment(0, 0, 2), Fragment(1, 3, 2)], out_w=16, channels=8, pixel_beats=2, chunk_beats=1)],
        latency=2,
    )
    check_cadence(bench.run())
    assert bench.aw_cycles == list(range(bench.aw_cycles[0], bench.aw_cycles[0] + 64))


def test_aw_runs_ahead_and_outstanding_is_bounded():
    """A memory that answers late: exactly ``outstanding`` bursts, then silence until the first response."""
    bench = Bench(
        TINY, [Tile([Fragment(0, 0, 4)], out_w=16, channels=8, pixel_beats=2, chunk_beats=1)], latency=100
    ).run()
    n = bench.dut.outstanding
    assert bench.aw_cycles[n - 1] < bench.b_cycles[0] < bench.aw_cycles[n]
