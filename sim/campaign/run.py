"""Runs one point; everything that a worker does."""

import time
from collections import Counter
from dataclasses import replace

import numpy as np
from fluidnpu.sched.bounds import least_mean, least_misses
from fluidnpu.sched.request import DROPPED

from .inputs import policy_of, traffic_of
from .on_rtl import agreement, serve_on_rtl
from .tenants import run_tenants

__all__ = ["LAST", "run_alone", "run_point"]

LAST = 0.3
RTL = "rtl"


def run_point(point, *cases):
    """Figures of a point: `run_alone`, or with several networks `tenants.run_tenants`. cases : Case of each network."""
    return run_tenants(point, cases) if point.tenants else run_alone(point, cases[0])


def run_alone(point, case):
    """dict of the point's figures (JSON-able); cycles where nothing else is said.

    mean, p50, p95, p99, longest : latency of the answered requests; waited : in the host's queue
    misses : share of the requests not decided by their deadline (a dropped one is a miss); drops, early : shares that
        the policy gave up, or forced out of an exit that was not confident
    goodput : requests decided in time per million cycles; capacity : of the point's reference, likewise
    accuracy, own_accuracy : of the answers, and of the network's own at the same thresholds; or None
    utilisation : useful MACs of the array's peak; bytes : of external memory per answered request
    bound_mean, bound_misses : no scheduler can do better on this NPU with these exits (sched.bounds)
    mean_end : mean latency of the last LAST of the requests
    agreed : on the device "rtl", share of the completions that are the same in every cycle on the cycle model
    host_us : real time of a decision in microseconds; nothing_us : of one that does nothing; decisions : per request
    """
    begin = time.perf_counter()
    requests, decided, labels = traffic_of(point, case)
    program, npu = case.npu.programs[0], case.npu
    exits = len(program.exits)
    mix = case.mix(point.mix)
    tables = case.tables(mix.rates())
    taken = {r.id: decided.taken(n, exits) for n, r in enumerate(requests)}
    policy = policy_of(point, case, decided)
    mode, device = replace(npu, rigid=point.rigid), "cycles" if point.device == RTL else point.device
    served = mode.serve(requests, decided, policy, device=device, decision_cycles=point.decision_cycles)
    agreed = agreement(served, serve_on_rtl(point, case)) if point.device == RTL else None
    first = len(requests) - point.requests
    counted = [r for r in served.results if r.id >= first]
    answered, met = [r for r in counted if r.ok], [r for r in counted if r.met]
    latency = np.array([r.latency for r in answered] or [0.0], float)
    span = max(1, max(r.end for r in counted) - requests[first].arrival)
    p50, p95, p99 = np.percentile(latency, [50, 95, 99], method="inverted_cdf").tolist()
    right = own = None
    if labels is not None and decided.top is not None:
        right = float(np.mean([r.top == labels[r.id] for r in answered] or [0.0]))
        own = float(np.mean([decided.top[r.id][taken[r.id]] == labels[r.id] for r in counted]))
    early = sum(r.exit < taken[r.id] for r in answered)
    useful = sum(_macs_until(program, r.exit) for r in served.results if r.ok)
    beats = served.statistics.get("read_beats", 0) + served.statistics.get("written_beats", 0)
    return {
        "requests": len(counted),
        "answered": len(answered),
        "mean": float(latency.mean()),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "longest": float(latency.max()),
        "waited": float(np.mean([r.waited for r in answered] or [0.0])),
        "misses": 1 - len(met) / len(counted),
        "drops": sum(r.status == DROPPED for r in counted) / len(counted),
        "early": early / max(1, len(answered)),
        "goodput": 1e6 * len(met) / span,
        "capacity": 1e6 * case.capacity(point.reference, mix.rates()),
        "alone": case.alone,
        "accuracy": right,
        "own_accuracy": own,
        "exits": [Counter(r.exit for r in answered)[e] / max(1, len(answered)) for e in range(exits)],
        "utilisation": useful / (npu.config.peak_macs * max(1, served.cycles)),
        "bytes": beats * npu.config.bus_bytes / max(1, len(answered)),
        "preemptions": served.statistics["preemptions"] / len(requests),
        "tiles": served.statistics["tiles"] / len(requests),
        "decisions": served.calls / len(requests),
        "host_us": 1e6 * served.policy_seconds / max(1, served.calls),
        "nothing_us": 1e6 * served.nothing_seconds / max(1, served.calls),
        "cycles": served.cycles,
        "seconds": time.perf_counter() - begin,
        "mean_end": float(latency[[r.id >= len(requests) - LAST * len(requests) for r in answered]].mean()),
        "bound_mean": least_mean(tables, requests[first:], taken),
        "bound_misses": least_misses(tables, requests[first:], taken) / len(counted),
        "agreed": agreed,
    }


def _macs_until(program, exit):
    """Useful MACs of a sample that takes ``exit``: the heads of all exits before it included."""
    last = program.exits[exit].op
    return sum(op.macs for op in program.ops[: last + 1])
