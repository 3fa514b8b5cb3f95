"""StripeLoader behind a ReadArbiter: bank contents, line tables, dependencies, revocation, errors and throughput."""

import random

import pytest
from amaranth.hdl import Array, Module, Signal
from amaranth.lib.wiring import connect
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, NO_PRODUCER, Client, Code, encode
from fluidnpu.hw.load.stripe_loader import StripeLoader
from fluidnpu.hw.memory.read_arbiter import ReadArbiter
from fluidnpu.hw.tile import Layouts

from ..memory.read_bus import ReadMemory
from .stripes import ARENA, ARENA_BYTES, Banks, Tile, arenas, random_tile

MANY = {**CONFIGS, "hub-max1": CONFIGS["hub"].unstackable()}


class Bench:
    """Loader, arbiter, memory; fragments and done positions as registers of the bench."""

    def __init__(self, config, seed=0, **memory):
        self.config = config
        self.dut = StripeLoader(config)
        self.arbiter = ReadArbiter(config)
        self.contents = arenas(config, 1)
        self.memory = ReadMemory(config, self.arbiter.bus, value=self.value, seed=seed, **memory)
        self.fragments = [Signal(Layouts(config).fragment, name=f"fragment{n}") for n in range(config.fragments)]
        self.done = [Signal(32, name=f"done{n}") for n in range(config.slots)]
        self.banks = Banks(config)
        self.positions = [(0, 0)] * config.slots
        self.cycle = 0
        self.refused = []  # slots of error beats without bus traffic
        self.slots_bytes = [ARENA_BYTES] * config.slots
        self.top = m = Module()
        m.submodules.dut = dut = self.dut
        m.submodules.arbiter = self.arbiter
        connect(m, dut.client, self.arbiter.clients[Client.STRIPE])
        done = Array(self.done)[dut.there_slot]
        m.d.comb += [
            dut.fragment.eq(Array(f.as_value() for f in self.fragments)[dut.fragment_index]),
            dut.done_line.eq(done[:16]),
            dut.done_pc.eq(done[16:]),
        ]

    def value(self, addr):
        slot, at = divmod(addr - ARENA, ARENA_BYTES)
        return int.from_bytes(self.contents[slot, at : at + self.config.bus_bytes].tobytes(), "little")

    def set_done(self, ctx, slot, pc, line):
        self.positions[slot] = (pc, line)
        ctx.set(self.done[slot], pc << 16 | line)

    def announce(self, ctx, tile):
        """Sets the levels; the pulse is part of step()."""
        dut = self.dut
        words = encode(DESCRIPTOR_FIELDS, tile.layer, DESCRIPTOR_WORDS, "layer")
        ctx.set(dut.layer.as_value(), sum(word << 32 * n for n, word in enumerate(words)))
        ctx.set(dut.log2_kr, tile.log2_kr)
        ctx.set(dut.log2_kd, tile.log2_kd)
        ctx.set(dut.program, tile.program)
        ctx.set(dut.half, tile.half)
        ctx.set(dut.fragments, len(tile.fragments))
        for signal, fragment in zip(self.fragments, tile.fragments, strict=False):
            ctx.set(signal, fragment)
        self.banks = Banks(self.config)

    async def step(self, ctx, announce=0, revoke=0, start=0):
        """One cycle. Returns (loaded, drained, waiting) as they were in it; writes go to the bank model."""
        dut = self.dut
        ctx.set(dut.announce, announce)
        ctx.set(dut.revoke, revoke)
        ctx.set(dut.start, start)
        fill, entry = dut.fill, dut.line_write
        _, _, loaded, drained, waiting, fault, code, fill_valid, line_valid, *rest = await ctx.tick().sample(
            *(dut.loaded, dut.drained, dut.waiting, dut.fault, dut.fault_code, dut.fill_valid, dut.line_write_valid),
            *(fill.half, fill.banks, fill.address, fill.data),
            *(entry.half, entry.banks, entry.index),
            *(entry.line.base, entry.line.y_top, entry.line.x_left, entry.line.width),
        )
        if fill_valid:
            self.banks.fill(*rest[:4])
        if line_valid:
            self.banks.line_write(*rest[4:7], tuple(rest[7:]))
        arrived = [addr for cycle, _, addr in self.memory.beats[-1:] if cycle == self.cycle]
        if arrived:
            slot = (arrived[0] - ARENA) // ARENA_BYTES
            assert fault == (arrived[0] in self.memory.bad) << slot
            assert not fault or code == Code.STRIPE_READ
        elif fault:
            assert code == Code.ADDRESS
            self.refused.append(fault.bit_length() - 1)
        self.cycle += 1
        return loaded, drained, waiting

    def run(self, bench):
        async def with_regions(ctx):
            for slot in range(self.config.slots):
                base, size = ARENA + slot * ARENA_BYTES, self.slots_bytes[slot]
                ctx.set(self.arbiter.arena_base[slot], base)
                ctx.set(self.arbiter.arena_bytes[slot], size)
                ctx.set(self.dut.arena_base[slot], base)
            await bench(ctx)

        sim = Simulator(self.top)
        sim.add_clock(1e-6)
        sim.add_testbench(with_regions)
        sim.add_testbench(self.memory.serve, background=True)
        sim.run()


def expected_beats(config, tile):
    return [a + n * config.bus_bytes for _, _, a, beats in tile.rows(config) for n in range(beats)]


@pytest.mark.parametrize("name, tiles", [("tiny", 14), ("edge", 8), ("hub", 6), ("hub-max1", 5)])
@pytest.mark.parametrize("ready_rate, valid_rate, latency, bad", [(1, 1, 6, 0), (0.5, 0.6, 3, 0), (0.8, 0.8, 20, 40)])
def test_contents(name, tiles, ready_rate, valid_rate, latency, bad):
    """Whatever the timing, the array finds every operand; each row of a fragment is read once, none too early."""
    config = MANY[name]
    seed = f"{name} {ready_rate} {latency}"
    rng = random.Random(seed)
    bench = Bench(config, seed, latency=latency, ready_rate=ready_rate, valid_rate=valid_rate)
    if bad:
        bench.memory.bad = {ARENA + n * config.bus_bytes for n in range(0, 1 << 18, 13)}

    async def drive(ctx):
        dut = bench.dut
        for _ in range(tiles):
            tile = random_tile(rng, config)
            slots = {f["slot"] for f in tile.fragments}
            last = tile.layer["in_h"] * tile.layer["producer_nseg"]
            for slot in slots:
                behind = (max(0, tile.producer_pc - 1), rng.randrange(9))
                bench.set_done(ctx, slot, *rng.choice((behind, (tile.producer_pc, rng.randrange(last)))))
            first = len(bench.memory.bursts)
            bench.announce(ctx, tile)
            assert await bench.step(ctx, announce=1) == (0, 1, 0)
            reads = tile.rows(config)
            checked, position = first, 0
            for n in range(4000):
                if ctx.get(dut.loaded):
                    break
                slot = rng.choice(sorted(slots))
                pc, line = bench.positions[slot]
                if pc <= tile.producer_pc and (rng.random() < 0.1 or n > 3000):
                    line = rng.randint(1, 3) + (line if pc == tile.producer_pc else 0)
                    bench.set_done(ctx, slot, *((tile.producer_pc, line) if line < last else (tile.producer_pc + 1, 0)))
                _, drained, waiting = await bench.step(ctx)
                assert drained
                for _, _, addr, beats in bench.memory.bursts[checked:]:
                    slot, y, row_addr, row_beats = reads[position]
                    need = tile.need(y)
                    assert need is None or need < bench.positions[slot], "read before it was written"
                    if addr + beats * config.bus_bytes == row_addr + row_beats * config.bus_bytes:
                        position += 1
                checked = len(bench.memory.bursts)
                if waiting:
                    assert any(tile.need(y) and tile.need(y) >= bench.positions[s] for s, y, _, _ in reads[position:])
            else:
                raise AssertionError("not loaded")
            beats = [
                addr + n * config.bus_bytes for _, _, addr, length in bench.memory.bursts[first:] for n in range(length)
            ]
            assert beats == expected_beats(config, tile)
            bench.banks.check(tile, bench.contents, bench.memory.bad)
            for _ in range(rng.randrange(4)):
                assert await bench.step(ctx) == (1, 1, 0)
            if rng.randrange(2):
                assert await bench.step(ctx, start=1) == (1, 1, 0)
            else:
                assert await bench.step(ctx, revoke=1) == (1, 1, 0)
            assert await bench.step(ctx) == (0, 1, 0)

    bench.run(drive)


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize("latency, valid_rate", [(3, 1), (30, 0.7)])
def test_revoke(name, latency, valid_rate):
    """After a revocation at any moment nothing of the dropped tile is written, and the next tile is complete."""
    config = MANY[name]
    seed = f"{name} {latency} revoke"
    rng = random.Random(seed)
    bench = Bench(config, seed, latency=latency, ready_rate=0.9, valid_rate=valid_rate)
    bench.memory.bad = {ARENA + n * config.bus_bytes for n in range(0, 1 << 18, 29)}
    late = []

    async def drive(ctx):
        for n in range(25):
            tile = random_tile(rng, config)
            for f in tile.fragments:
                bench.set_done(ctx, f["slot"], tile.producer_pc + rng.randrange(2), 0)
            bench.announce(ctx, tile)
            await bench.step(ctx, announce=1)
            if n % 4:
                for _ in range(rng.choice((0, 3, 10, 30, 60))):
                    await bench.step(ctx)
                await bench.step(ctx, revoke=1)
                bench.banks = Banks(config)
                arrived = len(bench.memory.beats)
                for _ in range(600):
                    if ctx.get(bench.dut.drained):
                        break
                    await bench.step(ctx)
                late.append(len(bench.memory.beats) - arrived)
                assert ctx.get(bench.dut.drained) and bench.memory.empty and ctx.get(bench.arbiter.idle)
                assert not bench.banks.written.any() and not bench.banks.line_writes
            else:
                for f in tile.fragments:
                    bench.set_done(ctx, f["slot"], tile.producer_pc + 1, 0)
                for _ in range(3000):
                    if ctx.get(bench.dut.loaded):
                        break
                    await bench.step(ctx)
                assert ctx.get(bench.dut.loaded)
                bench.banks.check(tile, bench.contents, bench.memory.bad)
                await bench.step(ctx, start=1)
        assert any(late)

    bench.run(drive)


def test_rejected():
    """Rows outside of the arena become faults of their slot; the tile is loaded nevertheless."""
    config = MANY["tiny"]
    rng = random.Random("rejected")
    bench = Bench(config, latency=5)
    bench.slots_bytes[1] = 0
    seen = 0

    async def drive(ctx):
        nonlocal seen
        for _ in range(8):
            tile = random_tile(rng, config, producer=NO_PRODUCER)
            bench.refused = []
            first = len(bench.memory.bursts)
            bench.announce(ctx, tile)
            await bench.step(ctx, announce=1)
            while not ctx.get(bench.dut.loaded):
                await bench.step(ctx)
            reads = tile.rows(config)
            lost = [slot for slot, _, _, beats in reads if slot == 1 for _ in range(beats)]
            assert bench.refused == lost
            seen += len(lost)
            taken = sum(beats for _, _, _, beats in bench.memory.bursts[first:])
            assert taken == sum(beats for slot, _, _, beats in reads if slot != 1)
            await bench.step(ctx, start=1)
        assert seen

    bench.run(drive)


def test_no_bubbles():
    """Lines of four beats stream at one beat per cycle, over fragments and sub-tiles; latencies as documented."""
    config = MANY["edge"]
    latency = 4 * config.reads_in_flight - 8
    bench = Bench(config, latency=latency)
    layer = {
        **{"kh": 3, "kw": 3, "sy": 1, "sx": 1, "pad_top": 1, "pad_left": 1, "in_w": 4, "in_h": 8, "in_pixel_beats": 1},
        **{"out_w": 4, "out_h": 8, "in_line_beats": 4, "seg_w": 4, "nseg": 1, "stripe_pixels": 4, "lines": 8},
        **{"stripe_line_beats": 4, "producer": 7, "producer_nseg": 1, "in_offset": 0},
    }
    tile = Tile(layer, 2, 0, 0, 0)
    for n in range(8):
        part = {"row": 1 + 2 * (n % 3), "line": 1 + 2 * (n % 3), "lines": 2}
        tile.fragments.append({"slot": n % 4, "sub_tile": n // 2, "seg": 0, **part})

    async def drive(ctx):
        for slot in range(config.slots):
            bench.set_done(ctx, slot, 8, 0)
        bench.announce(ctx, tile)
        await bench.step(ctx, announce=1)
        while not ctx.get(bench.dut.loaded):
            await bench.step(ctx)
        count = len(expected_beats(config, tile))
        first = 8 + ReadArbiter.LATENCY + latency
        assert [beat[0] for beat in bench.memory.beats] == list(range(first, first + count))
        assert bench.cycle == first + count - 1 + 2
        bench.banks.check(tile, bench.contents)

    bench.run(drive)
