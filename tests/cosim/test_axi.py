"""The memory port: stalls of every channel and kind, error responses to every client, bursts outside of what is legal.

Whatever the memory does, the trace replays on the engine model; an error ends only the samples that it belongs to.
"""

import logging
from dataclasses import dataclass

import numpy as np
import pytest
from fault_checks import check_faults, descriptor, failure_bursts, mutated
from fault_host import FaultScenario, Window, play_faults
from fluidnpu.hw import isa
from fluidnpu.hw.isa import LAYERS, Code
from fluidnpu.sim.memory import CHANNELS, IDEAL, MemorySettings, Stall
from fluidnpu.sim.simulate import run_in_simulator
from networks import compiled, draw_network
from npu_checks import check_outcome
from npu_host import play_all
from scenarios import WILD, load, random_memory, samples_of, scenario

log = logging.getLogger(__name__)

STALLS = {
    "random": Stall("random", 0.5),
    "slow": Stall("slow", cycles=9),
    "burst": Stall("burst", 0.004, cycles=500),
}
KINDS = ("stripe", "residual", "logits", "write")  # of errors that belong to one sample
MOST_MACS = 200_000  # of the network: many samples run through it
# A host that nobody's end depends on: it admits, preempts, waits.
CALM = {"admit": 8, "batch": 3, "commit": 1, "nap": 6, "pop": 2}


@pytest.fixture(scope="module")
def network(tiny):
    """A small network of two exits with images, for ``tiny``; it adds a tensor that nothing else reads."""
    config, _ = tiny
    rng = np.random.default_rng(11)
    while True:
        drawn = compiled(draw_network(rng, exits=2, layers=2), config, rng)
        if _second_operands(drawn) and drawn.network.macs() < MOST_MACS:
            return drawn


def _stalled(stalls, seed):
    return MemorySettings(read_latency=20, write_latency=10, stalls=stalls, order="interleave", seed=seed)


def test_stalls(tiny, network, times):
    """Every channel alone under every kind of stall, then all of them together."""
    config, build = tiny
    chosen = [(f"{c} {kind}", {c: stall}) for c in CHANNELS for kind, stall in STALLS.items()]
    chosen += [(f"all {kind}", dict.fromkeys(CHANNELS, stall)) for kind, stall in STALLS.items()]
    rng = np.random.default_rng(1)
    cases = [
        scenario(config, [network], seed, samples=samples_of([network], 4, rng, 0xFFFF), memory=_stalled(stalls, seed))
        for seed, (_, stalls) in enumerate(chosen * times)
    ]
    outcomes = run_in_simulator(build, play_all, timeout=600 * times, scenarios=cases)
    cycles = {}
    for (name, _), case, outcome in zip(chosen * times, cases, outcomes, strict=True):
        try:
            check_outcome(config, [network], case, outcome)
        except Exception as error:
            error.add_note(f"stall {name}, seed {case.seed}")
            raise
        cycles[name] = outcome["latched"]
    log.info("cycles %s", cycles)


# --- error responses ------------------------------------------------------------------------------------------------


def _faults(config, programs, seed, samples, windows, weights=None, **options):
    loaded = tuple(load(c) for c in programs)
    rng = np.random.default_rng(seed)
    if "memory" not in options:
        options["memory"] = random_memory(rng)
    weights = weights or ({} if rng.random() < 0.4 else CALM)
    return FaultScenario(
        seed, loaded, samples, config.slots, config.bus_bytes, windows=tuple(windows), weights=weights,
        memory_bytes=1 << 20, **options,
    )  # fmt: skip


def _layers(network):
    """Operations that read and write tensors."""
    return [i for i, op in enumerate(network.program.ops) if op.op in {layer.name for layer in LAYERS}]


def _streamed(network):
    """Layers that have a weight stream."""
    return [i for i in _layers(network) if descriptor(network, i)["weight_beats0"]]


def _second_operands(network):
    """Operations that add a tensor which no operation reads as its input."""
    layers = {i: descriptor(network, i) for i in _layers(network)}
    inputs = {d["in_offset"] for d in layers.values()}
    return [i for i, d in layers.items() if d["residual"] and d["res_offset"] not in inputs]


def _sample_window(network, rng, kind, sample):
    """An error window of one sample that it cannot miss, and the code that it must fail with."""
    program = network.program
    bus = program.bus_bytes
    if kind == "logits":
        place = program.tensors[rng.choice([e.logits for e in program.exits])]
        at = int(rng.integers(place.channels))
        return Window(place.offset + at, 1, sample, write=False), Code.EXIT_READ
    layers = _second_operands(network) if kind == "residual" else _layers(network)
    d = descriptor(network, int(rng.choice(layers)))
    if kind == "residual":
        y, x, c = (int(rng.integers(d[n])) for n in ("out_h", "out_w", "out_channels"))
        at = d["res_offset"] + (y * d["res_line_beats"] + x * d["res_pixel_beats"]) * bus + c
        return Window(at, 1, sample, write=False), Code.RESIDUAL_READ
    if kind == "stripe":  # a whole image row: the uppermost one is read by any window
        return Window(d["in_offset"], d["in_line_beats"] * bus, sample, write=False), Code.STRIPE_READ
    y, x, c = (int(rng.integers(d[n])) for n in ("out_h", "out_w", "out_channels"))
    at = d["out_offset"] + (y * d["out_line_beats"] + x * d["out_pixel_beats"]) * bus + c
    return Window(at, 1, sample, read=False), Code.WRITE


def test_errors_of_one_sample(tiny, network, times):
    """Stripes, logits and writes of some samples fail; the others, and later ones in the same slots, are right."""
    config, build = tiny
    cases, expected = [], []
    for seed in range(5 * times):
        rng = np.random.default_rng(seed)
        samples = samples_of([network], 14, rng, 0xFFFF)
        windows, failing = [], {}
        for s in rng.choice(10, 5, replace=False).tolist():  # the last four find used slots
            kind = str(rng.choice(KINDS))
            window, failing[samples[s].tag] = _sample_window(network, rng, kind, s)
            windows.append(window)
        cases.append(_faults(config, [network], seed, samples, windows))
        expected.append(failing)
    _run(build, config, [[network]] * len(cases), cases, expected, 600 * times)


def test_errors_among_commands(tiny, network, times):
    """Errors while a random host cancels, lets leave, preempts and sends wrong commands."""
    config, build = tiny
    cases, expected = [], []
    for seed in range(50, 50 + 4 * times):
        rng = np.random.default_rng(seed)
        samples = samples_of([network], 14, rng, 0xFFFF)
        windows, failing = [], {}
        for s in rng.choice(14, 7, replace=False).tolist():
            kind = str(rng.choice(KINDS))
            window, failing[samples[s].tag] = _sample_window(network, rng, kind, s)
            windows.append(window)
        weights = {name: weight for name, weight in WILD.items() if name != "limit"}
        cases.append(_faults(config, [network], seed, samples, windows, weights=weights))
        expected.append(failing)
    _run(build, config, [[network]] * len(cases), cases, expected, 600 * times)


def _run(build, config, programs, cases, expected, timeout):
    """Play the cases in one simulator and check them; returns outcomes and stories."""
    outcomes = run_in_simulator(build, play_faults, timeout=timeout, scenarios=cases)
    stories = []
    for case, mine, outcome, failing in zip(cases, programs, outcomes, expected, strict=True):
        try:
            stories.append(check_faults(config, mine, case, outcome, failing))
        except Exception as error:
            error.add_note(f"seed {case.seed}, windows {case.windows}, failing {failing}")
            raise
    return outcomes, stories


@dataclass(frozen=True)
class _Shared:
    """Windows in a program's region, and how its samples fail."""

    kind: str
    op: int
    windows: tuple
    code: Code


def _shared_windows(network, rng, kind):
    """A descriptor, the weight streams of a layer or the table of an exit, each answered by one error."""
    program, bus = network.program, network.program.bus_bytes
    once = {"program": 0, "count": 1, "after": int(rng.integers(3)) if kind == "weights" else 0}
    if kind == "descriptor":
        op = int(rng.integers(len(program.ops)))
        at = op * isa.DESCRIPTOR_BYTES + int(rng.integers(isa.DESCRIPTOR_BYTES))
        return _Shared(kind, op, (Window(at, 1, **once),), Code.DESCRIPTOR_READ)
    if kind == "table":
        op = int(rng.choice([e.op for e in program.exits]))
        table = descriptor(network, op)["bias"]
        return _Shared(kind, op, (Window(table, isa.EXIT_TABLE_BYTES, **once),), Code.EXIT_READ)
    op = int(rng.choice(_streamed(network)))
    d = descriptor(network, op)
    streams = {d[f"weights{v}"]: d[f"weight_beats{v}"] * bus for v in range(isa.VARIANTS)}
    return _Shared(kind, op, tuple(Window(at, size, **once) for at, size in streams.items()), Code.WEIGHT_READ)


def test_errors_of_a_program(tiny, network, times):
    """An error of a descriptor, of weights, of a table: only those who wait for it fail, of a tile all members."""
    config, build = tiny
    cases, faults = [], []
    kinds = ("weights", "descriptor", "weights", "table")
    for seed in range(100, 100 + 8 * times):
        rng = np.random.default_rng(seed)
        faults.append(_shared_windows(network, rng, kinds[seed % len(kinds)]))
        samples = samples_of([network], 10, rng, 0xFFFF)
        cases.append(_faults(config, [network], seed, samples, faults[-1].windows))
    outcomes = run_in_simulator(build, play_faults, timeout=600 * times, scenarios=cases)
    hits = dict.fromkeys(("weights", "descriptor", "table"), 0)
    for case, fault, outcome in zip(cases, faults, outcomes, strict=True):
        try:
            failed = {a.tag for a in outcome["admissions"] if a.completion["status"] == isa.Status.FAILED}
            story = check_faults(config, [network], case, outcome, dict.fromkeys(failed, fault.code))
            hits[fault.kind] += _check_owners(fault, outcome, story, failed)
        except Exception as error:
            error.add_note(f"seed {case.seed}, {fault}")
            raise
    log.info("errors %s", hits)
    assert all(hits.values()), f"errors that were seen: {hits}"


def _check_owners(fault, outcome, story, failed):
    """Number of errors that were seen; each hit as many samples as it owns."""
    bursts = failure_bursts(outcome)
    if fault.kind == "table":
        assert len(failed) == 1, f"{len(failed)} samples failed of one decision"
    if fault.kind == "descriptor":  # who asked for it may be back at its position before, when a tile was revoked
        assert len(bursts) == 1 or (not bursts and story.revocations), f"one error, failures at {len(bursts)} times"
    if fault.kind == "weights":
        groups = [set(t.members) for t in story.played.tiles if t.pc == fault.op]
        for _, slots in bursts:
            assert any(set(slots) <= g for g in groups), f"{slots} failed together, tiles of the layer: {groups}"
        hit = set().union(*(slots for _, slots in bursts)) if bursts else set()
        assert not bursts or any(g <= hit for g in groups), f"{hit} failed, no whole tile of {groups}"
    return len(bursts)


def test_errors_that_stay(tiny, network):
    """A descriptor or a weight stream that can never be read fails everybody who comes there, and hangs nobody."""
    config, build = tiny
    layer = _streamed(network)[1]
    d = descriptor(network, layer)
    bus = network.program.bus_bytes
    windows = {
        Code.DESCRIPTOR_READ: [Window(layer * isa.DESCRIPTOR_BYTES, isa.DESCRIPTOR_BYTES, program=0)],
        Code.WEIGHT_READ: [
            Window(d[f"weights{v}"], d[f"weight_beats{v}"] * bus, program=0) for v in range(isa.VARIANTS)
        ],
    }
    cases, expected = [], []
    for seed, (code, mine) in enumerate(windows.items()):
        samples = samples_of([network], 6, np.random.default_rng(seed), 0xFFFF)
        cases.append(_faults(config, [network], seed, samples, mine))
        expected.append({s.tag: code for s in samples})
    _run(build, config, [[network]] * len(cases), cases, expected, 300)


# --- addresses ------------------------------------------------------------------------------------------------------


def _misplaced(network):
    """Programs with one address outside: name -> network."""
    layer, exit = _streamed(network)[1], network.program.exits[0].op
    second = _second_operands(network)[0]
    far = 0x4000_0000  # beyond the end of memory
    arena, region = network.program.arena_bytes, len(network.program.region)
    region += -region % network.program.bus_bytes
    return {
        "input behind the arena": mutated(network, layer, in_offset=arena),
        "input far away": mutated(network, layer, in_offset=far),
        "input in front of the arena": mutated(network, layer, in_offset=0xFFFF_F000),
        "output behind the arena": mutated(network, layer, out_offset=arena),
        "output in front of the arena": mutated(network, layer, out_offset=0xFFFF_FFF8),
        "output far away": mutated(network, layer, out_offset=far),
        "weights behind the region": mutated(network, layer, **{f"weights{v}": region for v in range(4)}),
        "weights far away": mutated(network, layer, **{f"weights{v}": far for v in range(4)}),
        "second operand behind the arena": mutated(network, second, res_offset=arena),
        "second operand far away": mutated(network, second, res_offset=far),
        "logits behind the arena": mutated(network, exit, in_offset=arena),
        "table behind the region": mutated(network, exit, bias=region),
        "table in front of the region": mutated(network, exit, bias=-isa.EXIT_TABLE_BYTES),
    }


def test_addresses_outside(tiny, network):
    """A burst outside of its region or arena is not made; its sample fails with ADDRESS, the others are right."""
    config, build = tiny
    cases, programs, expected, names = [], [], [], []
    wrong = _misplaced(network)
    for seed, name in enumerate(wrong):
        rng = np.random.default_rng(seed)
        mine = [network, wrong[name]]
        samples = samples_of(mine, 10, rng, 0xFFFF)
        cases.append(_faults(config, mine, seed, samples, []))
        programs.append(mine)
        expected.append({s.tag: Code.ADDRESS for s in samples if s.program == 1})
        names.append(name)
    _run(build, config, programs, cases, expected, 300)


def test_regions_too_small(tiny, network):
    """Arenas, and a region that ends in its last descriptor, smaller than needed: what lies inside is still served."""
    config, build = tiny
    program = network.program
    rng = np.random.default_rng(3)
    bus = program.bus_bytes
    ends = sorted(p.offset + p.height * p.line_beats * bus for p in program.tensors.values())
    small = {s: int(rng.choice([bus, 1, ends[-1] - 1, ends[-2]])) for s in range(6)}
    arenas = _faults(config, [network], 1, samples_of([network], 10, rng, 0xFFFF), [], sizes=small)
    samples = samples_of([network, network], 10, rng, 0xFFFF)
    short = {1: len(program.ops) * isa.DESCRIPTOR_BYTES - 1}
    regions = _faults(config, [network, network], 2, samples, [], memory=IDEAL, region_bytes=short)
    expected = [{s + 1: Code.ADDRESS for s in small}, {s.tag: Code.ADDRESS for s in samples if s.program == 1}]
    _run(build, config, [[network], [network, network]], [arenas, regions], expected, 300)
