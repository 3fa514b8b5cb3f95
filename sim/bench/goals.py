"""The part "workloads": speed of the machine against its targets."""

from fluidnpu.hw.config import get_config

from ..memory import IDEAL
from ..rtl_progress import CycleProgress
from .judgement import measure_workload, network_of
from .network import write_network_page
from .pages import Section
from .tables import Table, causes_text, percent, run_name
from .workloads import WORKLOADS, fully_connected_bound

__all__ = ["bench_workloads"]

COMMAND = "FLUIDNPU_REAL=FOLDER fluidnpu bench --part workloads      # --rtl: the same on the RTL, compared"


MEANING = (
    "Gain by stacking: cycles unstacked / stacked, on the same netlist. Cost of latency 100: cycles at memory latency "
    "100 against those at 32. Above the bus bound: cycles against (unpadded weight and parameter bytes) / bus, the "
    "worst of 1 to 16 live."
)


def bench_workloads(results, console, builds=None, workloads=WORKLOADS):
    """Measure every workload; prints each as soon as it is measured.

    builds : function (NpuConfig) -> Build on which the same is done (`measure.measure`), or None
    """
    rows, outcomes, notes = [], [], []

    def progress(name, cycles):
        return CycleProgress(console, name, cycles)

    for workload in workloads:
        network, remark = network_of(workload)
        name = f"{workload.title} on {workload.config}"
        if remark:
            notes.append(f"{name}: {remark}.")
            console.print(notes[-1], soft_wrap=True)
        if network is None:
            rows += [_left_out(workload, goal) for goal in workload.goals]
            continue
        config = get_config(workload.config)
        build = builds(config) if builds else None
        outcome = measure_workload(workload, network, console, build=build, progress=progress if build else None)
        outcomes.append(outcome)
        rows += outcome.rows
        for row in outcome.rows:
            colour = "red" if row["verdict"] == "miss" else "green"
            figure = f"{row['figure']} {row['texts'][2]}, target {_aim(row)}"
            console.print(f"[{colour}]{row['verdict']}[/]: {name}, {figure}", soft_wrap=True)
            if row["rest"]:
                console.print(f"  {row['rest']}", soft_wrap=True)
        with console.status(f"{name}: drawing"):
            drawn = [outcome.runs[run] for run in workload.shown]
            write_network_page(config, list(outcome.runs.values()), results.folder / workload.key, drawn)
        results.put("workloads", _sections(rows, outcomes, notes), {"goals": rows, "runs": _numbers(outcomes)})
    console.print(_goals_table(rows).narrow().to_rich())
    return rows


def _numbers(outcomes):
    return {o.workload.key: {name: m.as_dict() for name, m in o.runs.items()} for o in outcomes}


def _left_out(workload, goal):
    texts = [goal.text(goal.target), goal.text(goal.stretch) if goal.stretch is not None else "", "-"]
    said = {"workload": workload.title, "config": workload.config, "figure": goal.figure, "texts": texts}
    return said | {"at_least": goal.at_least, "verdict": "left out", "rest": "", "elsewhere": workload.elsewhere}


def _aim(row):
    target, stretch, _ = row["texts"]
    return f"{'>=' if row['at_least'] else '<='} {target}" + (f" ({stretch})" if stretch else "")


def _goals_table(rows):
    shown = [
        (row["workload"], row["config"], row["figure"], _aim(row), row["texts"][2], row["verdict"], row["elsewhere"])
        for row in rows
    ]
    header = ("workload", "configuration", "figure", "target (stretch)", "measured", "verdict", "known elsewhere")
    return Table("", header, shown)


def _misses(rows):
    for row in rows:
        if row["verdict"] == "miss":
            yield f"Missed: {row['workload']} on {row['config']}, {row['figure']}, {row['texts'][2]}. {row['rest']}."


def _runs(outcomes):
    rows = []
    for o in outcomes:
        for name in dict.fromkeys((*o.workload.runs, *o.workload.shown)):
            m = o.runs[name]
            if name.startswith("live") and name not in o.workload.shown:
                continue
            latency = m.memory["read_latency"]
            run = run_name(m) + (f", latency {latency}" if latency != IDEAL.read_latency else "")
            moved = sum(m.bytes.values())
            bursts = " + ".join(f"{m.bursts[way]:,} x {m.burst_beats[way]:.1f}" for way in ("read", "write"))
            cells = (f"{m.cycles:,}", percent(m.utilisation), causes_text(m.causes, m.cycles), f"{moved:,}", bursts)
            rows.append((f"{o.workload.title.partition(',')[0]} on {m.config}", run, *cells))
    header = ("workload", "run", "cycles", "MAC use", "cycles by cause", "bus bytes", "bursts x beats, read + write")
    return Table("", header, rows)


def _bound(outcome):
    """The fully connected layer, for every number of samples."""
    config = get_config(outcome.workload.config)
    inputs, outputs = (int(n) for n in outcome.workload.network.split("-")[1:])
    bound = fully_connected_bound(config, inputs, outputs)
    rows = [
        (f"{m.live}", f"{m.cycles:,}", f"{100 * (m.cycles / bound - 1):.1f} %", causes_text(m.causes, m.cycles))
        for name, m in outcome.runs.items()
        if name.startswith("live")
    ]
    return Table("", ("live", "cycles", f"above the bound of {bound:,.0f} cycles", "cycles by cause"), rows)


def _sections(rows, outcomes, notes):
    misses = list(_misses(rows))
    hits = sum(row["verdict"].startswith("hit") for row in rows)
    same = outcomes and all(row["rtl"] for o in outcomes for row in o.rows)
    proof = " The RTL did the same in every run." if same else ""
    texts = [MEANING, *notes, f"{hits} of {len(rows)} targets are hit.{proof}", *misses]
    pictures = [
        f"{o.workload.key}/{o.runs[o.workload.shown[0]].live}-live-{kind}.svg"
        for o in outcomes
        for kind in ("causes", "roofline")
    ]
    sections = [
        Section("Speed of the machine, against its targets", COMMAND, texts, [_goals_table(rows)]),
        Section("The same runs: causes, bus, limited memory", COMMAND, [], [_runs(outcomes)], pictures),
    ]
    for o in outcomes:
        if o.workload.network.startswith("fc-"):
            sections.append(Section(f"{o.workload.title} on {o.workload.config}", COMMAND, [], [_bound(o)]))
    return sections
