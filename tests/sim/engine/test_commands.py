"""The engine model, one scenario per rule: commands, and what they leave behind."""

import pytest
from fluidnpu.hw.isa import Code, Opcode, Status, make_pc
from fluidnpu.sim.engine_layers import (
    Exit,
    Variant,
)
from fluidnpu.sim.engine_model import ModelViolation

from .model_bench import Bench, chain, layer


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
