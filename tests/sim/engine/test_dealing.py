"""The engine model, one scenario per rule: who leads, who rides, which lines a tile takes."""

import random
from dataclasses import replace

import pytest
from fluidnpu.hw.isa import Status, make_pc
from fluidnpu.sim.engine_layers import (
    Cursor,
    Exit,
    Fragment,
    Layer,
    Variant,
    deal_subtiles,
)
from fluidnpu.sim.engine_model import ModelViolation
from fluidnpu.sim.engine_oracle import merging, split_lines

from .model_bench import PLAIN, Bench, chain, layer, spans


def test_leader_highest_priority_then_least_position_then_age():
    bench = Bench(chain())
    for s in (2, 0, 1):
        bench.admit(s, ride=0)
    assert bench.tile().leader == 2  # age: admission order
    assert bench.tile().leader == 0  # slot 2 stands at line 4, slots 0 and 1 at line 0
    bench.batch(2, priority=2, ride=0)
    assert [bench.tile().leader for _ in range(2)] == [2, 2]
    assert bench.model.slots[2].issued == (1, 4)
    bench.batch(2, priority=1, ride=0)
    assert [bench.tile().leader for _ in range(2)] == [1, 0]  # lines 0 and 4 of layer 0 before anybody's layer 2


def test_samples_that_arrive_together_go_through_every_layer_once():
    bench = Bench(chain(4, lines=5))
    for s in range(4):
        bench.admit(s)
    completions = bench.run()
    assert [c.status for c in completions.values()] == [Status.OK] * 4
    assert merging([tile.pc for tile in bench.started]) == 1.0
    assert len(bench.started) == 4 * 5  # 20 lines of each layer in tiles of 4, no bubble


def test_laggard_catches_up_and_merges():
    bench = Bench(chain(3, lines=3))
    bench.admit(0)
    assert [bench.tile().pc for _ in range(2)] == [0, 1]
    bench.admit(1)
    assert [(t.pc, t.members) for t in (bench.tile(), bench.tile())] == [(0, (1,)), (1, (1,))]
    merged = bench.tile()
    assert merged.pc == 2 and spans(merged) == [[(0, 0, 3), (1, 0, 1)]]


def test_merging_counts_runs_per_layer_and_busy_period():
    assert merging([1, 1, 2, 2, 3]) == 1.0
    assert merging([1, 2, 1, 2]) == 2.0
    assert merging([None, 1, 2, None, 1, 2]) == 1.0
    assert merging([]) == 1.0


def test_higher_priority_preempts_and_moves_nothing():
    bench = Bench(chain(2, lines=10))
    bench.admit(0)
    bench.tile()
    before = replace(bench.model.slots[0])
    bench.admit(1, priority=2, ride=1)
    while bench.model.slots[1].pc == 0:
        tile = bench.tile()
        if tile.candidates == (1, 0):  # the preempted slot may fill what the leader leaves
            assert tile.subtiles[0][0].slot == 1
    assert {f.slot for t in bench.started[1:3] for f in t.fragments} == {1}
    bench.run()
    lines = [f for t in bench.started for f in t.fragments if f.slot == 0 and t.pc == 0]
    assert [(f.first, f.first + f.lines) for f in lines][:2] == [(0, 4), (4, lines[1].first + lines[1].lines)]
    after = bench.model.slots[0]
    assert (before.arena_base, before.arena_bytes, before.tag) == (after.arena_base, after.arena_bytes, after.tag)


STACKED = Variant(kr=4, max_lines=4, stripe_lines=6)


@pytest.mark.parametrize(
    "name, kh, sy, variant, cursors, expected",
    [
        ("t is ceil(N / kr)", 1, 1, STACKED, [(0, 0)], [[(0, 0, 2)], [(0, 2, 2)], [(0, 4, 2)], [(0, 6, 2)]]),
        ("fragment split", 1, 1, STACKED, [(0, 5), (1, 5)], [[(0, 5, 2)], [(0, 7, 1), (1, 5, 1)], [(1, 6, 2)]]),
        ("rows limit", 1, 1, Variant(1, 1, 3, 40), [(0, 6), (1, 0)], [[(0, 6, 2), (1, 0, 1)]]),
        ("stripe limit", 3, 1, Variant(2, 1, 8, 6), [(0, 4), (1, 4)], [[(0, 4, 4)], [(1, 4, 4)]]),
        ("a new window does not fit", 3, 1, Variant(2, 1, 8, 7), [(0, 4), (1, 4)], [[(0, 4, 4)], [(1, 4, 4)]]),
        ("stride costs two", 3, 2, Variant(1, 1, 8, 7), [(0, 0)], [[(0, 0, 3)]]),
        ("stride beyond the window", 1, 2, Variant(1, 1, 8, 3), [(0, 0)], [[(0, 0, 3)]]),
        ("fewer lines than sub-tiles", 1, 1, STACKED, [(0, 7), (3, 6)], [[(0, 7, 1)], [(3, 6, 1)], [(3, 7, 1)]]),
    ],
)
def test_lines_of_the_subtiles(name, kh, sy, variant, cursors, expected):
    geometry = Layer(8, 16, kh, sy, variants=(variant,))
    dealt = deal_subtiles(geometry, variant, variant.kr, [Cursor(s, line, 8 - line) for s, line in cursors])
    assert [[(f.slot, f.first, f.lines) for f in subtile] for subtile in dealt] == expected


@pytest.mark.parametrize("seed", range(5))
def test_lines_of_the_subtiles_equal_the_reference(seed):
    rng = random.Random(seed)
    for _ in range(300):
        lines, kh = rng.randint(1, 12), rng.randint(1, 5)
        variant = Variant(rng.choice([1, 2, 4, 8]), 1, rng.randint(1, 8), kh + rng.randint(0, 12))
        geometry = Layer(lines, 40, kh, rng.randint(1, 4), rng.randint(0, kh - 1), variants=(variant,))
        cursors = []
        for s in range(rng.randint(1, 6)):
            line = rng.randrange(lines)
            cursors.append(Cursor(s, line, rng.randint(0 if s else 1, lines - line)))
        offers = [(c.slot, c.line + i) for c in cursors for i in range(c.available)]
        total = sum(lines - c.line for c in cursors)
        dealt = deal_subtiles(geometry, variant, variant.kr, cursors)
        got = [[(f.slot, f.first + i) for f in subtile for i in range(f.lines)] for subtile in dealt]
        assert got == split_lines(geometry, variant, variant.kr, offers, total), (geometry, cursors)


def test_tile_keeps_kr_when_subtiles_are_dropped_and_max_stack_limits_it():
    variants = (PLAIN, Variant(kr=8, max_lines=4, stripe_lines=8))
    ops = [layer(2, variants=variants, vsel=(1,)), Exit(0, last=True)]
    for max_stack in (2, 4):
        bench = Bench(ops, max_stack=max_stack)
        bench.admit(0)
        tile = bench.tile()
        assert tile.kr == max_stack and tile.variant == 1 and len(tile.subtiles) == 2


def test_variant_by_number_of_candidates():
    variants = tuple(Variant(max_lines=n, stripe_lines=8) for n in (1, 2, 3))
    ops = [layer(8, variants=variants, vsel=(0, 1, 2)), Exit(0, last=True)]
    for riders, expected in ((0, 0), (1, 1), (2, 2), (3, 2)):
        bench = Bench(ops)
        bench.admit(0)
        for s in range(1, 4):
            bench.admit(s, ride=int(s <= riders))
        tile = bench.tile()
        assert (tile.variant, tile.candidates) == (expected, tuple(range(riders + 1)))
        assert tile.members == (0,)  # a candidate need not get lines


def test_unstacked_always_takes_variant_0():
    ops = [layer(8, variants=(PLAIN, STACKED), vsel=(1,)), Exit(0, last=True)]
    bench = Bench(ops, unstacked=True)
    bench.admit(0)
    tile = bench.tile()
    assert (tile.variant, tile.kr, spans(tile)) == (0, 1, [[(0, 0, 4)]])


def test_segments_read_the_window_of_their_row():
    wide = Layer(6, 3, kh=3, pad_top=1, nseg=2, producer=5, producer_nseg=4, variants=(Variant(2, 1, 1, 3),))
    assert [wide.needed_positions(1, line)[0] for line in range(6)] == [
        (make_pc(1, 5), n) for n in (7, 7, 11, 11, 11, 11)
    ]
    assert wide.stripe_rows(Fragment(0, 0, 1)) == [0, 1] and wide.stripe_rows(Fragment(0, 3, 1)) == [0, 1, 2]
    assert spans_of(deal_subtiles(wide, wide.variants[0], 2, [Cursor(0, 0, 6)])) == [[(0, 0, 1)], [(0, 1, 1)]]


def spans_of(subtiles):
    return [[(f.slot, f.first, f.lines) for f in subtile] for subtile in subtiles]


WIDE = Variant(max_lines=8, stripe_lines=40)


@pytest.mark.parametrize(
    "second, ready",
    [(layer(4, 0, kh=2, variants=(WIDE,)), 3), (replace(layer(4, variants=(WIDE,)), residual=(0, 1)), 2)],
)
def test_rider_of_lower_priority_gets_only_lines_whose_inputs_are_there(second, ready):
    ops = [layer(4, variants=(WIDE,)), second, Exit(0, last=True)]
    for priority, taken in ((1, 2), (2, 4)):
        bench = Bench(ops)
        bench.admit(0, priority=2)
        bench.run(most_tiles=1)  # slot 0 at layer 1, layer 0 in memory
        bench.batch(0, runnable=0)
        bench.admit(1, priority=3)
        tile = bench.model.deal()
        assert tile.members == (1,)
        bench.model.slots[1].done = (0, ready)  # of layer 0: what lines 0 and 1 of layer 1 need is there
        bench.model.next = None
        bench.batch(1, priority=priority)
        bench.batch(0, priority=2)
        expected = [[(0, 0, 4), (1, 0, taken)]]
        assert spans(bench.model.deal()) == expected


def test_rider_whose_inputs_are_not_there_is_passed():
    wide = Variant(max_lines=8, stripe_lines=40)
    bench = Bench([layer(2, variants=(wide,)), layer(2, 0, variants=(wide,)), Exit(0, last=True)])
    for s, priority in ((0, 2), (1, 1), (2, 2)):
        bench.admit(s, priority=priority)
    tile = bench.model.deal()
    bench.model.start()
    assert spans(tile) == [[(0, 0, 2), (1, 0, 2), (2, 0, 2)]]
    bench.model.write_done(0)
    assert spans(bench.model.deal()) == [[(0, 0, 2), (2, 0, 2)]]  # slot 2 equals the leader: it may wait
    with pytest.raises(ModelViolation, match=r"before its inputs are written: \[\(2, 1\)\]"):
        bench.model.start()
    bench.model.write_done(2)
    bench.model.start()
