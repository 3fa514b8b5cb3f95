"""The tile model against the cycle model: groups, exits, preemption, cancelling; and served traces."""

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Policy
from fluidnpu.sched.request import Request
from fluidnpu.sched.serving import serve
from fluidnpu.sched.survival import ExitRates, SurvivalTables
from fluidnpu.sim.cycle.device import CycleDevice, run_now
from fluidnpu.sim.cycle.values import ReferenceValues
from fluidnpu.sim.decisions import Decided, GivenValues
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.session import memory_bytes_for
from fluidnpu.sim.study import load_program
from fluidnpu.sim.tiles.calibration import group_times
from fluidnpu.sim.tiles.device import TileDriver
from fluidnpu.sim.timed_npu import TimedNpu
from fluidnpu.sim.traffic import LEAD_IN, poisson

EDGE = get_config("edge")
SEED = 31


@pytest.fixture(scope="module")
def npu():
    _, program = load_program(EDGE, MODELS / "digits.tflite")
    return TimedNpu.build(EDGE, (program,))


def tables(npu):
    program = npu.programs[0]
    rates = ExitRates(len(program.exits), [1 / 3, 1 / 2])
    return SurvivalTables.of_program(program, npu.config.slots, rates=rates, latency=npu.latencies[0])


def requests(npu, load, count, seed=SEED):
    """Poisson requests at a share of what the best batch could serve, a third of them at each exit."""
    capacity = (np.arange(1, npu.config.slots + 1) / tables(npu).remaining[0, 1:]).max()
    times = poisson(load * capacity, count, seed) + LEAD_IN
    exits = np.random.default_rng(seed).integers(0, 3, count)
    return [Request(n, int(t), None, slo=40_000) for n, t in enumerate(times)], Decided.at(exits)


def on_both(npu, script, exits, **modes):
    """What ``script`` (driver -> list) returns on the cycle model and on the tile model."""
    program, decided = npu.programs[0], exits if isinstance(exits, Decided) else Decided.at(exits)
    size = memory_bytes_for(program, EDGE.slots)
    driver = Driver(CycleDevice(EDGE, npu.memory, size, GivenValues(decided)), memory_bytes=size)

    async def on_cycles():
        await driver.start(**modes)
        await driver.load_program(program)
        return await script(driver)

    tiles = TileDriver(EDGE, npu.programs, npu.operations, decided, memory=npu.memory, **modes)
    return run_now(on_cycles()), run_now(script(tiles))


async def started(driver, count, **options):
    for slot in range(count):
        await driver.admit(slot, None, slot, runnable=False, **options)
    await driver.batch((1 << count) - 1)
    return await driver.device.cycle()


async def collected(driver, count, begin):
    """(status, exit, cycles since ``begin``) of ``count`` completions, by tag."""
    found = {}
    while len(found) < count:
        await driver.device.wait()
        for c in await driver.completions():
            found[c.tag] = c.status.name, c.exit, c.stamp - begin
    return [found[tag] for tag in sorted(found)]


def assert_alike(exact, fast, share, cycles=150):
    assert [f[:2] for f in fast] == [e[:2] for e in exact]
    np.testing.assert_allclose([f[2] for f in fast], [e[2] for e in exact], rtol=share, atol=cycles)


def test_groups_take_what_the_cycle_model_says(npu):
    wanted = npu.latencies[0].cycles.sum(0)
    for n in range(1, EDGE.slots + 1):
        driver = TileDriver(EDGE, npu.programs, npu.operations, Decided.at([2] * n))
        assert group_times(driver, n)[-1] == pytest.approx(wanted[n], rel=0.03), f"{n} live"


@pytest.mark.parametrize("rigid", [False, True])
@pytest.mark.parametrize("exits", [[0], [1], [2], [0, 1], [0, 1, 2, 0], [2, 1, 1, 0, 0, 2, 2, 1]])
def test_batches_with_exits(npu, exits, rigid):
    async def script(driver):
        return await collected(driver, len(exits), await started(driver, len(exits)))

    assert_alike(*on_both(npu, script, exits, rigid=rigid), share=0.02)


def test_preemption(npu):
    """A sample of higher priority comes while two are under way."""

    async def script(driver):
        begin = await started(driver, 2)
        await driver.device.busy(7000)
        await driver.admit(5, None, 2, priority=9)
        return await collected(driver, 3, begin)

    assert_alike(*on_both(npu, script, [2, 2, 1]), share=0.02)


def test_leave_cancel_and_masks(npu):
    async def script(driver):
        begin = await started(driver, 4, exits=0b110)
        await driver.device.busy(2000)
        await driver.leave(0b0001)
        await driver.cancel(0b0010)
        return await collected(driver, 4, begin)

    exact, fast = on_both(npu, script, [2, 2, 0, 1])
    assert_alike(exact, fast, share=0.03, cycles=700)  # a cancelled slot goes with the tile that it is in
    assert [e[:2] for e in exact] == [("OK", 0), ("CANCELLED", 0), ("OK", 1), ("OK", 1)]


def test_a_slot_that_may_not_run_waits(npu):
    async def script(driver):
        begin = await started(driver, 2)
        await driver.batch(0b10, runnable=False)
        await driver.device.busy(30_000)
        await driver.batch(0b10, priority=3)
        return await collected(driver, 2, begin)

    assert_alike(*on_both(npu, script, [1, 2]), share=0.02)


def test_spreads_of_passed_heads(npu):
    """S of the last head that decided, the same on both models; None before the first head, or if it is not known."""
    limits = [e.limit for e in npu.programs[0].exits]
    exits = np.array([0, 1, 2, 2])
    confident = np.arange(3) >= exits[:, None]
    spread = np.where(confident, 65536, np.array(limits) + 100 * np.arange(3) + 1000 * (1 + np.arange(4))[:, None])

    async def script(driver):
        await started(driver, 4)
        found = []
        for _ in range(40):
            await driver.device.busy(1000)
            await driver.completions()
            live = [s for s, record in enumerate(driver.slots) if record.tag is not None]
            found.append({s: p.spread for s, p in (await driver.positions(live, spreads=True)).items()})
            assert all(p.spread is None for p in (await driver.positions(live)).values())
        return found

    decided = Decided(Decided.at(exits).confident, spread=spread)
    for course in on_both(npu, script, decided):
        seen = [[*dict.fromkeys(f[s] for f in course if s in f)] for s in range(4)]
        assert seen[1:] == [[None, *spread[s, : exits[s]].tolist(), *ends(seen[s], spread[s])] for s in range(1, 4)]
        assert seen[0] in ([None], [None, 65536])
    for course in on_both(npu, script, exits):
        assert {s for f in course for s in f.values()} <= {None, 0}


def ends(seen, spread):
    """S of the exit taken, if it was read before the completion."""
    return [65536] if seen[-1] == 65536 else []


@pytest.mark.parametrize("policy", ["serial", "adaptive", "fluid"])
def test_served_traces(npu, policy):
    """Mean latency within 2 % of the cycle model's at moderate load, completions the same."""
    trace, decided = requests(npu, 0.5, 400)
    runs = [
        npu.serve(trace, decided, make_policy(policy, tables(npu)), device=device, decision_cycles=100)
        for device in ("cycles", "tiles")
    ]
    exact, fast = ({r.id: (r.status, r.exit) for r in run.results} for run in runs)
    assert fast == exact
    means = [np.mean([r.latency for r in run.results]) for run in runs]
    assert means[1] == pytest.approx(means[0], rel=0.02)


def test_exits_are_those_given(npu):
    trace, decided = requests(npu, 0.3, 100)
    run = npu.serve(trace, decided, make_policy("serial"))
    assert [r.exit for r in sorted(run.results, key=lambda r: r.id)] == [decided.taken(n, 3) for n in range(100)]
    assert len(run.results) == 100 and run.calls >= 200


def test_fast(npu):
    """A simple policy serves thousands of requests per second."""
    trace, decided = requests(npu, 0.4, 4000)
    run = npu.serve(trace, decided, make_policy("adaptive"))
    assert len(trace) / run.seconds > 2500, f"{len(trace) / run.seconds:.0f} requests per second"


def test_decision_cycles_are_paid_once_per_decision(npu):
    """With a single request at a time nothing else changes: the sample enters that much later."""
    trace, decided = [Request(n, 2000 + 20_000 * n, None) for n in range(20)], Decided.at([0, 1, 2, 1] * 5)
    free, paid = (npu.serve(trace, decided, make_policy("serial"), decision_cycles=c) for c in (0, 400))
    assert [b.stamp - a.stamp for a, b in zip(free.results, paid.results, strict=True)] == [400] * 20


def test_unknown_device(npu):
    with pytest.raises(ValueError, match=r"unknown device 'board'; there are tiles, cycles"):
        npu.serve([], Decided.at([]), Policy(), device="board")


def test_masks_choose_the_next_confident_exit():
    decided = Decided(np.array([0b101, 0b110, 0b100]))
    assert [decided.taken(n, 3) for n in range(3)] == [0, 1, 2]
    assert [decided.taken(n, 3, 0b110) for n in range(3)] == [2, 1, 2]


def test_serving_needs_no_images(npu):
    """A driver leaves in the arena what is there if a request has no image."""
    program = npu.programs[0]
    device = CycleDevice(EDGE, npu.memory, memory_bytes_for(program, EDGE.slots), GivenValues(Decided.at([0])))

    async def run():
        driver = Driver(device, memory_bytes=device.memory.size)
        await driver.start()
        await driver.load_program(program)
        return await serve(driver, [Request("only", 2000, None)], make_policy("serial"))

    (result,) = run_now(run())
    assert result.ok and result.exit == 0


def test_runs_that_are_not_recorded_are_the_same(npu):
    """Without events and register accesses the same completions, in memory that does not grow with the run."""
    found, decided = requests(npu, 0.7, 40)
    served = {}
    for record in (True, False):
        device = CycleDevice(EDGE, npu.memory, npu.memory_bytes, GivenValues(decided), record=record)
        served[record] = run_now(npu.serve_on(device, found, make_policy("fluid", tables(npu))))
        assert (len(device.events()) > 0) == (len(device.transactions()) > 0) == record
    assert served[True].results == served[False].results and len(served[True].results) == 40
    assert served[True].statistics == served[False].statistics
    values = ReferenceValues([])
    with pytest.raises(ValueError, match="cannot follow tensors without recording"):
        CycleDevice(EDGE, npu.memory, npu.memory_bytes, values, record=False)
