"""Which points a study has: named sets, and the factorial."""

from dataclasses import replace
from inspect import signature
from itertools import product

from fluidnpu.sched.policies import POLICIES

from .points import Point

__all__ = ["BASELINE", "FROZEN", "LOADS", "OURS", "PARTS", "PLANS", "SOME", "make_plan"]

BASELINE, OURS = "lazy", "fluid"  # the headline compares the second with the first
ABLATED = (BASELINE, "adaptive", OURS)
SOME = (BASELINE, "lazy-fair", "adaptive", "srtf-ee", OURS)
SHARED = (
    "serial",
    "adaptive",
    "lazy-fair",
    "prema",
    OURS,
    (OURS, (("late", "keep"),)),
)  # where several networks are resident
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)
OVERLOADS = (1.0, 1.1)  # where the mean latency grows with the number of requests
SLOS = (1.5, 2.0, 3.0, 5.0, 10.0)
CONFIGS = ("edge", "gemmini16", "hub")
SHORT = 2000  # requests of sweeps, or half of it; headline, policies, shift and the factorial have 10,000
HOST = 400  # cycles: 2 us at 200 MHz
SEEDS = 5
MODES = tuple({"rigid": r, "unstacked": u} for r, u in product((False, True), repeat=2))
FROZEN = (("learn", False),)
# Ours with one part switched off, or one more switched on: label -> options
PARTS = {
    "no merging": (("merge", "never"),),
    "merge always": (("merge", "always"),),
    "merging for the mean alone": (("miss_cost", 0.0),),
    "rates not learned": FROZEN,
    "first come leads": (("leader", "arrival"),),
    "least remaining leads": (("leader", "remaining"),),
    "late keep their turn": (("late", "keep"),),
    "late do not give way": (("give_way", False),),
    "late are shed": (("late", "shed"),),
    "leave early": (("leave", True),),
    "skip heads": (("skip", True),),
    "confidence seen": (("confidence", True),),
}


def _points(group, policies, loads, seeds, **common):
    """Points of every policy (name, or (name, options)), load and seed."""
    found = []
    for policy, load, seed in product(policies, loads, range(1, seeds + 1)):
        name, options = policy if isinstance(policy, tuple) else (policy, ())
        found.append(Point(group, policy=name, options=options, load=load, seed=seed, **common))
    return found


def _parts():
    """Ours with each of the `PARTS` that it knows."""
    known = signature(POLICIES[OURS]).parameters
    return [(OURS, options) for options in PARTS.values() if all(name in known for name, _ in options)]


def _ablation(policies, loads, seeds, **common):
    """2x2x2: rigid or fluid, unstacked or stacked, baselines or ours; loads of what the rigid, unstacked NPU does."""
    return [
        point
        for mode in MODES
        for point in _points("ablation", policies, loads, seeds, reference="rigid", **common, **mode)
    ]


def _headline(seeds, loads, **common):
    """Ours on our NPU, the baseline on the rigid, the unstacked, and our NPU; on the cycle model."""
    common |= {"reference": "rigid", "device": "cycles"}
    found = _points("headline", (OURS, BASELINE), loads, seeds, **common)
    found += _points("headline", (BASELINE,), loads, seeds, unstacked=True, **common)
    return found + _points("headline", (BASELINE,), loads, seeds, rigid=True, unstacked=True, **common)


def _check(*workloads, seeds=2, requests=1000):
    """The same points on the tile model and on the cycle model."""
    few, found = (BASELINE, "adaptive", OURS), []
    for workload, device in product(workloads, ("tiles", "cycles")):
        npu = {"workload": workload, "config": "edge", "device": device, "requests": requests}
        found += _points("check", few, (0.4, 0.8), seeds, **npu)
    return found


def _rtl(policies, requests):
    """Policies on the RTL, whose completions the cycle model has to repeat; and a host that takes its time."""
    npu = {"workload": "digits", "config": "edge", "device": "rtl", "requests": requests}
    found = _points("rtl", policies, (0.8,), 1, **npu)
    found += _points("rtl", (OURS,), (0.8,), 1, decision_cycles=HOST, **npu)
    return found + _points("rtl", (BASELINE,), (0.8,), 1, rigid=True, unstacked=True, reference="rigid", **npu)


def _shift(parts, seeds, **common):
    """A mix that shifts: ours, with parts off or on, and with the exit rates of the end told beforehand."""
    common |= {"mix": "shift"}  # at 0.6 of what the mean of both mixes allows, the hard one alone stays below 1
    found = _points("shift", [OURS, *parts], (0.6,), seeds, **common)
    return found + _points("shift", [(OURS, FROZEN)], (0.6,), seeds, rates="end", **common)


def _tenants(workloads, seeds, requests):
    """Two networks at once: both within their shares, and one that floods. (name, load, priority) of each."""
    names = [name for name in ("resnet8", "digits") if name in workloads]
    pair = names if len(names) == 2 else ["digits", "digits"]
    found = []
    for loads in ((0.3, 0.3), (0.45, 0.3), (1.5, 0.3)):
        tenants = tuple((name, load, 1.0) for name, load in zip(pair, loads, strict=True))
        for policy, seed in product(SHARED, range(1, seeds + 1)):
            name, options = policy if isinstance(policy, tuple) else (policy, ())
            point = Point("tenants", "+".join(pair), "edge", name, sum(loads), seed, options=options)
            found.append(replace(point, requests=requests, slo=10.0, tenants=tenants))
    return found


def _default(workloads, traces, mixes):
    main = "resnet8" if "resnet8" in workloads else "digits"
    edge = {"workload": main, "config": "edge"}
    found = _headline(SEEDS, LOADS, **edge)
    found += _points("policies", POLICIES, LOADS, SEEDS, **edge)
    found += _shift([(OURS, FROZEN)], SEEDS, **edge)
    found += _points("policies", POLICIES, OVERLOADS, SEEDS, requests=SHORT // 2, **edge)
    edge["requests"] = SHORT
    found += _ablation(ABLATED, LOADS, SEEDS, **edge)
    for cycles in (0, HOST):
        found += _points("host", SOME, (0.4, 0.6, 0.8, 0.9), SEEDS, decision_cycles=cycles, **edge)
    found += _points("parts", [OURS, *_parts()], (0.6, 0.8, 0.9), SEEDS, **edge)
    found += _points("decisions", (OURS, BASELINE, "adaptive"), (0.6, 0.9, 1.1), SEEDS, **edge | {"config": "hub"})
    for slo in SLOS:
        found += _points("slo", SOME, (0.6, 0.8), SEEDS, slo=slo, **edge)
    for shape in ("bursts", "cameras", *traces):
        found += _points("arrivals", SOME, (0.6, 0.8), SEEDS, arrivals=shape, **edge)
    for mix in ("easy", "hard", "shift", *mixes):
        found += _points("mixes", SOME, (0.6, 0.8), SEEDS, mix=mix, **edge)
    found += _tenants(workloads, SEEDS, SHORT)
    found += _check(*dict.fromkeys(("digits", main)))
    found += _rtl(POLICIES, 100)
    for workload, config, bandwidth in product(workloads, CONFIGS, ("full", "half")):
        npu = {"workload": workload, "config": config, "bandwidth": bandwidth, "requests": SHORT // 2}
        mix = "easy" if workload == "resnet50" else "answers"
        found += _points("networks", ("lazy-fair", "adaptive", OURS), (0.8,), SEEDS, mix=mix, **npu)
    return found


def _full(workloads, traces, mixes):
    found = _default(workloads, traces, mixes)
    shapes, mixes = ("poisson", "bursts", "cameras", *traces), ("answers", "easy", "hard", "shift", *mixes)
    for w, c, b, a, m, slo in product(workloads, CONFIGS, ("full", "half"), shapes, mixes, SLOS):
        if m == "answers" and w == "resnet50":
            continue  # random weights have no answers
        npu = {"workload": w, "config": c, "bandwidth": b, "arrivals": a, "mix": m, "slo": slo}
        for mode, host in product(MODES, (0, HOST)):
            found += _points("factorial", POLICIES, LOADS + OVERLOADS, SEEDS, decision_cycles=host, **npu, **mode)
    return found


def _quick(workloads, traces, mixes):
    edge = {"workload": "digits", "config": "edge", "requests": 300}
    few = (BASELINE, "adaptive", OURS)
    found = _headline(2, (0.4, 0.8), **edge)
    found += _ablation(few, (0.4, 0.8), 2, **edge)
    found += _points("policies", few, (0.4, 0.8), 2, **edge)
    for cycles in (0, HOST):
        found += _points("host", few, (0.8,), 2, decision_cycles=cycles, **edge)
    found += _points("parts", [OURS, *_parts()[:2]], (0.8,), 2, **edge)
    two = ("adaptive", OURS)
    found += _points("decisions", two, (0.9,), 1, **edge | {"config": "hub"})
    for slo in (2.0, 5.0):
        found += _points("slo", two, (0.8,), 1, slo=slo, **edge)
    found += _points("arrivals", two, (0.8,), 1, arrivals="cameras", **edge)
    found += _points("mixes", two, (0.8,), 1, mix="easy", **edge)
    found += _shift([(OURS, FROZEN)], 1, **edge)
    found += _points("networks", two, (0.8,), 1, bandwidth="full", **edge)
    found += [point for point in _tenants(["digits"], 1, 300) if point.policy in two]
    return found + _check("digits", seeds=1, requests=300)


PLANS = {"default": _default, "full": _full, "quick": _quick}


def make_plan(name, workloads, traces=(), mixes=()):
    """Points of a named plan, each once per group.

    "default": every figure of the page; "full": the factorial; "quick": a few points
    of every kind but the RTL, within a minute. workloads, traces, mixes : names of networks, and of files of timestamps
    and of confidences, that are there
    """
    return list(dict.fromkeys(PLANS[name](list(workloads), list(traces), list(mixes))))
