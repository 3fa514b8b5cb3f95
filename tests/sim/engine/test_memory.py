"""The engine model, one scenario per rule: memory, rigid mode, the order of actions, descriptors."""

from dataclasses import replace

import pytest
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, NO_PRODUCER, Code, Op, Opcode, Status
from fluidnpu.sim.engine_layers import (
    Bad,
    Exit,
    Jump,
    Variant,
    from_descriptor,
)
from fluidnpu.sim.engine_model import ModelViolation

from .model_bench import Bench, chain, early_exit, layer, spans


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
