"""Workloads measured and judged: hit or miss, and where missed which causes eat the rest."""

import os
from dataclasses import dataclass
from pathlib import Path

from fluidnpu.hw.config import get_config

from ..compiled import compiled_program
from ..study import InputError, load_network
from .measure import Layer, Measurement, measure, whole_layers
from .workloads import MAC_USE, Workload

__all__ = ["REAL", "Outcome", "bus_of", "judge", "measure_workload", "network_of", "rest_of"]

REAL = "FLUIDNPU_REAL"  # environment variable: folder of real networks
MOST_CAUSES, MOST_LAYERS = 4, 3  # that an explanation names


def network_of(workload):
    """(graph.Network, remark) of a workload, (None, why) if it is left out; remark: "" or what stands in for it."""
    if not workload.network.endswith(".tflite"):
        return load_network(workload.network), ""
    folder = os.environ.get(REAL)
    if folder:
        path = Path(folder, workload.network)
        if not path.exists():
            raise InputError(f"{REAL}={folder}: there is no {workload.network}")
        return load_network(path), ""
    if workload.stand_in:
        return load_network(workload.stand_in), f"same shapes with random weights, since {REAL} is not set"
    return None, f"left out: {REAL} is not set, it names the folder with {workload.network}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A measured workload. runs : dict run name -> Measurement; rows : per goal a JSON-able dict of `judge`."""

    workload: Workload
    runs: dict
    rows: list


def measure_workload(workload, network, console, *, build=None, progress=None):
    """Outcome of a workload. network : graph.Network; build, progress : of measure.measure, the latter with the name
    of the run in front."""
    config, runs = get_config(workload.config), {}
    with console.status(f"{workload.title}: compiling for {config.name}") as status:
        program = compiled_program(config, network, status=status.update)
    for name, way in workload.runs.items():
        show = (lambda cycles, name=name: progress(f"{workload.title}, {name}", cycles)) if progress else None
        runs[name] = measure(config, program, build=build, progress=show, **way)
    return Outcome(workload, runs, judge(workload, runs))


def judge(workload, runs):
    """Per goal: what was aimed at, what was measured, and where the goal is missed what eats the rest."""
    rows, shown = [], runs[workload.shown[0]]
    for goal in workload.goals:
        value = goal.value(runs)
        verdict = goal.verdict(value)
        rows.append(
            {
                "workload": workload.title,
                "config": workload.config,
                "figure": goal.figure,
                "target": goal.target,
                "stretch": goal.stretch,
                "at_least": goal.at_least,
                "measured": value,
                "texts": [goal.text(v) if v is not None else "" for v in (goal.target, goal.stretch, value)],
                "verdict": verdict,
                "cycles": shown.cycles,
                "limited": runs["limited"].cycles / shown.cycles,
                "elsewhere": workload.elsewhere,
                "rtl": all(m.rtl for m in runs.values()),
                "rest": "" if verdict != "miss" else _rest(shown, goal),
            }
        )
    return rows


def _rest(m, goal):
    if goal.bus:
        return bus_of(m)
    return rest_of(m, goal.target if goal.figure == MAC_USE else None)


def bus_of(m: Measurement) -> str:
    """What a run that the bus bounds moves, client by client, in cycles of the bus."""
    beats = {client: count // get_config(m.config).bus_bytes for client, count in m.bytes.items()}
    reads = ", ".join(f"{name} {n:,}" for name, n in beats.items() if n and name != "write")
    rest = m.cycles - sum(n for name, n in beats.items() if name != "write")
    return f"{m.cycles:,} cycles with {m.live} live; the bus reads in {reads} of them, in {rest:,} it does not"


def rest_of(m: Measurement, target: float | None) -> str:
    """Which causes take the cycles that are not peak, in which layers, and what a utilisation ``target`` asks for."""
    layers = whole_layers(m)
    peak = m.macs / (m.utilisation * m.cycles)
    useful = m.macs / peak
    eaten = {cause: cycles for cause, cycles in m.causes.items() if cause != "array"}
    eaten["array busy without useful MACs (padding, unused columns)"] = m.causes["array"] - useful
    parts = []
    for cause, cycles in sorted(eaten.items(), key=lambda item: -item[1])[:MOST_CAUSES]:
        if cycles >= 0.005 * m.cycles:
            where = sorted(layers, key=lambda layer, cause=cause: -_eaten(layer, cause, peak))[:MOST_LAYERS]
            named = [f"{x.name} {_eaten(x, cause, peak):,.0f}" for x in where if _eaten(x, cause, peak) > 0.1 * cycles]
            parts.append(f"{cause} {100 * cycles / m.cycles:.1f} % ({', '.join(named)})" if named else cause)
    text = f"{m.cycles:,} cycles, {useful:,.0f} at peak; " + "; ".join(parts)
    if target is not None:
        most = useful / target
        text += f". The target needs {m.cycles - most:,.0f} cycles less"
    return text


def _eaten(layer: Layer, cause: str, peak: float) -> float:
    """Cycles of a layer that a cause of `rest_of` takes."""
    return layer.causes[cause] if cause in layer.causes else layer.causes["array"] - layer.macs / peak
