"""Every outcome of a batch with exits, enumerated: the golden model of the survival tables and the plan."""

import itertools

import numpy as np
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.survival import ExitRates, SurvivalTables

__all__ = ["CASES", "TIMES", "B", "makespan", "outcomes", "run", "tables"]

B = 4


def tables(times, exits, rates, slots=B):
    """Tables with T[l][b] = times(l, b), EXIT operations ``exits`` and the given rates (of all but the last)."""
    L = exits[-1] + 1
    cycles = [[0] + [times(l, b) for b in range(1, slots + 1)] for l in range(L)]
    return SurvivalTables(LatencyTable(np.array(cycles)), exits, ExitRates(len(exits), rates, weight=1e9))


TIMES = {
    "linear": lambda l, b: 100 * b,
    "affine": lambda l, b: 60 + 40 * b + 7 * l,
    "steps": lambda l, b: 100 * (1 + (b > 2)) + (l % 2) * 30 * b,
    "constant": lambda l, b: 100,
}
CASES = [(t, exits, rates) for t in TIMES for exits, rates in [((4,), ()), ((1, 4), (0.6,)), ((0, 2, 5), (0.3, 0.8))]]


def outcomes(count, start, hazard):
    """Every combination of last layers for ``count`` samples alive at ``start``, with its probability."""
    alone, p = {}, 1.0
    for l in range(start, len(hazard)):
        if hazard[l]:
            alone[l] = p * hazard[l]
            p *= 1 - hazard[l]
    for combination in itertools.product(alone, repeat=count):
        yield combination, np.prod([alone[l] for l in combination])


def run(T, lasts, l, to=None):
    """(time, list of leaving times) of samples with these last layers, run together from l."""
    now, left = 0.0, [None] * len(lasts)
    for m in range(l, len(T) if to is None else to):
        live = sum(last >= m for last in lasts)
        now += T[m][live]
        left = [now if last == m else t for last, t in zip(lasts, left, strict=True)]
    return now, left


def makespan(T, lasts, l):
    return sum(T[m][sum(last >= m for last in lasts)] for m in range(l, max(lasts, default=l - 1) + 1))
