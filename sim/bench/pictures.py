"""Pictures of the benchmarks."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from fluidnpu.hw.isa import CAUSES

__all__ = ["draw_layers", "draw_preemption"]

# Okabe and Ito's colours, distinguishable with any colour vision
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#F0E442", "#CC79A7", "#999999", "#DDDDDD")


def draw_layers(results, path):
    """Cycles per sample of every layer, stacked by cause, for each number of live samples."""
    figures = results["layers_trunk"]
    fig, axes = plt.subplots(1, len(figures), figsize=(4 * len(figures), 4), sharey=True, squeeze=False)
    for ax, (live, rows) in zip(axes[0], figures.items(), strict=True):
        names = [r["layer"] for r in rows]
        bottom = [0.0] * len(rows)
        for cause, colour in zip(CAUSES, COLOURS, strict=True):
            heights = [r["causes"][cause] / int(live) for r in rows]
            ax.bar(names, heights, bottom=bottom, color=colour, label=cause)
            bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        for x, (r, top) in enumerate(zip(rows, bottom, strict=True)):
            if r["useful_macs"]:
                ax.text(x, top, f"{100 * r['utilisation']:.0f}%", ha="center", va="bottom", fontsize=7)
        ax.set_title(f"{live} live")
        ax.tick_params(axis="x", rotation=60)
    axes[0][0].set_ylabel("cycles per sample (label: MAC utilisation)")
    axes[0][-1].legend(fontsize=7)
    fig.suptitle(f"{results['network']} on {results['config']}, ideal memory: cycles by cause")
    fig.tight_layout()
    fig.savefig(path, dpi=120)
    plt.close(fig)


def draw_preemption(results, path):
    """Histogram of the preemption latency."""
    p = results["preemption"]
    fig, ax = plt.subplots(figsize=(6, 3.5))
    ax.hist(p["cycles"], bins=40, color=COLOURS[0])
    ax.axvline(max(p["cycles"]), color=COLOURS[2], label=f"maximum {max(p['cycles'])}")
    ax.set_xlabel("cycles from the commit's acceptance to the first MAC")
    ax.set_ylabel(f"of {p['moments']} preemptions")
    ax.legend()
    fig.tight_layout()
    fig.savefig(path, dpi=120)
    plt.close(fig)
