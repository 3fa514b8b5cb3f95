"""What the command line prints: tables of runs, of compiled layers and of single answers."""

from fluidnpu.hw.isa import CAUSES, EngineEvent
from fluidnpu.nn.exits import confidence
from rich.box import SIMPLE_HEAD
from rich.table import Table

from .metrics import measure
from .replay import ENGINE_PORT

__all__ = ["answers_table", "layers_table", "runs_table"]


def runs_table(records):
    """One column per run, one row per figure; fits 80 characters with six runs."""
    title = f"{records[0].network} on {records[0].config}; latencies in cycles"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    figures = [measure(r) for r in records]
    table.add_column("", no_wrap=True)
    for i, r in enumerate(records):
        first = i == 0 or records[i - 1].traffic != r.traffic
        table.add_column(f"{r.traffic if first else ''}\n{r.policy}", justify="right")

    def row(name, values, **style):
        table.add_row(name, *values, **style)

    row("requests", [f"{m.requests:,}" for m in figures])
    for name in ("mean", "p50", "p95", "p99"):
        label = f"{name if name == 'mean' else name.upper()} latency"
        row(label, [f"{getattr(m, name):,.0f}" for m in figures], style="bold")
    row("SLO misses", ["-" if m.misses is None else _percent(m.misses) for m in figures], style="bold")
    if any(m.dropped for m in figures):
        row("dropped", [f"{m.dropped}" for m in figures])
    row("accuracy", ["-" if m.accuracy is None else _percent(m.accuracy) for m in figures])
    for e in range(max(len(m.exits) for m in figures)):
        row(f"left at exit {e + 1}", [_percent(m.exits[e]) if e < len(m.exits) else "-" for m in figures])
    row("mean batch", [f"{m.mean_batch:.2f}" for m in figures])
    row("preemptions", [f"{m.preemptions}" for m in figures])
    row("MAC utilisation", [_percent(m.utilisation) for m in figures], end_section=True)
    row("1000 cycles", [f"{m.cycles / 1000:,.0f}" for m in figures])
    for cause in CAUSES:
        row(f"  {cause}", [_percent(m.causes[cause]) for m in figures], style="dim")
    return table


def layers_table(program):
    """Operations of a Program: MACs, and mapping and estimated cycles for 1, 2, ... live samples."""
    samples = max((len(op.variants) for op in program.ops), default=1)
    shown = [n for n in (1, 2, 4, 8, 16) if n <= samples]
    table = Table(
        title=f"{program.name} for {program.config_name}: mapping kr x kd and estimated cycles by live samples",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("operation", "head", "MACs"):
        table.add_column(name, justify="right" if name == "MACs" else "left")
    for n in shown:
        table.add_column(f"{n}", justify="right", no_wrap=True)
    for op in program.ops:
        head = op.exit if op.op in ("EXIT", "JUMP") else op.head
        cells = [f"{v['kr']}x{v['kd']} {v['cycles']:,}" for v in (op.variants[n - 1] for n in shown if op.variants)]
        table.add_row(op.name, f"{head + 1}" if head >= 0 else "", f"{op.macs:,}" if op.macs else "", *cells)
    totals = [sum(op.variants[n - 1]["cycles"] for op in program.ops if op.variants) for n in shown]
    table.add_section()
    table.add_row("all", "", f"{sum(op.macs for op in program.ops):,}", *(f"{t:,}" for t in totals))
    return table


def answers_table(record, limits, names=None):
    """What every exit said of every request of a serial run in which no sample left early.

    limits : of the exits; the first exit whose S is at most its limit is marked. names : dict id -> name of the image
    """
    table = Table(title=f"{record.network} on {record.config}; * the exit that the thresholds take", box=SIMPLE_HEAD)
    for name in ("image", "label", "exit", "class", "confidence", "cycles"):
        table.add_column(name, justify="left" if name == "image" else "right")
    events = record.events[record.events["source"] == ENGINE_PORT]
    decided = events[events["kind"] == EngineEvent.EXIT_RESULT]
    for r in record.results:
        mine = decided[(decided["cycle"] >= r.admitted) & (decided["cycle"] <= r.completed)]
        taken = False
        for i, event in enumerate(mine):
            exit, top, spread = int(event["data"]) >> 20 & 15, int(event["data"]) & 0xFFFF, int(event["data2"])
            mark = not taken and (spread <= limits[exit] or exit == len(limits) - 1)
            taken |= mark
            label = str(record.labels.get(r.id, "")) if i == 0 else ""
            image = str((names or {}).get(r.id, r.id)) if i == 0 else ""
            share = f"{confidence(spread):.3f}"
            cells = [f"{exit + 1}{' *' if mark else '  '}", str(top), share, f"{int(event['cycle']) - r.admitted:,}"]
            table.add_row(image, label, *cells, end_section=i == len(mine) - 1)
    return table


def _percent(share):
    return f"{100 * share:.1f}%"
