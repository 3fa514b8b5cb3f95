"""The cycle model against closed forms: how long the array's work takes when nothing holds it up, what is read and
written. The forms are written out here once more, from docs/architecture.md."""

from itertools import pairwise
from math import ceil

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from fluidnpu.sched.driver import Driver
from fluidnpu.sim.bench.group import started_tiles
from fluidnpu.sim.cycle.device import CycleDevice, run_now
from fluidnpu.sim.measured_latency import run_groups
from fluidnpu.sim.session import memory_bytes_for

SEED = 90
RMW, PARAMETERS = 2, 16  # least cycles of a step; bytes per channel


def draw_program(rng, config):
    """One convolution of random geometry, whose output leaves the network."""
    net = TfliteWriter("bounds")
    h, w = (int(rng.integers(4, 25)) for _ in range(2))
    x = net.input((1, h, w, int(rng.integers(1, 130))), scale=0.1, zero_point=0)
    channels, kh, kw, sy, sx = (int(rng.integers(1, n)) for n in (200, 6, 6, 3, 3))
    weights = np.ones((channels, kh, kw, x.shape[3]), np.int8)
    zero = np.zeros(channels, np.int32)
    y = net.conv_2d(x, weights, zero, 0.1, scale=1.0, zero_point=0, padding="SAME", stride=(sy, sx))
    options = CompileOptions(fold="none", max_tile_cycles=1 << 30)
    return compile_network(parse_network(net.to_bytes([y]), "bounds"), config, options)


class Tile:
    """What follows from a started tile's fragments: cycles of its c-tiles, beats of its loads, of its weights."""

    def __init__(self, config, d, tile):
        kr, kd = 1 << tile["log2_kr"], 1 << tile["log2_kd"]
        cols = config.pes // (kr * kd)
        widths = [min(cols, d["out_channels"] - c) for c in range(0, d["out_channels"], cols)]
        words = ceil(d["in_pixel_beats"] / kd)  # a beat is a word
        steps = d["kh"] * d["kw"] * words
        lines = [sum(n for *_, n, part in tile["lines"] if part == r) for r in range(kr)]
        self.rows = max(lines) * d["out_w"]
        pixels = sum(lines) * d["out_w"]
        parameters = [w * PARAMETERS // config.bus_bytes for w in widths]
        self.weights = sum(steps * w * kd + p for w, p in zip(widths, parameters, strict=True))
        self.array = steps * self.rows * len(widths)
        self.ctiles = []
        for i, (width, beats) in enumerate(zip(widths, parameters, strict=True)):
            following = widths[i + 1] * kd if i + 1 < len(widths) else 0
            brings = [width * kd] * (steps - 1) + [following]
            brings[0] += beats
            self.ctiles.append(sum(max(self.rows, RMW, b) for b in brings))
        self.drain = max(pixels * ceil(w / min(config.post_lanes, cols)) for w in widths)
        self.written = pixels * d["out_pixel_beats"]
        self.loads = 0
        for _, first, count, _ in tile["lines"]:
            touched = {
                y * d["sy"] - d["pad_top"] + ky for y in range(first, first + count) for ky in range(d["kh"])
            }  # fmt: skip
            self.loads += sum(0 <= y < d["in_h"] for y in touched) * d["in_w"] * d["in_pixel_beats"]


def tiles_of(config, d, events):
    """(started_tiles, Tile) of a run. Fragments are taken from the events: slot, first line, lines, sub-tile."""
    dealt, lines = [], []
    for e in events[events["source"] == 0]:
        if e["kind"] == isa.EngineEvent.FRAGMENT:
            lines.append((int(e["slot"]), int(e["line"]), int(e["data"]) & 0xFFFF, int(e["data"]) >> 16))
        elif e["kind"] == isa.EngineEvent.DEAL:
            dealt.append(lines)
            lines = []
    started = started_tiles(events)
    assert len(dealt) == len(started)  # nothing was revoked
    return [(t, Tile(config, d, t | {"lines": ls})) for t, ls in zip(started, dealt, strict=True)]


@pytest.mark.parametrize("name", ["tiny", "edge", "gemmini16"])
def test_convolutions(name):
    """Counters are what the geometry says; no c-tile is faster than its closed form, and those are exactly as fast
    that have the buses to themselves."""
    config = get_config(name)
    rng = np.random.default_rng(SEED)
    exact = held_up = seamless = 0
    for n in range(12):
        program = draw_program(rng, config)
        words = np.frombuffer(program.region, "<u4")[: isa.DESCRIPTOR_WORDS]
        d = isa.decode(isa.DESCRIPTOR_FIELDS, words)
        if d["nseg"] > 1:
            continue
        size, live = memory_bytes_for(program, config.slots), 1 + n % config.slots
        device = CycleDevice(config, memory_bytes=size)
        runs = run_now(
            run_groups(device, device.events, size, program=program, live=range(1, live + 1), unstacked=False)
        )
        counters = run_now(Driver(device, memory_bytes=size).counters())
        groups = [tiles_of(config, d, events) for events in runs]
        tiles = [form for group in groups for _, form in group]
        pixels = d["out_h"] * d["out_w"] * d["out_pixel_beats"]
        assert counters["tiles"] == len(tiles)
        assert counters["cycles_array"] == sum(t.array for t in tiles)
        assert counters["weight_beats"] == sum(t.weights for t in tiles)
        assert counters["stripe_beats"] == sum(t.loads for t in tiles)
        assert counters["write_beats"] == sum(t.written for t in tiles) == pixels * live * (live + 1) // 2
        for group in groups:
            for (started, form), (following, after) in pairwise([*group, (None, None)]):
                spent = [b - a for a, b in pairwise([*started["ctiles"], started["last"] + 1])]
                assert all(s >= f for s, f in zip(spent, form.ctiles, strict=True)), (n, live)
                time = min(form.ctiles)
                reads = form.weights + (after.loads if after else 0)
                alone = reads < 0.5 * sum(form.ctiles) and form.drain < 0.7 * time and form.written < 0.5 * time
                if not alone:
                    held_up += 1
                    continue
                assert spent[1:] == form.ctiles[1:], (n, live)
                assert spent[0] <= form.ctiles[0] + reads - form.weights + 64, (
                    n,
                    live,
                )  # shares the bus with the loads
                exact += len(spent) - 1
                if following:
                    gap = following["first"] - started["last"] - 1
                    assert 0 <= gap <= 2, (n, live)  # the sequencer may be at another action
                    seamless += gap == 0
    assert exact > 5 and seamless > 1 and held_up > 0, (exact, seamless, held_up)
