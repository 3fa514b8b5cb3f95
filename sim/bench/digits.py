"""The parts that are measured on the RTL with the project's own network: layers, ablation, preemption, speed."""

import numpy as np
from fluidnpu.nn.compiler import CompileOptions
from fluidnpu.nn.exits import limit_of
from fluidnpu.nn.tflite_reader import read_network

from ..compiled import compiled_program
from ..memory import IDEAL
from ..npu_build import bare_build, npu_build
from ..speed import measure_speed
from .ablation import ablation
from .feeding import packed
from .measure import measure
from .pages import Section
from .pictures import causes_picture, preemption_picture, save
from .preemption import overhead_bound, preemption_bound, preemption_latencies
from .tables import Table, layers_table, percent, run_name

__all__ = ["Digits", "bench_ablation", "bench_layers", "bench_preemption", "bench_speed", "speed_text"]

LIVE, LIVE_WITH_HEADS = (1, 2, 4, 8), (1, 4)
IMAGES = 64
THRESHOLD = 0.8
WIDE_TARGET, WIDE_LIVE, WIDE_CHANNELS = 0.85, 4, 16
SPEED_TARGET, AWAKE_TARGET, PREEMPTION_TARGET = 0.85, 0.01, 0.01


class Digits:
    """The digits network on one configuration, and the simulator, built when it is first needed."""

    def __init__(self, config, models, console):
        self.config, self.console = config, console
        network = read_network(models / "digits.tflite")
        self.exits = (1 << len(network.ends)) - 1
        limits = (limit_of(THRESHOLD),) * len(network.ends)
        with console.status("compiling digits.tflite") as status:
            self.program = compiled_program(config, network, CompileOptions(limits=limits), status.update)
        with np.load(models / "digits_views.npz") as views:
            self.images = packed(self.program, views["x"][:IMAGES])

    def build(self):
        return npu_build(self.config, status=self.console.print)

    def command(self, part):
        return f"fluidnpu bench --part {part} --config {self.config.name}"


def bench_layers(digits, folder):
    """(Sections, JSON-able numbers) of every layer, for some numbers of samples; the cycle model must say the same."""
    config, program = digits.config, digits.program
    build, found = digits.build(), {0: [], digits.exits: []}
    for exits, counts in ((0, LIVE), (digits.exits, LIVE_WITH_HEADS)):
        for live in (n for n in counts if n <= config.slots):
            with digits.console.status(f"layers on the RTL, {live} live"):
                found[exits].append(measure(config, program, live, exits=exits, build=build))
    trunk, heads = found[0], found[digits.exits]
    pictures = [save(causes_picture([(run_name(m), m)]), folder / f"digits-{m.live}-live") for m in trunk]
    where, command = f"digits on {config.name}", digits.command("layers")
    proof = "On the RTL; the cycle model says the same, event by event."
    sections = [
        Section(f"{where}, heads jumped over", command, [proof, *_wide(trunk)], _tables(trunk), pictures),
        Section(f"{where}, every head computed, nobody leaves", command, [proof], _tables(heads)),
    ]
    return sections, {"trunk": [m.as_dict() for m in trunk], "heads": [m.as_dict() for m in heads]}


def _tables(measurements):
    return [layers_table(m) for m in measurements]


def _wide(measurements):
    """How many of the layers that should be near the peak are."""
    m = next((m for m in measurements if m.live == WIDE_LIVE), None)
    if m is None:
        return []
    wide = [x for x in m.layers if x.macs and x.kernel == (3, 3) and x.in_channels >= WIDE_CHANNELS]
    missed = [f"{x.name} {percent(x.utilisation)}" for x in wide if x.utilisation < WIDE_TARGET]
    reached = f"reached by all {len(wide)}" if not missed else f"missed by {', '.join(missed)} of {len(wide)}"
    kind = f"3x3 layers with {WIDE_CHANNELS} or more input channels"
    return [f"Target: {kind} at {percent(WIDE_TARGET, 0)} of peak with {WIDE_LIVE} live samples: {reached}."]


def bench_ablation(digits, folder):
    """(Section, numbers): rigid or fluid, unstacked or stacked."""
    build = digits.build()
    with digits.console.status("rigid / fluid x unstacked / stacked, on the RTL"):
        rows = ablation(build, digits.config, digits.program, digits.images)
    table = []
    for r in rows:
        modes = "rigid" if r["rigid"] else "fluid", "unstacked" if r["unstacked"] else "stacked"
        table.append((*modes, f"{r['cycles']:,}", f"{r['speedup']:.2f}"))
    what = f"the same {len(digits.images)} images at threshold {THRESHOLD} on {digits.config.name}, one netlist"
    table = Table("", ("batching", "array", "cycles", "speed-up"), table)
    return [Section(f"Ablation: {what}", digits.command("ablation"), [], [table])], rows


def bench_preemption(digits, folder, moments, seed):
    """(Section, numbers): latency of ``moments`` preemptions at random times."""
    config, program = digits.config, digits.program
    build = digits.build()
    with digits.console.status(f"preemption at {moments} random moments, on the RTL"):
        cycles = preemption_latencies(build, config, program, digits.images, moments, seed)
    alone = measure(config, program, 1).cycles
    tile, load = max(op.tile_cycles for op in program.ops), max(op.load_beats for op in program.ops)
    overhead, bound, most = overhead_bound(config, IDEAL), preemption_bound(config, program), int(cycles.max())
    quantiles = ", ".join(f"P{q} {int(np.percentile(cycles, q)):,}" for q in (5, 50, 95, 99))
    texts = [
        f"{moments} random moments (seed {seed}): mean {cycles.mean():,.0f}, {quantiles}, maximum {most:,} cycles.",
        f"The maximum is {percent(most / alone)} of one sample's pass through the trunk ({alone:,} cycles); target "
        f"{percent(PREEMPTION_TARGET, 0)}: {'hit' if most <= PREEMPTION_TARGET * alone else 'missed'}. "
        "A tile cannot be shorter than its weights take on the bus: see docs/architecture.md, Preemption.",
        f"Bound: longest tile {tile:,} + longest stripe load {load:,} + overhead {overhead:,} = {bound:,} cycles; "
        f"{'never' if most <= bound else 'SOMETIMES'} above it.",
    ]
    pictures = [save(preemption_picture(cycles, bound), folder / "preemption")]
    title = f"Preemption on {config.name}: from the commit's acceptance to the first MAC of the preempting sample"
    data = {"moments": moments, "seed": seed, "cycles": cycles.tolist(), "bound": bound, "network_cycles": alone}
    return [Section(title, digits.command("preemption"), texts, [], pictures)], data


def bench_speed(digits, folder):
    """(Section, numbers): the co-simulation beside a bare Verilator run of the same cycles."""
    config = digits.config
    build, bare = digits.build(), bare_build(config, status=digits.console.print)
    arguments = {"program": digits.program, "slots": config.slots, "images": digits.images, "memory": IDEAL}
    with digits.console.status("co-simulation beside the bare Verilator run"):
        function = "fluidnpu.sim.bench.ablation:run_images"
        speed = measure_speed(build, bare, function, rigid=False, unstacked=False, **arguments)
    if not speed.same:
        raise AssertionError("the run without Python did something else than the co-simulation")
    title = f"Speed of the simulation: {len(digits.images)} images of digits on {config.name}"
    return [Section(title, digits.command("speed"), [speed_text(speed.as_dict())])], speed.as_dict()


def speed_text(s):
    """A SpeedReport (as dict) in words, with its targets."""
    hit = "hit" if s["ratio"] >= SPEED_TARGET else "missed"
    awake = "hit" if s["python_cycles"] < AWAKE_TARGET else "missed"
    return (
        f"{s['cycles']:,} cycles, the same memory, events and bus responses on both sides: co-simulation "
        f"{s['cosimulation'] / 1e3:,.0f} k cycles/s, bare Verilator {s['bare'] / 1e3:,.0f} k cycles/s (of processor "
        f"time), ratio {s['ratio']:.2f}, target {SPEED_TARGET}: {hit}. Python awake in "
        f"{percent(s['python_cycles'], 3)} of the cycles, target below {percent(AWAKE_TARGET, 0)}: {awake}."
    )
