"""The timeline picture: which samples the NPU worked on, when, on which layer, and who was preempted, merged, left."""

from itertools import groupby

import numpy as np
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .moments import find_moment
from .style import BLUE, GREEN, INK, MARKS, PAPER, SOFT, VERMILLION, layer_colours
from .words import count_text, tick_text

__all__ = ["Marks", "collect_marks", "draw_timeline", "timeline_title"]

WIDTH = 13.0  # inches of the picture
PIXELS = 1800  # of an overview's lane
BAR_TOP, BAR_BOTTOM = -0.12, 0.40  # of a lane, downwards from its middle: marks above, bars below
MARK_AT = -0.31
MOST_OVERVIEW_MARKS = 120


class Marks(dict):
    """kind (a key of style.MARKS) -> [(cycle, slot, text in the mark)], what a picture of a Story marks."""


def collect_marks(story, begin=0, end=None):
    """Marks within ``begin``..``end`` (default: the whole run)."""
    end = story.cycles if end is None else end
    marks = Marks({kind: [] for kind in MARKS})

    def add(kind, cycle, slot, text=""):
        if begin <= cycle <= end:
            marks[kind].append((cycle, slot, text))

    for stay in story.stays:
        add("admission", stay.begin, stay.slot)
        if stay.status == "ok":
            add("release", stay.end, stay.slot)
        elif stay.status != "live":
            add("lost", stay.end, stay.slot)
    for wait in story.waits:
        add("preemption", wait.begin, wait.stay.slot)
    for merge in story.merges:
        for stay in merge.stays:
            add("merge", merge.cycle, stay.slot)
    for e in story.exits:
        add("exit" if e.left else "passed", e.cycle, e.stay.slot, str(e.exit + 1))
    return marks


def bubbles(story):
    """Stays that had lines in a tile after their decision: the NPU in rigid mode."""
    late = {id(v.stay) for v in story.visits if v.stay.decided is not None and v.tiles[-1][0].first > v.stay.decided}
    return [stay for stay in story.stays if id(stay) in late]


def draw_timeline(story, title):
    """Figure of a Story: an overview with the host's queue and the stretch that find_moment chooses."""
    moment = find_moment(story)
    colours = layer_colours(story)
    lanes = story.slots
    overview, closeup = (0.28 if lanes <= 8 else 0.19) * lanes + 0.3, (0.46 if lanes <= 8 else 0.36) * lanes + 0.55
    heights = [closeup, 0.34] if moment.whole else [overview, 0.75, closeup, 0.34]
    gaps = [0.10] if moment.whole else [0.12, 0.95, 0.10]
    top, bottom = 0.68, 1.6
    total = top + sum(heights) + sum(gaps) + bottom
    figure = Figure(figsize=(WIDTH, total))
    axes, y = [], top
    for height, gap in zip(heights, [*gaps, 0], strict=True):
        axes.append(figure.add_axes((0.075, 1 - (y + height) / total, 0.905, height / total)))
        y += height + gap
    figure.text(0.01, 1 - 0.12 / total, title, fontsize=13, fontweight="bold", va="top")
    if not moment.whole:
        _overview(axes[0], story, colours, moment)
        axes[0].set_title(
            f"The whole run, {len(story.tiles)} tiles. The stretch between the blue lines is shown below."
        )
        _queue(axes[1], story)
        axes[1].set_xlabel("cycles")
    close, array = axes[-2:]
    _closeup(close, story, colours, moment, figure)
    head = moment.text if moment.whole else f"Closer: {moment.text}"
    close.set_title(head, pad=6)
    _array(array, story, moment)
    array.set_xlabel("cycles")
    _legend(figure, story, colours, total)
    return figure


# --- panels ---------------------------------------------------------------------------------------------------


def _lanes(axis, story, begin, end):
    axis.set_xlim(begin, end)
    axis.set_ylim(story.slots - 0.5, -0.55)
    axis.set_yticks(range(story.slots), [f"slot {s}" for s in range(story.slots)])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    _cycle_axis(axis)


def _cycle_axis(axis):
    axis.xaxis.set_major_locator(MaxNLocator(9))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_text(value)))


def _overview(axis, story, colours, moment):
    _lanes(axis, story, 0, story.cycles)
    axis.tick_params(labelbottom=False)
    scale = PIXELS / max(1, story.cycles)
    picture = np.zeros((story.slots, PIXELS, 4))
    for stay in story.stays:
        picture[stay.slot, int(stay.begin * scale) : int(stay.end * scale) + 1] = to_rgba(SOFT, 0.25)
    for visit in story.visits:
        picture[visit.stay.slot, int(visit.begin * scale) : int(visit.end * scale) + 1] = to_rgba(colours[visit.pc])
    for slot in range(story.slots):
        extent = (0, story.cycles, slot + BAR_BOTTOM, slot + BAR_TOP)
        axis.imshow(picture[slot : slot + 1, :PIXELS], extent=extent, aspect="auto", interpolation="nearest")
    _lanes(axis, story, 0, story.cycles)
    marks = collect_marks(story)
    kinds = ("preemption", "merge")
    if sum(len(marks[kind]) for kind in kinds) <= MOST_OVERVIEW_MARKS:
        for kind in kinds:
            _mark(axis, kind, marks[kind], scale=0.6)
    axis.axvspan(moment.begin, moment.end, facecolor=BLUE, alpha=0.10, zorder=0)
    for x in (moment.begin, moment.end):
        axis.axvline(x, color=BLUE, linewidth=0.8)


def _queue(axis, story):
    for steps, colour, label, style in (
        (story.waiting(), VERMILLION, "waiting requests", "-"),
        (story.live(), BLUE, "samples in the NPU", "-"),
    ):
        x, level = zip(*steps, (story.cycles, steps[-1][1]), strict=True)
        axis.step(x, level, where="post", color=colour, linewidth=1.1, linestyle=style, label=label)
    axis.set_xlim(0, story.cycles)
    axis.set_ylim(bottom=0)
    axis.margins(y=0.15)
    axis.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axis.grid(axis="y", color=SOFT, alpha=0.3, linewidth=0.6)
    _cycle_axis(axis)
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, -0.95), ncols=2, fontsize=8)


def _closeup(axis, story, colours, moment, figure):
    begin, end = moment.begin, moment.end
    _lanes(axis, story, begin, end)
    axis.tick_params(labelbottom=False)
    pixel = (end - begin) / (WIDTH * 0.905 * 72)  # cycles per point
    height = BAR_BOTTOM - BAR_TOP
    for slot in range(story.slots):
        stays = [s for s in story.stays if s.slot == slot and s.end >= begin and s.begin <= end]
        bars = [(s.begin, s.end - s.begin) for s in stays]
        axis.broken_barh(bars, (slot + BAR_TOP, height), facecolor=SOFT, alpha=0.22, gid=f"stays-{slot}")
        tiles = [
            (tile, visit.pc)
            for visit in story.visits
            if visit.stay.slot == slot and visit.end >= begin and visit.begin <= end
            for tile, _ in visit.tiles
            if tile.end >= begin and tile.first <= end
        ]
        axis.broken_barh(
            [(tile.first, tile.end - tile.first) for tile, _ in tiles],
            (slot + BAR_TOP, height),
            facecolors=[colours[pc] for _, pc in tiles],
            edgecolor=PAPER,
            linewidth=[min(0.6, (tile.end - tile.first) / pixel / 12) for tile, _ in tiles] or 0,
            gid=f"tiles-{slot}",
        )
        idle = [(s.decided, s.end - s.decided) for s in bubbles(story) if s in stays]
        if idle:
            axis.broken_barh(
                idle, (slot + BAR_TOP, height), facecolor="none", edgecolor=PAPER, hatch="////", linewidth=0
            )
    for wait in story.waits:
        if wait.end >= begin and wait.begin <= end:
            y = wait.stay.slot + (BAR_TOP + BAR_BOTTOM) / 2
            axis.plot([wait.begin, wait.end], [y, y], color=VERMILLION, linewidth=1.4, linestyle=(0, (3, 2)))
    for merge in story.merges:
        slots = [stay.slot for stay in merge.stays]
        if begin <= merge.cycle <= end:
            axis.plot([merge.cycle] * 2, [min(slots) + MARK_AT, max(slots) + MARK_AT], color=GREEN, linewidth=1.2)
    marks = collect_marks(story, begin, end)
    for kind, places in marks.items():
        _mark(axis, kind, places)
    _names(axis, story, moment, marks, pixel)


def _mark(axis, kind, places, scale=1.0):
    marker, fill, edge, points, _ = MARKS[kind]
    if not places:
        return
    y = [slot + (0 if marker == "|" else MARK_AT) for _, slot, _ in places]
    points = points * (2.2 if marker == "|" else scale)
    colours = {"color": INK} if marker == "|" else {"facecolor": fill, "edgecolor": edge}
    axis.scatter(
        [cycle for cycle, _, _ in places], y, s=points**2, marker=marker, linewidth=1.1, zorder=5, clip_on=False,
        gid=f"mark-{kind}", **colours,
    )  # fmt: skip
    for (cycle, _, text), at in zip(places, y, strict=True):
        if text:
            colour = PAPER if fill == INK else INK
            axis.text(cycle, at + 0.01, text, fontsize=6, color=colour, ha="center", va="center_baseline", zorder=6)


def _names(axis, story, moment, marks, pixel):
    """Names of the requests in their lanes, where no mark is in the way."""
    for stay in story.stays:
        first, last = max(stay.begin, moment.begin), min(stay.end, moment.end)
        text = stay.request if stay.result is None else f"request {stay.request}"
        width = pixel * (5.0 * len(text) + 4)
        taken = sorted(c for places in marks.values() for c, slot, _ in places if slot == stay.slot)
        x = first + 7 * pixel
        for cycle in taken:
            if x - 10 * pixel < cycle < x + width:
                x = cycle + 11 * pixel
        if x + width <= last:
            axis.text(x, stay.slot + MARK_AT, text, fontsize=8, va="center", ha="left")


def _array(axis, story, moment):
    """What the array does: tiles, their stack mode written where there is room."""
    begin, end = moment.begin, moment.end
    tiles = [t for t in story.tiles if t.end >= begin and t.first <= end]
    modes = sorted({(t.kr, t.kd) for t in story.tiles})
    alpha = {mode: 0.18 + 0.5 * i / max(1, len(modes) - 1) for i, mode in enumerate(modes)}
    axis.broken_barh(
        [(t.first, t.end - t.first) for t in tiles],
        (0, 1),
        facecolors=[to_rgba(BLUE, alpha[t.kr, t.kd]) for t in tiles],
        edgecolor=PAPER,
        linewidth=[min(0.6, (t.end - t.first) / (end - begin) * 70) for t in tiles] or 0,
        gid="tiles-array",
    )
    for (kr, kd), run in groupby(tiles, key=lambda t: (t.kr, t.kd)):
        run = list(run)
        first, last = max(run[0].first, begin), min(run[-1].end, end)
        if last - first > 0.03 * (end - begin):
            axis.text((first + last) / 2, 0.48, f"{kr}×{kd}", fontsize=8, ha="center", va="center")
    axis.set_xlim(begin, end)
    axis.set_ylim(1, 0)
    axis.set_yticks([0.5], ["array"])
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    _cycle_axis(axis)


# --- legend ---------------------------------------------------------------------------------------------------


def _legend(figure, story, colours, total):
    pcs = list(colours)
    axis = figure.add_axes((0.075, 0.85 / total, 0.905, 0.16 / total))
    for i, pc in enumerate(pcs):
        axis.axvspan(i, i + 1, facecolor=colours[pc], edgecolor=PAPER, linewidth=0.8)
    axis.set_xlim(0, max(1, len(pcs)))
    every = -(-len(pcs) // 40)
    names = [story.layer(pc) if i % every == 0 else "" for i, pc in enumerate(pcs)]
    names = [name if len(name) <= 14 else f"{name[:6]}…{name[-7:]}" for name in names]
    tilted = max(map(len, names), default=0) * len(pcs) > 130
    axis.set_xticks(
        [i + 0.5 for i in range(len(pcs))], names, fontsize=8, rotation=35 if tilted else 0,
        ha="right" if tilted else "center", rotation_mode="anchor",
    )  # fmt: skip
    axis.set_yticks([0.5], ["layer"])
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)
    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=points * 0.9, markerfacecolor=fill,
               markeredgecolor=edge, label=meaning)
        for marker, fill, edge, points, meaning in MARKS.values()
    ]  # fmt: skip
    handles.append(Line2D([], [], color=VERMILLION, linestyle=(0, (3, 2)), label="waits, preempted"))
    handles.append(Patch(facecolor=SOFT, alpha=0.25, label="in the slot"))
    if bubbles(story):
        handles.append(
            Patch(facecolor=SOFT, alpha=0.6, edgecolor=PAPER, hatch="////", label="decided, goes on as bubble")
        )
    figure.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.52, 0.02 / total), ncols=10, fontsize=8,
                  handletextpad=0.5, columnspacing=1.2, handlelength=1.5)  # fmt: skip
    figure.text(
        0.98, 0.34 / total, "array: stack mode, row stacking × depth stacking", fontsize=8, ha="right", color=INK
    )


def timeline_title(story, label):
    """One line in plain words."""
    record = story.record
    answered = sum(r.ok for r in record.results)
    return (
        f"{label}: {answered} answers in {count_text(story.cycles)} cycles "
        f"on {story.slots} slots ({record.network} on {record.config})"
    )
