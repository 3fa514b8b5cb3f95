"""What a run of a point is given: its requests with their exits, and its policy."""

import numpy as np
from fluidnpu.sched.policies import POLICIES, make_policy
from fluidnpu.sched.request import Request

from ..traffic import LEAD_IN, arrivals, rescale

__all__ = ["WARM_UP", "policy_of", "traffic_of"]

WARM_UP = 0.1  # requests before those that count, as a share of them


def traffic_of(point, case):
    """(requests, Decided, labels) of a point: the same for every policy and NPU mode."""
    mix = case.mix(point.mix)
    count = point.requests + round(WARM_UP * point.requests)
    rate = point.load * case.capacity(point.reference, mix.rates())
    if point.arrivals in case.traces:
        times = case.traces[point.arrivals]
        first = np.random.default_rng(point.seed).integers(max(1, len(times) - count + 1))
        times = rescale(times[first : first + count] - times[first], rate)
    else:
        times = arrivals(point.arrivals, rate, count, point.seed)
    slo = max(1, round(point.slo * case.alone))
    decided, labels = mix.draw(len(times), point.seed)
    return [Request(n, LEAD_IN + int(t), None, slo) for n, t in enumerate(times)], decided, labels


def policy_of(point, case, decided):
    """The point's policy; only an oracle is told the exits that samples take. decided : of `traffic_of`"""
    tables, options = case.tables(case.mix(point.mix).rates(0 if point.rates == "begin" else -1)), dict(point.options)
    if point.policy in POLICIES and POLICIES[point.policy].wants_true_exits:
        exits = len(case.npu.programs[0].exits)
        options["true_exits"] = {n: decided.taken(n, exits) for n in range(len(decided.confident))}
    return make_policy(point.policy, tables, **options)
