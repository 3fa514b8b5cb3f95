"""The whole array: sums, masks, taps, parameters, cycle counts, revocation, every stack mode."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from fluidnpu.hw.array import Array
from fluidnpu.hw.config import CONFIGS, NpuConfig
from fluidnpu.hw.isa import ArrayEvent

from .array_bench import Bench
from .tile_case import Shape, TileCase, random_shape

TINY = CONFIGS["tiny"]
SMALL = {
    config.name: config
    for config in (
        TINY,
        TINY.unstackable(),
        replace(TINY, name="two-groups", max_stack=2),
        replace(TINY, name="one-pe-groups", pes=4, lanes=4, post_lanes=2),
        replace(CONFIGS["edge"], name="edge-like", pes=16, lanes=4, bus_bytes=8, post_lanes=8, bank_bytes=8192),
        replace(CONFIGS["hub"], name="hub-like", pes=16, lanes=4, bus_bytes=8, post_lanes=4, rows=64, bank_bytes=8192),
        NpuConfig("four-words", 8, 4, 32, 4, 4, 16, 8, 16384, 2048, 8),
    )
}


def modes(config):
    """Every (kr, kd) of a configuration."""
    powers = [1 << n for n in range(config.max_stack.bit_length())]
    return [(kr, kd) for kr in powers for kd in powers if kr * kd <= config.max_stack]


def cases(config, rng, shapes):
    """Tiles of these shapes, halves alternating."""
    return [
        TileCase(config, shape, rng.getrandbits(32), half=n % 2, context=n % config.contexts)
        for n, shape in enumerate(shapes)
    ]


def steps(case):
    """Cycles in which a tile multiplies."""
    return case.macs


@pytest.mark.parametrize("stall", [0.0, 0.4], ids=["flowing", "stalling"])
@pytest.mark.parametrize("name", SMALL)
def test_every_mode(name, stall):
    """A tile in every mode, of every operation, back to back: sums, taps, parameters, rows."""
    config = SMALL[name]
    rng = random.Random(f"{name} {stall}")
    shapes = [random_shape(rng, config, kr, kd) for kr, kd in modes(config)]
    for operation in ("depthwise", "sum", "maximum"):
        shapes += [random_shape(rng, config, kr, kd, vector=operation) for kr, kd in modes(config)]
    rng.shuffle(shapes)
    tiles = cases(config, rng, shapes)
    bench = Bench(config, tiles, stall=stall, seed=rng.getrandbits(32)).run()
    assert bench.busy == sum(steps(case) for case in tiles)
    assert not bench.parameters, "parameters behind those of the last c-tile"
    kinds = [kind for _, kind, _, _ in bench.events]
    assert kinds.count(ArrayEvent.TILE) == kinds.count(ArrayEvent.END) == len(tiles)
    assert kinds.count(ArrayEvent.CTILE) == sum(len(case.used) - 1 for case in tiles)


CORNERS = {
    "one row, one column": Shape(
        sub_lines=(1,), seg_w=1, kh=1, kw=1, pad_top=0, pad_left=0, in_h=1, in_w=1, out_channels=1
    ),
    "one row, one step per c-tile": Shape(
        sub_lines=(1,), seg_w=1, kh=1, kw=1, pad_top=0, pad_left=0, in_h=1, in_w=1, out_channels=19
    ),
    "window larger than the image": Shape(kh=3, kw=3, in_h=2, in_w=2, pad_top=1, pad_left=1, seg_w=2),
    "empty sub-tile": Shape(kr=4, sub_lines=(2, 1, 0, 0), out_channels=5),
    "most rows": Shape(sub_lines=(8,), seg_w=4, kh=1, kw=1, pad_top=0, pad_left=0, in_h=8, in_w=4, out_channels=3),
    "two sets per word": Shape(twice=True, pixel_beats=2, words=2),
    "two sets per word, one step": Shape(
        twice=True, sub_lines=(1,), seg_w=1, kh=1, kw=1, pad_top=0, pad_left=0, in_h=1, in_w=1, out_channels=17
    ),
    "pool of one pixel": Shape(
        vector="sum", sub_lines=(1,), seg_w=1, kh=1, kw=1, pad_top=0, pad_left=0, in_h=1, in_w=1
    ),
    "two sets per tap": Shape(vector="depthwise", twice=True, kd=2, pixel_beats=4, words=2),
    "largest window": Shape(
        vector="depthwise", sub_lines=(1,), seg_w=1, kh=1, kw=127, pad_top=0, pad_left=0, in_h=1, in_w=127
    ),
    "deepest pool": Shape(vector="sum", sub_lines=(1,), seg_w=1, kh=12, kw=20, pad_top=0, pad_left=0, in_h=12, in_w=20),
    "maximum of padding": Shape(vector="maximum", kh=3, kw=3, in_h=2, in_w=2, pad_top=2, pad_left=2, seg_w=2),
}


@pytest.mark.parametrize("name", CORNERS)
def test_corner(name):
    rng = random.Random(name)
    Bench(TINY, cases(TINY, rng, [CORNERS[name]] * 2)).run()


def test_masked_rows_stay():
    """A masked row is not written: its accumulators keep what they held (here: nothing)."""
    case = TileCase(TINY, Shape(ragged=True, sub_lines=(3,), seg_w=5, in_w=5), 5)
    assert not all(case.masks[0])
    for sums in case.sums:
        sums[0][~case.masks[0]] = 0
    case.masks[0][:] = True
    Bench(TINY, [case]).run()


def predict(tiles, first, rmw):
    """Events of tiles that follow one another without a stall, from the time formula of docs/architecture.md."""
    events = []
    begin, ready = first, first  # of the next set's first step; when the set is loaded
    results = first  # least cycle in which the next vector row's last tap may be issued
    for case in tiles:
        sets = iter(case.sets)
        per_ctile = len(case.sets) // len(case.used)
        taps = case.shape.kh * case.shape.kw << case.shape.twice
        for ctile in range(len(case.used)):
            for n in range(per_ctile):
                beats, cycles, parameter_beats = next(sets)
                begin = first if not events else max(begin, ready + beats)
                if case.shape.vector:
                    begin = max(begin, results - taps + 1)
                if n == 0:
                    kind = ArrayEvent.CTILE if ctile else ArrayEvent.TILE
                    events.append((begin, kind, case.context))
                ready = begin + parameter_beats
                if case.shape.vector:
                    last = begin + cycles - case.row_cycles + taps - 1
                    results = last + case.drain_cycles
                    begin = last + 1
                else:
                    begin += max(cycles, rmw)
        begin = max(begin, events[-1][0] + 2)
        events.append((begin - 1, ArrayEvent.END, case.context))
        begin = max(begin, ready)
    return events


TIMED = {
    "rows bound": [dict(sub_lines=(4,), seg_w=8, in_w=8, out_channels=16)] * 3,
    "weights bound": [dict(sub_lines=(1,), seg_w=3, in_w=3, out_channels=33, pixel_beats=2, words=2)] * 3,
    "between": [dict(sub_lines=(2,), seg_w=5, in_w=5, out_channels=12, kh=2, kw=2)] * 4,
    "one row": [dict(sub_lines=(1,), seg_w=1, in_w=3, in_h=3, out_channels=20, pad_top=0, pad_left=0)] * 3,
    "one column": [dict(sub_lines=(1,), seg_w=1, in_w=3, in_h=3, out_channels=1, pad_top=0, pad_left=0)] * 3,
    "one step": [
        dict(sub_lines=(1,), seg_w=w, kh=1, kw=1, in_h=1, in_w=3, pad_top=0, pad_left=0, out_channels=n)
        for w, n in ((3, 24), (1, 3), (2, 8), (3, 9))
    ],
    "stacked": [
        dict(kr=2, kd=2, pixel_beats=2, sub_lines=(2, 1), seg_w=4, out_channels=5),
        dict(kr=4, sub_lines=(3, 1, 2, 3), seg_w=4, out_channels=4),
        dict(kd=4, pixel_beats=4, sub_lines=(2,), seg_w=4, in_h=4, out_channels=5),
        dict(kr=2, sub_lines=(2, 2), seg_w=4, out_channels=9),
    ],
    "two sets per word": [dict(sub_lines=(2,), seg_w=5, in_w=5, out_channels=12, twice=True)] * 3,
    "depthwise": [
        dict(vector="depthwise", pixel_beats=4, kd=4, words=1, kh=4, kw=4),
        dict(vector="depthwise", pixel_beats=3, words=3, kh=4, kw=4),
        dict(vector="depthwise", pixel_beats=2, words=1, kd=2, kr=2, sub_lines=(2, 1), kh=5, kw=4),
        dict(out_channels=8),
    ],
    "depthwise, weights bound": [
        dict(vector="depthwise", pixel_beats=8, kd=2, words=4, kh=4, kw=5, seg_w=1, sub_lines=(1,), in_w=3)
    ]
    * 2,
    "pools": [
        dict(vector="sum", pixel_beats=2, words=2),
        dict(vector="maximum", kr=2, kd=2, sub_lines=(2, 2), pixel_beats=2, kh=2, kw=2),
        dict(vector="sum", kr=4, sub_lines=(2, 1, 2, 0), pixel_beats=2, words=2),
        dict(vector="maximum", kr=4, sub_lines=(1, 1, 1, 1), kh=1, kw=1, pad_top=0, pad_left=0),
        dict(vector="sum", kh=1, kw=1, pad_top=0, pad_left=0, pixel_beats=2, words=2),
        dict(vector="sum", kh=3, kw=4, sub_lines=(1,), seg_w=1),
        dict(out_channels=8),
    ],
    "results bound": [
        dict(vector="sum", kd=4, pixel_beats=8, words=2, kh=1, kw=2, sub_lines=(2,)),
        dict(vector="sum", kd=2, kr=2, pixel_beats=4, words=2, kh=3, kw=2, sub_lines=(2, 2)),
        dict(vector="sum", kh=1, kw=1, pad_top=0, pad_left=0, seg_w=1, sub_lines=(1,), pixel_beats=3, words=3),
    ],
}


@pytest.mark.parametrize("name", TIMED)
def test_cycles(name):
    """Steps, c-tiles and tiles follow one another exactly as the formula says."""
    config = replace(TINY, pes=16 if "weights bound" in name else 8)
    tiles = cases(config, random.Random(name), [Shape(**shape) for shape in TIMED[name]])
    for case in tiles[2:]:
        case.fills.clear()  # the halves are prepared once: loading must not be what takes longest
        case.line_writes.clear()
    bench = Bench(config, tiles, drain_values=False, preloaded=True).run()
    events = [event[:3] for event in bench.events]
    assert events == predict(tiles, events[0][0], Array.RMW_DISTANCE)
    assert (bench.waits["waiting_output"] > 0) == any(case.shape.vector and case.macs < case.drains for case in tiles)
    assert bench.busy == sum(steps(case) for case in tiles)
    assert all(asked < accepted for asked, accepted in bench.started[1:])


@pytest.mark.parametrize("name", SMALL)
def test_drain_latency(name):
    """The drain job comes when the last sums are written; if its parameters come later, 2 cycles after the last."""
    config = SMALL[name]
    window = dict(pad_top=0, pad_left=0, in_h=2, in_w=4, out_channels=config.pes)
    shapes = [
        Shape(kh=2, kw=1, sub_lines=(1,), **window),
        Shape(kh=1, kw=1, sub_lines=(1,), seg_w=1, **{**window, "in_h": 1}),
    ]
    for shape in shapes:
        case = TileCase(config, shape, 1)
        bench = Bench(config, [case]).run()
        end = bench.events[-1][0]
        latency = bench.dut.sum_latency
        if case.rows == 1:  # the row before its idle cycle is also the first: its set's parameters follow
            assert bench.jobs == [end - 1 + max(latency, len(case.parameters[0]) + 2)]
        else:
            assert bench.jobs == [end + latency]


@pytest.mark.parametrize("lines", [2, 4])
def test_output_bound(lines):
    """A c-tile whose bank is not drained waits for it: the period is the drain's."""
    config = replace(TINY, post_lanes=1)
    shape = Shape(sub_lines=(lines,), seg_w=4, kh=1, kw=1, pad_top=0, pad_left=0, in_h=8, out_channels=64)
    bench = Bench(config, [TileCase(config, shape, 1)]).run()
    starts = [cycle for cycle, kind, _, _ in bench.events if kind != ArrayEvent.END]
    drained = [cycle for cycle, _ in bench.drained]
    assert starts[3:] == [cycle + 1 for cycle in drained[1 : len(starts) - 2]]
    period = lines * 4 * config.pes + 3  # values, and this bench's pause between them and the next job
    assert {b - a for a, b in pairwise(drained[1:])} == {period}
    assert bench.waits["waiting_output"] > 0


@pytest.mark.parametrize("after", [1, 5, 9, 12, 40])
def test_revoke(after):
    """Sets loaded in part or completely for a revoked tile are forgotten; the running tile does not notice."""
    rng = random.Random(after)
    shapes = [
        Shape(sub_lines=(2,), seg_w=6, in_w=6, kh=1, kw=2, out_channels=9),
        Shape(kr=2, sub_lines=(2, 2)),
        Shape(vector="depthwise", pixel_beats=2, words=2),
        Shape(vector="sum"),
        Shape(vector="depthwise", kd=2, pixel_beats=2),
    ]
    tiles = cases(TINY, rng, shapes)
    Bench(TINY, tiles, revoke={0: after, 1: after, 2: after + 30, 3: after, 4: after}, seed=after).run()


def test_half_free_is_low_while_read():
    """A half is free exactly when neither its tile runs nor a row's read of it is under way."""
    tiles = cases(TINY, random.Random(3), [Shape(), Shape(out_channels=3), Shape(kr=2, sub_lines=(2, 2))])
    bench = Bench(TINY, tiles).run()
    ends = [cycle for cycle, kind, _, _ in bench.events if kind == ArrayEvent.END]
    expected = [set(), set()]
    for case, (_, started), end in zip(tiles, bench.started, ends, strict=True):
        expected[case.half] |= set(range(started + 1, end + 3))
    assert bench.half_low == expected
