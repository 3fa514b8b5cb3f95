"""Exit rates by the S of the last head: what is learned, what a policy makes of it, and that it can be switched off."""

import random

import numpy as np
import pytest
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Wake
from fluidnpu.sched.policies.confidence import BANDS, Confidence
from fluidnpu.sched.policies.fluid import ACTIVE
from fluidnpu.sched.request import Result

from .states import live, request, state, tables

PARTS = ((100, 100), (200, 200), (200,))  # exits at operations 2, 5 and 7
BEHIND = 4  # an operation between the first two exits
LIMIT = 80_000
SEED = 11
CHANCES = (0.9, 0.6, 0.3, 0.05)  # to leave at exit 1, of the quarters of the samples that stay at exit 0, by S
QUARTER = 20_000  # width of a quarter in S


def passed(id, spread, op=BEHIND, slot=0, **more):
    sample = live(request(id, **more), slot, op=op, priority=ACTIVE)
    sample.spread = spread
    return sample


def left(id, exit, exits=None, status="ok"):
    return Result(id, status, 0, None, 100, 100, exit=exit, exits=exits)


def taught(learner, count=3000, seed=SEED):
    """Shows ``learner`` (Confidence, or Fluid's) samples whose chance depends on S."""
    rng = random.Random(seed)
    for n in range(count):
        quarter, part = rng.randrange(BANDS), rng.random()
        learner.look([passed(n, LIMIT + int(QUARTER * (quarter + part)))])
        learner.completed(left(n, 1 if rng.random() < CHANCES[quarter] else 2))
    return learner


@pytest.fixture
def model():
    found = tables(PARTS)
    found.rates.start = np.array([0.4, sum(CHANCES) / BANDS])
    found.refresh()
    return found


def test_rates_become_those_of_the_bands(model):
    learner = taught(Confidence([model]))
    for band, chance in enumerate(CHANCES):
        rates = learner.rates(0, 0, band)
        assert rates[1] == pytest.approx(chance, abs=0.1), f"seed {SEED}, band {band}"  # of some 250 samples
        assert (rates[0], rates[2]) == (pytest.approx(0.4), 1.0)


def test_a_sample_near_the_limit_is_expected_to_leave_sooner(model):
    learner = taught(Confidence([model]))
    near, far = passed("near", LIMIT + 1000), passed("far", LIMIT + 79_000, slot=1)
    learner.look([near, far])
    chances = [learner.foresight(s).reach(BEHIND, 1)[0][1] for s in (near, far)]
    assert chances[0] == pytest.approx(CHANCES[0], abs=0.1) and chances[1] == pytest.approx(CHANCES[3], abs=0.1)
    W = [learner.tables(s).remaining[BEHIND, 1] for s in (near, far)]
    assert W[0] == pytest.approx(200 + 200 * (1 - chances[0])) and W[0] < model.remaining[BEHIND, 1] < W[1]
    assert np.array_equal(learner.tables(near).latency.cycles, model.latency.cycles)


def test_nothing_known_is_what_all_samples_do(model):
    learner = Confidence([model])
    samples = [passed("a", LIMIT + 5), passed("new", None, op=0, slot=1)]
    learner.look(samples)
    assert all(learner.tables(s) is model and learner.foresight(s) is None for s in samples)
    taught(learner)
    first = passed("first", None, op=1)
    last = passed("last", 200_000, op=7)  # behind the second exit there is nothing to learn
    learner.look([first, last])
    assert learner.tables(first) is model and learner.tables(last) is model


def test_only_what_samples_chose_is_learned(model):
    learner = Confidence([model])
    for n in range(200):
        learner.look([passed(n, LIMIT + n)])
        if n % 2:
            learner.completed(left(n, 1), learns=False)  # it was told to leave
        else:
            learner.completed(left(n, 0, status="cancelled"))
    assert all(learner.rates(0, 0, band)[1] == pytest.approx(model.rates.rates()[1]) for band in range(BANDS))


def test_an_exit_that_was_not_enabled_has_no_spread(model):
    """Without exit 1 a sample in front of the last one still carries S of exit 0."""
    learner = taught(Confidence([model]))
    sample = passed("masked", LIMIT + 1000, op=7)
    sample.exits = 0b101
    learner.look([sample])
    assert learner.tables(sample) is not model
    learner.completed(left("masked", 2, exits=0b101))  # says nothing of exit 1
    assert learner.rates(0, 0, 0)[1] == pytest.approx(CHANCES[0], abs=0.1)


def test_tables_follow_when_the_mix_turns(model):
    learner = taught(Confidence([model]))
    sample = passed("s", LIMIT + 1000)
    learner.look([sample])
    before = learner.tables(sample).remaining[BEHIND, 1]
    rng = random.Random(SEED)
    for n in range(3000):
        learner.look([passed(n, LIMIT + int(4 * QUARTER * rng.random()))])
        learner.completed(left(n, 2))
    learner.look([sample])
    assert learner.tables(sample).remaining[BEHIND, 1] > before + 100


def test_a_mixed_group_costs_the_mean_of_its_members(model):
    policy = make_policy("fluid", model, confidence=True)
    taught(policy._confidence)
    group = [passed("near", LIMIT + 1000), passed("far", LIMIT + 79_000, slot=1), passed("too", LIMIT + 78_000, slot=2)]
    policy.decide(state(0, [], group))
    plan = policy._plan(0)
    costs = policy._confidence.merge_costs(plan, group, BEHIND, 3)
    near, far = (policy._confidence.merge_costs(plan, [s] * 3, BEHIND, 3) for s in group[:2])
    assert costs == pytest.approx([(a + 2 * b) / 3 for a, b in zip(near, far, strict=True)])
    assert near[0] < plan.merge_costs(BEHIND, 3, 3)[0] < far[0]


def test_switched_off_it_changes_nothing(model):
    """Without the option S is neither asked for nor looked at; with it, decisions without S are those without it."""

    def decisions(confidence, shows):
        policy = make_policy("fluid", model, confidence=confidence)
        assert policy.wants_spread == confidence
        if confidence and not shows:
            taught(policy._confidence)
        rng, found = random.Random(SEED), []
        for n in range(300):
            group = [
                passed((n, s), rng.randrange(LIMIT, 2 * LIMIT), op=rng.randrange(7), slot=s, deadline=n + 900)
                for s in range(rng.randrange(4))
            ]
            waiting = [request((n, "q", k), n, n + rng.randrange(300, 3000)) for k in range(rng.randrange(5))]
            for sample in group:
                sample.spread = sample.spread if shows else None
            actions = policy.decide(state(n, waiting, group))
            found.append([a if isinstance(a, Wake) else (type(a), a.reason) for a in actions])
        return found

    plain = decisions(False, False)
    assert any(plain) and decisions(False, True) == plain == decisions(True, False)


def test_no_bands_from_a_few_samples(model):
    learner = taught(Confidence([model]), count=20)
    sample = passed("s", LIMIT + 1000)
    learner.look([sample])
    assert learner.tables(sample) is model
