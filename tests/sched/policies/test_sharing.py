"""Fair shares: who is above its share, which slots stay free, who goes ahead of whom, and a flood in short runs."""

import random
import statistics

import pytest
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Admit, Batch
from fluidnpu.sched.policies.fluid import ACTIVE, DEFERRED
from fluidnpu.sched.policies.tenants import AWAY, Tenants
from fluidnpu.sched.policies.waiting import Waiting
from fluidnpu.sched.request import Request

from .event_simulation import Network, Simulation
from .states import live, request, state, tables

PARTS = ((100, 100), (200, 200))


def poisson(seed, count, gap, slo, start=0, **more):
    rng, now, found = random.Random(seed), 0.0, []
    for n in range(count):
        now += rng.expovariate(1 / gap)
        found.append(Request(start + n, int(now), None, slo, **more))
    return found


# --- shares -------------------------------------------------------------------------------------------------------


def seen(*gaps, priorities=(1.0, 1.0), until=4000):
    """Tenants whose requests of 100 cycles each come at these gaps until ``until``."""
    tenants = Tenants()
    names = [f"t{n}" for n in range(len(gaps))]
    for name, gap, priority in zip(names, gaps, priorities, strict=True):
        for t in range(0, until, gap):
            tenants.arrived(request((name, t), t, tenant=name, priority=priority), 100)
    tenants.look(until)
    return tenants, [request(name, until, tenant=name) for name in names]


@pytest.mark.parametrize(
    "gaps, priorities, above",
    [
        ((50, 400), (1.0, 1.0), [True, False]),  # 200 % and 25 %
        ((50, 150), (1.0, 1.0), [True, True]),  # 67 %, more than half
        ((50, 150), (1.0, 3.0), [True, False]),  # its priority gives it three quarters
        ((180, 500), (1.0, 1.0), [False, False]),  # 56 % and 20 %: there is enough for both
    ],
)
def test_who_is_above_its_share(gaps, priorities, above):
    tenants, requests = seen(*gaps, priorities=priorities)
    assert [tenants.above(r) for r in requests] == above


def test_a_tenant_alone_is_never_above_its_share():
    tenants, (only,) = seen(10, priorities=(1.0,))
    assert not tenants.above(only) and tenants.kept(only, 8, {}) == 0


def test_slots_are_kept_for_those_who_may_come():
    """Half of an equal part of 8 slots is 2; what the other has already counts."""
    tenants, (a, b) = seen(50, 400)
    assert tenants.kept(a, 8, {}) == tenants.kept(b, 8, {}) == 2
    assert tenants.kept(a, 8, {(0, "t1"): 1}) == 1 and tenants.kept(a, 8, {(0, "t1"): 5}) == 0
    assert tenants.kept(a, 1, {}) == 0, "with one slot there is none to keep"
    tenants.look(3600 + AWAY * 400 + 1)
    assert tenants.kept(b, 8, {}) == 0, "the first has not sent for long"


# --- the queue ----------------------------------------------------------------------------------------------------


def test_the_queue_is_what_sorting_gives():
    """Random arrivals, departures and times; requests of two tenants with two steps each, some without a deadline."""
    rng = random.Random(11)

    def steps(r):
        return [100, 300] if r.tenant == "a" else [50, 60]

    queue, waiting, now = Waiting(steps, lambda r, level, levels: r.slo or 1e9), [], 0
    for n in range(400):
        now += rng.randrange(60)
        for r in rng.sample(waiting, min(len(waiting), rng.randrange(3))):
            queue.take(r)
            waiting.remove(r)
        if n % 97 == 0 and waiting:  # somebody else took one
            waiting.remove(rng.choice(waiting))
        for k in range(rng.randrange(4)):
            slo = rng.choice([None, rng.randrange(1, 600)])
            waiting.append(Request((n, k), now, None, slo, tenant=rng.choice("ab")))
        queue.update(waiting, now)

        def level(r, now=now):
            return 2 if r.slo is None else sum(step <= r.deadline - now for step in steps(r))

        assert len(queue) == len(waiting)
        assert queue.count(0) == len(waiting) and queue.count(0, chance=True) == sum(level(r) > 0 for r in waiting)
        assert {r.id for r in queue.lost()} == {r.id for r in waiting if level(r) == 0}
        heads = queue.heads(3, 2)
        for tenant, n in ((t, n) for t in "ab" for n in range(3)):
            mine = [r for r in waiting if r.tenant == tenant and level(r) == n]
            mine.sort(key=lambda r: (r.slo or 1e9, r.arrival, waiting.index(r)))
            found = [r.id for r, l, _ in heads if r.tenant == tenant and l == n]
            assert found == [r.id for r in mine[: 3 if n else 2]], n


# --- going ahead --------------------------------------------------------------------------------------------------


def flooded(**options):
    """Policy of two networks, the second one's tenant floods: 400 cycles of work every 100 cycles."""
    model = [tables(PARTS, growth=1.0), tables(((200,), (600,)), growth=1.0)]
    policy = make_policy("fluid", model, **options)
    quiet = [request(("q", t), t, t + 9000) for t in range(0, 8000, 2000)]
    flood = [request(("f", t), t, t + 2000, program=1, tenant="f") for t in range(0, 8000, 100)]
    for r in sorted([*quiet, *flood], key=lambda r: r.arrival):
        policy.decide(state(r.arrival, [r], [live(request("x", r.arrival), 0, priority=ACTIVE)]))
    return policy


@pytest.mark.parametrize("slack, ahead", [(9000, False), (1900, True), (650, True), (150, False)])
def test_within_its_share_it_goes_ahead_of_a_flood_when_its_deadline_asks_for_it(slack, ahead):
    """Two of the flood need up to 1600 more and would all be late, the newcomer 200 to 600."""
    group = [live(request(n, 7000, 9700, program=1, tenant="f"), n, priority=ACTIVE) for n in range(2)]
    for sample in group:
        sample.preempted = 9  # newcomers of its own network are not let past it any more
    actions = flooded().decide(state(8000, [request("new", 8000, 8000 + slack)], group))
    batches = [a for a in actions if isinstance(a, Batch)]
    assert [a.request.id for a in actions if isinstance(a, Admit)] == (["new"] if ahead else [])
    assert [(b.slots, b.priority, b.runnable) for b in batches] == ([((0, 1), DEFERRED, False)] if ahead else [])


def test_a_flood_never_goes_ahead():
    group = [live(request(0, 7000, 20000), 0, priority=ACTIVE)]
    actions = flooded().decide(state(8000, [request("new", 8000, 9000, program=1, tenant="f")], group))
    assert not [a for a in actions if isinstance(a, Admit | Batch)]


def test_a_flood_leaves_slots_free():
    """One of four: half of an equal part."""
    queue = [request(n, 7000 + n, 90000, program=1, tenant="f") for n in range(8)]
    admitted = [a for a in flooded(miss_cost=0).decide(state(8000, queue)) if isinstance(a, Admit)]
    assert 0 < len(admitted) <= 3


def test_those_who_were_overtaken_together_go_on_together():
    parked = [live(request(n, 7000, 60000, program=1, tenant="f"), n, n, priority=DEFERRED) for n in (1, 2)]
    (batch,) = flooded().decide(state(8000, [], parked))
    assert (batch.slots, batch.priority, batch.runnable) == ((1, 2), ACTIVE, True)


@pytest.mark.parametrize("programs", [(0, 0), (0, 1)], ids=["one network", "two networks"])
@pytest.mark.parametrize("gap", [270, 200])
def test_a_flood_costs_another_tenant_no_deadline(programs, gap):
    """a asks for 30 % of the time, b for 150 or 200 %, on an array where a batch of four takes four times as long. Ten
    single latencies are enough for every request of a."""
    models = [tables(PARTS, growth=1.0) for _ in range(max(programs) + 1)]
    missed = []
    for seed in (1, 2):
        a = poisson(seed, 200, 1333, 6000, tenant="a", program=programs[0])
        b = poisson(seed + 10, 266_000 // gap, gap, 6000, start=1000, tenant="b", program=programs[1])
        requests = sorted([*a, *b], key=lambda r: r.arrival)
        rng = random.Random(seed)
        truth = {r.id: rng.randrange(2) for r in requests}
        networks = [Network(m.latency.cycles.tolist(), m.exit_operations, m.heads) for m in models]
        for model in models:
            model.lines = [1000] * model.L
        run = Simulation(networks, requests, make_policy("fluid", models), truth, 4)
        run.run()
        names = {r.id for r in a}
        missed.append(statistics.mean(not r.met for r in run.results if r.id in names))
        assert statistics.mean(not r.met for r in run.results if r.id not in names) > 0.4
    assert max(missed) <= 0.005
