"""Pictures of measurements: cycles of every layer by cause, roofline, preemption latency; each as SVG and PNG."""

import matplotlib
import numpy as np
from fluidnpu.hw.isa import CAUSES
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from ..metrics import CAUSE_MEANING
from ..report.style import CAUSE_COLOURS, INK, LINE_COLOURS, RC, SOFT, VERMILLION
from ..report.words import tick_text
from .measure import whole_layers

__all__ = ["causes_picture", "preemption_picture", "roofline_picture", "save"]

WIDTH = 11.0  # inches
NAME = 46  # letters of a layer's name that are shown
LABELLED = 6  # layers furthest below their roof, whose names the roofline shows
APART = (0.5, 0.06)  # decades of MACs per byte and per cycle that a name takes


def causes_picture(panels):
    """Cycles of every layer as a bar of its causes, one panel per measurement (same network, side by side).

    Parts of split layers are added up. panels : list of (title, Measurement)
    """
    panels = [(title, m, whole_layers(m)) for title, m in panels]
    layers = panels[0][2]
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 1.2 + 0.21 * len(layers)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, sharex=True, squeeze=False)[0]
        for axis, (title, m, layers) in zip(axes, panels, strict=True):
            rows = np.arange(len(layers))
            left = np.zeros(len(layers))
            for cause in CAUSES:
                width = np.array([layer.causes[cause] for layer in layers], float)
                label = f"{cause}: {CAUSE_MEANING[cause]}" if axis is axes[0] else None
                axis.barh(rows, width, left=left, height=0.78, color=CAUSE_COLOURS[cause], label=label)
                left += width
            for row, layer in zip(rows, layers, strict=True):
                if layer.macs:
                    note = f" {layer.utilisation:.0%}"
                    axis.text(left[row], row, note, va="center", fontsize=7, color=INK)
            axis.set_title(f"{title}: {m.cycles:,} cycles, {m.utilisation:.1%} of MAC peak")
            axis.set_yticks(rows, [_short(layer.name) for layer in layers], fontsize=7)
            axis.tick_params(axis="y", length=0)
            axis.set_ylim(len(rows) - 0.4, -0.6)
            axis.set_xlabel("cycles; number: MAC utilisation of the layer")
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))
            axis.margins(x=0.09)
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    return figure


def roofline_picture(config, panels):
    """MACs per byte against MACs per cycle of every layer, with the machine's roofs, one panel per measurement.

    A byte is one of the busier direction: the bus moves ``bus_bytes`` each way in a cycle. A layer whose data were read
    in the time of the layer before can lie above the memory's roof. panels : list of (title,
    Measurement)
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, m) in zip(axes, panels, strict=True):
            _roofline(axis, config, m)
            axis.set_title(f"{m.network} on {config.name}, {title}")
        axes[0].set_ylabel("MACs per cycle")
    return figure


def bandwidth(config, memory):
    """Most bytes per cycle each way of a memory (dict of its settings)."""
    return config.bus_bytes * (memory["beats_per_256"] / 256 if memory["beats_per_256"] else 1)


def _roofline(axis, config, m):
    layers = [layer for layer in whole_layers(m) if layer.macs]
    x = np.array([layer.intensity for layer in layers])
    y = np.array([layer.macs / layer.cycles for layer in layers])
    speed, peak = bandwidth(config, m.memory), config.peak_macs
    vector = config.max_stack * config.lanes
    span = np.array([min(x.min(), peak / speed) / 2, max(x.max(), peak / speed) * 3])
    roof = np.minimum(peak, speed * np.geomspace(*span, 200))
    axis.plot(np.geomspace(*span, 200), roof, color=INK, linewidth=1.4)
    axis.text(span[1], peak, f"array: {peak} MACs ", ha="right", va="bottom", fontsize=8)
    axis.text(span[0], speed * span[0], f"  memory: {speed:g} bytes per cycle", va="top", fontsize=8)
    if any(layer.op == "DEPTHWISE" for layer in layers):
        axis.axhline(vector, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
        axis.text(span[1], vector, f"vector path: {vector} MACs ", ha="right", va="bottom", fontsize=8)
    size = 14 + 400 * np.array([layer.cycles for layer in layers]) / m.cycles
    for op, colour in (("CONV", LINE_COLOURS[0]), ("DEPTHWISE", LINE_COLOURS[4])):
        mine = [i for i, layer in enumerate(layers) if layer.op == op]
        if mine:
            axis.scatter(x[mine], y[mine], s=size[mine], color=colour, alpha=0.55, edgecolors="none", label=op)
    bound = np.minimum([vector if layer.op == "DEPTHWISE" else peak for layer in layers], speed * x)
    lost = np.array([layer.cycles for layer in layers]) - np.array([layer.macs for layer in layers]) / bound
    for i in _apart(np.argsort(-lost), np.log10(x), np.log10(y)):
        axis.annotate(_short(layers[i].name), (x[i], y[i]), xytext=(4, -7), textcoords="offset points", fontsize=6.5)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("MACs per byte of the busier direction; area: share of the cycles")
    axis.legend(loc="lower right", fontsize=8)


def _apart(order, x, y):
    """The first LABELLED of ``order`` whose names (right of their points, decades ``x`` and ``y``) do not overlap."""
    kept = []
    for i in order:
        if all(abs(x[i] - x[k]) > APART[0] or abs(y[i] - y[k]) > APART[1] for k in kept):
            kept.append(i)
    return kept[:LABELLED]


def preemption_picture(cycles, bound):
    """Histogram of preemption latencies (cycles)."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH * 0.6, 3.2), layout="constrained")
        axis = figure.subplots()
        axis.hist(cycles, bins=40, color=LINE_COLOURS[0])
        axis.axvline(max(cycles), color=VERMILLION, label=f"maximum {max(cycles):,}")
        axis.axvline(bound, color=INK, linestyle=(0, (1, 2)), label=f"bound {bound:,}")
        axis.set_xlabel("cycles from the commit's acceptance to the first MAC")
        axis.set_ylabel(f"of {len(cycles)} preemptions")
        axis.legend(fontsize=8)
    return figure


def save(figure, path):
    """Write ``path``.svg and ``path``.png; returns the name of the SVG file."""
    svg, png = (path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png"))
    with matplotlib.rc_context(RC | {"svg.hashsalt": path.name}):  # the same figures make the same file
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=120)
    return svg.name


def _short(name):
    return name if len(name) <= NAME else f"{name[: NAME // 2 - 1]}…{name[-NAME // 2 :]}"
