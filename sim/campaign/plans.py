"""Which points a study has: named sets, and the factorial."""

from dataclasses import replace
from inspect import signature
from itertools import product

from fluidnpu.sched.policies import POLICIES

from .points import Point

__all__ = ["BASELINE", "LOADS", "OURS", "PARTS", "PLANS", "SOME", "make_plan"]

BASELINE, OURS = "lazy", "fluid"  # the headline compares the second with the first
ABLATED = (BASELINE, "lazy-fair", "adaptive", OURS)
SOME = (BASELINE, "lazy-fair", "adaptive", "srtf-ee", OURS)
SHARED = (
    "serial",
    "adaptive",
    "lazy-fair",
    "prema",
    OURS,
    (OURS, (("late", "keep"),)),
)  # where several networks are resident
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
HEADLINE_LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)
SLOS = (1.5, 2.0, 3.0, 5.0, 10.0)
CONFIGS = ("edge", "gemmini16", "hub")
SHORT = 2000  # requests of most points of the default study; the factorial has 10,000
HOST = 400  # cycles: 2 us at 200 MHz
SEEDS = 6
MODES = tuple({"rigid": r, "unstacked": u} for r, u in product((False, True), repeat=2))
# Ours with one part switched off, or one more switched on: label -> options
PARTS = {
    "no merging": (("merge", "never"),),
    "merge always": (("merge", "always"),),
    "merging for the mean alone": (("miss_cost", 0.0),),
    "rates not learned": (("learn", False),),
    "first come leads": (("leader", "arrival"),),
    "least remaining leads": (("leader", "remaining"),),
    "late keep their turn": (("late", "keep"),),
    "late are shed": (("late", "shed"),),
    "leave early": (("leave", True),),
    "skip heads": (("skip", True),),
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


def _check(*workloads):
    """The same points on the tile model and on the cycle model."""
    few = (BASELINE, "adaptive", OURS)
    return [
        point
        for workload, device in product(workloads, ("tiles", "cycles"))
        for point in _points(
            "check", few, (0.4, 0.8), 2, workload=workload, config="edge", device=device, requests=1000
        )
    ]


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


def _default(workloads, traces):
    main = "resnet8" if "resnet8" in workloads else "digits"
    edge = {"workload": main, "config": "edge"}
    found = _ablation(ABLATED, HEADLINE_LOADS, SEEDS, requests=5000, **edge)
    edge["requests"] = SHORT
    found += _points("policies", POLICIES, LOADS, SEEDS, **edge)
    found += _points("host", SOME, (0.4, 0.6, 0.8, 0.9), SEEDS, decision_cycles=HOST, **edge)
    found += _points("parts", _parts(), (0.6, 0.8, 0.9), SEEDS, **edge)
    for slo in SLOS:
        found += _points("slo", SOME, (0.6, 0.8), 5, slo=slo, **edge)
    for shape in ("bursts", "cameras", *traces):
        found += _points("arrivals", SOME, (0.6, 0.8), 5, arrivals=shape, **edge)
    for mix in ("easy", "hard", "shift"):
        found += _points("mixes", SOME, (0.6, 0.8), 5, mix=mix, **edge)
    edge["requests"] = 10_000  # the shift comes after half of them
    found += _points("shift", [OURS, *_parts()], (0.8,), SEEDS, mix="shift", **edge)
    found += _tenants(workloads, SEEDS, SHORT)
    found += _check(*dict.fromkeys(("digits", main)))
    for workload, config, bandwidth in product(workloads, CONFIGS, ("full", "half")):
        npu = {"workload": workload, "config": config, "bandwidth": bandwidth, "requests": 1000}
        mix = "easy" if workload == "resnet50" else "answers"
        found += _points("networks", ("lazy-fair", "adaptive", OURS), (0.4, 0.8), 5, mix=mix, **npu)
    return found


def _full(workloads, traces):
    found = _default(workloads, traces)
    shapes, mixes = ("poisson", "bursts", "cameras", *traces), ("answers", "easy", "hard", "shift")
    for w, c, b, a, m, slo in product(workloads, CONFIGS, ("full", "half"), shapes, mixes, SLOS):
        if m == "answers" and w == "resnet50":
            continue  # random weights have no answers
        npu = {"workload": w, "config": c, "bandwidth": b, "arrivals": a, "mix": m, "slo": slo}
        for mode, host in product(MODES, (0, HOST)):
            found += _points("factorial", POLICIES, LOADS, 5, decision_cycles=host, **npu, **mode)
    return found


def _quick(workloads, traces):
    edge = {"workload": "digits", "config": "edge", "requests": 300}
    few = (BASELINE, "adaptive", OURS)
    found = _ablation(few, (0.4, 0.8), 2, **edge)
    found += _points("policies", few, (0.4, 0.8), 2, **edge)
    found += _points("host", few, (0.8,), 2, decision_cycles=HOST, **edge)
    found += _points("parts", _parts()[:2], (0.8,), 2, **edge)
    two = ("adaptive", OURS)
    for slo in (2.0, 5.0):
        found += _points("slo", two, (0.8,), 1, slo=slo, **edge)
    found += _points("arrivals", two, (0.8,), 1, arrivals="cameras", **edge)
    found += _points("mixes", two, (0.8,), 1, mix="easy", **edge)
    found += _points("shift", [OURS, *_parts()[:1]], (0.8,), 1, mix="shift", **edge)
    found += _points("networks", two, (0.8,), 1, bandwidth="full", **edge)
    found += [point for point in _tenants(["digits"], 1, 300) if point.policy in two]
    found += [replace(point, requests=300) for point in _check("digits") if point.seed == 1]
    return found


PLANS = {"default": _default, "full": _full, "quick": _quick}


def make_plan(name, workloads, traces=()):
    """Points of a named plan, each once per group.

    "default": every figure of the page; "full": the factorial; "quick": a few points
    of every kind, within a minute. workloads, traces : names of networks and of timestamp files that are there
    """
    return list(dict.fromkeys(PLANS[name](list(workloads), list(traces))))
