"""Chains of segments: groups that come again and again take few look-ups, and end as in steps."""

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import compile_network
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.zoo import make_network
from fluidnpu.sched.driver import Driver
from fluidnpu.sim.cycle import model
from fluidnpu.sim.cycle.chains import new_chains
from fluidnpu.sim.cycle.device import CycleDevice, run_now
from fluidnpu.sim.cycle.segments import TAKEN
from fluidnpu.sim.cycle.state import State, new_machine
from fluidnpu.sim.memory import IDEAL, limited

SEED = 92_000


async def groups(device, program, sizes, rng):
    """Groups of these sizes, one after the other, now and then looked at or cut short; (cycles, look-ups) of each."""
    driver = Driver(device, memory_bytes=device.memory.size)
    await driver.start()
    await driver.load_program(program)
    place = program.tensors[program.input_tensor]
    image = bytes(place.height * place.line_beats * program.bus_bytes)
    found, taken = [], 0
    for number, live in enumerate(sizes):
        since = await device.cycle()
        for slot in range(live):
            await driver.admit(slot, image, number * len(driver.slots) + slot, runnable=False)
        await driver.batch((1 << live) - 1)
        if rng is not None and rng.random() < 0.5:
            await device.wait(await device.cycle() + int(rng.integers(1, 40_000)))
            if rng.random() < 0.3:
                await driver.cancel(1)
        while any(record.tag is not None for record in driver.slots):
            await device.wait()
            await driver.completions()
        before, taken = taken, int(device.model._memo.meta[TAKEN])
        found.append((await device.cycle() - since, taken - before))
    return found


def both_ways(config, settings, program, sizes, seed=None):
    """Rounds with the memo, after it was found that stepping gives the same."""
    runs = []
    for jumps in (True, False):
        device = CycleDevice(config, settings, 64 << 20, jumps=jumps)
        rng = None if seed is None else np.random.default_rng(seed)
        runs.append((run_now(groups(device, program, sizes, rng)), device))
    (rounds, jumping), (_, stepping) = runs
    assert np.array_equal(jumping.events(), stepping.events()), f"seed {seed}"
    assert jumping.model.counters() == stepping.model.counters(), f"seed {seed}"
    assert np.array_equal(jumping.transactions(), stepping.transactions()), f"seed {seed}"
    return rounds


@pytest.mark.parametrize(("name", "config_name", "live"), [("ds-cnn", "edge", 1), ("ds-cnn", "hub", 3)])
def test_known_groups_take_few_look_ups(name, config_name, live):
    """Once a group is known it is gone through in chains."""
    config = get_config(config_name)
    program = compile_network(parse_network(make_network(name), name), config)
    rounds = both_ways(config, IDEAL, program, [live] * 12)
    most, last = max(taken for _, taken in rounds), rounds[-1][1]
    assert last < 0.5 * most, rounds


@pytest.mark.parametrize("config_name", ["tiny", "edge", "gemmini16", "hub"])
def test_groups_of_many_sizes(config_name):
    """Chains of one group serve others, are cut short by the host, and need lines that may not be there."""
    config = get_config(config_name)
    program = compile_network(parse_network(make_network("ds-cnn"), "ds-cnn"), config)
    for seed in range(SEED, SEED + 2):
        rng = np.random.default_rng(seed)
        sizes = np.repeat(rng.integers(1, config.slots + 1, 3), 4).tolist()
        settings = IDEAL if rng.random() < 0.5 else limited(128, read_latency=int(rng.integers(1, 100)))
        both_ways(config, settings, program, sizes, seed)


def test_little_room(monkeypatch):
    """Chains are forgotten where there is no room for more."""
    monkeypatch.setattr(model, "new_chains", lambda: new_chains(16))
    monkeypatch.setattr(model, "_MEMOS", {})
    config = get_config("edge")
    program = compile_network(parse_network(make_network("ds-cnn"), "ds-cnn"), config)
    both_ways(config, IDEAL, program, [1, 1, 1, 2, 2, 2, 1, 1], SEED)


def test_state():
    """Registers as Python sees them are those of the record."""
    machine = new_machine(get_config("tiny"), IDEAL)
    state = State(machine)
    state.t, state.pc[1] = 5, 7
    machine[0].v_live = 3
    machine[0].completion[2, 1] = 4
    assert (machine[0].t, machine[0].pc[1], state.v_live, state.completion[2, 1]) == (5, 7, 3, 4)
    assert type(state.t) is int
