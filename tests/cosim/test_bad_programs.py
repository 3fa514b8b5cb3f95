"""Broken and random programs: each ends only its own samples, stays in its arena and hangs nothing (docs/isa.md).

A good sample runs beside them all the time."""

import logging
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from bad_host import Mutant, Rounds, play_rounds
from fault_checks import check_completion_order, check_good, check_nothing_else_written, descriptor, replay_changing
from fluidnpu.hw import isa
from fluidnpu.hw.isa import LAYERS, Code, Op, Status
from fluidnpu.sim.engine_layers import Exit, Jump, Layer
from fluidnpu.sim.engine_oracle import random_program
from fluidnpu.sim.simulate import run_in_simulator
from networks import compiled, draw_network
from scenarios import load, random_memory, samples_of

from ..hw.engine.descriptors import (
    breaches,
    broken_rule,
    exit_fields,
    jump_fields,
    layer_fields,
    stream_beats,
    to_bytes,
)

log = logging.getLogger(__name__)

MUTANTS = 3  # beside a good sample: as many as fit the slots and program regions of tiny
SLACK = 1024  # bytes of the region behind a mutant's program


@pytest.fixture(scope="module")
def network(tiny):
    """A small network of two exits with images, for ``tiny``."""
    config, _ = tiny
    rng = np.random.default_rng(11)
    return compiled(draw_network(rng, exits=2, layers=2), config, rng)


@pytest.fixture(scope="module")
def models(tiny, network):
    """Networks that have every kind of operation: unsegmented and segmented convolutions, pools, heads."""
    config, _ = tiny
    found, needed = [network], {"segments", "pool", "window"}
    for seed in range(100):
        rng = np.random.default_rng(seed)
        drawn = compiled(draw_network(rng, exits=2, layers=2, wide=True), config, rng, fold="none")
        ds = [descriptor(drawn, i) for i in range(len(drawn.program.ops))]
        kinds = {"segments"} if any(d["op"] == Op.CONV and d["nseg"] > 1 for d in ds) else set()
        kinds |= {"pool"} if any(d["op"] == Op.POOL for d in ds) else set()
        kinds |= {"window"} if any(d["op"] == Op.CONV and d["kh"] * d["kw"] > 1 for d in ds) else set()
        if kinds & needed:
            found.append(drawn)
            needed -= kinds
        if not needed:
            return found
    raise AssertionError(f"no random network has {needed}")


def _with(compiled, op, descriptor_bytes, start=None):
    """A Mutant: ``compiled`` with another descriptor at ``op``, where its sample starts by default."""
    region, at = compiled.program.region, op * isa.DESCRIPTOR_BYTES
    region = region[:at] + descriptor_bytes + region[at + isa.DESCRIPTOR_BYTES :]
    return Mutant(region, len(compiled.program.ops), op if start is None else start)


def _play(tiny, network, mutants, seed, arena_bytes=1 << 13, model=True):
    """Try the mutants, a few at a time beside a good sample; returns completions, in the mutants' order, and cycles.

    model : the trace must replay on the engine model
    """
    config, build = tiny
    rng = np.random.default_rng(seed)
    rounds = [tuple(mutants[i : i + MUTANTS]) for i in range(0, len(mutants), MUTANTS)]
    size = max(len(m.region) for m in mutants) + SLACK
    good = load(network)
    others = replace(good, region=bytes(size), ops=1, limits=(), arena_bytes=arena_bytes)
    case = Rounds(
        seed, (good, *[others] * MUTANTS), samples_of([network], len(rounds), rng, 0xFFFF), config.slots,
        config.bus_bytes, memory=random_memory(rng), rounds=tuple(rounds),
    )  # fmt: skip
    outcome = run_in_simulator(build, play_rounds, timeout=400, scenario=case)
    if model:
        check_completion_order(replay_changing(config, [network], outcome, outcome["marks"]), outcome)
    completions = [None] * len(mutants)
    for a in outcome["admissions"]:
        if a.program == 0:
            check_good(network, a, case.samples[a.sample].image)
        else:
            completions[MUTANTS * a.sample + a.program - 1] = a.completion
    check_nothing_else_written(case, outcome, outcome["regions"][1:])
    assert all(completions)
    return completions, outcome["lasted"]


def _judge(config, mutants, completions):
    """Who starts at a descriptor that breaks a rule fails for that reason; the others never fail by the memory's fault.

    Returns how often each end came.
    """
    ends = {}
    for mutant, completion in zip(mutants, completions, strict=True):
        d = _descriptors(mutant)[mutant.start]
        rule = broken_rule(config, d, mutant.start, mutant.ops)
        end = Status(completion["status"]), Code(completion["code"])
        allowed = {(Status.FAILED, Code.DESCRIPTOR)}
        if rule is None:
            allowed |= {(Status.OK, Code.NONE), (Status.FAILED, Code.ADDRESS)}
        assert end in allowed, f"{end}, rule broken: {rule}, operation {mutant.start} of {mutant.ops}: {d}"
        ends[end[1].name, rule is None] = ends.get((end[1].name, rule is None), 0) + 1
    return ends


def _pick(models, test):
    """(network, operation, descriptor) of the first operation with ``test(descriptor)``."""
    for c in models:
        for op in range(len(c.program.ops)):
            if test(d := descriptor(c, op)):
                return c, op, d
    raise AssertionError("no such operation")


def test_broken_rules(tiny, network, models):
    """Every documented rule, broken in a compiled program's descriptor."""
    config, _ = tiny
    named = []
    for test in (
        lambda d: d["op"] == Op.CONV and d["nseg"] == 1 and d["kh"] > 1,
        lambda d: d["op"] == Op.CONV and d["nseg"] > 1,
        lambda d: d["op"] == Op.POOL,
    ):
        c, op, d = _pick(models, test)
        for rule, change in breaches(config, d, op):
            named.append((rule, c, op, d | change))
    c, op, d = _pick(models, lambda d: d["op"] == Op.EXIT)
    for name, value in (("out_channels", 0), ("out_channels", 1025), ("in_offset", 4), ("bias", 4)):
        named.append((f"exit {name}", c, op, d | {name: value}))
    c, op, d = _pick(models, lambda d: d["op"] == Op.JUMP)
    for target in (0, op, len(c.program.ops), 0x3FFF, 0x4000 + op + 1, 0xFFFF):
        named.append((f"target {target}", c, op, d | {"target": target}))
    missing = [rule for rule, c, op, d in named if broken_rule(config, d, op, len(c.program.ops)) is None]
    assert not missing, f"not broken: {missing}"
    mutants = [_with(c, op, to_bytes(d)) for _, c, op, d in named]
    whole = network.program
    mutants.append(Mutant(whole.region, len(whole.ops) - 1, len(whole.ops) - 2))  # runs past the end
    completions, lasted = _play(tiny, network, mutants, 1)
    for (rule, *_), completion in zip(named, completions, strict=False):
        end = Status(completion["status"]), Code(completion["code"])
        assert end == (Status.FAILED, Code.DESCRIPTOR), f"{rule}: {end}"
    assert completions[-1]["code"] == Code.DESCRIPTOR, "past the end"
    log.info("%d descriptors, longest round %d cycles", len(mutants), max(lasted))


def _random_words(rng):
    """Any bits, often few ones, mostly of an operation that exists."""
    bits = rng.getrandbits(1024)
    for _ in range(rng.choice([0, 0, 1, 2])):
        bits &= rng.getrandbits(1024)
    return (bits >> 4 << 4 | rng.choice([1, 2, 3, 4, rng.randrange(16)])).to_bytes(128, "little")


def _changed(rng, config, d):
    """One to three fields changed, often to values at the edge of what is legal; mostly, streams keep their length."""
    d = dict(d)
    for field in rng.sample(isa.DESCRIPTOR_FIELDS[1:], rng.choice([1, 1, 2, 3])):
        edges = (field.low, field.high, d[field.name] + 1, d[field.name] - 1, 2 * d[field.name], 1, config.bus_bytes)
        value = rng.choice([*edges, rng.randint(field.low, field.high)])
        d[field.name] = max(field.low, min(field.high, value))
    if d["op"] in LAYERS and rng.random() < 0.7:
        for v in range(isa.VARIANTS):
            if d[f"log2_kr{v}"] + d[f"log2_kd{v}"] <= 3:
                d[f"weight_beats{v}"] = min(stream_beats(config, d, v), (1 << 22) - 1)
    return d


def test_random_descriptors(tiny, network, models, times):
    """Random bits, and compiled descriptors with a few changes."""
    config, _ = tiny
    for n in range(times):
        rng = random.Random(f"descriptors {n}")
        mutants = []
        for _ in range(100):
            c = rng.choice(models)
            op = rng.randrange(len(c.program.ops))
            any_bits = rng.random() < 0.25
            content = _random_words(rng) if any_bits else to_bytes(_changed(rng, config, descriptor(c, op)))
            mutants.append(_with(c, op, content, start=op if rng.random() < 0.7 else 0))
        for model, tried in _by_window(mutants):
            completions, lasted = _play(tiny, network, tried, n, model=model)
            log.info("ends %s, longest round %d cycles", _judge(config, tried, completions), max(lasted))


def _random_mutant(rng, config, arena_bytes, region_bytes):
    """A program of legal descriptors with random contents, offsets mostly inside; sometimes a wrong producer."""
    bus = config.bus_bytes

    def inside(size, needed=0):
        return rng.randrange(0, max(bus, size - needed), bus) if rng.random() < 0.95 else rng.randrange(0, 1 << 31, bus)

    while True:
        content = rng.randbytes(region_bytes)
        operations = random_program(rng, exits=rng.randint(1, 2))
        start = len(operations) * isa.DESCRIPTOR_BYTES
        descriptors = b""
        try:
            for i, op in enumerate(operations):
                if isinstance(op, Layer):
                    d = layer_fields(rng, config, op, i)
                    d |= {"in_offset": inside(arena_bytes // 2), "out_offset": inside(arena_bytes // 2)}
                    for v in range(isa.VARIANTS):
                        d[f"weights{v}"] = inside(region_bytes, d[f"weight_beats{v}"] * bus)
                    if i and rng.random() < 0.03:
                        d |= {"producer": rng.randrange(i), "producer_nseg": rng.choice([1, 2, 255])}
                elif isinstance(op, Exit):
                    table = start - start % bus if rng.random() < 0.9 else inside(region_bytes)
                    d = exit_fields(rng, config, op.exit, op.last, table=table)
                    d["in_offset"] = inside(arena_bytes)
                elif isinstance(op, Jump):
                    d = jump_fields(op.exit, op.target)
                descriptors += to_bytes(d)
        except ValueError:
            continue  # a stripe that fits no bank
        return Mutant(descriptors + content[len(descriptors) :], len(operations), 0)


def test_random_programs(tiny, network, times):
    """Programs that no compiler makes, of legal descriptors: they end, stay in their arenas and disturb nobody."""
    config, _ = tiny
    total = Counter()
    for n in range(times):
        rng = random.Random(f"programs {n}")
        drawn = [_random_mutant(rng, config, 1 << 15, 1 << 15) for _ in range(50)]
        for model, mutants in _by_window(drawn):
            completions, lasted = _play(tiny, network, mutants, n, arena_bytes=1 << 15, model=model)
            ends = _judge(config, mutants, completions)
            log.info("ends %s, longest round %d cycles", ends, max(lasted))
            total.update(ends)
    assert total["NONE", True] > total.total() // 10, f"few programs run to their end: {total}"


def _descriptors(mutant):
    words = np.frombuffer(mutant.region, "<u4")[: mutant.ops * isa.DESCRIPTOR_WORDS]
    return [isa.decode(isa.DESCRIPTOR_FIELDS, w) for w in words.reshape(mutant.ops, -1)]


def _by_window(mutants):
    """[(whether the model can say how they go, mutants), ...]

    The model thinks that every window needs its rows; the hardware reads nothing for one beside the image, and does
    not wait: programs with such windows are tried without it.
    """
    beside = [any(_beside(d) for d in _descriptors(mutant)) for mutant in mutants]
    parts = [
        (model, [m for m, aside in zip(mutants, beside, strict=True) if aside != model]) for model in (True, False)
    ]
    return [(model, part) for model, part in parts if part]


def _beside(d):
    """A line's or a segment's window lies beside the image."""
    if d["op"] not in LAYERS:
        return False
    if d["kh"] <= d["pad_top"] or (d["out_h"] - 1) * d["sy"] - d["pad_top"] >= d["in_h"]:
        return True
    if d["nseg"] == 1:
        return False
    lefts = [n * d["seg_w"] * d["sx"] - d["pad_left"] for n in range(d["nseg"])]
    return any(left >= d["in_w"] or left + d["stripe_pixels"] <= 0 for left in lefts)
