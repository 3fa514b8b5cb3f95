"""Lower bounds against brute force on tiny instances, and against hand examples."""

import random
from itertools import combinations, permutations

import pytest
from fluidnpu.sched.bounds import fewest_late, isolated_times, least_mean, least_misses, least_sizes, srpt_mean

from .enumeration import tables as enumerated
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


def least_flow(T, ends, jobs):
    """Least sum of sojourn times of jobs (release, exit) over all schedules on T[l][b]: at any time an operation runs
    for any of the samples that stand at it, or nothing until the next arrival. By search."""
    best, done = {(0, (0,) * len(jobs)): 0}, float("inf")
    while best:
        (now, at), cost = min(best.items())
        del best[now, at]
        live = [i for i, (_, e) in enumerate(jobs) if at[i] <= ends[e]]
        if not live:
            done = min(done, cost)
            continue
        ready = [i for i in live if jobs[i][0] <= now]
        following = [(min(jobs[i][0] for i in live if i not in ready), at, cost)] if len(ready) < len(live) else []
        for l in {at[i] for i in ready}:
            here = [i for i in ready if at[i] == l]
            for group in (g for b in range(1, len(here) + 1) for g in combinations(here, b)):
                then = now + T[l][len(group)]
                out = sum(then - jobs[i][0] for i in group if l == ends[jobs[i][1]])
                following.append((then, tuple(p + (i in group) for i, p in enumerate(at)), cost + out))
        for then, places, total in following:
            best[then, places] = min(best.get((then, places), float("inf")), total)
    return done


@pytest.mark.parametrize("seed", range(60))
def test_no_schedule_is_below_the_least_mean(seed):
    """Also not where the bound is better than the isolated times and shortest first, each for all requests."""
    rng = random.Random(seed)
    growth, times = rng.choice([0, 1, 3, 6]), [rng.randint(1, 6) for _ in range(3)]
    ends = (1, 2) if seed % 3 else (2,)
    model = enumerated(lambda l, b: times[l] + growth * (b - 1), ends, (0.5,) * (len(ends) - 1), slots=3)
    jobs = sorted((rng.randrange(20), rng.randrange(len(ends))) for _ in range(4))
    requests = [request(n, r, 1000) for n, (r, _) in enumerate(jobs)]
    exits = {n: e for n, (_, e) in enumerate(jobs)}
    found, T = least_mean(model, requests, exits), model.latency.cycles.tolist()
    T = [[*row, 10**6] for row in T]  # no more than 3 together
    assert found <= least_flow(T, ends, jobs) / len(jobs) + 1e-9
    alone, sizes = isolated_times(model), least_sizes(model)
    plain = max(
        sum(alone[e] for _, e in jobs) / len(jobs), srpt_mean([r for r, _ in jobs], [sizes[e] for _, e in jobs])
    )
    assert found >= plain - 1e-9


def test_the_least_mean_joins_isolated_times_and_queues():
    """Two busy periods, a sample alone and two that come together; operations of 10 for one, 12 for two."""
    model = enumerated(lambda l, b: 8 + 2 * b, (1,), (), slots=2)
    requests = [request(0, 0, 1000), request(1, 100, 1000), request(2, 100, 1000)]
    # sizes 12; alone: 20. Together: worked on from 100 to 112 and to 124, on average at 106 and 118, and 10 more each
    assert least_mean(model, requests, dict.fromkeys(range(3), 0)) == pytest.approx((20 + 6 + 18 + 2 * 10) / 3)


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
