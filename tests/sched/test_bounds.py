"""Lower bounds against brute force on tiny instances, and against hand examples."""

import random
from itertools import combinations, permutations

import pytest
from fluidnpu.sched.bounds import fewest_late, isolated_times, least_mean, least_misses, least_sizes, srpt_mean

from .policies.states import request, tables


def least_sum(jobs):
    """Least sum of completion times over all preemptive schedules of (release, size) with whole numbers, by search
    over who runs in every unit of time."""
    best = {(0, tuple(size for _, size in jobs)): 0}
    done = float("inf")
    while best:
        following = {}
        for (now, left), cost in best.items():
            ready = [i for i, (r, _) in enumerate(jobs) if left[i] and r <= now]
            if not any(left):
                done = min(done, cost)
                continue
            for i in ready or [None]:
                rest = tuple(n - (k == i) for k, n in enumerate(left))
                cost_then = cost + (now + 1 if i is not None and rest[i] == 0 else 0)
                key = (now + 1, rest)
                following[key] = min(following.get(key, float("inf")), cost_then)
        best = following
    return done


@pytest.mark.parametrize("seed", range(20))
def test_srpt_is_the_least_mean_of_one_machine(seed):
    rng = random.Random(seed)
    jobs = [(rng.randrange(6), rng.randint(1, 4)) for _ in range(4)]
    least = (least_sum(jobs) - sum(r for r, _ in jobs)) / len(jobs)
    assert srpt_mean([r for r, _ in jobs], [s for _, s in jobs]) == pytest.approx(least)


def on_time(jobs, order):
    now = 0
    for i in order:
        release, deadline, size = jobs[i]
        now = max(now, release) + size
        if now > deadline:
            return False
    return True


def fewest_by_search(jobs):
    """Fewest late jobs over all subsets and orders, without preemption."""
    for late in range(len(jobs)):
        for kept in combinations(range(len(jobs)), len(jobs) - late):
            if any(on_time(jobs, order) for order in permutations(kept)):
                return late
    return len(jobs)


@pytest.mark.parametrize("seed", range(60))
def test_fewest_late_jobs_with_one_slo(seed):
    rng = random.Random(seed)
    slo = rng.randint(4, 9)
    jobs = [(r, r + slo, rng.randint(1, 6)) for r in sorted(rng.randrange(16) for _ in range(6))]
    assert fewest_late(jobs) == fewest_by_search(jobs)


@pytest.mark.parametrize("seed", range(60))
def test_with_different_slos_it_is_a_lower_bound(seed):
    rng = random.Random(seed)
    jobs = [(r, r + rng.randint(2, 12), rng.randint(1, 5)) for r in (rng.randrange(14) for _ in range(5))]
    assert fewest_late(jobs) <= fewest_by_search(jobs)


def test_sizes_are_the_shares_of_the_best_batch():
    """Layers of 100 that take 1 + 0.5 (b - 1) times as long for b: four samples 250, 62.5 each; head 20: 12.5."""
    model = tables(((100, 100), (100,)), head=20, growth=0.5)
    assert least_sizes(model) == [2 * 62.5 + 12.5, 3 * 62.5 + 12.5]
    assert isolated_times(model) == [220, 320]
    assert least_sizes(model, skipping=True) == [137.5, 187.5]


def test_bounds_of_requests():
    model = tables(((100, 100), (100,)), head=20, growth=1.0)  # narrow: sizes are the isolated times
    requests = [request(0, 0, 250), request(1, 0, 400), request(2, 10, 200)]
    exits = {0: 0, 1: 1, 2: 0}
    # 220 and 320; shortest first: ends 220, 440 (0 and 2), 760
    assert least_mean(model, requests, exits) == pytest.approx((220 + 430 + 760) / 3)
    assert least_misses(model, requests, exits) == 2  # 2 cannot be in time even alone, 0 and 1 not both
    with pytest.raises(ValueError, match="SRPT: there are no jobs"):
        srpt_mean([], [])
