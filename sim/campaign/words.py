"""The study's text: the headline with its conditions."""

from .plans import BASELINE, OURS
from .rivals import HEAVY, best_baselines
from .summary import by_cell, estimate, headline, rtl_table
from .targets import targets

__all__ = ["headline_text", "percent", "study_text"]

_NAMES = {
    "rigid-unstacked": "the rigid, unstacked NPU",
    "fluid-unstacked": "the fluid, but unstacked NPU",
    "fluid-stacked": "the same fluid, stacked NPU",
}


def percent(e):
    """A difference of shares in percentage points with its interval; None: a dash."""
    return "–" if e is None else f"{100 * e.value:+.2f} ({100 * e.low:+.2f} to {100 * e.high:+.2f})"


def study_text(found, facts):
    """The study in Markdown: facts, targets, main results."""
    rows = [
        (t.what, t.asked, t.measured, "" if t.hit is None else "hit" if t.hit else "missed", t.note)
        for t in targets(found)
    ]
    lines = [
        "# The study of schedulers",
        "",
        "Written by `make study` (a copy of build/study/study.md; beside it index.html with pictures and tables, and",
        "results.csv with a line per run). How it is made: [architecture](architecture.md), The study.",
        "",
        *(f"* {name}: {value}" for name, value in facts),
        "",
        "| figure | asked | measured | verdict | note |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    for title, text in headline_text(found):
        lines += ["", f"**{title}**: {text}"]
    return "\n".join(lines) + "\n"


def headline_text(found):
    """[(title, sentence)] of the study's main results."""
    points = [p for p in found if p.group == "headline"]
    texts = []
    if points:
        p = points[0]
        loads = ", ".join(f"{l:g}" for l in sorted({q.load for q in points}))
        conditions = (
            f"{p.workload} on {p.config}, full bandwidth, Poisson, SLO {p.slo:g} times a lone sample, loads {loads} of "
            f"what the rigid, unstacked NPU can do, {len({q.seed for q in points})} seeds of {p.requests:,} requests, "
            "on the cycle model"
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
    heavy = [r for r in best_baselines(found) if HEAVY <= r.cell[0] < 1]
    if heavy:
        said = "; ".join(
            f"{r.ours} at load {r.cell[0]:g} against {r.policy}, best by {r.best}: mean {r.mean.value:.3f}, misses "
            f"{r.misses.value:.3f} of theirs"
            for r in heavy
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
    rtl = rtl_table(found)
    if rtl:
        same = sum(round(share * n) for *_, n, share in rtl)
        texts.append(
            (
                "The RTL",
                f"serves {len(rtl)} of the runs, {len({row[0] for row in rtl})} policies; the cycle model repeats "
                f"{same:,} of {sum(row[3] for row in rtl):,} completions in every cycle.",
            )
        )
    return texts
