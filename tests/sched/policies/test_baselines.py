"""Published rules on hand-made states; the expected actions are worked out from the papers' formulas."""

import numpy as np
import pytest
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Admit, Batch, Drop, Wake
from fluidnpu.sched.request import Request, Result

from .states import SLOTS, live, request, state, tables

WIDE = tables()  # four layers of 100 cycles for any number of samples, a head in the middle that half of them take
NARROW = tables(growth=1.0)


def entering(actions):
    return [a.request.id for a in actions if isinstance(a, Admit)]


def dropped(actions):
    return [a.request.id for a in actions if isinstance(a, Drop)]


def wakes(actions):
    return [a.cycle for a in actions if isinstance(a, Wake)]


def result(request, stamp, exit=1, slot=0):
    return Result(request.id, "ok", request.arrival, request.deadline, stamp, stamp, request.arrival, slot, exit)


def queue(*deadlines, arrival=0):
    return [request(n, arrival, d) for n, d in enumerate(deadlines)]


# --- whole batches --------------------------------------------------------------------------------------------


def test_graph_batching_waits_for_the_window_or_a_full_batch():
    policy = make_policy("graph", WIDE, window=100)
    assert policy.decide(state(1000, [request(0, 950)])) == [Wake(1050)]
    assert entering(policy.decide(state(1050, [request(0, 950), request(1, 1049)]))) == [0, 1]
    assert entering(policy.decide(state(1000, [request(n, 999) for n in range(6)]))) == [0, 1, 2, 3]
    assert policy.decide(state(1000, [request(0, 0)], [live(request(9), 0)])) == []
    assert make_policy("graph", WIDE).window == 100  # a quarter of 400
    assert entering(make_policy("graph", window=0).decide(state(1000, [request(0, 1000)]))) == [0]
    with pytest.raises(ValueError, match="graph: it needs a window or SurvivalTables"):
        make_policy("graph")
    with pytest.raises(ValueError, match="graph: window = -1, it must be at least 0 cycles"):
        make_policy("graph", WIDE, window=-1)


def test_a_batch_starts_in_one_cycle():
    actions = make_policy("adaptive", WIDE).decide(state(0, queue(None, None)))
    assert [type(a) for a in actions] == [Admit, Admit, Batch]
    assert [a.runnable for a in actions] == [False, False, True]
    assert actions[-1].slots == (0, 1) and actions[-1].commit


def test_batches_hold_one_network():
    waiting = [request(0, program=1), request(1, program=0), request(2, program=1)]
    assert entering(make_policy("adaptive", [WIDE, WIDE]).decide(state(0, waiting))) == [0, 2]


@pytest.mark.parametrize("name", ["graph", "adaptive", "aimd"])
def test_exit_handling_says_what_the_machine_has_to_do(name):
    how = {kind: make_policy(name + kind, WIDE) for kind in ("", "-bubble", "-hold")}
    assert {k: (p.exit_handling, p.rigid) for k, p in how.items()} == {
        "": ("shrink", False),
        "-bubble": ("bubble", True),
        "-hold": ("hold", True),
    }


def test_aimd_adds_one_and_takes_a_tenth():
    """SLO 500; a batch takes 400 (in time), 501 (late)."""
    policy = make_policy("aimd", WIDE)
    limits = []
    for n, took in enumerate([400, 400, 400, 501, 501, 500]):
        now, waiting = 10_000 * n, [request((n, i), 10_000 * n, 10_000 * n + 500) for i in range(6)]
        started = entering(policy.decide(state(now, waiting)))
        limits.append(len(started))
        for id in started:
            policy.completed(result(next(r for r in waiting if r.id == id), now + took))
    # limit: 1, 2, 3, 4, then 4 * 0.9 = 3.6, 3.6 * 0.9 = 3.24, then 4.24 capped at the slots
    assert limits == [1, 2, 3, 4, 3, 3]
    assert policy.decide(state(90_000)) == [] and policy.learned == SLOTS


def test_nexus_drops_what_its_window_makes_late():
    """A batch of b takes 400 b; SLO 1700, so the target is 2 (2 * 800 <= 1700)."""
    policy = make_policy("nexus", NARROW, exit_aware=False)
    waiting = [request(n, d - 1700, d) for n, d in enumerate([1799, 1800, 2500, 2600])]
    actions = policy.decide(state(1000, waiting))
    assert dropped(actions) == [0] and entering(actions) == [1, 2]
    alone = policy.decide(state(1000, waiting[:1]))  # a window of one takes 400
    assert dropped(alone) == [] and entering(alone) == [0]
    assert dropped(policy.decide(state(9000, waiting))) == [0, 1, 2, 3]


def test_nexus_looks_at_the_earliest_deadline_first():
    waiting = [request(0, 0, 5000), request(1, 300, 2000)]
    assert entering(make_policy("nexus", NARROW, batch=1).decide(state(1000, waiting))) == [1]


def test_nexus_without_deadlines_is_adaptive():
    assert entering(make_policy("nexus", WIDE).decide(state(0, queue(*[None] * 6)))) == [0, 1, 2, 3]


def test_proteus_waits_as_long_as_the_oldest_can():
    """T_process(2) = 400: a request that is due at 2000 waits until 1600; with exits W[0][2] = 200 + 0.75 * 200."""
    policy = make_policy("proteus", WIDE, exit_aware=False)
    assert policy.decide(state(1000, queue(2000))) == [Wake(1600)]
    assert entering(policy.decide(state(1600, queue(2000)))) == [0]
    assert entering(policy.decide(state(1000, queue(*[9000] * 5)))) == [0, 1, 2, 3]
    assert entering(policy.decide(state(1000, queue(None)))) == [0]
    assert make_policy("proteus", WIDE).decide(state(1000, queue(2000))) == [Wake(1650)]


# --- LazyBatching ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, total", [("lazy", 600), ("lazy-fair", 500)])
def test_lazy_batching_lets_newcomers_in_while_all_deadlines_hold(name, total):
    """Slot 0 has two layers to go (200), the newcomer four: 400, or 200 + 0.5 * 200 with exits."""
    for deadlines, merges in (((total, 9000), True), ((total - 1, 9000), False), ((9000, total - 1), False)):
        ahead, newcomer = request(0, 0, 1000 + deadlines[0]), request(1, 900, 1000 + deadlines[1])
        actions = make_policy(name, WIDE).decide(state(1000, [newcomer], [live(ahead, 0, op=3)]))
        assert entering(actions) == ([1] if merges else []), deadlines
        assert all(a.priority == 1 and a.ride for a in actions)  # the rearmost leads, those ahead wait for it


def test_lazy_batching_takes_as_many_as_fit_and_ignores_the_hopeless():
    policy = make_policy("lazy", WIDE)
    ahead = live(request(9, 0, 1000 + 1100), 3, op=3)
    assert entering(policy.decide(state(1000, queue(9000, 9000, 9000), [ahead]))) == [0, 1]
    hopeless = live(request(9, 0, 1199), 3, op=3)
    assert entering(policy.decide(state(1000, queue(9000, 9000, 9000), [hopeless]))) == [0, 1, 2]
    assert entering(policy.decide(state(1000, queue(1401, 9000)))) == [0]  # idle: 400, then 800 > 401
    assert entering(policy.decide(state(1000, queue(None, None, None, None, None)))) == [0, 1, 2, 3]


# --- DREX -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head, fewest", [(40, 1), (60, 2), (120, 3)])
def test_drex_splits_off_leavers_only_if_it_pays(head, fewest):
    """c = head, t_d = 200: of a batch of 4 more than head / 200 * 4 have to leave."""
    model = tables(head=head)
    for left in (1, 2, 3):
        policy = make_policy("drex", model)
        first = [request(n) for n in range(4)]
        assert len(entering(policy.decide(state(0, first)))) == 4
        for slot in range(left):
            policy.completed(result(first[slot], 200 + head, exit=0, slot=slot))
        stay = [live(first[slot], slot, op=3) for slot in range(left, 4)]
        actions = policy.decide(state(200 + head, [request("new", 100)], stay))
        assert entering(actions) == (["new"] if left >= fewest else []), left


def test_drex_does_not_wait_if_a_deadline_asks_for_it():
    for deadline, expected in ((200 + 349, []), (200 + 10_000, ["new"])):
        policy = make_policy("drex", WIDE)
        first = [request(0, 0, 9000), request(1, 0, deadline)]
        policy.decide(state(0, first))
        policy.completed(result(first[0], 200, exit=0, slot=0))
        actions = policy.decide(state(200, [request("new", 100)], [live(first[1], 1, op=3)]))
        assert entering(actions) == expected


# --- one sample at a time -------------------------------------------------------------------------------------


def runs(actions):
    """Who is told to run: ids of newcomers, slots of samples."""
    return entering(actions) + [s for a in actions if isinstance(a, Batch) and a.priority == 2 for s in a.slots]


def test_sjf_finishes_what_has_least_left():
    a, b = request(0, 0), request(1, 10)
    policy = make_policy("sjf", WIDE)
    assert runs(policy.decide(state(1000, [a], [live(b, 0, op=3)]))) == [0]  # slot 0: 200 against 400
    actions = policy.decide(state(1000, [], [live(a, 2, op=1, priority=2), live(b, 0, op=3)]))
    assert runs(actions) == [0]
    stop, start = actions[:2]
    assert (stop.slots, stop.priority, stop.ride, stop.commit) == ((2,), 1, False, False) and start.commit


def test_edf_takes_the_earliest_deadline():
    a, b, c = request("a", 0, 3000), request("b", 10, 2000), request("c", 20)
    policy = make_policy("edf", WIDE)
    assert runs(policy.decide(state(1000, [b, c], [live(a, 0, op=4, priority=2, ride=False)]))) == ["b"]
    assert runs(policy.decide(state(1000, [a, c], [live(b, 0, op=0)]))) == [0]


def test_llf_takes_the_least_laxity():
    """a: 1700 - 1000 - 400 = 300; b at layer 3: 1450 - 1000 - 200 = 250."""
    a, b = request("a", 0, 1700), request("b", 10, 1450)
    policy = make_policy("llf", WIDE)
    actions = policy.decide(state(1000, [a], [live(b, 0, op=3)]))
    assert runs(actions) == [0] and wakes(actions) == [1100]  # asked again when the layer ends
    b = request("b", 10, 1501)
    assert runs(make_policy("llf", WIDE).decide(state(1000, [a], [live(b, 0, op=3)]))) == ["a"]


@pytest.mark.parametrize("name", ["llf", "dysta"])
def test_layer_granular_policies_decide_where_a_layer_ends(name):
    """Whoever took over runs for a layer at least, however urgent others become; then they are asked again."""
    old, urgent = request("old", 0, 100_000), request("new", 990, 1001)
    policy = make_policy(name, WIDE)
    assert wakes(policy.decide(state(1000, [request("other", 0, 200_000)], [live(old, 0, op=3)]))) == [1100]
    samples = [live(old, 0, op=3, priority=2, ride=False)]
    assert [(type(a), a.cycle) for a in policy.decide(state(1050, [urgent], samples))] == [(Wake, 1100)]
    assert runs(policy.decide(state(1100, [urgent], [live(old, 0, op=4, priority=2, ride=False)]))) == ["new"]


@pytest.mark.parametrize("name", ["sjf", "edf", "llf", "srtf-ee", "prema", "dysta"])
@pytest.mark.parametrize("seed", range(20))
def test_candidates_lose_nothing(name, seed):
    """The best of all who wait is among the candidates."""
    rng = np.random.default_rng(seed)
    waiting = [
        Request(i, i * 10, None, (None, 300, 900)[rng.integers(3)], priority=(1.0, 3.0)[rng.integers(2)])
        for i in range(12)
    ]
    one, all_of_them = make_policy(name, WIDE), make_policy(name, WIDE)
    all_of_them.candidates = lambda state: list(state.waiting)
    all_of_them.kind = lambda request: request.id  # every one is of its own kind
    found = [runs(policy.decide(state(600, list(waiting)))) for policy in (one, all_of_them)]
    assert found[0] == found[1] and len(found[0]) == 1


def test_srtf_with_exits_prefers_a_newcomer_to_one_that_stayed_at_its_head():
    """100 cycles, of ten nine leave, then 500: fresh 100 + 0.1 * 500 = 150; behind the head 500, in front of it 50."""
    model = tables(((100,), (500,)), rate=0.9)
    policy = make_policy("srtf-ee", model)
    fresh, old = request("new", 900), request("old", 0)
    for op, expected in ((0, [0]), (1, [0]), (2, ["new"])):
        actions = policy.decide(state(1000, [fresh], [live(old, 0, op=op)]))
        assert runs(actions) == expected, op
        assert wakes(actions) == [{0: 1100, 1: 1012, 2: 1100}[op]]  # at the next head of who runs, but not at once
    assert runs(make_policy("sjf", model).decide(state(1000, [fresh], [live(old, 0, op=2)]))) == [0]


def test_dysta_weighs_slack_and_idleness():
    """remaining + 0.5 (slack + idle / 400 / 2)

    a: 400 + 0.5 (max(0, 2000 - 1000 - 400) + 1000 / 800) = 700.625
    b: 200 + 0.5 (max(0, d - 1000 - 200) + 500 / 800)     = 700.625 at d = 2200.625
    """
    a = request("a", 0, 2000)
    for deadline, expected in ((2200, [0]), (2202, ["a"])):
        b = request("b", 500, deadline)
        policy = make_policy("dysta", WIDE, eta=0.5)
        assert runs(policy.decide(state(1000, [a], [live(b, 0, op=3)]))) == expected
    late = request("late", 500, 1100)  # its slack is 0, not negative: 200.3 against 400 + 0.5 * 0
    policy = make_policy("dysta", WIDE, eta=0.5)
    assert runs(policy.decide(state(1000, [request("c", 1000, 1400)], [live(late, 0, op=3)]))) == [0]


def test_prema_tokens():
    """Tokens: priority + priority * waited / 400. Threshold: the most, rounded down to 9, 3 or 1."""
    for waited, expected in ((799, ["high"]), (800, ["low"])):
        low, high = request("low", 1000 - waited), request("high", 1000, priority=3)
        policy = make_policy("prema", WIDE)
        actions = policy.decide(state(1000, [low, high]))
        # low has 2.9975 < 3 or 3.0: from then on both are candidates, equally short, and the older runs
        assert runs(actions) == expected and wakes(actions) == [1100]


def test_prema_takes_the_shortest_candidate():
    """At 800 the fresh a has 3 tokens; b, at layer 3 with 200 to go, has 3 or 2.975."""
    for arrival, expected in ((0, [0]), (10, ["a"])):
        a, b = request("a", 0), request("b", arrival)
        assert runs(make_policy("prema", WIDE).decide(state(800, [a], [live(b, 0, op=3)]))) == expected


def test_layer_granular_policies_can_batch():
    """The best by score at the same place run together."""
    a, b, c = (request(n, n) for n in range(3))
    policy = make_policy("sjf", WIDE, batch=2)
    actions = policy.decide(state(1000, [c], [live(a, 0, op=3), live(b, 1, op=3)]))
    assert runs(actions) == [0, 1] and actions[0].ride
    assert runs(policy.decide(state(1000, [a, b, c]))) == [0, 1]
    with pytest.raises(ValueError, match="sjf: batch = 0, it must be at least 1"):
        make_policy("sjf", WIDE, batch=0)
