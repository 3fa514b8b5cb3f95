"""FragmentWindow: the formulas of its docstring in Python integers, and its latency."""

import random

import pytest
from amaranth.hdl import Array, Module, Signal
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, encode
from fluidnpu.hw.load.fragment_window import FragmentWindow

from .stripes import ARENA, ARENA_BYTES, random_tile


def expected_window(config, tile, fragment):
    d, f = tile.layer, fragment
    y_top = f["row"] * d["sy"] - d["pad_top"]
    x_left = f["seg"] * d["seg_w"] * d["sx"] - d["pad_left"]
    left, right, place = 0, d["in_w"], 0
    if d["nseg"] > 1:
        left, right = max(0, x_left), min(d["in_w"], x_left + d["stripe_pixels"])
        place = max(0, -x_left) * d["in_pixel_beats"] >> tile.log2_kd
    beats = y_top * d["in_line_beats"] + left * d["in_pixel_beats"]
    return {
        **{name: f[name] for name in ("slot", "sub_tile", "lines")},
        "y_top": y_top,
        "x_left": x_left,
        "width": min(d["seg_w"], d["out_w"] - f["seg"] * d["seg_w"]),
        "addr": (ARENA + f["slot"] * ARENA_BYTES + d["in_offset"] + beats * config.bus_bytes) % (1 << 32),
        "row_beats": max(0, right - left) * d["in_pixel_beats"],
        "need": ((y_top + 1) * d["producer_nseg"] - 1) % (1 << 16),
        "place": place,
    }


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize("take_rate", [1, 0.2])
def test_windows(name, take_rate):
    config = CONFIGS[name]
    rng = random.Random(f"{name} {take_rate}")
    dut = FragmentWindow(config)
    fragments = [Signal(dut.fragment.shape(), name=f"fragment{n}") for n in range(config.fragments)]
    top = Module()
    top.submodules.dut = dut
    top.d.comb += dut.fragment.eq(Array(f.as_value() for f in fragments)[dut.fragment_index])

    async def bench(ctx):
        for slot in range(config.slots):
            ctx.set(dut.arena_base[slot], ARENA + slot * ARENA_BYTES)
        for _ in range(15):
            tile = random_tile(rng, config)
            d = tile.layer
            for signal, fragment in zip(fragments, tile.fragments, strict=False):
                ctx.set(signal, fragment)
            words = encode(DESCRIPTOR_FIELDS, d, DESCRIPTOR_WORDS, "layer")
            ctx.set(dut.layer.as_value(), sum(word << 32 * n for n, word in enumerate(words)))
            ctx.set(dut.log2_kd, tile.log2_kd)
            ctx.set(dut.fragments, len(tile.fragments))
            ctx.set(dut.begin, 1)
            await ctx.tick()
            ctx.set(dut.begin, 0)
            latency = dut.SEGMENT_LATENCY if d["nseg"] > 1 else dut.LATENCY
            for fragment in tile.fragments:
                for _ in range(latency - 1):
                    assert not ctx.get(dut.window.valid) and not ctx.get(dut.finished)
                    await ctx.tick()
                window = dut.window.p.shape().const(expected_window(config, tile, fragment))
                while True:
                    ready = rng.random() < take_rate
                    ctx.set(dut.window.ready, ready)
                    assert ctx.get(dut.window.valid) and ctx.get(dut.window.p) == window
                    await ctx.tick()
                    if ready:
                        break
            assert ctx.get(dut.finished)
            skip = max(0, d["sy"] - d["kh"])
            pad = d["pad_left"] * d["in_pixel_beats"] * config.words_per_beat >> tile.log2_kd
            assert ctx.get(dut.pad_words) == (pad if d["nseg"] == 1 else 0)
            if d["nseg"] == 1:
                assert ctx.get(dut.skip_addr) == skip * d["in_line_beats"] * config.bus_bytes
                assert ctx.get(dut.skip_need) == skip * d["producer_nseg"]

    sim = Simulator(top)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
