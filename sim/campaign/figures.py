"""Pictures of the study."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..report.style import INK, LINE_COLOURS, SOFT
from .plans import BASELINE, OURS, PARTS, SOME
from .points import MODES
from .summary import ablation_table, by_cell, estimate, parts_table

__all__ = [
    "ablation_figure",
    "batching_figure",
    "bound_figure",
    "host_figure",
    "load_figure",
    "parts_figure",
    "slo_figure",
]

WIDTH = 11.0
_NAMED = (OURS, BASELINE, "lazy-fair", "adaptive", "srtf-ee", "serial", "oracle")
_COLOURS = dict(zip(_NAMED, LINE_COLOURS, strict=False))


def _panels(columns, rows=1, height=3.4):
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.grid(color=SOFT, alpha=0.25, linewidth=0.6)
    return figure, axes


def _line(axis, x, estimates, label, colour=SOFT, width=1.8):
    y, size = [e.value for e in estimates], 3.5 if width > 1 else 0
    (line,) = axis.plot(x, y, color=colour, linewidth=width, marker="o", markersize=size, label=label)
    if width > 1:
        low, high = [e.low for e in estimates], [e.high for e in estimates]
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    return line


def batching_figure(cases):
    """Cycles per sample of b samples together, against one alone: every network, configuration and bandwidth."""
    workloads = list(dict.fromkeys(npu[0] for npu in cases))
    figure, axes = _panels(len(workloads))
    lines = {}
    configs = list(dict.fromkeys(npu[1] for npu in cases))
    for (workload, config, bandwidth, unstacked), case in cases.items():
        if unstacked:
            continue
        axis = axes[workloads.index(workload)]
        cost = case.npu.latencies[0].per_sample()
        style = "-" if bandwidth == "full" else (0, (4, 2))
        label = f"{config}, {bandwidth} bandwidth"
        colour = LINE_COLOURS[configs.index(config)]
        live = np.arange(1, len(cost) + 1)
        (lines[label],) = axis.plot(live, cost / cost[0], color=colour, linestyle=style, marker="o", markersize=3)
        axis.set_title(workload)
        axis.set_xlabel("samples together")
        axis.set_ylim(0, 1.08)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_ylabel("cycles per sample, one alone = 100 %")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    return figure


def load_figure(found):
    """Mean latency, misses and goodput over the load, every policy."""
    cells = by_cell(found, "policies", "policy", "load")
    policies = list(dict.fromkeys(p for p, _ in cells))
    figure, axes = _panels(3, height=4.4)
    lines = {}
    for policy in sorted(policies, key=lambda p: p in _COLOURS):
        loads = sorted(load for p, load in cells if p == policy)
        named = policy in _COLOURS
        for axis, value in zip(
            axes,
            (lambda f: f["mean"] / f["alone"], lambda f: f["misses"], lambda f: f["goodput"] / f["capacity"]),
            strict=True,
        ):
            points = [estimate([value(f) for f in cells[policy, l].values()]) for l in loads]
            line = _line(axis, loads, points, policy, _COLOURS.get(policy, SOFT), 1.8 if named else 0.7)
            lines[policy if named else "other policies (table below)"] = line
    axes[0].set_yscale("log")
    axes[0].set_title("mean latency, multiples of one sample alone")
    axes[1].set_title("deadlines missed")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[2].set_title("answers in time, share of the capacity")
    axes[2].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axis in axes:
        axis.set_xlabel("load")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4)
    return figure


def ablation_figure(found):
    """Bars: NPU modes and policies."""
    rows = ablation_table(found)
    policies = list(dict.fromkeys(row[1] for row in rows))
    figure, axes = _panels(2)
    modes = [m for m in MODES[::-1] if any(row[0] == m for row in rows)]
    width, bars = 0.8 / len(policies), {}
    for mode, policy, latency, misses in rows:
        x = modes.index(mode) + (policies.index(policy) - (len(policies) - 1) / 2) * width
        for axis, e in zip(axes, (latency, misses), strict=True):
            colour = _COLOURS.get(policy, SOFT)
            bars[policy] = axis.bar(x, e.value, width * 0.92, color=colour)
            axis.plot([x, x], [e.low, e.high], color=INK, linewidth=1)
    for axis, title in zip(axes, ("mean latency, multiples of one sample alone", "deadlines missed"), strict=True):
        axis.set_title(title)
        axis.set_xticks(range(len(modes)), [m.replace("-", ",\n") for m in modes])
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    figure.legend(bars.values(), bars.keys(), loc="outside lower center", ncols=4)
    return figure


def _compared(lines, titles, decimals):
    """Figure of ratios of means and differences of misses over the load, and its axes.

    lines : policy -> list of (load, pairs of a run's figures and those it is compared with: (mean, misses) each)
    """
    figure, axes = _panels(2)
    for policy, cells in lines.items():
        loads = [load for load, _ in cells]
        ratios = [estimate([a[0] / b[0] for a, b in pairs], log=True) for _, pairs in cells]
        more = [estimate([a[1] - b[1] for a, b in pairs]) for _, pairs in cells]
        for axis, values in zip(axes, (ratios, more), strict=True):
            _line(axis, loads, values, policy, _COLOURS.get(policy, SOFT))
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel("load")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1, decimals=decimals))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure, axes


def bound_figure(found):
    """Mean latency and misses against what no scheduler can beat."""
    cells = by_cell(found, "policies", "policy", "load")

    def against_bound(policy):
        loads = sorted(load for p, load in cells if p == policy)
        runs = [(load, cells[policy, load].values()) for load in loads]
        return [(l, [((f["mean"], f["misses"]), (f["bound_mean"], f["bound_misses"])) for f in fs]) for l, fs in runs]

    shown = {p: against_bound(p) for p in (*SOME, "oracle") if any(key[0] == p for key in cells)}
    figure, axes = _compared(shown, ("mean latency / lower bound", "misses above the lower bound"), 0)
    axes[0].set_yscale("log")
    return figure


def host_figure(found):
    """What a host that takes time for a decision costs."""
    runs = by_cell(found, "host", "policy", "load", "decision_cycles")
    free = {key[:2]: cell for key, cell in runs.items() if not key[2]}
    paid = {key[:2]: cell for key, cell in runs.items() if key[2]}

    def against_free(policy):
        loads = sorted(l for p, l in paid if p == policy and (p, l) in free)
        cells = [(l, paid[policy, l], free[policy, l]) for l in loads]
        return [(l, [tuple((f["mean"], f["misses"]) for f in (a[s], b[s])) for s in a if s in b]) for l, a, b in cells]

    titles = ("mean latency, host with 2 µs per decision / host without", "misses that it adds")
    figure, _ = _compared({p: against_free(p) for p in dict.fromkeys(p for p, _ in paid)}, titles, 1)
    return figure


def parts_figure(found):
    """What each part of ours is worth, at every load."""
    rows = parts_table(found)
    figure, axes = _panels(2, height=0.28 * len(PARTS) + 1.8)
    labels = [label for label in PARTS if any(row[0] == label for row in rows)]
    loads = sorted({row[1] for row in rows})
    shade = dict(zip(loads, np.linspace(0.35, 1, len(loads)), strict=True))
    for label, load, ratio, misses, _ in rows:
        y = labels.index(label) + 0.8 * (loads.index(load) / max(1, len(loads)) - 0.4)
        for axis, e, origin in ((axes[0], ratio, 1), (axes[1], misses, 0)):
            axis.barh(y, e.value - origin, 0.72 / len(loads), left=origin, color=LINE_COLOURS[0], alpha=shade[load])
            axis.plot([e.low, e.high], [y, y], color=INK, linewidth=0.8)
    axes[0].set_title("mean latency / ours as it is")
    axes[1].set_title("misses more than ours as it is")
    axes[1].xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    for axis, origin in zip(axes, (1, 0), strict=True):
        axis.axvline(origin, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(labels)), labels if axis is axes[0] else [""] * len(labels))
        axis.invert_yaxis()
    figure.supxlabel("bars from light to dark: loads " + ", ".join(f"{load:g}" for load in loads), fontsize=8.5)
    return figure


def slo_figure(found):
    """Misses over the promised latency."""
    cells = by_cell(found, "slo", "policy", "load", "slo")
    loads = sorted({load for _, load, _ in cells})
    figure, axes = _panels(max(1, len(loads)))
    for axis, load in zip(axes, loads, strict=False):
        for policy in dict.fromkeys(p for p, l, _ in cells if l == load):
            slos = sorted(slo for p, l, slo in cells if (p, l) == (policy, load))
            points = [estimate([f["misses"] for f in cells[policy, load, slo].values()]) for slo in slos]
            _line(axis, slos, points, policy, _COLOURS.get(policy, SOFT))
        axis.set_xscale("log")
        axis.set_xticks(slos, [f"{slo:g}" for slo in slos])
        axis.set_title(f"deadlines missed, load {load:g}")
        axis.set_xlabel("promised latency, multiples of one sample alone")
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    return figure
