"""The benchmarks as Markdown tables."""

import numpy as np
from fluidnpu.hw.isa import CAUSES

__all__ = ["markdown"]

TARGET_UTILISATION = 0.85
TARGET_LIVE = 4
TARGET_SPEED = 0.85
TARGET_AWAKE = 0.01
TARGET_PREEMPTION = 0.01


def markdown(results):
    """All figures of ``results`` (bench.main)."""
    parts = [f"Configuration {results['config']}, network {results['network']}, ideal memory.\n"]
    for key, title in (
        ("layers_trunk", "Layers, exits disabled (heads are jumped over)"),
        ("layers_with_heads", "Layers, every head computed, nobody leaves"),
    ):
        for live, rows in results[key].items():
            parts.append(_layers(f"{title}: {live} live", rows))
    parts.append(_target(results["layers_trunk"]))
    parts.append(_ablation(results["ablation"]))
    parts.append(_preemption(results["preemption"]))
    parts.append(_speed(results["speed"]))
    return "\n".join(parts)


def _table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(x) for x in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _layers(title, rows):
    table = []
    for r in rows:
        causes = ", ".join(f"{c} {r['causes'][c]}" for c in CAUSES if r["causes"][c])
        table.append(
            (
                r["layer"],
                "/".join(r["modes"]),
                r["tiles"],
                r["cycles"],
                f"{100 * r['utilisation']:.1f} %",
                f"{r['ctiles_exact']}/{r['ctiles']}",
                causes,
            )
        )
    total = sum(r["cycles"] for r in rows)
    useful = sum(r["useful_macs"] for r in rows)
    peak = sum(r["cycles"] * r["utilisation"] for r in rows) / total if useful else 0
    table.append(("all", "", sum(r["tiles"] for r in rows), total, f"{100 * peak:.1f} %", "", ""))
    header = ("layer", "kr x kd", "tiles", "cycles", "MAC utilisation", "c-tiles as formula", "cycles by cause")
    return f"### {title}\n\n" + _table(header, table)


def _target(layers):
    rows = layers.get(TARGET_LIVE)
    if rows is None:
        return ""
    wide = [r for r in rows if r["kernel"] == [3, 3] and r["in_channels"] >= 16]
    missed = [f"{r['layer']} {100 * r['utilisation']:.1f} %" for r in wide if r["utilisation"] < TARGET_UTILISATION]
    reached = "reached by all" if not missed else "missed by " + ", ".join(missed)
    return (
        f"Target: 3x3 layers with 16 or more input channels at {100 * TARGET_UTILISATION:.0f} % of peak with "
        f"{TARGET_LIVE} live samples: {reached} ({len(wide)} layers).\n"
    )


def _ablation(rows):
    table = [
        (
            "rigid" if r["rigid"] else "fluid",
            "unstacked" if r["unstacked"] else "stacked",
            r["cycles"],
            f"{r['speedup']:.2f}",
        )
        for r in rows
    ]
    return "### Ablation: the same 64 images, one netlist\n\n" + _table(
        ("batching", "array", "cycles", "speed-up"), table
    )


def _preemption(p):
    cycles = np.array(p["cycles"])
    share = cycles.max() / p["network_cycles"]
    quantiles = ", ".join(f"P{q} {int(np.percentile(cycles, q))}" for q in (5, 50, 95, 99))
    return (
        "### Preemption latency: commit accepted to first MAC of the preempting sample\n\n"
        f"{p['moments']} random moments: mean {cycles.mean():.0f}, {quantiles}, maximum {cycles.max()} cycles; "
        f"the maximum is {100 * share:.1f} % of one sample's pass through the trunk ({p['network_cycles']} cycles), "
        f"target {100 * TARGET_PREEMPTION:.0f} %. Bound: longest tile {p['longest_tile']} + longest stripe load "
        f"{p['longest_load']} + overhead {p['overhead']} = {p['bound']} cycles; "
        f"{'never' if cycles.max() <= p['bound'] else 'SOMETIMES'} above it.\n"
    )


def _speed(s):
    return (
        "### Speed of the simulation\n\n"
        f"{s['cycles']} cycles: co-simulation {s['cosimulation'] / 1e3:.0f} k cycles/s, bare Verilator "
        f"{s['bare'] / 1e3:.0f} k cycles/s, ratio {s['ratio']:.2f} (target {TARGET_SPEED}); Python awake in "
        f"{100 * s['python_cycles']:.3f} % of the cycles (target below {100 * TARGET_AWAKE:.0f} %).\n"
    )
