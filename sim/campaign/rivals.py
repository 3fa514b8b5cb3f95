"""Ours against the best baseline of every cell."""

from dataclasses import dataclass

import numpy as np
from fluidnpu.sched.policies import POLICIES

from .plans import OURS
from .summary import LEAST_MISSES, Estimate, by_cell, common_seeds, estimate

__all__ = ["BETTER", "HEAVY", "NO_WORSE", "Rival", "best_baselines"]

NO_WORSE, BETTER = 1.02, 0.85  # ratios: at most 2 % worse, at least 15 % better
LEAST_POINTS = 0.001  # of the requests
HEAVY = 0.8  # load from which ours should be better, not only no worse


@dataclass(frozen=True)
class Rival:
    """Ours against the baseline that is best in one figure, on the seeds that did not choose it, paired.

    ours, policy : series; cell : values of the names that were asked for; best : "mean" or "misses", in which the
        baseline is the best
    mean, misses : ratios, ours over theirs; points : difference of the misses, as a share
    theirs : (mean latency in cycles, misses) of the baseline; drops : ours less theirs, as a share
    """

    ours: str
    cell: tuple
    best: str
    policy: str
    mean: Estimate
    misses: Estimate
    points: Estimate
    theirs: tuple
    drops: float

    @property
    def best_ratio(self):
        """Ours over theirs in the figure in which the baseline is the best; 1 where misses differ by next to nothing,
        since a ratio of a few requests says nothing."""
        if self.best == "misses" and abs(self.points.value) < LEAST_POINTS:
            return 1.0
        return (self.mean if self.best == "mean" else self.misses).value

    @property
    def equal_drops(self):
        """Whether both answer as many requests: who answers more of them answers later ones too."""
        return abs(self.drops) < LEAST_POINTS

    @property
    def no_worse(self):
        """At most 2 % more of the figure in which the baseline is the best."""
        return self.best_ratio <= NO_WORSE

    @property
    def better(self):
        """At least 15 % less of one figure, and no more than 2 % more of the other."""
        low, high = sorted((self.mean.value, self.misses.value))
        return low <= BETTER and high <= NO_WORSE


def best_baselines(found, group="policies", names=("load",), ours=OURS):
    """[Rival]: for every cell and form of ours the best baseline by mean latency, and the best by misses.

    Chosen on the odd seeds, judged on the even ones. Who may drop requests answers fewer of them, sooner: so the forms
    of ours are compared with baselines that drop as well (Policy.drops), or with those that do not.
    """
    cells = by_cell(found, group, "series", *names)
    rows = []
    for name, *cell in sorted(key for key in cells if key[0].startswith(ours)):
        mine = cells[name, *cell]
        others = {
            key[0]: c
            for key, c in cells.items()
            if list(key[1:]) == cell and not key[0].startswith((ours, "oracle")) and _drops(key[0]) == _drops(name)
        }
        for what in ("mean", "misses"):
            best = min(others, key=lambda other: _over(others[other], what, odd=True), default=None)
            seeds = [s for s in common_seeds(mine, others[best]) if s % 2 == 0] if best else []
            if seeds:
                rows.append(_rival(name, tuple(cell), what, best, [(mine[s], others[best][s]) for s in seeds]))
    return rows


def _rival(ours, cell, what, best, pairs):
    means = estimate([a["mean"] / b["mean"] for a, b in pairs], log=True)
    missed = [(max(a["misses"], LEAST_MISSES), max(b["misses"], LEAST_MISSES)) for a, b in pairs]
    misses = estimate([a / b for a, b in missed], log=True)
    points = estimate([a["misses"] - b["misses"] for a, b in pairs])
    theirs = tuple(float(np.mean([b[k] for _, b in pairs])) for k in ("mean", "misses"))
    drops = float(np.mean([a["drops"] - b["drops"] for a, b in pairs]))
    return Rival(ours, cell, what, best, means, misses, points, theirs, drops)


def _drops(series):
    policy = POLICIES.get(series.split()[0])
    return policy is not None and policy.drops


def _over(cell, what, odd=None):
    values = [figures[what] for seed, figures in cell.items() if odd is None or seed % 2 == odd]
    return float(np.mean(values)) if values else float("inf")
