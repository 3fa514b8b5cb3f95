"""Preemption: at every tile boundary of a network, and how long it takes."""

from dataclasses import replace

import numpy as np
from fluidnpu.hw.isa import Opcode
from fluidnpu.sim.bench.preemption import overhead_bound
from fluidnpu.sim.memory import IDEAL, MemorySettings
from networks import draw_program
from npu_checks import run_checked
from preemptor import preemptions, storms
from scenarios import samples_of, scenario

SEED = 31


def test_at_every_tile_boundary(tiny, times):
    """One sample after the other gives way once per boundary; nothing that anybody computes changes."""
    config, build = tiny
    rng = np.random.default_rng(SEED)
    while True:
        programs = [
            draw_program(rng, config, images=1, exits=2),
            draw_program(rng, config, images=1, exits=1, layers=1),
        ]
        if sum(op.lines for op in programs[0].operations() if hasattr(op, "lines")) >= 60:
            break
    victims, others = (samples_of([c], 1, rng, exits=0xFFFF)[0] for c in programs)

    def case(cycle, program, delay):
        """The victim from the beginning; a sample of higher priority that may run from ``cycle`` on."""
        vip = others if program else victims
        samples = (victims, replace(vip, tag=2, program=program))
        script = [(0, Opcode.ADMIT, {"sample": 0, "slot": 1, "priority": 3, "runnable": 1, "ride": 1})]
        if cycle is not None:
            script[:0] = [(0, Opcode.ADMIT, {"sample": 1, "slot": 0})]
            go = {"slot_mask": 1, "priority": 4, "runnable": 1, "ride": 1, "commit": 1}
            script.append((cycle + delay, Opcode.BATCH, go))
        return programs, scenario(config, programs, SEED, samples=samples, script=tuple(script))

    [(alone, _)] = run_checked(config, build, [case(None, 0, 0)])
    boundaries = len(alone.tiles)
    assert boundaries >= 10
    cases = [case(cycle, program, delay) for cycle in alone.starts for program, delay in ((1, 1), (1, 60), (0, 20))]
    positions = set()
    for (_, played), (story, _) in zip(cases, run_checked(config, build, cases), strict=True):
        vip = next(n for n, tile in enumerate(story.tiles) if tile.leader == 0)
        assert all(tile.leader == 1 for tile in story.tiles[:vip])
        if played.samples[1].program == 1:  # it has the array for itself, until its writes are waited for
            positions.add(vip)
    assert positions >= set(range(1, boundaries)), (SEED, sorted(positions), boundaries)


def test_bound(tiny, times):
    """From the commit to the preempting sample's first MAC: the rest of one tile, its stripes, and a constant."""
    config, build = tiny
    for memory in (IDEAL, MemorySettings(read_latency=120, write_latency=80)):
        found = []
        for first in range(SEED, SEED + 3 * times, 3):
            found += _measured(config, build, memory, range(first, first + 3))
        assert len(found) > 20 and sum(p.dropped for p in found) > 10
        most = max(found, key=lambda p: p.overhead)
        assert most.overhead <= overhead_bound(config, memory), (SEED, memory, most)
        print(f"{len(found)} preemptions, most overhead {most.overhead} cycles, bound {overhead_bound(config, memory)}")


def _measured(config, build, memory, seeds):
    """Preemptions of 30 commits per seed, every answer and every byte checked."""
    cases = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        programs = [draw_program(rng, config, layers=4, exits=exits) for exits in (2, 1)]
        options = {"samples": samples_of(programs, 800, rng), "memory": memory, "memory_bytes": 1 << 23}
        cases.append((programs, scenario(config, programs, seed, **options)))
    found = []
    results = run_checked(config, build, cases, storms, commits=30)
    for (_, played), (story, outcome) in zip(cases, results, strict=True):
        found += preemptions(config, played, outcome, story)
    return found
