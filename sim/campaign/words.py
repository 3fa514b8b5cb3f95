"""The study's text: the headline with its conditions."""

from .plans import BASELINE, OURS
from .summary import best_baselines, by_cell, estimate, headline

__all__ = ["headline_text", "percent"]

_NAMES = {
    "rigid-unstacked": "the rigid, unstacked NPU",
    "fluid-unstacked": "the fluid, but unstacked NPU",
    "fluid-stacked": "the same fluid, stacked NPU",
}


def percent(e):
    """A difference of shares in percentage points with its interval; None: a dash."""
    return "–" if e is None else f"{100 * e.value:+.2f} ({100 * e.low:+.2f} to {100 * e.high:+.2f})"


def headline_text(found):
    """[(title, sentence)] of the study's main results."""
    points = [p for p in found if p.group == "ablation"]
    texts = []
    if points:
        p = points[0]
        loads = ", ".join(f"{l:g}" for l in sorted({q.load for q in points}))
        conditions = (
            f"{p.workload} on {p.config}, full bandwidth, Poisson, SLO {p.slo:g} times a lone sample, loads {loads} of "
            f"what the rigid, unstacked NPU can do, {len({q.seed for q in points})} seeds of {p.requests:,} requests"
        )
        for mode, name in _NAMES.items():
            result = headline(found, mode)
            if result is None:
                continue
            latency, misses, table = result
            per_load = "; ".join(
                f"load {load:g}: {base / mine:.2f}x, misses {100 * bm:.2f} % against {100 * om:.2f} %"
                for load, base, mine, bm, om in table
            )
            said = (
                f"{latency.times} lower mean latency (geometric mean over the loads, 95 % interval over the seeds), "
                f"{misses.times} fewer missed deadlines. {per_load}. Conditions: {conditions}."
            )
            texts.append((f"{OURS}, fluid and stacked, against {BASELINE} on {name}", said))
    rows = [row for row in best_baselines(found) if "mean" in row]
    if rows:
        heavy = [row for row in rows if row["cell"][0] >= 0.8] or rows
        said = "; ".join(
            f"{row['ours']} at load {row['cell'][0]:g}: mean {row['mean'][1].value:.3f} of {row['mean'][0]}'s, misses "
            f"{100 * row['misses'][1].value:+.2f} points of {row['misses'][0]}'s"
            for row in heavy
        )
        texts.append(
            (
                "Against the best baseline of each load, all on the fluid, stacked NPU",
                "chosen on one half of the seeds, judged on the other, paired; those that drop requests apart from "
                f"those that do not. {said}.",
            )
        )
    bound = by_cell(found, "policies", "policy", "load")
    low = [(l, c) for (p, l), c in bound.items() if p == OURS and l <= 0.6]
    if low:
        said = ", ".join(
            f"{estimate([f['mean'] / f['bound_mean'] for f in c.values()], log=True).value:.2f} at load {l:g}"
            for l, c in sorted(low)
        )
        texts.append(
            ("Mean latency over the lower bound", f"{said}. The bound knows every arrival and exit beforehand.")
        )
    return texts
