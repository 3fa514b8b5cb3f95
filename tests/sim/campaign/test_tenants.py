"""Several networks on one NPU: traffic, isolation of programs, fairness."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from fluidnpu.sim.campaign.cases import build_case, find_workloads
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.run import run_point
from fluidnpu.sim.campaign.tenants import fairness, merge_npus, tenants_traffic
from fluidnpu.sim.decisions import Decided


@pytest.fixture(scope="module")
def case():
    return build_case(find_workloads()["digits"], "edge", "full", False)


def point(policy, *loads, **more):
    tenants = tuple(("digits", load, 1.0) for load in loads)
    options = {"requests": 600, "tenants": tenants, "slo": 5.0, **more}
    return Point("test", "+".join(["digits"] * len(loads)), "edge", policy, sum(loads), 1, **options)


def test_fairness_is_jains_index():
    assert fairness([0.5, 0.5, 0.5]) == pytest.approx(1)
    assert fairness([1, 0, 0, 0]) == pytest.approx(0.25)
    assert fairness([1, 2]) == pytest.approx(0.9)


def test_every_tenant_sends_at_its_rate(case):
    requests, decided = tenants_traffic(point("serial", 0.2, 0.4), [case, case], 0.1)
    times = np.array([r.arrival for r in requests])
    assert (np.diff(times) >= 0).all() and [r.id for r in requests] == list(range(len(requests)))
    assert len(decided.confident) == len(requests) == pytest.approx(660, abs=1)
    counts = np.bincount([r.program for r in requests])
    assert counts[1] / counts[0] == pytest.approx(2, rel=0.01)
    assert {r.tenant for r in requests} == {"digits-1", "digits-2"}


@pytest.mark.parametrize("policy", ["serial", "adaptive", "prema"])
def test_figures_of_each_tenant(case, policy):
    figures = run_point(point(policy, 0.2, 0.2), case, case)
    assert figures["answered"] == figures["requests"]
    for n in (1, 2):
        assert 0 < figures[f"tenant{n}_progress"] <= 1.001
        assert figures[f"tenant{n}_mean"] <= figures[f"tenant{n}_p99"]
    assert figures["fairness"] > 0.98, "two tenants with the same network and load"


def test_two_programs_on_both_devices(case):
    """The tile model and the cycle model serve the same samples of two programs alike; classes come from their own."""
    from fluidnpu.sched.policies import make_policy
    from fluidnpu.sched.request import Request

    npu = merge_npus([case.npu, case.npu])
    requests = [Request(n, 5000 + 9000 * n, None, program=n % 2, tenant=str(n % 2)) for n in range(40)]
    decided = Decided.at([n % 3 for n in range(40)])
    exact, fast = (npu.serve(requests, decided, make_policy("adaptive"), device=d).results for d in ("cycles", "tiles"))
    assert [(r.id, r.exit) for r in fast] == [(r.id, r.exit) for r in exact]
    assert np.mean([r.latency for r in fast]) == pytest.approx(np.mean([r.latency for r in exact]), rel=0.02)


def test_arenas_are_apart(case):
    """The driver gives every slot of every program memory that no other has."""
    from fluidnpu.sched.driver import Driver
    from fluidnpu.sim.cycle.device import CycleDevice, run_now
    from fluidnpu.sim.session import memory_bytes_for

    program, config = case.npu.programs[0], case.npu.config
    device = CycleDevice(config, case.npu.memory, 3 * memory_bytes_for(program, config.slots))

    async def admit():
        driver = Driver(device, memory_bytes=device.memory.size)
        await driver.start()
        for _ in range(2):
            await driver.load_program(program)
        for slot in range(config.slots):
            await driver.admit(slot, None, slot, program=slot % 2, runnable=False)
        return driver

    driver = run_now(admit())
    used = sorted([(s.base, s.base + s.size) for s in driver.slots] + [(b, b + n) for b, n in driver._regions.values()])
    assert len(used) == config.slots + 2
    assert all(end <= begin for (_, end), (begin, _) in pairwise(used))


def missed(case, flood, device="tiles", seed=1, **more):
    """Shares of their deadlines that two tenants miss: one sends ``flood`` times what the NPU can do, the other 0.3
    times; both have ten single latencies."""
    tenants = (("digits", flood, 1.0), ("digits", 0.3, 1.0))
    one = Point("test", "digits+digits", "edge", "fluid", flood + 0.3, seed, device=device, tenants=tenants, slo=10.0)
    figures = run_point(replace(one, **more), case, case)
    return figures["tenant1_misses"], figures["tenant2_misses"]


@pytest.mark.parametrize("flood", [1.5, 2.0])
def test_a_flood_stays_with_its_tenant(case, flood):
    """Who stays below its half loses no more deadlines than alone; first come, first served keeps none."""
    flooded = np.array([missed(case, flood, seed=seed, requests=2000) for seed in (1, 2, 3)])
    alone = np.mean([missed(case, 0.01, seed=seed, requests=500)[1] for seed in (1, 2, 3)])
    assert flooded[:, 1].mean() <= alone + 0.005
    assert (flooded[:, 0] > 0.5).all(), "it asks for more than there is"
    assert missed(case, flood, policy="serial", requests=900)[1] > 0.9


def test_a_flood_stays_with_its_tenant_on_the_cycle_model(case):
    flood, quiet = missed(case, 2.0, "cycles", requests=800)
    assert quiet <= 0.01 and flood > 0.5
