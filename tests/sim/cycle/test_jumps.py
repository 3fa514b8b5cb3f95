"""What the memo of the cycle model knows is what stepping finds: the same runs with and without it."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import compile_network
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.zoo import make_network
from fluidnpu.sched.driver import Driver
from fluidnpu.sim.cycle.device import CycleDevice, run_now
from fluidnpu.sim.cycle.values import NoValues
from fluidnpu.sim.memory import IDEAL, MemorySettings, limited

sys.path.insert(0, str(Path(__file__).parents[2] / "cosim"))

SEED = 91_000
TIMES = 20 if os.environ.get("FLUIDNPU_LONG") else 1
CONFIGURATIONS = ("tiny", "tiny", "ecp5", "gemmini16", "edge", "hub")


class Guesses(NoValues):
    """Decisions of exits at random, the same in every run."""

    def __init__(self, seed):
        self._rng = np.random.default_rng(seed)

    def answer(self, model, slot, program, exit):
        return int(self._rng.integers(10)), int(self._rng.integers(1 << 17))


def memory_of(rng):
    kind = rng.integers(4)
    latencies = {"read_latency": int(rng.integers(1, 120)), "write_latency": int(rng.integers(1, 200))}
    if kind < 2:
        return IDEAL
    return MemorySettings(**latencies) if kind == 2 else limited(int(rng.choice([0, 64, 128, 200])), **latencies)


async def act(driver, device, rng, tags, compiled):
    """One thing that a host may do."""
    free = [s for s, record in enumerate(driver.slots) if record.tag is None]
    used = [s for s in range(len(driver.slots)) if s not in free]
    what = rng.choice(["admit", "admit", "group", "batch", "leave", "cancel", "fence", "limit", "look", "wait", "wait"])
    mask = sum(1 << s for s in used if rng.random() < 0.5)
    p = int(rng.integers(len(compiled)))
    place = compiled[p].tensors[compiled[p].input_tensor]
    image = bytes(place.height * place.line_beats * compiled[p].bus_bytes)
    if what == "admit" and free:
        slot = int(rng.choice(free))
        exits = int(rng.integers(1 << len(compiled[p].exits)))
        rides = bool(rng.random() < 0.9)
        priority = int(rng.choice([1, 1, 1, 2]))
        await driver.admit(slot, image, next(tags), program=p, priority=priority, ride=rides, exits=exits)
    elif what == "group":
        for slot in free:
            await driver.admit(slot, image, next(tags), program=p, runnable=False)
        await driver.batch((1 << len(driver.slots)) - 1)
    elif what == "batch":
        await driver.batch(mask, int(rng.integers(1, 4)), bool(rng.random() < 0.8), bool(rng.random() < 0.8))
    elif what == "leave":
        await driver.leave(mask)
    elif what == "cancel" and rng.random() < 0.3:
        await driver.cancel(mask)
    elif what == "fence":
        await driver.fence(next(tags))
    elif what == "limit" and compiled[p].exits:
        await driver.limit(p, int(rng.integers(len(compiled[p].exits))), int(rng.integers(1 << 17)))
    elif what == "look" and used:
        await driver.positions(used, spreads=True)
    elif what == "wait":
        await device.wait(await device.cycle() + int(rng.choice([100, 2000, 20_000])))


async def host(device, programs, seed, actions):
    """Everything that a host may do, in a random order; then the samples end. Returns the completions."""
    rng = np.random.default_rng(seed)
    driver = Driver(device, memory_bytes=device.memory.size)
    await driver.start(rigid=bool(rng.random() < 0.15), unstacked=bool(rng.random() < 0.15))
    for program in programs:
        await driver.load_program(program)
    found, tags = [], iter(range(1, 1 << 20))
    for _ in range(actions):
        await act(driver, device, rng, tags, programs)
        found += await driver.completions()
    while any(record.tag is not None for record in driver.slots):
        await driver.batch((1 << len(driver.slots)) - 1)
        await device.wait(await device.cycle() + 100_000)
        found += await driver.completions()
    return found


def compare(config, programs, settings, seed, actions):
    """Run both ways; returns (steps with the memo, without)."""
    runs = []
    for jumps in (True, False):
        device = CycleDevice(config, settings, 64 << 20, Guesses(seed), jumps=jumps)
        completions = run_now(host(device, programs, seed, actions))
        device.finish(1000)
        runs.append((device, completions))
    (jumping, a), (stepping, b) = runs
    events, expected = jumping.events(), stepping.events()
    both = min(len(events), len(expected))
    wrong = np.flatnonzero(events[:both] != expected[:both])
    assert not len(wrong), f"seed {seed}: event {wrong[0]}: {events[wrong[0]]}, stepping {expected[wrong[0]]}"
    assert len(events) == len(expected), f"seed {seed}"
    assert jumping.model.counters() == stepping.model.counters(), f"seed {seed}"
    assert np.array_equal(jumping.transactions(), stepping.transactions()), f"seed {seed}"
    assert a == b, f"seed {seed}"
    return int(jumping.model.state.steps), int(stepping.model.state.steps)


def test_random_hosts():
    """Random networks, configurations, memories and hosts."""
    from networks import draw_program

    jumping = stepping = 0
    for seed in range(SEED, SEED + 12 * TIMES):
        rng = np.random.default_rng(seed)
        config = get_config(CONFIGURATIONS[seed % len(CONFIGURATIONS)])
        drawn = [draw_program(rng, config, images=1, wide=bool(rng.random() < 0.3)) for _ in range(rng.integers(1, 3))]
        programs = [c.program for c in drawn]
        a, b = compare(config, programs, memory_of(rng), seed, 100)
        jumping, stepping = jumping + a, stepping + b
    assert jumping < stepping


@pytest.mark.parametrize(("name", "config_name"), [("ds-cnn", "edge"), ("ds-cnn", "gemmini16"), ("ds-cnn", "hub")])
def test_published_network(name, config_name):
    """Layers with many tiles and c-tiles, depthwise ones, samples that ride together."""
    config = get_config(config_name)
    program = compile_network(parse_network(make_network(name), name), config)
    for seed in range(SEED + 5000, SEED + 5000 + 2 * TIMES):
        compare(config, [program], memory_of(np.random.default_rng(seed)), seed, 30)


@pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")
@pytest.mark.parametrize("config_name", ["edge", "hub", "gemmini16"])
def test_real_network(config_name):
    """ResNet-8: stacked layers, residual additions."""
    config = get_config(config_name)
    file = Path(os.environ["FLUIDNPU_REAL"], "models", "resnet8_int8.tflite")
    program = compile_network(parse_network(file.read_bytes(), "resnet8"), config)
    for seed in range(SEED + 8000, SEED + 8000 + 3 * TIMES):
        compare(config, [program], memory_of(np.random.default_rng(seed)), seed, 60)


def test_what_was_seen_takes_no_steps():
    """The same group again and again: nearly all cycles are jumped over."""
    config = get_config("tiny")
    program = compile_network(parse_network(make_network("ds-cnn"), "ds-cnn"), config)
    device = CycleDevice(config, IDEAL, 64 << 20)
    place = program.tensors[program.input_tensor]
    image = bytes(place.height * place.line_beats * program.bus_bytes)

    async def rounds():
        driver = Driver(device, memory_bytes=device.memory.size)
        await driver.start()
        await driver.load_program(program)
        steps = []
        for _ in range(20):
            before = int(device.model.state.steps)
            await driver.admit(0, image, 1)
            while not await driver.completions():
                await device.wait()
            steps.append(int(device.model.state.steps) - before)
        return steps

    steps = run_now(rounds())
    assert min(steps) < 0.05 * steps[0]
