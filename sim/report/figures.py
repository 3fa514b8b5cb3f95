"""Pictures that compare records: latencies, where the cycles went, exits."""

from collections import Counter
from itertools import cycle

import numpy as np
from fluidnpu.hw.isa import CAUSES
from fluidnpu.sim.metrics import CAUSE_MEANING
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from .style import CAUSE_COLOURS, INK, LINE_COLOURS, PAPER, SOFT, VERMILLION, shades
from .words import tick_text

__all__ = ["causes_figure", "exits_figure", "latency_figure", "promised"]

WIDTH = 11.0
LEFT = 2.3  # inches for the names of bars
BAR = 0.30  # inches per bar
LABELLED = 0.06  # least share with its number written in the bar


def promised(record):
    """Cycles from arrival to deadline, if every request has the same; else None."""
    spans = {None if r.deadline is None else r.deadline - r.arrival for r in record.results}
    return spans.pop() if len(spans) == 1 else None


def latency_figure(records, labels):
    """Share of all requests that are answered within so many cycles; one panel per scenario."""
    scenarios = list(dict.fromkeys(label.scenario for label in labels))
    columns = min(2, len(scenarios))
    rows = -(-len(scenarios) // columns)
    figure = Figure(figsize=(WIDTH, 3.1 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    names = list(dict.fromkeys(label.series for label in labels))
    styles = dict(zip(names, zip(cycle(LINE_COLOURS), _dashes(len(names)), strict=False), strict=False))
    lines = {}
    for axis, scenario in zip(axes, scenarios, strict=False):
        mine = [(r, label) for r, label in zip(records, labels, strict=True) if label.scenario == scenario]
        times = [np.sort([r.latency for r in record.results if r.ok]) for record, _ in mine]
        some = np.concatenate(times)
        for (record, label), latency in zip(mine, times, strict=True):
            if len(latency):
                share = np.arange(len(latency) + 1) / len(record.results)
                colour, dash = styles[label.series]
                x = np.concatenate([latency[:1], latency])
                (line,) = axis.step(x, share, where="post", color=colour, linestyle=dash, linewidth=1.6)
                lines.setdefault(label.series, line)
        if len(some) and some.min() > 0 and some.max() > 100 * some.min():
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_formatter(NullFormatter())
        elif len(some):
            axis.set_xlim(left=0)
        for slo in {promised(record) for record, _ in mine} - {None}:
            axis.axvline(slo, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
            axis.annotate("SLO", (slo, 0.03), xytext=(4, 0), textcoords="offset points", fontsize=8)
        axis.set_title(f"traffic: {scenario}")
        axis.set_ylim(0, 1.02)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.grid(color=SOFT, alpha=0.25, linewidth=0.6)
        axis.set_xlabel("cycles from arrival to decision")
    for axis in axes[len(scenarios) :]:
        axis.set_visible(False)
    axes[0].set_ylabel("requests answered")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(5, max(1, len(lines))))
    return figure


def _dashes(count):
    """The palette again with another dash when it is used up."""
    solid = len(LINE_COLOURS)
    return [("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))[i // solid % 4] for i in range(count)]


def causes_figure(records, labels, metrics):
    """Stacked bars: share of the cycles per cause, exclusive."""
    parts = [(f"{cause}: {CAUSE_MEANING[cause]}", CAUSE_COLOURS[cause]) for cause in CAUSES]
    shares = [[m["causes"][cause] for cause in CAUSES] for m in metrics]
    return _bars(labels, shares, parts, columns=4)


def exits_figure(records, labels):
    """Stacked bars: share of the requests per exit, and of those without an answer."""
    count = 1 + max([0, *(head for r in records for head in r.heads), *(x.exit for r in records for x in r.results)])
    colours = shades(count, low=0.25, high=0.9)
    parts = [(f"exit {e + 1}", colours[e]) for e in range(count)]
    shares = []
    for record in records:
        found = Counter(r.exit if r.ok else None for r in record.results)
        total = max(1, len(record.results))
        shares.append([found[e] / total for e in range(count)] + [found[None] / total])
    if any(share[-1] for share in shares):
        parts.append(("dropped or without an answer", VERMILLION))
    return _bars(labels, shares, parts, columns=min(6, len(parts)))


def _bars(labels, shares, parts, columns):
    """Horizontal stacked bars, one per record, a gap between scenarios; ``parts``: (name, colour)."""
    y, at, places, heads = [], 0.0, {}, []
    for i, label in enumerate(labels):
        places.setdefault(label.scenario, []).append(i)
    y = [0.0] * len(labels)
    for scenario, indices in places.items():
        if len(places) > 1:
            heads.append((at, scenario))
            at += 0.85
        for i in indices:
            y[i], at = at, at + 1
        at += 0.25
    legend = 0.2 * -(-len(parts) // columns) + 0.12
    height = BAR * at + 0.4 + legend
    figure = Figure(figsize=(WIDTH, height))
    box = (LEFT / WIDTH, (legend + 0.35) / height, (WIDTH - LEFT - 0.3) / WIDTH, BAR * at / height)
    axis = figure.add_axes(box)
    before = np.zeros(len(labels))
    for n, (name, colour) in enumerate(parts):
        width = np.array([share[n] for share in shares])
        axis.barh(y, width, left=before, height=0.72, color=colour, edgecolor=PAPER, linewidth=0.6, label=name)
        for row, (left, share) in enumerate(zip(before, width, strict=True)):
            if share >= LABELLED:
                axis.text(left + share / 2, y[row], f"{share:.0%}", fontsize=8, ha="center", va="center_baseline",
                          color=_readable(colour))  # fmt: skip
        before = before + width
    for place, scenario in heads:
        axis.text(-0.008, place, scenario, fontsize=9, fontweight="bold", ha="right", va="center",
                  transform=axis.get_yaxis_transform())  # fmt: skip
    axis.set_yticks(y, [label.series for label in labels])
    axis.set_ylim(at - 0.25, -0.55)
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    figure.legend(
        loc="lower center", borderaxespad=0.1, ncols=columns, fontsize=8.5, handlelength=1.2, columnspacing=1.4
    )
    return figure


def _readable(colour):
    """Black or white, whichever can be read on ``colour``."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 135 else "#ffffff"
