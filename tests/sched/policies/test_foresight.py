"""What the lists of `Foresight` say, worked out by hand, and whose turn it is by them."""

import pytest
from fluidnpu.sched.policies.foresight import Foresight
from fluidnpu.sched.policies.tenants import Tenants
from fluidnpu.sched.policies.turns import Entry, in_turn, late_ones

from .states import live, request, state, tables

# Operations: 0, 1 layers of 100, 2 EXIT (half leave), 3, 4 layers of 200, 5 the last EXIT; b samples take b times that
MODEL = tables(((100, 100), (200, 200)), growth=1.0)
SEEN = Foresight(MODEL)


def test_times_to_the_exits():
    assert SEEN.next_exit == [0, 0, 0, 1, 1, 1]
    assert [row[1] for row in SEEN.to_exit] == [200, 100, 0, 400, 200, 0]
    assert [row[3] for row in SEEN.to_end] == [1800, 1500, 1200, 1200, 600, 0]
    assert SEEN.reach(0, 1) == [(200, 0.5), (600, 1.0)]
    assert SEEN.reach(3, 1) == [(400, 1.0)]
    assert SEEN.reach(0, 4) == [(800, 0.5), (800 + 800, 1.0)]  # four up to the head, two are expected to go on
    assert SEEN.remaining[:6] == [400, 300, 200, 400, 200, 0]
    assert SEEN.share == 400


def test_chances():
    assert [SEEN.chance(0, slack) for slack in (199, 200, 599, 600)] == [0.0, 0.5, 0.5, 1.0]
    assert SEEN.chance(0, 799, b=4) == 0.0


def test_gittins_index():
    """At 0: 0.5 / 200 up to the head, 1 / (200 + 0.5 * 400) to the end: both 1 / 400. Later it only grows."""
    assert SEEN.gittins[0] == pytest.approx(1 / 400)
    assert SEEN.gittins[1] == pytest.approx(0.5 / 100)
    assert SEEN.gittins[3] == pytest.approx(1 / 400)
    assert SEEN.gittins[4] == pytest.approx(1 / 200)


def entry(id, slack, op=0, sample=None, turn=0.0, **more):
    chance = 1.0 if slack is None else SEEN.chance(op, slack)
    return Entry(request(id, 0, None if slack is None else 1000 + slack, **more), sample, op, slack, chance, turn)


def order(*entries, late="last", leader="gittins"):
    return [e.request.id for e in in_turn(list(entries), [SEEN], late, leader, 1000)]


def test_deadlines_that_can_be_kept_come_first_and_in_order():
    assert order(entry("late", 100), entry("b", 900), entry("a", 700)) == ["a", "b", "late"]
    assert order(entry("late", 100), entry("b", 900), entry("a", 700), late="keep") == ["late", "b", "a"]
    assert order(entry("none", None), entry("a", 900)) == ["a", "none"]  # no deadline: as with 10 x 600


def test_a_try_that_costs_nobody_a_deadline_comes_first():
    """It takes 200 cycles until the head says whether it was in time."""
    assert order(entry("sure", 800), entry("try", 300)) == ["try", "sure"]
    assert order(entry("sure", 799), entry("try", 300)) == ["sure", "try"]


@pytest.mark.parametrize(
    "leader, expected", [("gittins", ["near", "new", "far"]), ("remaining", ["near", "new", "far"]), ("arrival", None)]
)
def test_who_leads_among_the_late(leader, expected):
    """Operation 4: index 1 / 200, 200 to go. Operations 0 and 3: 1 / 400, 400."""
    entries = [entry("new", 0), entry("far", 0, op=3), entry("near", 0, op=4)]
    assert order(*entries, leader=leader) == (expected or ["new", "far", "near"])


def test_priority_weighs_the_index():
    assert order(entry("a", 0), entry("b", 0, priority=3.0)) == ["b", "a"]


def test_late_members_of_a_group():
    """To the next exit from 0: 200 alone; to the one behind it 400 more."""
    group = [live(request(n, 0, 1000 + slack), n) for n, slack in enumerate((199, 200, 599, 600))]
    now = state(1000, [], group)

    def place(sample):
        return sample.op

    assert [s.slot for s in late_ones(now, group, SEEN, place)] == [0]
    assert [s.slot for s in late_ones(now, group[:1], SEEN, place, between=True)] == []
    for s in group[1:]:
        assert bool(late_ones(now, [s], SEEN, place, between=True)) == (s.slot < 3)


def test_tenants_take_turns_by_what_they_were_served():
    tenants = Tenants()
    a, b = request(0, tenant="a"), request(1, tenant="b", priority=2.0)
    tenants.charge(a, 100)
    assert (tenants.turn(a), tenants.turn(b)) == (100, 0)
    tenants.charge(b, 100)
    assert (tenants.turn(a), tenants.turn(b)) == (100, 50)  # twice the share
    tenants.charge(b, 100)
    tenants.charge(a, 100)
    assert tenants.turn(request(2, tenant="new")) == 100  # nobody saves up service
