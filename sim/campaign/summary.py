"""Numbers of the study over seeds: means with confidence intervals, paired ratios, the headline."""

from collections import defaultdict
from dataclasses import asdict, dataclass

import numpy as np
from fluidnpu.sched.policies import POLICIES

from .plans import BASELINE, OURS, PARTS

__all__ = [
    "Estimate",
    "ablation_table",
    "best_baselines",
    "by_cell",
    "deviations",
    "estimate",
    "headline",
    "parts_table",
    "rows_of",
    "shift_table",
]

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom; more: the last one
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
_LEAST = 1e-4  # share of misses below which a ratio means nothing


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % confidence interval (Student's t); low = high = value for a single seed."""

    value: float
    low: float
    high: float

    def __str__(self):
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"

    @property
    def times(self):
        """The same as a factor."""
        return f"{self.value:.3g}x ({self.low:.3g} to {self.high:.3g})"


def estimate(values, log=False):
    """Estimate of the mean; ``log``: of the geometric mean."""
    values = np.log(np.maximum(values, 1e-12)) if log else np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    half = _T[min(n - 2, len(_T) - 1)] * float(values.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    found = (mean, mean - half, mean + half)
    return Estimate(*(float(np.exp(v)) for v in found) if log else found)


def rows_of(found):
    """dicts of all points with their figures, for the results table. found : dict Point -> figures"""
    rows = []
    for point, figures in found.items():
        row = asdict(point) | {"options": " ".join(f"{k}={v}" for k, v in point.options), "mode": point.mode}
        exits = {f"exit_{e + 1}": share for e, share in enumerate(figures["exits"])}
        rows.append(row | {k: v for k, v in figures.items() if k != "exits"} | exits)
    return rows


def by_cell(found, group, *names):
    """dict (values of the Point's ``names``) -> {seed: figures} of one group."""
    cells = defaultdict(dict)
    for point, figures in found.items():
        if point.group == group:
            cells[tuple(getattr(point, name) for name in names)][point.seed] = figures
    return cells


def _seeds(*cells):
    return sorted(set.intersection(*(set(c) for c in cells)))


def headline(found, mode, baseline=BASELINE, ours=OURS):
    """Ours on the fluid, stacked NPU against a baseline in a ``mode``: (latency Estimate, misses Estimate, table).

    Latency: geometric mean over the loads of the ratio of means, per seed. Misses: ratio of the totals over the loads.
    table: per load (load, mean of the baseline, of ours, misses of the baseline, of ours). None if points are missing.
    """
    cells = by_cell(found, "ablation", "mode", "policy", "load")
    loads = sorted({load for m, p, load in cells if m == mode and p == baseline})
    pairs = [(cells[mode, baseline, l], cells.get(("fluid-stacked", ours, l), {})) for l in loads]
    seeds = _seeds(*(c for pair in pairs for c in pair)) if pairs else []
    if not seeds:
        return None
    ratios = [np.exp(np.mean([np.log(b[s]["mean"] / o[s]["mean"]) for b, o in pairs])) for s in seeds]
    totals = [[sum(c[s]["misses"] for c in side) for s in seeds] for side in zip(*pairs, strict=True)]
    misses = [b / max(o, _LEAST) for b, o in zip(*totals, strict=True)]
    table = [
        (load, *(float(np.mean([c[s][k] for s in seeds])) for k in ("mean", "misses") for c in pair))
        for load, pair in zip(loads, pairs, strict=True)
    ]
    return estimate(ratios, log=True), estimate(misses, log=True), table


def ablation_table(found):
    """[(mode, policy, geometric mean of the mean latency in multiples of a lone sample, misses)] over the loads."""
    cells = by_cell(found, "ablation", "mode", "policy")
    rows = []
    loads = by_cell(found, "ablation", "mode", "policy", "load")
    for mode, policy in cells:
        mine = [c for (m, p, _), c in loads.items() if (m, p) == (mode, policy)]
        seeds = _seeds(*mine)
        if not seeds:
            continue
        latency = [np.exp(np.mean([np.log(c[s]["mean"] / c[s]["alone"]) for c in mine])) for s in seeds]
        misses = [np.mean([c[s]["misses"] for c in mine]) for s in seeds]
        rows.append((mode, policy, estimate(latency, log=True), estimate(misses)))
    return sorted(rows, key=lambda row: (-row[2].value, row[1]))


def best_baselines(found, group="policies", names=("load",), ours=OURS):
    """Ours against the best baseline of every cell: chosen on the odd seeds, judged on the even ones, paired.

    Who may drop requests answers fewer of them, sooner: so the forms of ours are compared with baselines that drop as
    well (Policy.drops), or with those that do not.

    [dict: ours, cell, for "mean" and "misses" each: baseline, ratio or difference (ours against it) as Estimate]
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
        if not others:
            continue
        row = {"ours": name, "cell": tuple(cell)}
        for what in ("mean", "misses"):
            best = min(others, key=lambda other, what=what, others=others: _over(others[other], what, odd=True))
            even = [s for s in _seeds(mine, others[best]) if s % 2 == 0]
            if not even:
                continue
            pairs = [(mine[s][what], others[best][s][what]) for s in even]
            change = estimate([a / b for a, b in pairs], log=True) if what == "mean" else None
            row[what] = best, change or estimate([a - b for a, b in pairs]), float(np.mean([b for _, b in pairs]))
            row[f"drops_{what}"] = _over(mine, "drops") - _over(others[best], "drops")
        rows.append(row)
    return rows


def _drops(series):
    policy = POLICIES.get(series.split()[0])
    return policy is not None and policy.drops


def _over(cell, what, odd=None):
    values = [figures[what] for seed, figures in cell.items() if odd is None or seed % 2 == odd]
    return float(np.mean(values)) if values else float("inf")


def parts_table(found):
    """[(label, load, ratio of the mean latency to ours, difference of the misses, difference of the accuracy)]: ours
    with one part switched off or on, against ours."""
    whole, parts = by_cell(found, "policies", "series", "load"), by_cell(found, "parts", "options", "load")
    labels = {options: label for label, options in PARTS.items()}
    rows = []
    for (options, load), cell in parts.items():
        ours = whole.get((OURS, load), {})
        seeds = _seeds(cell, ours)
        if seeds:
            ratio = estimate([cell[s]["mean"] / ours[s]["mean"] for s in seeds], log=True)
            misses = estimate([cell[s]["misses"] - ours[s]["misses"] for s in seeds])
            known = [s for s in seeds if cell[s]["accuracy"] is not None]
            accuracy = [cell[s]["accuracy"] - ours[s]["accuracy"] for s in known]
            rows.append((labels[options], load, ratio, misses, estimate(accuracy) if known else None))
    return rows


def shift_table(found):
    """[(label, mean latency of the last requests, ratio to ours)] where the exit mix shifts midway."""
    cells = by_cell(found, "shift", "options")
    labels = {options: label for label, options in PARTS.items()} | {(): "ours"}
    ours = cells.get(((),), {})
    rows = []
    for (options,), cell in cells.items():
        seeds = _seeds(cell, ours) if ours else []
        if seeds:
            mean = estimate([cell[s]["mean_end"] for s in seeds])
            rows.append(
                (labels[options], mean, estimate([cell[s]["mean_end"] / ours[s]["mean_end"] for s in seeds], log=True))
            )
    return rows


def deviations(found):
    """[(workload, policy, load, error of the mean latency, requests with another exit)]: tile against cycle model."""
    cells = by_cell(found, "check", "workload", "policy", "load", "device")
    rows = []
    for (workload, policy, load, device), cell in cells.items():
        exact = cells.get((workload, policy, load, "cycles"), {})
        seeds = _seeds(cell, exact) if device == "tiles" and exact else []
        if seeds:
            error = float(np.mean([cell[s]["mean"] for s in seeds]) / np.mean([exact[s]["mean"] for s in seeds]) - 1)
            same = all(cell[s][k] == exact[s][k] for s in seeds for k in ("exits", "answered"))
            rows.append((workload, policy, load, error, same))
    return rows
