"""Policies on the fake device: exact hand examples, queueing theory, what fluid batching promises."""

import statistics

import pytest
from fluidnpu.sched.policies import POLICIES, make_policy
from fluidnpu.sched.policies.base import Sample, State
from fluidnpu.sched.policies.fluid import ACTIVE, DEFERRED, URGENT
from fluidnpu.sched.request import Request

from .fake_device import chain, image
from .serve_fake import model_of, poisson, requests_at, run


def constant(op, n):
    return 100


def linear(op, n):
    return 100 * n


def stamps(results):
    return [r.stamp for r in sorted(results, key=lambda r: r.id)]


def mean_latency(results):
    return statistics.mean(r.latency for r in results)


def test_registry():
    for name, policy in POLICIES.items():
        options = {"true_exits": {}} if policy.wants_true_exits else {}
        assert make_policy(name, model_of(chain([1]), constant), **options).name == name
    with pytest.raises(ValueError, match="oracle: it needs true_exits"):
        make_policy("oracle", model_of(chain([1]), constant))
    with pytest.raises(ValueError, match=r"unknown policy 'best'; there are serial, graph, .*, fluid"):
        make_policy("best")
    with pytest.raises(ValueError, match=r"policy serial: .*speed"):
        make_policy("serial", speed=1)
    with pytest.raises(ValueError, match="fluid: it needs SurvivalTables"):
        make_policy("fluid")
    with pytest.raises(ValueError, match="adaptive: most = 0"):
        make_policy("adaptive", most=0)
    with pytest.raises(ValueError, match="merge = 'now', it must be one of profit, always, never"):
        make_policy("fluid", model_of(chain([1]), constant), merge="now")
    with pytest.raises(ValueError, match="defer = True, it must be one of hold, run, queue"):
        make_policy("fluid", model_of(chain([1]), constant), defer=True)


# --- serial ---------------------------------------------------------------------------------------------------


def test_serial_by_hand():
    results, device, _ = run(requests_at(0, 50, 1000, 1010), "serial")
    assert stamps(results) == [300, 600, 1300, 1600]
    assert all(len(tags) == 1 for _, _, tags in device.tiles)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_serial_is_an_m_d_1_queue(load):
    """Mean wait rho D / (2 (1 - rho))."""
    time = 300
    waits = []
    for seed in range(2):
        results, _, _ = run(poisson(seed, 1000, time / load), "serial")
        waits += [r.latency - time for r in results]
    assert statistics.mean(waits) == pytest.approx(load * time / (2 * (1 - load)), rel=0.15)


# --- adaptive -------------------------------------------------------------------------------------------------


def test_adaptive_by_hand():
    results, device, decisions = run(requests_at(0, 50, 60, 70, 80, 90, 100), "adaptive", tile_cycles=constant)
    assert stamps(results) == [300, 600, 600, 600, 600, 900, 900]
    assert [len(tags) for _, _, tags in device.tiles] == [1] * 3 + [4] * 3 + [2] * 3
    assert [(d.cycle, len(d.slots)) for d in decisions if d.kind == "start"] == [(0, 1), (300, 4), (600, 2)]


def test_adaptive_with_a_smaller_batch():
    results, _, _ = run(requests_at(0, 0, 0), "adaptive", tile_cycles=constant, options={"most": 2})
    assert stamps(results) == [300, 300, 600]


@pytest.mark.parametrize("rigid", [False, True])
def test_adaptive_lets_exited_samples_leave_and_runs_to_the_end(rigid):
    requests = [*requests_at(0, 0, 0, exits=[0, 1, 1]), Request(3, 150, image(0))]
    results, device, _ = run(requests, "adaptive", (1, 1, 1), linear, rigid)
    assert stamps(results)[0] == 300  # decided after layer 0 of the batch of three
    later = [len(tags) for start, op, tags in device.tiles if op == 3]
    assert later[0] == (3 if rigid else 2)  # rigid: a bubble
    assert stamps(results)[3] == stamps(results)[1] + (100 if not rigid else 400)


# --- fluid ----------------------------------------------------------------------------------------------------


def test_fluid_takes_what_waits_and_merges_a_newcomer_at_once():
    """A wide array: a newcomer at the first layer costs nothing and catches up."""
    results, device, decisions = run(requests_at(0, 0, 150), "fluid", (10,), constant)
    assert [(d.cycle, d.kind) for d in decisions] == [(0, "admit"), (0, "admit"), (0, "start"), (150, "merge")]
    # The tile that runs at 150 and the one dealt behind it are the group's, then layers 0 and 1 (2) of the newcomer.
    assert stamps(results)[0] == stamps(results)[2] <= 1000 + 300
    assert max(len(tags) for _, _, tags in device.tiles) == 3


def test_fluid_does_not_delay_a_group_that_is_nearly_done():
    results, _, decisions = run(requests_at(0, 850), "fluid", (10,), constant, options={"defer": "hold"})
    assert [d.kind for d in decisions] == ["start", "defer", "start"]
    assert stamps(results)[0] == 1000


def test_fluid_is_serial_where_batching_does_not_pay():
    requests = poisson(1, 300, 1200, exits=(1.0,))
    fluid, device, _ = run(requests, "fluid", (10,), linear)
    serial, _, _ = run(requests, "serial", (10,), linear)
    assert mean_latency(fluid) == pytest.approx(mean_latency(serial), rel=0.01)
    assert all(len(tags) == 1 for _, _, tags in device.tiles)


def test_fluid_against_the_others_on_a_wide_array_with_exits():
    """Better at low and medium load; where the queue fills every batch anyway, as good as adaptive."""
    for gap, margin in ((1500, 0.995), (700, 1.0), (300, 1.03)):
        kept = dict.fromkeys(("serial", "adaptive", "fluid"), 0.0)
        for seed in range(2):
            requests = poisson(seed, 250, gap, exits=(0.5, 0.2, 0.3))
            for name in kept:
                kept[name] += mean_latency(run(requests, name, (3, 3, 4), constant)[0])
        assert kept["fluid"] < margin * kept["adaptive"], gap
        assert kept["fluid"] < kept["serial"], gap


def test_fluid_learns_the_exit_rates():
    program = chain([2, 2])
    policy = make_policy("fluid", model_of(program, constant))
    run(poisson(3, 200, 500, exits=(0.9, 0.1)), policy, (2, 2))
    assert policy.model.rates.rates()[0] == pytest.approx(0.9, abs=0.06)
    assert policy.model.hazard[3] == pytest.approx(0.9, abs=0.1)


def test_no_sample_is_preempted_more_than_twice():
    """Newcomers that leave early arrive without end; merging always would starve the sample that goes deep."""
    exits = [1] + [0] * 300
    requests = requests_at(*(range(0, 301 * 90, 90)), exits=exits)
    limit = {}
    for most in (0, 2, 1000):
        options = {"merge": "always", "most_preemptions": most, "defer": "queue"}
        results, _, decisions = run(requests, "fluid", (1, 12), constant, options=options)
        limit[most] = next(r for r in results if r.id == 0).latency
        merges = [d for d in decisions if d.kind == "merge" and d.cycle < limit[most]]
        assert len({d.cycle for d in merges if d.cycle > 150}) <= most + 1
    assert limit[0] < limit[2] < limit[1000]
    assert limit[2] <= 1300 + 2 * 400


def state_of(*samples, waiting=(), now=1000):
    """State of samples (op, priority, deadline) in slots 0.., and waiting requests."""
    state = State(now, 4, list(waiting))
    for slot, (op, priority, deadline) in enumerate(samples):
        request = Request(slot, slot, image(), None if deadline is None else deadline - slot)
        state.live[slot] = Sample(request, slot, 0, priority, True, True, op)
    return state


def fluid(**options):
    return make_policy("fluid", model_of(chain([10]), constant), **{"defer": "hold", **options})


def test_a_merge_must_not_make_a_stalled_sample_late():
    newcomer = Request("new", 990, image())
    for deadline, kind in ((None, "merge"), (1000 + 1000, "merge"), (1000 + 999, "defer"), (999, "merge")):
        (action,) = fluid().decide(state_of((2, ACTIVE, deadline), waiting=[newcomer]))
        assert action.reason == kind, deadline  # 200 to catch up, 800 to go; nothing saves one that is late


def test_a_newcomer_that_would_miss_its_deadline_is_let_in():
    """At layer 7 a merge costs more than it saves, but the newcomer cannot wait for the group."""
    for slo, kinds in ((None, ["defer"]), (1290, ["merge"]), (900, []), (5000, ["defer"])):  # 900: it is late anyhow
        actions = fluid().decide(state_of((7, ACTIVE, None), waiting=[Request("new", 1000, image(), slo)]))
        assert [a.reason for a in actions] == kinds, slo


def test_a_sample_that_laggards_would_make_late_stops_waiting():
    """Newcomers were let past slot 0, at layer 8: 700 to catch up from layer 1, 200 to go."""

    def decide(deadline, preempted=1, priority=ACTIVE, op=8):
        state = state_of((op, priority, deadline), (1, ACTIVE, None))
        state.live[0].preempted = preempted
        return fluid().decide(state)

    (action,) = decide(1000 + 899)
    assert (action.slots, action.priority, action.reason) == ((0,), URGENT, "urgent")
    assert decide(1000 + 900) == []  # in time anyhow
    assert decide(1000 + 199) == []  # late anyhow
    assert decide(1000 + 899, preempted=0) == []  # they started together
    assert decide(1000 + 899, priority=URGENT) == []  # it does not wait
    assert decide(1000 + 899, op=1) == []  # nobody is behind


def test_half_a_layer_counts():
    """Merging at layer 4 of 10 pays, at 5 it does not: what is half done counts as done."""
    model = model_of(chain([10]), constant)
    model.lines = [8] * model.L
    for line, kind in ((0, "merge"), (3, "merge"), (4, "defer")):
        state = state_of((4, ACTIVE, None), waiting=[Request("new", 990, image())])
        state.live[0].line = line
        (action,) = make_policy("fluid", model, defer="hold").decide(state)
        assert action.reason == kind, line


def test_miss_cost_can_be_switched_off():
    state = state_of((7, ACTIVE, None), waiting=[Request("new", 1000, image(), 1290)])
    assert [a.reason for a in fluid(miss_cost=0).decide(state)] == ["defer"]
    with pytest.raises(ValueError, match="miss_cost = -1, it must be at least 0"):
        fluid(miss_cost=-1)


def test_deferred_samples_come_first():
    waiting = [Request("new", 990, image())]
    state = state_of((0, DEFERRED, None), waiting=waiting)
    admit, batch = fluid().decide(state)
    assert (admit.slot, admit.priority, admit.runnable) == (1, ACTIVE, False)
    assert (batch.slots, batch.priority, batch.runnable, batch.reason) == ((0, 1), ACTIVE, True, "start")
    state = state_of((0, ACTIVE, None), (0, ACTIVE, None), (0, ACTIVE, None), (0, DEFERRED, None), waiting=waiting)
    (action,) = fluid().decide(state)
    assert (action.slots, action.reason) == ((3,), "merge")


def test_positions_are_read_only_when_they_matter():
    policy = fluid()
    assert not policy.needs_positions(state_of())
    assert not policy.needs_positions(state_of((3, ACTIVE, None)))
    assert not policy.needs_positions(state_of(waiting=[Request("new", 990, image())]))
    assert policy.needs_positions(state_of((3, ACTIVE, None), waiting=[Request("new", 990, image())]))
    policy.decide(state_of((3, ACTIVE, None), (1, ACTIVE, None)))
    assert policy.needs_positions(state_of((3, ACTIVE, None), (1, ACTIVE, None)))
