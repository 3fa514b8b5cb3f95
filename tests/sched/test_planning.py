"""The plan against enumeration of every way to serve the queue, and against queueing theory."""

from functools import cache

import pytest
from fluidnpu.sched.planning import MOST_LOAD, Plan

from .enumeration import CASES, TIMES, B, makespan, outcomes, run, tables


@pytest.mark.parametrize("name, exits, rates", CASES)
def test_merge_costs_equal_enumeration(name, exits, rates):
    """J(k) by running every outcome of group, newcomers and those that follow."""
    t = tables(TIMES[name], exits, rates)
    T = t.latency.cycles
    l, b, q = t.L // 2, 2, 3
    group = list(outcomes(b, l, t.hazard))

    @cache
    def fresh(count):
        """Least cost over every way to cut ``count`` samples into batches."""
        costs = [0.0] if count == 0 else []
        for n in range(1, count + 1):
            world = list(outcomes(n, 0, t.hazard))
            own = sum(p * (sum(run(T, c, 0)[1]) + (count - n) * makespan(T, c, 0)) for c, p in world)
            costs.append(own + fresh(count - n))
        return min(costs)

    plan = Plan(t)
    costs = plan.merge_costs(l, b, q)
    assert len(costs) == 3
    for k, cost in enumerate(costs):
        expected = 0.0
        for newcomers, p in outcomes(k, 0, t.hazard):
            catch_up, left = run(T, newcomers, 0, l)
            alive = [last for last, v in zip(newcomers, left, strict=True) if v is None]
            early = sum(v for v in left if v is not None)
            for lasts, p_group in group:
                together = [*lasts, *alive]
                sojourn = sum(v + catch_up for v in run(T, together, l)[1])
                rest = (q - k) * (catch_up + makespan(T, together, l)) + fresh(q - k)
                expected += p * p_group * (early + sojourn + rest)
        assert cost == pytest.approx(expected)
    assert costs[plan.merge_size(l, b, q)] == pytest.approx(min(costs))


def test_merging_pays_where_the_array_is_wide_and_never_late_where_it_is_not():
    wide = Plan(tables(TIMES["constant"], (9,), ()))
    assert [wide.merge_size(l, 1, 1) for l in (0, 1, 2)] == [1, 1, 1]
    assert wide.merge_size(9, 1, 1) == 0  # the leader is about to leave
    narrow = Plan(tables(TIMES["linear"], (9,), ()))
    assert [narrow.merge_size(l, b, q) for l in range(10) for b in (1, 2) for q in (1, 2, 5)] == [0] * 60


def test_merge_size_respects_slots_and_queue():
    t = Plan(tables(TIMES["constant"], (3,), ()))
    assert t.merge_size(0, 1, 2) == 2
    assert t.merge_size(0, 1, 50) == B - 1
    assert t.merge_size(0, B, 50) == 0
    assert t.merge_size(0, 2, 0) == 0


def test_start_size():
    assert [Plan(tables(TIMES["constant"], (3,), ())).start_size(q) for q in range(6)] == [0, 1, 2, 3, 4, 4]
    linear = Plan(tables(TIMES["linear"], (3,), ()))
    assert [linear.start_size(q) for q in (1, 2, 7)] == [1, 1, 1]
    early = tables(TIMES["linear"], (0, 5), (0.9,))
    costs = {n: early.sojourn[0, n] + (2 - n) * early.remaining[0, n] + early.sojourn[0, 2 - n] for n in (1, 2)}
    assert Plan(early).start_size(2) == min(costs, key=costs.get)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_slot_is_an_m_d_1_queue(load):
    """g = load + load^2 / (2 (1 - load)) samples in the system."""
    t = tables(TIMES["linear"], (2,), (), slots=1)
    plan = Plan(t, load / 300, most_waiting=60)
    assert plan.g == pytest.approx(load + load**2 / (2 * (1 - load)), rel=1e-3)
    # One more waiting sample costs its own time and that of those who come before the queue is empty again.
    assert plan.h[1] == pytest.approx(plan.g / plan.rate)
    assert all(later > earlier for earlier, later in zip(plan.h, plan.h[1:], strict=False))


def test_arrivals_make_late_merges_unprofitable():
    """Constant times, L = 10: without arrivals merging one newcomer pays up to the middle. With them it would have
    shared its own batch with others, so the merge has to be earlier."""
    t = tables(TIMES["constant"], (9,), ())
    last = []
    for rate in (0, 1 / 1000, 1 / 600, 1 / 400):
        plan = Plan(t, rate)
        last.append(max(l for l in range(10) if plan.merge_size(l, 1, 1)))
    assert last[0] == 4
    assert last == sorted(last, reverse=True) and last[-1] < 4


def test_small_rates_are_as_none_and_large_ones_as_the_limit():
    t = tables(TIMES["affine"], (1, 4), (0.6,))
    assert Plan(t, 1e-9).h[1:5] - Plan(t, 1e-9).h[1] == pytest.approx(Plan(t).h[1:5] - Plan(t).h[1], rel=1e-3)
    assert Plan(t, 1.0).rate == Plan(t, 2.0).rate
    fastest = min(t.remaining[0, n] / n for n in range(1, B + 1))
    assert Plan(t, 1.0).rate == pytest.approx(MOST_LOAD / fastest)
    with pytest.raises(ValueError, match="arrival rate -1 is negative"):
        Plan(t, -1)


def test_the_plan_beats_every_fixed_batch_size():
    """g of the best policy against that of policies that start at most m, by the same linear equations."""
    t = tables(TIMES["affine"], (1, 4), (0.6,))
    for gap in (300, 500, 2000):
        best = Plan(t, 1 / gap).g
        for m in range(1, B + 1):
            smaller = tables(TIMES["affine"], (1, 4), (0.6,), slots=m)
            assert best <= Plan(smaller, 1 / gap, most_waiting=4 * B).g * (1 + 1e-9) or 1 / gap > Plan(smaller, 1).rate


def test_a_long_queue_is_served_in_the_best_batches():
    """Where a batch of B has the least share, and arrivals come faster than it serves, no smaller one will do."""
    t = Plan(tables(TIMES["constant"], (3,), ()), rate=1.0)
    assert [t.start_size(q) for q in (B, 2 * B, 4 * B, 50 * B)] == [B] * 4
