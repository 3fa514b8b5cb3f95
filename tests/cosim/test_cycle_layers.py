"""The cycle model against the RTL, layer by layer: groups of 1 to all slots in every variant, also those that the
compiler would not choose for so many. Every event with its cycle, every counter."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.zoo import make_network
from fluidnpu.sim.cycle.device import CycleDevice, run_now
from fluidnpu.sim.cycle.replay import first_difference
from fluidnpu.sim.memory import IDEAL, limited
from fluidnpu.sim.npu_build import npu_build
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.replay import ENGINE_PORT
from fluidnpu.sim.session import memory_bytes_for
from fluidnpu.sim.simulate import run_in_simulator
from fluidnpu.sim.study import load_program
from group_runs import groups_on, groups_on_rtl
from networks import draw_program
from test_configurations import CONFIGURATIONS

SEED = 78_000
LONG = bool(os.environ.get("FLUIDNPU_LONG"))


def forced(program, variant):
    """The same program, with ``variant`` of its layers whatever the number of candidates."""
    words = np.frombuffer(program.region, "<u4").copy()
    word = next(f.word for f in isa.DESCRIPTOR_FIELDS if f.name == "vsel")
    for i, op in enumerate(program.ops):
        if op.variants:
            words[i * isa.DESCRIPTOR_WORDS + word] = variant * 0x55555555
    return replace(program, region=words.tobytes())


def without_answers(events):
    """What depends on values: class and S of a decision, which the model was not told."""
    events = events.copy()
    decided = (events["source"] == ENGINE_PORT) & (events["kind"] == isa.EngineEvent.EXIT_RESULT)
    events["data"][decided] &= ~np.uint32(0xFFFF)
    events["data2"][decided] = 0
    return events


def compare(config, build, programs, slots, memory=IDEAL):
    """All programs on both; returns the sum of the RTL's counters."""
    size = max(memory_bytes_for(program, config.slots) for program in programs)
    found = run_in_simulator(build, groups_on_rtl, memory=memory, size=size, programs=programs, slots=slots)
    total = dict.fromkeys(isa.COUNTERS, 0)
    for i, (program, (runs, counters)) in enumerate(zip(programs, found, strict=True)):
        device = CycleDevice(config, memory, size)
        ours, counted = run_now(groups_on(device, device.events, size, program, slots))
        for n, (rtl, model) in enumerate(zip(runs, ours, strict=True), 1):
            difference = first_difference(without_answers(rtl), without_answers(model))
            assert difference is None, f"{config.name}, program {i}, {n} live, {memory}: {difference}"
        assert counters == counted, f"{config.name}, program {i}"
        total = {name: total[name] + count for name, count in counters.items()}
    return total


def layers_of(config, seed, count, memory=IDEAL):
    """Programs of random networks with ``count`` layers at least, each in every variant."""
    rng, programs, layers = np.random.default_rng(seed), [], 0
    while layers < count:
        program = draw_program(rng, config, wide=bool(rng.random() < 0.3), layers=3).program
        layers += sum(bool(op.variants) for op in program.ops)
        programs += [forced(program, variant) for variant in range(isa.VARIANTS)]
    return programs


def test_random_layers(tiny):
    config, build = tiny
    total = compare(config, build, layers_of(config, SEED, 500 if LONG else 20), config.slots)
    assert total["cycles_array"] and total["cycles_vector"] and total["cycles_weights"] and total["cycles_dependency"]


def test_random_layers_on_limited_memory(tiny):
    """Not within 0.2 %: exact."""
    config, build = tiny
    rng = np.random.default_rng(SEED + 1)
    for n in range(10 if LONG else 2):
        latencies = {"read_latency": int(rng.integers(1, 120)), "write_latency": int(rng.integers(1, 200))}
        memory = limited(int(rng.choice([0, 32, 64, 128, 200])), **latencies)
        compare(config, build, layers_of(config, SEED + 2 + n, 20 if LONG else 4), config.slots, memory)


@pytest.mark.parametrize("name", [*CONFIGURATIONS, "ecp5"])
def test_other_configurations(name):
    """Other numbers of lanes, stacks, slots, words per beat."""
    if name in ("ecp5", "wide") and not LONG:
        pytest.skip("a simulator of its own: FLUIDNPU_LONG=1")
    config = CONFIGURATIONS.get(name) or get_config(name)
    compare(config, npu_build(config), layers_of(config, SEED + 100, 100 if LONG else 4), config.slots)


@pytest.mark.parametrize("name", ["tiny", "edge", "gemmini16"])
def test_digits(name):
    if name != "tiny" and not LONG:
        pytest.skip("many cycles: FLUIDNPU_LONG=1")
    config = get_config(name)
    _, program = load_program(config, MODELS / "digits.tflite")
    compare(config, npu_build(config), [program], config.slots)


@pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")
@pytest.mark.parametrize("config", ["tiny", "edge", "gemmini16"])
@pytest.mark.parametrize("network", ["resnet8_int8", "kws_dscnn_int8"])
def test_real_networks(network, config):
    if config != "tiny" and not LONG:
        pytest.skip("many cycles: FLUIDNPU_LONG=1")
    config = get_config(config)
    _, program = load_program(config, Path(os.environ["FLUIDNPU_REAL"], "models", f"{network}.tflite"))
    compare(config, npu_build(config), [program], config.slots)


@pytest.mark.skipif(not LONG, reason="up to 16 million cycles: FLUIDNPU_LONG=1")
@pytest.mark.parametrize("name", ["resnet50", "mobilenet-v1"])
def test_shapes_of_large_networks(name, tmp_path):
    config = get_config("gemmini16")
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(make_network(name))
    _, program = load_program(config, path)
    compare(config, npu_build(config), [program], 1)
