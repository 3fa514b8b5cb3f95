"""Numbers of the study over seeds: means with confidence intervals, paired ratios, the headline."""

from collections import defaultdict
from dataclasses import asdict, dataclass

import numpy as np

from .plans import BASELINE, FROZEN, OURS, PARTS

__all__ = [
    "LEAST_MISSES",
    "Estimate",
    "ablation_table",
    "by_cell",
    "common_seeds",
    "decision_times",
    "deviations",
    "estimate",
    "headline",
    "parts_table",
    "rows_of",
    "rtl_table",
    "shift_table",
]

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom; more: the last one
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
LEAST_MISSES = 1e-4  # share of misses below which a ratio means nothing


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


def common_seeds(*cells):
    """Seeds that all of these cells (see by_cell) have, ascending."""
    return sorted(set.intersection(*(set(c) for c in cells)))


def headline(found, mode, baseline=BASELINE, ours=OURS):
    """Ours on the fluid, stacked NPU against a baseline in a ``mode``: (latency Estimate, misses Estimate, table).

    Latency: geometric mean over the loads of the ratio of means, per seed. Misses: ratio of the totals over the loads.
    table: per load (load, mean of the baseline, of ours, misses of the baseline, of ours). None if points are missing.
    """
    cells = by_cell(found, "headline", "mode", "policy", "load")
    loads = sorted({load for m, p, load in cells if m == mode and p == baseline})
    pairs = [(cells[mode, baseline, l], cells.get(("fluid-stacked", ours, l), {})) for l in loads]
    seeds = common_seeds(*(c for pair in pairs for c in pair)) if pairs else []
    if not seeds:
        return None
    ratios = [np.exp(np.mean([np.log(b[s]["mean"] / o[s]["mean"]) for b, o in pairs])) for s in seeds]
    totals = [[sum(c[s]["misses"] for c in side) for s in seeds] for side in zip(*pairs, strict=True)]
    misses = [b / max(o, LEAST_MISSES) for b, o in zip(*totals, strict=True)]
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
        seeds = common_seeds(*mine)
        if not seeds:
            continue
        latency = [np.exp(np.mean([np.log(c[s]["mean"] / c[s]["alone"]) for c in mine])) for s in seeds]
        misses = [np.mean([c[s]["misses"] for c in mine]) for s in seeds]
        rows.append((mode, policy, estimate(latency, log=True), estimate(misses)))
    return sorted(rows, key=lambda row: (-row[2].value, row[1]))


def parts_table(found):
    """[(label, load, ratio of the mean latency to ours, difference of the misses, difference of the accuracy)]: ours
    with one part switched off or on, against ours."""
    parts = by_cell(found, "parts", "options", "load")
    labels = {options: label for label, options in PARTS.items()}
    rows = []
    for (options, load), cell in parts.items():
        if not options:
            continue
        ours = parts.get(((), load), {})
        seeds = common_seeds(cell, ours)
        if seeds:
            ratio = estimate([cell[s]["mean"] / ours[s]["mean"] for s in seeds], log=True)
            misses = estimate([cell[s]["misses"] - ours[s]["misses"] for s in seeds])
            known = [s for s in seeds if cell[s]["accuracy"] is not None]
            accuracy = [cell[s]["accuracy"] - ours[s]["accuracy"] for s in known]
            rows.append((labels[options], load, ratio, misses, estimate(accuracy) if known else None))
    return rows


def shift_table(found):
    """[(label, mean latency of the last requests, ratio to ours with the rates of the end known beforehand)] where the
    exit mix shifts midway."""
    cells = by_cell(found, "shift", "options", "rates")
    labels = {options: label for label, options in PARTS.items()} | {(): "ours, which learns"}
    known = cells.get((FROZEN, "end"), {})
    rows = []
    for (options, rates), cell in cells.items():
        seeds = common_seeds(cell, known)
        if seeds:
            label = "rates of the end known beforehand" if rates == "end" else labels[options]
            mean = estimate([cell[s]["mean_end"] for s in seeds])
            ratio = estimate([cell[s]["mean_end"] / known[s]["mean_end"] for s in seeds], log=True)
            rows.append((label, mean, ratio))
    return rows


def decision_times(found):
    """dict (configuration, policy, load) -> (decisions per request, microseconds of one, of one that does nothing), the
    medians over the seeds: a shared machine is slow now and then."""
    cells = by_cell(found, "decisions", "config", "policy", "load")
    names = ("decisions", "host_us", "nothing_us")
    return {key: tuple(float(np.median([f[n] for f in c.values()])) for n in names) for key, c in cells.items()}


def rtl_table(found):
    """[(policy, mode, host cycles per decision, requests, share of the completions that the cycle model repeats in
    every cycle)] of the points that ran on the RTL."""
    cells = by_cell(found, "rtl", "policy", "mode", "decision_cycles")
    return [(*key, sum(f["requests"] for f in c.values()), _mean_of(c, "agreed")) for key, c in cells.items()]


def _mean_of(cell, what):
    return float(np.mean([figures[what] for figures in cell.values()]))


def deviations(found):
    """[(workload, policy, load, error of the mean latency, requests with another exit)]: tile against cycle model."""
    cells = by_cell(found, "check", "workload", "policy", "load", "device")
    rows = []
    for (workload, policy, load, device), cell in cells.items():
        exact = cells.get((workload, policy, load, "cycles"), {})
        seeds = common_seeds(cell, exact) if device == "tiles" and exact else []
        if seeds:
            error = float(np.mean([cell[s]["mean"] for s in seeds]) / np.mean([exact[s]["mean"] for s in seeds]) - 1)
            same = all(cell[s][k] == exact[s][k] for s in seeds for k in ("exits", "answered"))
            rows.append((workload, policy, load, error, same))
    return rows
