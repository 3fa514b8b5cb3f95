"""The engine model, one scenario per rule: revocation, jumps, exits."""

import pytest
from fluidnpu.hw.isa import LIMIT_ALWAYS, Code, Opcode, Status
from fluidnpu.sim.engine_layers import (
    Exit,
    Variant,
)
from fluidnpu.sim.engine_model import ModelViolation

from .model_bench import Bench, chain, early_exit, layer


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
