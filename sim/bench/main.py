"""All benchmarks of docs/benchmarks.md, one part after the other; each is printed and written when it is measured."""

import json

from ..npu_build import npu_build
from ..study import InputError
from ..synthesis import GOLDEN, TARGET
from ..synthesis_flow import RESOURCES
from .digits import Digits, bench_ablation, bench_layers, bench_preemption, bench_speed, speed_text
from .goals import bench_workloads
from .pages import Section
from .results import Results
from .tables import Table

__all__ = ["CHOICE", "bench_all"]

CHOICE = ("workloads", "layers", "ablation", "preemption", "speed")


def bench_all(config, models, folder, console, *, parts=None, rtl=False, moments=500, seed=1):
    """Measure every part, or some (CHOICE); those of the digits network on the RTL of ``config``.

    models : folder of digits.tflite and digits_views.npz; folder : receives results.json, benchmarks.md, index.html and
    pictures; rtl : workloads on the RTL, too
    """
    if parts and (wrong := set(parts) - set(CHOICE)):
        raise InputError(f"unknown part {sorted(wrong)[0]!r}; there are {', '.join(CHOICE)}")
    results = Results(folder, fresh=not parts)
    for part, measured in (("whole", whole_networks(folder)), ("stacking", stacking())):
        if measured[0]:
            results.put(part, *measured)
    chosen = parts or CHOICE
    if "workloads" in chosen:
        bench_workloads(results, console, (lambda npu: npu_build(npu, status=console.print)) if rtl else None)
    digits = Digits(config, models, console)
    functions = {
        "layers": bench_layers,
        "ablation": bench_ablation,
        "speed": bench_speed,
        "preemption": lambda digits, folder: bench_preemption(digits, folder, moments, seed),
    }
    for part, function in functions.items():
        if part in chosen:
            sections, data = function(digits, folder)
            results.put(part, sections, data)
            _tell(console, sections)
    console.print(f"Written: {folder}/index.html, benchmarks.md, results.json, pictures", soft_wrap=True)


def _tell(console, sections):
    for section in sections:
        console.print(f"[bold]{section.title}[/]", soft_wrap=True)
        for table in section.tables:
            console.print(table.narrow().to_rich())
        for text in section.texts:
            console.print(text + "\n", soft_wrap=True)


def whole_networks(folder):
    """(Sections, numbers) of whole networks on the RTL that `fluidnpu run --out FOLDER/run-*.json` has measured."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("run-*.json"))]
    sections = []
    for run in runs:
        network, config, cycles = run["network"], run["config"], sum(run["cycles"])
        command = f"fluidnpu run {network} --config {config} --bare --out build/bench/run-{network}-{config}.json"
        text = f"{cycles:,} cycles in {run['seconds']:.0f} s of real time; every output equals the reference."
        texts = [text, speed_text(run["speed"])] if run["speed"] else [text]
        sections.append(Section(f"Whole {network} on the RTL of {config}", command, texts))
    return sections, runs


def stacking():
    """(Sections, numbers): what run-time stacking costs, as `make synth-check` holds it."""
    golden = json.loads(GOLDEN.read_text())
    rows = []
    for name, sides in golden.items():
        a, b, ratio = (sides[side] for side in ("stackable", "max_stack 1", "ratio"))
        rows.append((name, *(f"{a[r]:,} / {b[r]:,} ({ratio[r]:.3f})" for r in RESOURCES)))
    name, most = TARGET
    luts, multipliers = (golden[name]["ratio"][r] for r in ("LUT", "DSP"))
    text = (
        f"Stackable / max_stack = 1 (ratio), Yosys synth_xilinx, no place and route. Target on {name}: at most {most} "
        f"of the LUTs ({'hit' if luts <= most else 'missed'}), no more DSPs "
        f"({'hit' if multipliers <= 1 else 'missed'})."
    )
    table = Table("", ("configuration", *RESOURCES), rows)
    return [Section("Price of stacking", "make synth-check", [text], [table])], golden
