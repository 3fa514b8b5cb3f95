"""Colours and marks of every picture: safe for colour-blind readers, in dark and in light surroundings.

Pictures are drawn with `INK` on `PAPER`. `themed` turns these two into the page's own colours.
"""

import re

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.path import Path

__all__ = ["CAUSE_COLOURS", "INK", "LINE_COLOURS", "MARKS", "PAPER", "RC", "layer_colours", "shades", "themed"]

INK, PAPER, SOFT = "#1f2329", "#fefefe", "#8c959f"

# Okabe and Ito's palette
ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7",
)  # fmt: skip

# Work is dark and blue or green, waiting is warm, nothing to do is grey; in the order of isa.CAUSES.
CAUSE_COLOURS = {
    "array": BLUE,
    "vector": SKY,
    "weights": VERMILLION,
    "activations": ORANGE,
    "dependency": YELLOW,
    "output": PURPLE,
    "control": SOFT,
    "idle": "#d0d7de",
}
LINE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, SOFT)

# A triangle that begins where it points from, so that an exit at the same cycle does not hide it.
_ENTERS = Path([(0, -0.45), (1, 0), (0, 0.45), (0, -0.45)], closed=True)

# kind -> (marker, fill colour, edge colour, size in points, meaning)
MARKS = {
    "admission": (_ENTERS, PAPER, INK, 17, "admitted"),
    "preemption": ("s", VERMILLION, PAPER, 7.5, "preempted"),
    "merge": ("D", GREEN, PAPER, 7.5, "merge"),
    "passed": ("o", PAPER, INK, 7.5, "exit tried, goes on"),
    "exit": ("o", INK, PAPER, 10, "leaves at exit n"),
    "release": ("|", INK, INK, 12, "slot released"),
    "lost": ("X", VERMILLION, PAPER, 8, "cancelled or failed"),
}

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "svg.fonttype": "none",
    "hatch.linewidth": 0.6,
}

HEADS = "#cc79a7"


def shades(count, name="viridis", low=0.12, high=0.88):
    """``count`` colours of a map, from its ``low`` to its ``high`` end."""
    return [to_hex(colormaps[name](low + (high - low) * i / max(1, count - 1))) for i in range(count)]


def layer_colours(story):
    """pc -> colour: the trunk from dark blue to light green by depth, the heads of exits in one red purple."""
    pcs = story.layers()
    trunk = [pc for pc in pcs if story.head(pc) < 0]
    colours = dict(zip(trunk, shades(len(trunk)), strict=True))
    return {pc: colours.get(pc, HEADS) for pc in pcs}


def themed(svg):
    """An SVG picture for the inside of a page: no prologue, no metadata, the page's text and background colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="(figure|axes|patch|line2d|matplotlib\.axis|text|xtick|ytick|legend)_\d+"', "", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    svg = re.sub(r'<svg [^>]*?width="([\d.]+)pt" height="([\d.]+)pt"[^>]*>', _svg_tag, svg, count=1)
    return svg.replace(INK, "currentColor").replace(PAPER, "var(--paper)")


def _svg_tag(match):
    width, height = match.groups()
    return f'<svg viewBox="0 0 {width} {height}" role="img">'
