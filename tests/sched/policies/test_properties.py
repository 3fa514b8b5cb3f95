"""What every policy has to keep, on random requests: conservation, determinism, ignorance of the truth."""

import random

import pytest
from fluidnpu.sched.policies import POLICIES, make_policy
from fluidnpu.sched.policies.base import Admit
from fluidnpu.sched.request import Request

from .event_simulation import Network, Simulation
from .states import tables

PARTS, HEAD, GROWTH = ((300, 200), (150, 250, 100), (400, 100)), 20, 0.6
SLOTS = 4
BLIND = [name for name, policy in POLICIES.items() if not policy.wants_true_exits]


def model():
    found = tables(PARTS, HEAD, GROWTH, slots=SLOTS)
    found.lines = [1000] * found.L  # what the simulation calls a line
    return found


def traffic(seed, count=150, load=0.9, slo=4000):
    """(requests, true exits); the best batch takes about 640 cycles a sample."""
    rng, now, requests, truth = random.Random(seed), 0.0, [], {}
    for n in range(count):
        now += rng.expovariate(load / 640)
        requests.append(Request(n, int(now), None, slo if n % 3 else None))
        truth[n] = rng.choices(range(3), (5, 3, 2))[0]
    return requests, truth


def run(name, requests, truth, **options):
    known = model()
    network = Network(known.latency.cycles.tolist(), known.exit_operations, known.heads)
    if POLICIES[name].wants_true_exits:
        options["true_exits"] = truth
    simulation = Simulation([network], requests, make_policy(name, known, **options), truth, SLOTS)
    simulation.run()
    return simulation


def said(entry):
    """An action in words that do not depend on the run."""
    cycle, action = entry
    request = getattr(action, "request", None)
    slots = getattr(action, "slots", (getattr(action, "slot", None),))
    return cycle, type(action).__name__, slots, getattr(request, "id", None), getattr(action, "cycle", None)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("load", [0.5, 1.3])
def test_every_request_is_answered_once(name, load):
    requests, truth = traffic(1, load=load)
    simulation = run(name, requests, truth)
    assert sorted(r.id for r in simulation.results) == [r.id for r in requests]
    assert not simulation.work and not simulation.state.waiting
    admitted = [a.request.id for _, a in simulation.log if isinstance(a, Admit)]
    assert len(admitted) == len(set(admitted))
    for r in simulation.results:
        assert not r.ok or r.exit == truth[r.id] or r.id in simulation.force
        assert r.arrival <= r.stamp <= r.completed


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_requests_give_the_same_decisions(name):
    first, second = (run(name, *traffic(2)) for _ in range(2))
    assert [said(e) for e in first.log] == [said(e) for e in second.log]


@pytest.mark.parametrize("name", BLIND)
def test_nobody_but_an_oracle_knows_the_true_exit(name):
    """Another truth changes nothing until the first sample that it concerns leaves, in either world."""
    requests, truth = traffic(3)
    other = truth | {n: 2 - truth[n] for n in range(60, 150)}
    worlds = [run(name, requests, t) for t in (truth, other)]
    changed = {n for n in truth if truth[n] != other[n]}
    until = min(int(r.completed) for w in worlds for r in w.results if r.id in changed)
    logs = [[said(e) for e in w.log if e[0] < until] for w in worlds]
    assert logs[0] == logs[1] and len(logs[0]) > 60
    if POLICIES[name].exit_handling == "shrink":  # else every batch takes as long whoever exits
        assert [said(e) for e in worlds[0].log] != [said(e) for e in worlds[1].log]
    with pytest.raises(ValueError, match=f"policy {name}: .*true_exits"):
        make_policy(name, model(), true_exits=truth)


@pytest.mark.parametrize("name", ["serial", "adaptive", "lazy", "sjf", "fluid"])
def test_exits_that_are_switched_off_are_not_taken(name):
    requests, truth = traffic(4, count=20)
    requests = [Request(r.id, r.arrival, None, r.slo, exits=0b110) for r in requests]
    policy = make_policy(name, model())
    network = Network(policy.model.latency.cycles.tolist(), policy.model.exit_operations, policy.model.heads)
    results = Simulation([network], requests, policy, truth, SLOTS).run()
    assert {r.exit for r in results} == {1, 2}
