"""The engine model: one scenario per rule of the algorithm, random worlds under an oracle, and faults it must catch.

FLUIDNPU_LONG=1 multiplies the number of random worlds by LONG_FACTOR.
"""

import os
import random
from dataclasses import replace

import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, LIMIT_ALWAYS, NO_PRODUCER, Code, Op, Opcode, Status, make_pc
from fluidnpu.sim.engine_environment import simulate
from fluidnpu.sim.engine_layers import (
    Bad,
    Cursor,
    Exit,
    Fragment,
    Jump,
    Layer,
    Variant,
    deal_subtiles,
    from_descriptor,
)
from fluidnpu.sim.engine_model import EngineModel, ModelViolation
from fluidnpu.sim.engine_oracle import merging, split_lines

LONG_FACTOR = 60
LONG = os.environ.get("FLUIDNPU_LONG") == "1"
QUICK_RUNS = 60
RUNS_PER_CASE = 20

PLAIN = Variant(max_lines=4, stripe_lines=8)


def layer(lines=8, producer=NO_PRODUCER, kh=1, variants=(PLAIN,), vsel=(0,), **geometry):
    """A layer whose input has as many rows as its output has lines, unless told otherwise."""
    return Layer(lines, geometry.pop("in_h", lines), kh, producer=producer, variants=variants, vsel=vsel, **geometry)


def chain(layers=3, lines=8):
    """Layers one after the other, each reading the one before, and the last exit."""
    return [layer(lines, NO_PRODUCER if i == 0 else i - 1) for i in range(layers)] + [Exit(0, last=True)]


def early_exit():
    """layer 0, jump 1, head 2, exit 0 at 3, layer 4, last exit 1 at 5."""
    return [layer(4), Jump(0, 4), layer(1, 0, in_h=4, kh=4), Exit(0), layer(4, 0), Exit(1, last=True)]


class Bench:
    """A model with short hands: admit, tile, and run with everything in memory at once."""

    def __init__(self, ops, slots=4, max_stack=4, trackers=3, **modes):
        config = replace(get_config("tiny"), slots=slots, max_stack=max_stack, trackers=trackers)
        self.model = EngineModel(config, {0: ops}, **modes)
        self.started = []

    def admit(self, slot, **fields):
        values = {"slot": slot, "tag": 100 + slot, "arena_bytes": 4096, "priority": 1, "runnable": 1, "ride": 1}
        assert self.model.execute_command(Opcode.ADMIT, **{**values, "exits": 0xFFFF, **fields}) is None

    def batch(self, *slots, commit=1, priority=1, runnable=1, ride=1):
        mask = sum(1 << s for s in slots)
        self.model.execute_command(
            Opcode.BATCH, slot_mask=mask, priority=priority, runnable=runnable, ride=ride, commit=commit
        )

    def mark(self, opcode, *slots):
        self.model.execute_command(opcode, slot_mask=sum(1 << s for s in slots))

    def finish(self, tile):
        for s in tile.members:
            self.model.write_done(s)
        self.model.tile_drained(tile.number)

    def tile(self):
        """Deal, start and write one tile."""
        tile = self.model.deal()
        self.model.start()
        self.started.append(tile)
        self.finish(tile)
        return tile

    def run(self, results=None, most_tiles=1000):
        """Do everything possible; ``results``: (slot, exit) -> S. Returns completions by slot."""
        completions = {}
        while actions := self.model.enabled_actions():
            name, *rest = actions[0]
            if name == "deal":
                if len(self.started) >= most_tiles:
                    break
                self.tile()
            elif name == "exit_start":
                self.model.exit_start(*rest)
                key = rest[0], self.model.op(rest[0]).exit
                self.model.exit_result(rest[0], 7, (results or {}).get(key, 0xFFFF0000), len(self.started))
            elif name == "release":
                completions[rest[0]] = self.model.release(*rest)
            else:
                getattr(self.model, name)(*rest)
                if name == "revoke":
                    self.model.drained()
        return completions


def spans(tile):
    """The tile as lists of (slot, first line, lines)."""
    return [[(f.slot, f.first, f.lines) for f in subtile] for subtile in tile.subtiles]


# --- dealing --------------------------------------------------------------------------------------------------


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


# --- revocation -----------------------------------------------------------------------------------------------


def test_revocation_by_a_higher_priority_waits_for_dropped_reads():
    bench = Bench(chain())
    bench.admit(0)
    bench.tile()
    bench.model.deal()
    assert bench.model.slots[0].issued == (1, 0)
    bench.admit(1, priority=1)
    with pytest.raises(ModelViolation, match="no reason to give way"):
        bench.model.revoke()
    bench.batch(1, priority=2)
    assert ("revoke",) in bench.model.enabled_actions()
    assert bench.model.revoke() == {0: (0, 4)}
    assert bench.model.slots[0].issued == (0, 4) and bench.model.next is None
    with pytest.raises(ModelViolation, match="dropped tile's reads"):
        bench.model.deal()
    bench.mark(Opcode.CANCEL, 0)
    assert not bench.model.releasable(0)  # its reads may still come
    bench.model.drained()
    assert bench.model.releasable(0)
    assert bench.tile().leader == 1


def test_revocation_compares_with_the_best_member_that_may_run():
    bench = Bench([layer(4, variants=(Variant(1, 1, 8, 8),)), Exit(0, last=True)])
    bench.admit(0, priority=3)
    bench.admit(1, priority=1)
    bench.admit(2, priority=2, runnable=0)
    assert bench.model.deal().members == (0, 1)
    bench.batch(2, priority=2)
    assert not bench.model.revocable()
    bench.batch(0, priority=3, runnable=0)
    assert bench.model.revocable()
    bench.batch(2, priority=1)
    assert not bench.model.revocable()


@pytest.mark.parametrize("stop", ["cancel", "hold", "fail"])
def test_revocation_when_no_member_may_run(stop):
    bench = Bench(chain())
    bench.admit(0)
    bench.admit(1)
    tile = bench.model.deal()
    assert tile.members == (0,) and not bench.model.revocable()
    if stop == "cancel":
        bench.mark(Opcode.CANCEL, 0)
    elif stop == "hold":
        bench.batch(0, runnable=0)
    else:
        bench.model.memory_error(Code.STRIPE_READ, [0])
    bench.model.revoke()
    bench.model.drained()
    assert bench.model.releasable(0) == (stop != "hold")
    assert bench.model.deal().leader == 1


# --- jumps and exits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exits, leave, expected", [(1, 0, 2), (0, 0, 4), (0, 1, 2), (2, 0, 4)])
def test_jump_takes_the_head_if_enabled_or_asked_to_leave(exits, leave, expected):
    bench = Bench(early_exit())
    bench.admit(0, exits=exits)
    if leave:
        bench.mark(Opcode.LEAVE, 0)
    bench.model.deal()
    with pytest.raises(ModelViolation, match="not at a jump that it may pass"):
        bench.model.jump(0)  # the tile may still be revoked
    bench.model.start()
    assert bench.model.jump(0) == expected


def test_jump_waits_for_a_runnable_slot():
    bench = Bench(early_exit())
    bench.admit(0)
    bench.tile()
    bench.batch(0, runnable=0)
    assert bench.model.enabled_actions() == []
    bench.batch(0)
    assert bench.model.enabled_actions() == [("jump", 0)]


@pytest.mark.parametrize(
    "limit, spread, confident",
    [(None, 1, False), (0, 0, False), (5, 5, True), (5, 6, False), (LIMIT_ALWAYS, 0xFFFFFFFF, True)],
)
def test_exit_limit(limit, spread, confident):
    bench = Bench(early_exit())
    if limit is not None:
        assert bench.model.execute_command(Opcode.LIMIT, program=0, exit=0, limit=limit) is None
    bench.admit(0)
    completion = bench.run({(0, 0): spread})[0]
    assert (completion.status, completion.top, completion.tag) == (Status.OK, 7, 100)
    assert (completion.exit, completion.spread) == ((0, spread) if confident else (1, 0xFFFF0000))
    assert len(bench.started) == (2 if confident else 3)


def test_leave_at_the_next_head_even_during_the_decision():
    bench = Bench(early_exit())
    bench.admit(0)
    for _ in range(2):
        bench.tile()
        if bench.model.enabled_actions() == [("jump", 0)]:
            bench.model.jump(0)
    bench.model.exit_start(0)
    bench.mark(Opcode.LEAVE, 0)
    assert bench.model.exit_result(0, 3, 99).finished
    assert bench.model.release(0).exit == 0


def test_exit_waits_for_writes_and_takes_the_first_in_leader_order():
    bench = Bench([layer(1), Exit(0, last=True)], strict=True)
    for s in range(3):
        bench.admit(s, priority=2 if s == 2 else 1)
    tile = bench.model.deal()
    assert tile.members == (2, 0, 1)
    bench.model.start()
    bench.model.write_done(0)
    assert bench.model.exit_candidate() == 0
    bench.model.write_done(2)
    assert bench.model.exit_candidate() == 2
    with pytest.raises(ModelViolation, match="slot 2 is the first that waits"):
        bench.model.exit_start(0)
    bench.model.exit_start(2)
    with pytest.raises(ModelViolation, match="while slot 2 is in the unit"):
        bench.model.exit_start(0)
    with pytest.raises(ModelViolation, match="exit result of slot 0, but 2 is in it"):
        bench.model.exit_result(0, 0, 0)
    bench.mark(Opcode.CANCEL, 2)
    assert not bench.model.releasable(2)
    bench.model.exit_result(2, 0, 0)
    assert bench.model.enabled_actions()[:2] == [("exit_start", 0), ("release", 2)]
    bench.model.exit_start(0)
    assert bench.model.release(2).status == Status.CANCELLED


def test_exit_decides_for_a_slot_that_may_not_run():
    bench = Bench([layer(1), Exit(0, last=True)])
    bench.admit(0)
    bench.tile()
    bench.batch(0, runnable=0)
    assert bench.run()[0].status == Status.OK


# --- commands -------------------------------------------------------------------------------------------------


def test_batch_entries_wait_for_a_commit_and_the_last_one_wins():
    bench = Bench(chain())
    for s in range(3):
        bench.admit(s)
    bench.batch(0, 1, priority=5, commit=0)
    bench.batch(1, priority=6, runnable=0, commit=0)
    assert [bench.model.slots[s].priority for s in range(3)] == [1, 1, 1]
    bench.batch(2, priority=7, ride=0, commit=1)
    state = [(x.priority, x.runnable, x.ride) for x in bench.model.slots[:3]]
    assert state == [(5, True, True), (6, False, True), (7, True, False)]
    bench.batch(1, priority=9, commit=0)
    bench.mark(Opcode.CANCEL, 1)
    bench.run(most_tiles=0)
    bench.model.pop(1)
    bench.admit(1, priority=1)
    bench.batch(commit=1)
    assert bench.model.slots[1].priority == 1  # leaving erased the entry


def test_batch_ignores_free_slots_and_those_that_left():
    bench = Bench(chain())
    bench.batch(0, 3, priority=9)
    bench.admit(0)
    bench.batch(commit=1)
    assert bench.model.slots[0].priority == 1


@pytest.mark.parametrize(
    "fields, code",
    [
        ({"slot": 4}, Code.SLOT),
        ({"slot": 0}, Code.OCCUPIED),
        ({"pc": 4}, Code.PC),
        ({"pc": make_pc(1, 0)}, Code.PC),
        ({"arena_bytes": 0}, Code.ARENA),
        ({"arena_base": 4}, Code.ARENA),
        ({"arena_base": 0xFFFFF000, "arena_bytes": 0x1008}, Code.ARENA),
    ],
)
def test_wrong_admit_posts_an_error_and_changes_nothing(fields, code):
    bench = Bench(chain())
    bench.admit(0)
    state = repr(bench.model.slots)
    values = {"slot": 1, "pc": 0, "arena_base": 0, "arena_bytes": 64, "tag": 55, **fields}
    completion = bench.model.execute_command(Opcode.ADMIT, **values)
    assert (completion.status, completion.code, completion.tag) == (Status.ERROR, code, 55)
    assert completion.slot == values["slot"] and repr(bench.model.slots) == state


def test_wrong_opcode_and_limit():
    model = Bench(chain()).model
    assert model.execute_command(9).code == Code.OPCODE
    assert model.execute_command(Opcode.LIMIT, program=4).code == Code.EXIT
    assert model.execute_command(Opcode.LIMIT, exit=16).code == Code.EXIT


def test_slot_is_free_only_after_its_completion_was_popped():
    bench = Bench(chain())
    bench.admit(0)
    with pytest.raises(ModelViolation, match="no completion to pop"):
        bench.model.pop(0)
    bench.run()
    admit = {"slot": 0, "arena_bytes": 64}
    assert bench.model.execute_command(Opcode.ADMIT, **admit).code == Code.OCCUPIED
    bench.model.pop(0)
    assert bench.model.execute_command(Opcode.ADMIT, **admit) is None


def test_cancel_waits_for_the_started_tile_and_fence_waits_for_cancel():
    bench = Bench(chain())
    bench.admit(0)
    bench.admit(1)
    assert bench.model.execute_command(Opcode.FENCE, tag=1).status == Status.FENCE
    tile = bench.model.deal()
    bench.model.start()
    bench.mark(Opcode.CANCEL, 0)
    bench.mark(Opcode.LEAVE, 1)
    assert bench.model.fence_blocks() and not bench.model.releasable(0)
    with pytest.raises(ModelViolation, match="FENCE passes while a cancelled slot is live"):
        bench.model.execute_command(Opcode.FENCE)
    with pytest.raises(ModelViolation, match="no reason to leave, or work outstanding"):
        bench.model.release(0)
    bench.finish(tile)
    assert bench.model.release(0).status == Status.CANCELLED
    assert bench.model.execute_command(Opcode.FENCE, tag=2).tag == 2  # waits neither for LEAVE nor for the pop


def test_cancelled_member_goes_along_when_another_may_run():
    bench = Bench([layer(1), layer(1, 0), Exit(0, last=True)])
    bench.admit(0)
    bench.admit(1)
    tile = bench.model.deal()
    bench.mark(Opcode.CANCEL, 0)
    assert not bench.model.revocable()
    bench.model.start()
    bench.finish(tile)
    assert bench.model.deal().members == (1,)


def test_nobody_waits_for_lines_of_a_sample_that_ends():
    bench = Bench([layer(2), layer(2, 0, variants=(Variant(1, 1, 4, 8),)), Exit(0, last=True)])
    bench.admit(0)
    bench.admit(1)
    bench.model.deal()
    bench.model.start()
    bench.model.write_done(0)
    assert bench.model.deal().members == (0, 1) and not bench.model.startable()
    bench.mark(Opcode.CANCEL, 1)
    bench.model.start()


def test_soft_reset_drops_the_dealt_tile():
    bench = Bench(chain())
    bench.admit(0)
    bench.model.deal()
    bench.model.begin_reset()
    bench.model.revoke()
    bench.model.drained()
    bench.model.reset()
    assert not bench.model.resetting


def test_reset_frees_everything():
    bench = Bench(chain())
    bench.admit(0)
    bench.tile()
    bench.model.reset()
    assert bench.model.live() == [] and bench.model.enabled_actions() == []
    bench.admit(0)


# --- memory ---------------------------------------------------------------------------------------------------


def test_writes_finish_in_tile_order_and_trackers_bound_the_started_tiles():
    bench = Bench([layer(4, variants=(Variant(1, 1, 2, 8),)), Exit(0, last=True)], trackers=2)
    bench.admit(0, ride=0)
    bench.admit(1, ride=0)
    first = bench.model.deal()
    bench.model.start()
    bench.model.deal()
    bench.model.start()
    assert [t.leader for t, _ in bench.model.started] == [0, 1]
    bench.model.deal()
    with pytest.raises(ModelViolation, match="without a tracker entry"):
        bench.model.start()
    with pytest.raises(ModelViolation, match="no write of slot 1 is next"):
        bench.model.write_done(1)
    with pytest.raises(ModelViolation, match="retires with writes of slots"):
        bench.model.tile_drained()
    assert bench.model.write_done(0) == (0, 2)
    with pytest.raises(ModelViolation, match="tile 1 retires, but 0 is the oldest"):
        bench.model.tile_drained(1)
    bench.model.tile_drained(first.number)
    bench.model.start()


def test_error_ends_only_its_owners_and_the_first_code_stays():
    bench = Bench([layer(1), layer(1, 0), Exit(0, last=True)])
    for s in range(3):
        bench.admit(s, ride=int(s < 2))
    tile = bench.model.deal()
    bench.model.start()
    assert bench.model.memory_error(Code.WEIGHT_READ, tile.members) == [0, 1]
    assert bench.model.memory_error(Code.WRITE, [0]) == []
    bench.finish(tile)
    completions = bench.run()
    assert [(completions[s].status, completions[s].code) for s in range(3)] == [
        (Status.FAILED, Code.WEIGHT_READ),
        (Status.FAILED, Code.WEIGHT_READ),
        (Status.OK, Code.NONE),
    ]
    with pytest.raises(ModelViolation, match="slot 0, which is not live"):
        bench.model.memory_error(Code.WRITE, [0])


def test_exit_error_ends_the_slot_as_failed():
    bench = Bench([layer(1), Exit(0, last=True)])
    bench.admit(0)
    bench.tile()
    bench.model.exit_start(0)
    bench.model.memory_error(Code.EXIT_READ, [0])
    with pytest.raises(ModelViolation, match="exit result of slot 0, but None is in it"):
        bench.model.exit_result(0, 0, 0)
    assert bench.model.release(0).code == Code.EXIT_READ


def test_bad_operation_leaves_its_slot_to_be_failed():
    bench = Bench([layer(1), Bad(), Exit(0, last=True)])
    bench.admit(0)
    bench.tile()
    assert bench.model.enabled_actions() == []
    bench.model.memory_error(Code.DESCRIPTOR, [0])
    assert bench.run()[0].code == Code.DESCRIPTOR


# --- rigid mode -----------------------------------------------------------------------------------------------


def test_rigid_group_keeps_strangers_out_and_bubbles_go_on():
    bench = Bench(early_exit(), rigid=True)
    bench.admit(0)
    bench.admit(1)
    bench.model.execute_command(Opcode.LIMIT, program=0, exit=0, limit=10)
    tile = bench.tile()
    assert bench.model.group == {0, 1} and tile.members == (0,)  # candidates belong to it, lines or not
    bench.admit(2, priority=9)
    assert not bench.model.eligible(2) and not bench.model.revocable()
    completions = bench.run({(0, 0): 5, (0, 1): 77})
    strangers = [2 in t.members for t in bench.started]
    assert strangers == sorted(strangers) and not any(2 in t.members and len(t.members) > 1 for t in bench.started)
    bubble = [t.pc for t in bench.started if 0 in t.members]
    assert set(bubble) == {0, 2, 4}  # slot 0 decided at exit 0 and computed layer 4 all the same
    assert (completions[0].exit, completions[0].spread, completions[1].exit) == (0, 5, 1)
    assert completions[0].stamp < completions[1].stamp  # the stamp of the decision, not of the release
    assert completions[2].status == Status.OK


def test_rigid_stranger_runs_once_every_member_is_released():
    bench = Bench([layer(1), Exit(0, last=True)], rigid=True)
    bench.admit(0)
    bench.admit(1)
    bench.tile()
    bench.admit(2)
    bench.model.exit_start(0)
    bench.model.exit_result(0, 0, 0)
    bench.model.release(0)
    assert not bench.model.eligible(2)
    bench.model.exit_start(1)
    bench.model.exit_result(1, 0, 0)
    assert not bench.model.eligible(2)
    bench.model.release(1)
    assert bench.tile().leader == 2


def test_rigid_priority_acts_only_inside():
    bench = Bench(chain(2), rigid=True)
    bench.admit(0)
    bench.admit(1)
    assert bench.model.deal().leader == 0
    bench.batch(1, priority=3)
    bench.model.revoke()
    bench.model.drained()
    assert bench.model.group == {0, 1} and bench.tile().leader == 1


# --- the sequencer's order, descriptors -------------------------------------------------------------------------


def test_strict_model_respects_the_priority_of_actions():
    bench = Bench(early_exit(), strict=True)
    bench.admit(0)
    bench.admit(1, ride=0)
    bench.tile()
    assert bench.model.enabled_actions() == [("jump", 0), ("deal",)]
    with pytest.raises(ModelViolation, match="deal while jump is possible"):
        bench.model.deal()
    bench.model.jump(0)
    bench.model.deal()


def test_operations_from_descriptors():
    fields = {f.name: 0 for f in DESCRIPTOR_FIELDS}
    assert from_descriptor({**fields, "op": Op.JUMP, "exit": 2, "target": 9}) == Jump(2, 9)
    assert from_descriptor({**fields, "op": Op.EXIT, "exit": 3, "last": 1}) == Exit(3, True)
    assert from_descriptor({**fields, "op": 0}) == Bad()
    assert from_descriptor({**fields, "op": Op.CONV}) == Bad()
    geometry = {"lines": 6, "in_h": 7, "kh": 3, "sy": 2, "pad_top": 1, "nseg": 2, "producer_nseg": 3, "producer": 4}
    variants = {"log2_kr1": 2, "log2_kd1": 1, "vsel": 0b0100}
    variants |= {f"{name}{v}": n for v in range(2) for name, n in (("max_lines", 1), ("stripe_lines", 5))}
    op = from_descriptor({**fields, "op": Op.POOL, **geometry, **variants})
    assert {name: getattr(op, name) for name in geometry} == geometry
    assert op.variants == (Variant(1, 1, 1, 5), Variant(4, 2, 1, 5)) and op.vsel == (0, 1) + (0,) * 14


@pytest.mark.parametrize(
    "values, message",
    [
        ({"lines": 0}, "lines = 0 is not at least 1"),
        ({"lines": 3, "nseg": 2}, "lines = 3 is not a multiple of nseg = 2"),
        ({"variants": ()}, "0 variants are not within 1..4"),
        ({"vsel": (1,)}, "outside of 0..0"),
        ({"kh": 9}, "stripe_lines = 8 is less than kh = 9"),
        ({"residual": (3, 0)}, "has no lines per row"),
        ({"lines": 4, "nseg": 2}, "max_lines = 4 does not go with nseg = 2"),
    ],
)
def test_layer_errors(values, message):
    with pytest.raises(ValueError, match=message):
        layer(**{"lines": 8, "in_h": 8, **values})


def test_lines_per_row_of_no_producer_mean_nothing():
    plain = layer(lines=8, in_h=8, producer=NO_PRODUCER, producer_nseg=0, residual=(NO_PRODUCER, 0))
    assert plain.needed_positions(0, 3) == (None, None)


def test_second_operand_is_waited_for():
    """A tile starts only with the rows of the second operand in memory."""
    wide = Variant(max_lines=2, stripe_lines=40)
    ops = [
        layer(4, variants=(wide,)),
        replace(layer(4, variants=(wide,)), residual=(0, 1)),
        Exit(0, last=True),
    ]
    assert ops[1].needed_positions(0, 2) == (None, (0, 2))
    bench = Bench(ops)
    bench.admit(0)
    dealt = []
    for _ in range(2):
        dealt.append(bench.model.deal())
        bench.model.start()
    assert spans(bench.model.deal()) == [[(0, 0, 2)]] and bench.model.missing() == [(0, 1)]
    assert ("start",) not in bench.model.enabled_actions()
    bench.finish(dealt[0])
    assert ("start",) in bench.model.enabled_actions()


# --- random worlds --------------------------------------------------------------------------------------------


def run_worlds(first, count, **options):
    stats = [simulate(seed, **options) for seed in range(first, first + count)]
    return {
        name: sum(getattr(s, name) for s in stats) for name in ("tiles", "lines", "shared", "stacked", "revocations")
    }


@pytest.mark.parametrize("block", range(QUICK_RUNS // RUNS_PER_CASE * (LONG_FACTOR if LONG else 1)))
def test_random_worlds(block):
    totals = run_worlds(block * RUNS_PER_CASE, RUNS_PER_CASE)
    assert all(totals.values()), totals  # every mechanism was at work


@pytest.mark.parametrize("options", [{"rigid": True}, {"unstacked": True}, {"errors": 0.02}, {"strict": True}])
def test_random_worlds_of_one_kind(options):
    assert run_worlds(1_000_000, 10 * (LONG_FACTOR if LONG else 1), **options)["tiles"]


def always_there(model, s, position):
    return True


def only_the_input_is_there(model, s, positions):
    return model.there(s, positions[0])


def released_while_writing(model, s):
    slot = model.slots[s]
    return slot is not None and slot.live and slot.ending and not model.in_next(s) and s != model.exit_slot


def stays_dealt(model):
    return False


def rides_in_the_way(model, s, leader, layer):
    return layer.lines - model.slots[s].issued[1]


def youngest_leads(model, s):
    return -model.slots[s].priority, model.slots[s].pc, model.slots[s].issued[1], -model.slots[s].age


@pytest.mark.parametrize(
    "name, fault",
    [
        ("there", always_there),
        ("all_there", only_the_input_is_there),
        ("releasable", released_while_writing),
        ("revocable", stays_dealt),
        ("available", rides_in_the_way),
        ("leader_order", youngest_leads),
    ],
)
def test_oracle_catches_a_faulty_engine(monkeypatch, name, fault):
    monkeypatch.setattr(EngineModel, name, fault)
    with pytest.raises(ModelViolation):
        run_worlds(60, 150)
