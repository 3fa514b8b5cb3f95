"""Random worlds under an oracle, and faults that it must catch.

FLUIDNPU_LONG=1 multiplies the number of random worlds by LONG_FACTOR.
"""

import os

import pytest
from fluidnpu.sim.engine_environment import simulate
from fluidnpu.sim.engine_model import EngineModel, ModelViolation

LONG_FACTOR = 60
LONG = os.environ.get("FLUIDNPU_LONG") == "1"
QUICK_RUNS = 60
RUNS_PER_CASE = 20


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
