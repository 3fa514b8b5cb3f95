"""The serving loop: nothing lost, nothing late, nothing polled; errors that name the request."""

import asyncio
import random

import numpy as np
import pytest
from fluidnpu.hw.isa import Code
from fluidnpu.sched.device import BusError
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.policies import POLICIES, make_policy
from fluidnpu.sched.policies.base import Admit, Batch, Cancel, Drop, Leave, Policy, Wake
from fluidnpu.sched.request import Request
from fluidnpu.sched.serving import ServingError, serve

from .fake_device import LIMIT, FakeDevice, chain, image
from .serve_fake import poisson, requests_at, run


class Scripted(Policy):
    """Does what a function says."""

    name = "scripted"

    def __init__(self, decide):
        super().__init__()
        self._decide = decide
        self.events = []

    def decide(self, state):
        self.events.append(state.now)
        return self._decide(state)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_request_comes_back_once_and_right(name, seed):
    rng = random.Random(seed)
    requests = poisson(seed, 60, gap=rng.choice([60, 250, 1000]), exits=(0.5, 0.2, 0.3), slo=rng.choice([None, 900]))
    device = {
        "bus_cycles": rng.choice([0, 1, 7]),
        "exit_cycles": rng.choice([0, 30]),
        "write_cycles": rng.choice([0, 9]),
    }

    truth = {r.id: int(r.image[0, 0, 0]) for r in requests}
    options = {"true_exits": truth} if POLICIES[name].wants_true_exits else None

    def once():
        rigid = rng.random() < 0.3
        return run(requests, name, (2, 1, 3), lambda op, n: 30 + 20 * n, rigid, options, **device)

    state = rng.getstate()
    results, fake, decisions = once()
    assert sorted(r.id for r in results) == list(range(60))
    for r in results:
        request = requests[r.id]
        if r.status in ("dropped", "cancelled") and POLICIES[name].drops:
            continue
        assert (r.status, r.top) == ("ok", r.id % 100)
        forced = {i for d in decisions if d.kind == "leave" for i in d.requests}
        assert r.exit == request.image[0, 0, 0] or (r.id in forced and r.exit < request.image[0, 0, 0])
        assert request.arrival <= r.admitted < r.stamp <= r.completed
        assert r.met == (request.slo is None or r.latency <= request.slo)
    assert not fake.engine.live() and not fake.commands and not fake.done and fake.reserved == 0
    entered = [i for d in decisions if d.kind in ("start", "merge", "defer", "admit") for i in d.requests]
    assert set(entered) >= {r.id for r in results if r.ok}
    rng.setstate(state)
    again = once()
    assert (again[0], again[2]) == (results, decisions)  # same requests, same run


def test_the_loop_sleeps_between_events():
    """Wakes: per request one wait for its arrival, one admission, one wait for its completion and two to fetch it."""
    _, device, _ = run(requests_at(*range(0, 100_000, 1000)), "serial")
    assert device.wakes <= 5 * 100 + 20


@pytest.mark.parametrize("wants", [False, True])
def test_a_sample_shows_the_spread_of_its_last_head(wants):
    """None before its first head; who does not ask for it sees nothing."""
    seen = []

    def decide(state):
        seen.extend(s.spread for s in state.live.values())
        return [*[Admit(r, 0) for r in state.waiting], Wake(state.now + 100)]

    policy = Scripted(decide)
    policy.wants_spread, policy.needs_positions = wants, lambda state: True
    run(requests_at(0, exits=[2]), policy, (5, 5, 5))
    passed = {s for s in seen if s is not None and s > LIMIT}  # an exit that was taken may be seen too
    assert seen[0] is None and len(passed) == (1 if wants else 0), seen


def test_arrivals_out_of_order_and_at_once():
    requests = requests_at(500, 0, 0, 500)
    results, _, _ = run(requests, "serial")
    assert [(r.id, r.stamp) for r in results] == [(1, 300), (2, 600), (0, 900), (3, 1200)]


def test_requests_packed_by_the_host_and_masked_exits():
    program = chain([3, 1])
    packed = Request("packed", 0, program.pack_input(image(0, 7)))
    masked = Request("masked", 0, image(0, 8), exits=0b10)
    results, _, _ = run([packed, masked], "serial", (3, 1))
    assert [(r.id, r.exit, r.top, r.latency) for r in results] == [("packed", 0, 7, 300), ("masked", 1, 8, 700)]


def test_failed_samples_are_results():
    results, _, _ = run(requests_at(0, 0, 0), "adaptive", failing={1: Code.STRIPE_READ})
    by_id = {r.id: r for r in results}
    assert (by_id[1].status, by_id[1].code, by_id[1].met) == ("failed", "STRIPE_READ", False)
    assert by_id[0].ok and by_id[2].ok


def test_a_refused_admission_is_a_result():
    """The host forgot nothing, the device did: it reports the slot as occupied."""
    device = FakeDevice(bus_cycles=0)

    async def main():
        driver = Driver(device)
        await driver.start()
        await driver.load_program(chain([3]))
        device.engine.execute_command(1, slot=0, arena_bytes=64)  # not by this driver, never runnable
        return await serve(driver, requests_at(0), make_policy("serial"))

    (result,) = asyncio.run(main())
    assert (result.status, result.code) == ("error", "OCCUPIED")


def test_bus_errors_name_the_request():
    class Broken(FakeDevice):
        async def submit(self, accesses):
            if self.now >= 100 and any(value is not None for _, value in accesses):
                raise BusError(0xA0, True)
            return await super().submit(accesses)

    device = Broken()

    async def main():
        driver = Driver(device)
        await driver.start()
        await driver.load_program(chain([3]))
        await serve(driver, requests_at(1000), make_policy("serial"))

    with pytest.raises(ServingError, match=r"request 0 cannot be admitted: command ADMIT .* was not taken"):
        asyncio.run(main())


@pytest.mark.parametrize(
    "requests, message",
    [
        ([Request("a", 0, image()), Request("a", 5, image())], "request 'a' comes twice"),
        ([Request("a", -1, image())], "request 'a': arrival -1"),
        ([Request("a", 0, image(), slo=0)], "request 'a': arrival 0 and SLO 0"),
        ([Request("a", 0, np.zeros((2, 2, 2), np.int8))], "request 'a' cannot be admitted: chain: image is int8"),
        ([Request("a", 0, np.zeros(3, np.uint8))], "request 'a' cannot be admitted: chain: an image is 8 bytes"),
    ],
)
def test_bad_requests(requests, message):
    with pytest.raises(ServingError, match=message):
        run(requests, "serial")


@pytest.mark.parametrize(
    "decide, message",
    [
        (lambda s: [], "policy scripted lets request 0 wait although nothing runs"),
        (lambda s: [Admit(s.waiting[0], 9)], "request 0 for slot 9, which is not free"),
        (lambda s: [Admit(Request(5, 0, image()), 0)], "request 5 is not waiting"),
        (lambda s: [Batch((2,))], r"names slots \[2\], which hold no sample"),
        (lambda s: [Leave(())], "hold no sample"),
        (lambda s: [Admit(s.waiting[0], 0), Admit(s.waiting[0], 0)] if s.waiting else [], "slot 0, which is not free"),
    ],
)
def test_policies_that_ask_for_nonsense(decide, message):
    with pytest.raises(ServingError, match=message):
        run(requests_at(0, 0), Scripted(decide))


def test_drop_cancel_leave_and_wake():
    def decide(state):
        if state.now == 0:
            first, second, third = state.waiting
            return [Drop(third), Admit(first, 0, ride=False), Admit(second, 1, runnable=False), Wake(150), Wake(400)]
        if state.now == 150 and len(state.live) == 2:
            return [Leave((0,)), Cancel((1,)), Wake(200)]
        return []

    policy = Scripted(decide)
    results, _, decisions = run(requests_at(0, 0, 0, exits=[1, 1, 1]), policy, (3, 3))
    found = {r.id: r for r in results}
    assert (found[2].status, found[2].admitted, found[2].latency) == ("dropped", None, 0)
    assert (found[1].status, found[1].stamp) == ("cancelled", 150)
    assert (found[0].status, found[0].exit, found[0].stamp) == ("ok", 0, 300)
    assert [(d.cycle, d.kind, d.slots) for d in decisions] == [
        (0, "drop", ()), (0, "admit", (0,)), (0, "admit", (1,)), (150, "leave", (0,)), (150, "cancel", (1,)),
    ]  # fmt: skip
    assert policy.events == [0, 150, 150, 300]  # the completion of the cancelled one cleared the alarm


def test_completions_of_strangers_are_errors():
    device = FakeDevice(bus_cycles=0)
    program = chain([3])

    async def main():
        driver = Driver(device)
        await driver.start()
        await driver.load_program(program)
        await driver.admit(0, program.pack_input(image()), tag=77)
        await serve(driver, requests_at(1000), make_policy("serial"))

    with pytest.raises(ServingError, match="completion of slot 0 with tag 77, which nobody admitted"):
        asyncio.run(main())


def test_decisions_take_the_host_time():
    """Every request to the policy costs its cycles before anything comes of it."""

    async def main(cycles):
        device = FakeDevice(bus_cycles=0)
        driver = Driver(device)
        await driver.start()
        await driver.load_program(chain([3]))
        return await serve(driver, requests_at(1000, 5000), make_policy("serial"), decision_cycles=cycles)

    free, paid = asyncio.run(main(0)), asyncio.run(main(150))
    assert [b.stamp - a.stamp for a, b in zip(free, paid, strict=True)] == [150, 150]


def test_a_negative_decision_time_is_refused():
    with pytest.raises(ServingError, match="decision_cycles = -1, it must be at least 0"):
        asyncio.run(serve(None, [], make_policy("serial"), decision_cycles=-1))
