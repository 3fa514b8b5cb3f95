"""The study's page: figures, tables and a short text, in one file that needs nothing else."""

import csv
from importlib.resources import files
from operator import itemgetter

from fluidnpu.hw.config import get_config
from jinja2 import Environment, StrictUndefined
from matplotlib import rc_context

from ..report.report import svg_text
from ..report.style import RC, themed
from . import figures
from .plans import BASELINE, OURS
from .rivals import best_baselines
from .summary import by_cell, decision_times, deviations, estimate, parts_table, rows_of, rtl_table, shift_table
from .targets import targets
from .words import headline_text, percent, study_text

__all__ = ["write_study"]

_PICTURES = (
    ("batching", "batching_figure", None),
    ("loads", "load_figure", "policies"),
    ("ablation", "ablation_figure", "ablation"),
    ("bound", "bound_figure", "policies"),
    ("host", "host_figure", "host"),
    ("parts", "parts_figure", "parts"),
    ("slo", "slo_figure", "slo"),
)


def write_study(found, cases, folder, facts=()):
    """Write index.html, study.md and results.csv into ``folder``; returns the path of the page.

    found : dict Point -> figures (runner.run_points); cases : dict (values of NPU_FIELDS) -> Case
    facts : pairs (name, value) for the head of the page
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_table(rows_of(found), folder / "results.csv")
    (folder / "study.md").write_text(study_text(found, facts))
    groups = {point.group for point in found}
    drawn = dict.fromkeys(name for name, *_ in _PICTURES)
    for name, function, group in _PICTURES:
        if group is None or group in groups:
            with rc_context({**RC, "svg.hashsalt": name}):
                drawn[name] = themed(svg_text(getattr(figures, function)(cases if group is None else found)))
    template = files("fluidnpu.sim.report").joinpath("templates/study.html.j2").read_text()
    css = files("fluidnpu.sim.report").joinpath("templates/page.css").read_text()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = folder / "index.html"
    page.write_text(
        environment.from_string(template).render(
            css=css,
            facts=facts,
            headlines=headline_text(found),
            targets=targets(found),
            pictures=drawn,
            policies=_policies(found),
            best=[_rival_row(rival) for rival in best_baselines(found)],
            sweeps=_sweeps(found),
            parts=[(label, load, str(r), percent(m), percent(a)) for label, load, r, m, a in parts_table(found)],
            shift=[(label, f"{mean.value:,.0f}", str(ratio)) for label, mean, ratio in shift_table(found)],
            decisions=_decisions(found),
            tenants=_tenants(found),
            rtl=[(p, mode, cycles, f"{n:,}", f"{100 * share:g} %") for p, mode, cycles, n, share in rtl_table(found)],
            deviations=[(w, p, f"{l:g}", f"{100 * e:+.2f} %", same) for w, p, l, e, same in deviations(found)],
            ours=OURS,
            baseline=BASELINE,
        )
    )
    return page


def _write_table(rows, path):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)


def _mean(runs, what):
    return float(sum(map(what, runs)) / len(runs))


def _policies(found):
    """[(load, [(policy, cells)])] of the group "policies"."""
    cells = by_cell(found, "policies", "load", "policy")
    tables = []
    for load in sorted({l for l, _ in cells}):
        rows = []
        for policy in (p for l, p in cells if l == load):
            runs = list(cells[load, policy].values())
            numbers = [k for k, v in runs[0].items() if isinstance(v, (int, float))]
            rows.append((policy, runs, {k: _mean(runs, lambda f, k=k: f[k]) for k in numbers}))
        rows.sort(key=lambda row: row[2]["mean"])
        best = {k: min(v[k] for *_, v in rows) for k in ("mean", "p99", "misses")}
        tables.append((load, [_policy_row(*row, best) for row in rows]))
    return tables


def _policy_row(policy, runs, v, best):
    mean = estimate([f["mean"] / f["alone"] for f in runs])
    early = [f["accuracy"] - f["own_accuracy"] for f in runs if f["accuracy"] is not None]
    cells = [
        (f"{mean.value:.3f} ± {mean.high - mean.value:.3f}", v["mean"] == best["mean"]),
        *((f"{v[k] / v['alone']:.2f}", v[k] == best.get(k)) for k in ("p50", "p95", "p99")),
        (f"{100 * v['misses']:.2f} %", v["misses"] == best["misses"]),
        (f"{100 * v['drops']:.2f} %", False),
        (f"{v['goodput'] / v['capacity']:.3f}", False),
        (f"{v['mean'] / v['bound_mean']:.2f}", False),
        (f"{100 * v['utilisation']:.1f} %", False),
        (f"{v['bytes'] / 1000:.0f}", False),
        (f"{v['preemptions']:.2f}", False),
        (f"{100 * sum(early) / len(early):+.2f}" if early else "–", False),
        (f"{v['decisions']:.1f}", False),
        (f"{v['host_us']:.0f}", False),
    ]
    return policy, cells


def _decisions(found):
    """[(configuration, slots, policy, load, decisions per request, microseconds of one, of one that does nothing)]."""
    return [
        (config, get_config(config).slots, policy, f"{load:g}", *(f"{n:.1f}" for n in numbers))
        for (config, policy, load), numbers in decision_times(found).items()
    ]


def _rival_row(r):
    """(cells of the row, whether no worse, whether better)"""
    mean, misses = r.theirs
    cells = (
        r.ours,
        f"{r.cell[0]:g}",
        r.policy,
        r.best,
        f"{mean:,.0f}",
        f"{r.mean.value:.3f} ({r.mean.low:.3f} to {r.mean.high:.3f})",
        f"{100 * misses:.2f} %",
        f"{r.misses.value:.3f}",
        percent(r.points),
        f"{100 * r.drops:+.2f}",
    )
    return cells, r.no_worse, r.better


def _sweeps(found):
    """[(title, [(cell, policy, mean in multiples of a lone sample, misses, 99 %, best of the cell)])]."""
    sweeps = (
        ("Arrivals", "arrivals", ("arrivals", "load")),
        ("Exit mixes", "mixes", ("mix", "load")),
        ("Networks, configurations, bandwidth", "networks", ("workload", "config", "bandwidth", "load")),
    )
    tables = []
    for title, group, names in sweeps:
        cells = by_cell(found, group, *names, "policy")
        means = {key: estimate([f["mean"] / f["alone"] for f in runs.values()]) for key, runs in cells.items()}
        rows = []
        for key, runs in cells.items():
            runs, mean = list(runs.values()), means[key]
            best = mean.value == min(e.value for k, e in means.items() if k[:-1] == key[:-1])
            cell = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in key[:-1])
            latency = f"{mean.value:.3f} ± {mean.high - mean.value:.3f}"
            misses, tail = _mean(runs, lambda f: 100 * f["misses"]), _mean(runs, lambda f: f["p99"] / f["alone"])
            rows.append((cell, key[-1], latency, f"{misses:.2f} %", f"{tail:.2f}", best))
        if rows:
            tables.append((title, rows))
    return tables


def _tenants(found):
    """[(loads, policy, [(progress, 99 %, misses) of each tenant], fairness)] of the points with several networks."""
    rows = []
    for (tenants, policy), runs in by_cell(found, "tenants", "tenants", "series").items():
        runs = list(runs.values())
        cells = []
        for n in range(1, len(tenants) + 1):
            names = [f"tenant{n}_{k}" for k in ("mean", "p99", "misses")]
            mean, tail, missed = (_mean(runs, itemgetter(name)) for name in names)
            cells.append((f"{mean:,.0f}", f"{tail:,.0f}", f"{100 * missed:.2f} %"))
        loads = ", ".join(f"{name} {load:g}" for name, load, _ in tenants)
        rows.append((loads, policy, cells, f"{_mean(runs, lambda f: f['fairness']):.3f}"))
    return rows
