"""Groups that are late already: passed by newcomers in time when that pays, smaller where that is cheap; what a miss
may cost near saturation."""

import random
import statistics

import pytest
from fluidnpu.sched.planning import Plan
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Admit, Batch
from fluidnpu.sched.policies.fluid import ACTIVE, DEFERRED
from fluidnpu.sched.policies.foresight import Foresight
from fluidnpu.sched.request import Request

from .event_simulation import Network, Simulation
from .states import live, request, state, tables

PARTS = ((100, 100), (200, 200))


def fluid(**options):
    return make_policy("fluid", tables(PARTS, growth=1.0), **options)


def passes(slack, deadline, **options):
    """Whether a newcomer with this slack goes ahead of two samples with that deadline, at their first operation."""
    group = [live(request(n, 0, deadline), n, 1, priority=ACTIVE) for n in range(2)]
    actions = fluid(**{"miss_cost": 4, "merge": "never", **options}).decide(
        state(1000, [request("new", 1000, 1000 + slack)], group)
    )
    batches = [(a.slots, a.priority, a.runnable) for a in actions if isinstance(a, Batch)]
    admitted = [a.request.id for a in actions if isinstance(a, Admit)]
    assert (batches, admitted) in (([], []), ([((0, 1), DEFERRED, False)], ["new"]))
    return bool(admitted)


def test_a_late_group_is_passed_by_who_would_miss_behind_it():
    """It takes up to 1000 more, the newcomer 200 to 600; the group was due at 900."""
    assert passes(700, 900)
    assert not passes(5000, 900), "there is time for both"
    assert not passes(100, 900), "it is late itself"
    assert not passes(700, 9000), "the group has a deadline to lose"
    assert not passes(700, 900, give_way=False)
    assert not passes(700, 900, miss_cost=0), "the group would lose more time than it gains"


def test_costs_of_passing_by_hand():
    """Without arrivals: b wait W[0][k] longer, q - k wait for both."""
    model = tables(PARTS, growth=1.0)
    plan, (W, F) = Plan(model), (model.remaining, model.sojourn)
    l, b, q = 1, 2, 3
    for k, cost in enumerate(plan.pass_costs(l, b, q)):
        rest = plan.h[q - k]
        expected = F[0, k] + b * W[0, k] + F[l, b] + (q - k) * (W[0, k] + W[l, b]) + rest
        assert cost == pytest.approx(expected)
    assert plan.pass_costs(l, b, q)[0] == pytest.approx(plan.merge_costs(l, b, q)[0])


@pytest.mark.parametrize("growth, spare", [(1.0, 2), (0.0, 0)])
def test_slots_are_spared_where_smaller_batches_cost_little(growth, spare):
    assert Foresight(tables(PARTS, growth=growth)).spare == spare


def test_misses_are_cheaper_near_saturation():
    """400 cycles of work a request: idle half, a tenth, not at all (counts as a twentieth). In full from 0.3 on."""
    prices = []
    for gap in (800, 444, 300):
        policy = fluid()
        policy.decide(state(0))
        for n in range(40):
            policy.decide(state(n * gap, [request(n, n * gap)]))
        prices.append(policy._price(0))
    assert prices == pytest.approx([600, 200, 100], rel=0.02)


def test_giving_way_keeps_deadlines_at_the_same_mean():
    missed, means = {True: [], False: []}, {True: [], False: []}
    for seed in range(4):
        rng, now, requests = random.Random(seed), 0.0, []
        for n in range(500):
            now += rng.expovariate(1 / 500)
            requests.append(Request(n, int(now), None, 1800))
        truth = {r.id: rng.randrange(2) for r in requests}
        for give_way in (True, False):
            policy = fluid(give_way=give_way)
            policy.model.lines = [1000] * policy.model.L
            network = Network(policy.model.latency.cycles.tolist(), policy.model.exit_operations, policy.model.heads)
            run = Simulation([network], requests, policy, truth, 4)
            run.run()
            missed[give_way].append(statistics.mean(not r.met for r in run.results))
            means[give_way].append(statistics.mean(r.latency for r in run.results))
    assert sum(missed[True]) < sum(missed[False])
    assert sum(means[True]) < 1.03 * sum(means[False])
