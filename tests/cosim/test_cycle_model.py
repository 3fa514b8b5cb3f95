"""The cycle model against the RTL: every event with its cycle, every counter, every completion of a served trace."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.hw.isa import SPREAD_NONE, register_address
from fluidnpu.sim.cycle.replay import first_difference, replay_run
from fluidnpu.sim.measured_latency import measure_latency
from fluidnpu.sim.memory import IDEAL, limited
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.session import Setup, serve_trace
from fluidnpu.sim.simulate import run_in_simulator
from fluidnpu.sim.study import load_program, read_images
from fluidnpu.sim.traffic import make_trace
from networks import draw_program
from npu_host import play_all
from scenarios import random_scenario, samples_of, scenario

SEED = 77_000


def programs_of(config, rng, most):
    return [
        draw_program(rng, config, wide=bool(rng.random() < 0.3), layers=3) for _ in range(rng.integers(1, most + 1))
    ]


def check(config, build, cases):
    """Scenarios on the RTL, then the same register accesses on the model."""
    outcomes = run_in_simulator(build, play_all, scenarios=[s for _, s in cases])
    for (programs, case), outcome in zip(cases, outcomes, strict=True):
        memory = np.zeros(case.memory_bytes, np.uint8)
        for (base, size), compiled in zip(outcome["regions"], programs, strict=True):
            memory[base : base + size] = np.frombuffer(compiled.program.region, np.uint8)
        found = replay_run(config, case.memory, memory, outcome["transactions"], outcome["events"])
        assert first_difference(outcome["events"], found.events) is None, f"seed {case.seed}"
        assert found.counters == outcome["counters"], f"seed {case.seed}"
        assert not found.wrong_reads, f"seed {case.seed}: (cycle, address, RTL, model) {found.wrong_reads[:3]}"
    return outcomes


def test_one_sample(tiny, times):
    """Random networks, one sample alone."""
    config, build = tiny
    cases = []
    for seed in range(SEED, SEED + 12 * times):
        rng = np.random.default_rng(seed)
        programs = programs_of(config, rng, 1)
        cases.append((programs, scenario(config, programs, seed, samples=samples_of(programs, 1, rng))))
    check(config, build, cases)


def test_groups(tiny, times):
    """All slots in use, exits that are taken, both ablations."""
    config, build = tiny
    cases = []
    for seed in range(SEED + 5000, SEED + 5000 + 10 * times):
        rng = np.random.default_rng(seed)
        programs = programs_of(config, rng, 2)
        limits = [c.limits_between(rng) for c in programs]
        modes = {"rigid": bool(rng.random() < 0.2), "unstacked": bool(rng.random() < 0.2)}
        samples = samples_of(programs, 8, rng)
        together = bool(rng.random() < 0.5)
        cases.append(
            (programs, scenario(config, programs, seed, samples=samples, limits=limits, together=together, **modes))
        )
    check(config, build, cases)


@pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")
@pytest.mark.parametrize("name", ["resnet8_int8", "kws_dscnn_int8"])
def test_real_networks(tiny, name):
    """Cycles of every operation for 1 to all slots."""
    config, build = tiny
    _, program = load_program(config, Path(os.environ["FLUIDNPU_REAL"], "models", f"{name}.tflite"))
    rtl, model = (measure_latency(b, config, program).cycles for b in (build, None))
    assert rtl.sum() > 0 and np.array_equal(rtl, model)


def test_random_hosts(tiny, times):
    """Preemption, cancellation, wrong commands: whatever a host does."""
    config, build = tiny
    cases = []
    for seed in range(SEED + 10_000, SEED + 10_000 + 8 * times):
        rng = np.random.default_rng(seed)
        programs = programs_of(config, rng, 4)
        modes = {"rigid": bool(rng.random() < 0.2), "unstacked": bool(rng.random() < 0.15)}
        case = random_scenario(config, programs, seed, 12, memory=IDEAL, **modes)
        cases.append((programs, replace(case, weights=case.weights | {"look": 3})))
    outcomes = check(config, build, cases)
    spreads = {register_address("SLOT_SPREAD", s) for s in range(config.slots)}
    reads = [t for o in outcomes for t in o["transactions"] if not t["write"] and int(t["address"]) in spreads]
    assert sum(int(t["data"]) != SPREAD_NONE for t in reads) > 20, "the host hardly saw a head that decided"
    assert sum(o["counters"]["revocations"] for o in outcomes) > 10


def test_limited_memory(tiny, times):
    """Any latency, bandwidth and burst overhead: exact too."""
    config, build = tiny
    cases = []
    for seed in range(SEED + 15_000, SEED + 15_000 + 8 * times):
        rng = np.random.default_rng(seed)
        programs = programs_of(config, rng, 2)
        latencies = {"read_latency": int(rng.integers(1, 120)), "write_latency": int(rng.integers(1, 200))}
        memory = limited(int(rng.choice([0, 32, 64, 128, 200])), **latencies)
        samples = samples_of(programs, 6, rng)
        cases.append((programs, scenario(config, programs, seed, samples=samples, memory=memory)))
    check(config, build, cases)


@pytest.fixture(scope="module")
def digits(tiny):
    config, build = tiny
    network, program = load_program(config, MODELS / "digits.tflite")
    return config, build, network, program


@pytest.mark.parametrize("policy", ["serial", "adaptive", "fluid"])
def test_served_trace(digits, policy):
    """The host's code on the model: the same completions, decisions and events in the same cycles."""
    config, build, network, program = digits
    images, labels = read_images(MODELS / "digits_views.npz", network.input.shape)
    trace = make_trace("steady", 15000 * np.arange(6), images, labels, slo=150_000, seed=5)
    rtl, model = (serve_trace(Setup(config, b, network, program), trace, policy) for b in (build, None))
    assert first_difference(rtl.events, model.events) is None
    assert model.results == rtl.results and model.counters == rtl.counters
    assert [(d.cycle, d.kind, d.slots) for d in model.decisions] == [(d.cycle, d.kind, d.slots) for d in rtl.decisions]


def test_latency_tables_agree(digits):
    config, build, _, program = digits
    rtl, model = (measure_latency(b, config, program).cycles for b in (build, None))
    assert np.array_equal(rtl, model)
