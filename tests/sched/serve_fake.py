"""Runs the serving loop on the fake device."""

import asyncio
import random

import numpy as np
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.request import Request
from fluidnpu.sched.serving import serve
from fluidnpu.sched.survival import ExitRates, SurvivalTables

from .fake_device import FakeDevice, chain, image

__all__ = ["model_of", "poisson", "requests_at", "run"]


def requests_at(*arrivals, exits=None, slo=None):
    """One request per arrival: id n, class n, exit 0 or that of ``exits``."""
    exits = exits or [0] * len(arrivals)
    return [Request(n, a, image(e, n % 100), slo) for n, (a, e) in enumerate(zip(arrivals, exits, strict=True))]


def poisson(seed, count, gap, exits=(1.0,), slo=None):
    """``count`` requests with exponential gaps of mean ``gap`` cycles; ``exits``: share of each exit."""
    rng = random.Random(seed)
    now, found = 0.0, []
    for n in range(count):
        now += rng.expovariate(1 / gap)
        found.append(Request(n, int(now), image(rng.choices(range(len(exits)), exits)[0], n % 100), slo))
    return found


def model_of(program, tile_cycles, slots=4, rates=None):
    """SurvivalTables that know the fake's times exactly."""
    cycles = np.zeros((len(program.ops), slots + 1))
    for l, op in enumerate(program.ops):
        if op.op == "CONV":
            cycles[l, 1:] = [tile_cycles(l, n) for n in range(1, slots + 1)]
    return SurvivalTables(LatencyTable(cycles), [e.op for e in program.exits], ExitRates(len(program.exits), rates))


def run(requests, policy, layers=(3,), tile_cycles=lambda op, n: 100, rigid=False, options=None, rates=None, **device):
    """Serve on a fake device whose bus takes no time; returns (results, device, decisions)."""
    program = chain(list(layers))
    device = FakeDevice(tile_cycles, **{"bus_cycles": 0, **device})
    if isinstance(policy, str):
        policy = make_policy(policy, model_of(program, tile_cycles, rates=rates), **(options or {}))
    decisions = []

    async def main():
        driver = Driver(device)
        await driver.start(rigid=rigid)
        await driver.load_program(program)
        return await serve(driver, requests, policy, decisions=decisions)

    return asyncio.run(main()), device, decisions
