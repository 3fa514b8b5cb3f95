"""What no scheduler can beat: lower bounds of the mean latency and of the share of missed deadlines.

Relaxation to one machine: an operation l that is run for b samples takes T[l][b] >= b min_b' T[l][b'] / b', so each of
them may be charged its share. A sample that takes exit e is a job of size

    p_e = sum over the operations l that it passes of min_b T[l][b] / b

on one machine that may preempt at any time. Nobody can decide it earlier than in its isolated time

    a_e = sum over these operations of t_l,  t_l = min_b T[l][b]

and nobody works on it faster: between the mean time at which its size is worked on and its end there are at least

    d_e = sum over these operations of min_b (T[l][b] / b) / p_e (t_l / 2 + sum over those behind l of t_m)

    mean     the requests fall apart into the busy periods of the one machine, and the sum of the sojourn times of a
             period's requests is at least the greatest of
             * the sum of their isolated times;
             * that of shortest-remaining-processing-time first, least for one machine (Schrage, Operations Research
               1968);
             * the least sum of their mean times of work since their arrivals, which the job of the least size first
               has (Goemans, Queyranne, Schulz, Skutella and Wang, SIAM J. Discrete Mathematics 2002), with d_e of each.
             What is not of a period is left out of it, which is a relaxation, so every period may choose its own.
    misses   fewest late jobs 1 | r_j, agreeable | sum U_j (Kise, Ibaraki and Mine, Operations Research 1978): jobs in
             order of their deadlines join a schedule; if the last one is late, the job leaves whose absence ends the
             schedule soonest. With agreeable release times and deadlines (r_i < r_j implies d_i <= d_j, as one SLO
             gives) preemption does not help. Otherwise release times are lowered until they agree, which is a
             relaxation again: still a bound, but not the best one.

The bounds hold for schedulers that know the future and the true exits. They do not hold for those that force exits.
"""

from heapq import heappop, heappush

import numpy as np

__all__ = ["fewest_late", "isolated_times", "least_mean", "least_misses", "least_sizes", "srpt_mean"]


def least_sizes(tables, skipping=False):
    """p_e of every exit, a list. ``skipping``: heads may be skipped, so that only the one that is taken counts."""
    work = tables.latency.cycles[:, 1:] / np.arange(1, tables.B + 1)
    return _until_exits(tables, work.min(1), skipping)


def isolated_times(tables, skipping=False):
    """Least cycles from admission to the decision at every exit, a list."""
    return _until_exits(tables, tables.latency.cycles[:, 1:].min(1), skipping)


def _least_rests(tables, skipping=False):
    """d_e of every exit, a list."""
    cycles = tables.latency.cycles[:, 1:]
    times, work, found = cycles.min(1), (cycles / np.arange(1, tables.B + 1)).min(1), []
    for passed in _passed(tables, skipping):
        behind = times[passed].sum() - times[passed].cumsum()
        size = work[passed].sum()
        found.append(float((work[passed] * (times[passed] / 2 + behind)).sum() / size) if size else 0.0)
    return found


def _until_exits(tables, cycles, skipping):
    return [float(cycles[passed].sum()) for passed in _passed(tables, skipping)]


def _passed(tables, skipping):
    """Of every exit: which operations a sample that takes it passes, bool [L]."""
    heads = np.array(tables.heads)
    for e, operation in enumerate(tables.exit_operations):
        passed = np.arange(tables.L) <= operation
        yield passed & ((heads < 0) | (heads == e)) if skipping else passed


def least_mean(tables, requests, exits, skipping=False):
    """Lower bound of the mean latency in cycles. ``exits``: dict request id -> exit that the sample takes."""
    alone, sizes, rests = (f(tables, skipping) for f in (isolated_times, least_sizes, _least_rests))
    jobs = sorted((r.arrival, sizes[exits[r.id]], exits[r.id]) for r in requests)
    total = 0.0
    for period in _busy_periods(jobs):
        isolated = sum([alone[e] for _, _, e in period])
        arrivals, plain = sum([r for r, _, _ in period]), [job[:2] for job in period]
        ends, _ = _one_machine(plain)
        _, worked = _one_machine(plain, fixed=True)
        total += max(isolated, ends - arrivals, worked - arrivals + sum([rests[e] for _, _, e in period]))
    return total / len(requests)


def least_misses(tables, requests, exits, skipping=False):
    """Lower bound of the number of requests that miss their deadline (dropped ones miss it)."""
    alone, sizes = isolated_times(tables, skipping), least_sizes(tables, skipping)
    due = [r for r in requests if r.deadline is not None]
    possible = [r for r in due if r.slo >= alone[exits[r.id]]]
    jobs = [(r.arrival, r.deadline, sizes[exits[r.id]]) for r in possible]
    return len(due) - len(possible) + fewest_late(jobs)


def srpt_mean(arrivals, sizes):
    """Mean sojourn time under shortest remaining processing time first, preemptive, one machine."""
    jobs = sorted(zip(arrivals, sizes, strict=True))
    if not jobs:
        raise ValueError("SRPT: there are no jobs")
    return (_one_machine(jobs)[0] - sum(arrivals)) / len(jobs)


def _busy_periods(jobs):
    """Lists of the jobs (release, size, ...), in order of release, that keep one machine busy without a break."""
    period, now = [], 0.0
    for job in jobs:
        if period and job[0] >= now:
            yield period
            period = []
        now = max(now, job[0]) + job[1]
        period.append(job)
    if period:
        yield period


def _one_machine(jobs, fixed=False):
    """(sum of the ends, sum of the mean times of work) of jobs (release, size) in order of release, if the job of the
    least remaining size runs; ``fixed``: of the least size."""
    waiting, now, n, ends, worked = [], 0.0, 0, 0.0, 0.0  # waiting: (key, number, remaining, size)
    while n < len(jobs) or waiting:
        if not waiting:
            now = max(now, jobs[n][0])
        while n < len(jobs) and jobs[n][0] <= now:
            heappush(waiting, (jobs[n][1], n, jobs[n][1], jobs[n][1]))
            n += 1
        key, number, remaining, size = heappop(waiting)
        until = jobs[n][0] if n < len(jobs) else float("inf")
        run = min(remaining, until - now)
        worked += run * (now + run / 2) / size if size else now
        now += run
        if run < remaining:
            left = remaining - run
            heappush(waiting, (key if fixed else left, number, left, size))
        else:
            ends += now
    return ends, worked


def fewest_late(jobs):
    """Fewest late jobs of (release, deadline, size), one machine; see the module for what is exact and what a bound."""
    order = sorted(jobs, key=lambda j: (j[1], j[0]))
    release, soonest = [], float("inf")
    for job in reversed(order):
        soonest = min(soonest, job[0])
        release.append(soonest)
    late, now, busy = 0, 0.0, []  # busy: [release, start, size] since the machine was last idle
    for r, (_, deadline, size) in zip(reversed(release), order, strict=True):
        if r >= now:
            busy, now = [], r
        busy.append([r, now, size])
        now += size
        if now > deadline:
            late += 1
            now = _remove_best(busy)
    return late


def _remove_best(busy):
    """Take out the job whose absence ends the schedule soonest (ties: the last); returns that end."""
    gain, best, room = -1.0, 0, float("inf")  # room: by how much all behind can start earlier
    for k in range(len(busy) - 1, -1, -1):
        release, start, size = busy[k]
        if min(size, room) > gain:
            gain, best = min(size, room), k
        room = min(room, start - release)
    del busy[best]
    now = busy[0][1] if best else None
    for k, job in enumerate(busy):
        if k >= best:
            job[1] = max(job[0], busy[k - 1][1] + busy[k - 1][2] if k else job[0])
    return busy[-1][1] + busy[-1][2] if busy else (now or 0.0)
