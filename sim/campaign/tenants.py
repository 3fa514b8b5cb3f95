"""Several networks on one NPU, each with its own tenant: how each fares, and how fair that is."""

import time

import numpy as np
from fluidnpu.sched.bounds import isolated_times
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.request import Request

from ..decisions import Decided
from ..tiles.operations import combine
from ..timed_npu import TimedNpu
from ..traffic import LEAD_IN, arrivals

__all__ = ["fairness", "merge_npus", "run_tenants", "tenants_traffic"]


def merge_npus(npus):
    """One TimedNpu with the programs of several that have one each; the driver gives them regions of their own."""
    first = npus[0]
    return TimedNpu(
        first.config,
        tuple(npu.programs[0] for npu in npus),
        tuple(npu.latencies[0] for npu in npus),
        combine([npu.operations for npu in npus]),
        first.memory,
        first.rigid,
        first.unstacked,
    )


def fairness(progress):
    """Jain's index (sum x)^2 / (n sum x^2) of the tenants' progress, within 1/n (one has all) .. 1 (all the same)."""
    x = np.asarray(progress, float)
    return float(x.sum() ** 2 / (len(x) * (x**2).sum()))


def tenants_traffic(point, cases, warm_up):
    """(requests of all tenants in order of arrival, Decided): the same for every policy.

    Every tenant sends for as long as the others; ``warm_up``: share of requests before those that count.
    """
    mixes = [case.mix(point.mix) for case in cases]
    rates = [
        load * case.capacity(point.reference, mix.rates())
        for case, mix, (_, load, _) in zip(cases, mixes, point.tenants, strict=True)
    ]
    total = round((1 + warm_up) * point.requests)
    drawn = []
    for n, (case, mix, (name, _, priority)) in enumerate(zip(cases, mixes, point.tenants, strict=True)):
        count = max(1, round(total * rates[n] / sum(rates)))
        times = arrivals(point.arrivals, rates[n], count, 1000 * point.seed + n)
        decided, _ = mix.draw(count, 1000 * point.seed + n)
        slo = max(1, round(point.slo * case.alone))
        tenant = f"{name}-{n + 1}"
        spreads = [None] * len(times) if decided.spread is None else decided.spread
        drawn += [
            (int(t), n, int(c), s, slo, tenant, priority)
            for t, c, s in zip(times, decided.confident, spreads, strict=True)
        ]
    drawn.sort(key=lambda one: one[:2])
    requests = [
        Request(id, LEAD_IN + t, None, slo, program=n, tenant=name, priority=priority)
        for id, (t, n, _, _, slo, name, priority) in enumerate(drawn)
    ]
    confident, spreads = (list(column) for column in list(zip(*drawn, strict=True))[2:4])
    if any(s is None for s in spreads):
        return requests, Decided(np.array(confident, np.int64))
    most = max(len(s) for s in spreads)
    spread = np.array([np.pad(s, (0, most - len(s))) for s in spreads], np.int64)
    return requests, Decided(np.array(confident, np.int64), spread=spread)


def run_tenants(point, cases, warm_up=0.1):
    """dict of the point's figures; latencies in cycles, of the requests behind the warm-up.

    mean, misses : of all; tenant1_mean, _p99, _misses, _progress, tenant2_ .. : of each, progress being the mean
        isolated time of its samples over their mean latency; fairness : Jain's index of the progress
    """
    begin = time.perf_counter()
    requests, decided = tenants_traffic(point, cases, warm_up)
    tables = [case.tables(case.mix(point.mix).rates(phase=0)) for case in cases]
    policy = make_policy(point.policy, tables, **dict(point.options))
    served = merge_npus([case.npu for case in cases]).serve(
        requests, decided, policy, device=point.device, decision_cycles=point.decision_cycles
    )
    first = len(requests) * warm_up / (1 + warm_up)
    results = [r for r in served.results if r.id >= first]
    figures = {
        "requests": len(results),
        "answered": sum(r.ok for r in results),
        "mean": float(np.mean([r.latency for r in results if r.ok] or [0.0])),
        "misses": float(np.mean([not r.met for r in results])),
        "drops": float(np.mean([r.status == "dropped" for r in results])),
        "host_us": 1e6 * served.policy_seconds / max(1, served.calls),
        "exits": [],
        "seconds": 0.0,
    }
    progress = []
    for n in range(len(point.tenants)):
        mine = [r for r in results if requests[r.id].program == n]
        isolated = isolated_times(tables[n])
        answered = [r for r in mine if r.ok]
        latency = np.array([r.latency for r in answered] or [0.0], float)
        alone = np.mean([isolated[r.exit] for r in answered] or [0.0])
        progress.append(float(alone / latency.mean()) if answered else 0.0)
        figures |= {
            f"tenant{n + 1}_mean": float(latency.mean()),
            f"tenant{n + 1}_p99": float(np.percentile(latency, 99, method="inverted_cdf")),
            f"tenant{n + 1}_misses": float(np.mean([not r.met for r in mine])),
            f"tenant{n + 1}_progress": progress[-1],
        }
    return figures | {"fairness": fairness(progress), "seconds": time.perf_counter() - begin}
