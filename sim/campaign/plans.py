"""Which points a study has: named sets, and the factorial."""

from itertools import product

from fluidnpu.sched.policies import POLICIES

from .points import Point

__all__ = ["BASELINE", "LOADS", "OURS", "PLANS", "plan", "variants_of_ours"]

BASELINE, OURS = "lazy", "fluid"  # the headline compares the second with the first
BATCHING = ("lazy", "lazy-fair", "adaptive", "aimd", "srtf-ee", "serial")  # baselines that are best somewhere
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
HEADLINE_LOADS = (0.2, 0.4, 0.6, 0.8, 0.9)
SLOS = (1.5, 2.0, 3.0, 5.0, 10.0)
CONFIGS = ("edge", "gemmini16", "hub")
HOST = 400  # cycles: 2 us at 200 MHz
SEEDS = 6
MODES = tuple({"rigid": r, "unstacked": u} for r, u in product((False, True), repeat=2))


def _points(group, policies, loads, seeds, **common):
    """Points of every policy (name or (name, options)), load and seed."""
    found = []
    for policy, load, seed in product(policies, loads, range(1, seeds + 1)):
        name, options = policy if isinstance(policy, tuple) else (policy, ())
        if name in POLICIES:
            found.append(Point(group, policy=name, options=options, load=load, seed=seed, **common))
    return found


def variants_of_ours():
    """(label, options) of ours with one part switched off at a time."""
    return [(label, tuple(sorted(options.items()))) for label, options in POLICIES[OURS].parts.items()]


def _headline(workload, requests, seeds):
    """2x2x2: rigid or fluid, unstacked or stacked, baselines or ours; loads of what the rigid, unstacked NPU does."""
    npu = {"workload": workload, "config": "edge", "reference": "rigid", "requests": requests}
    return [
        point
        for mode in MODES
        for point in _points(
            "ablation", (BASELINE, "lazy-fair", "adaptive", OURS), HEADLINE_LOADS, seeds, **npu, **mode
        )
    ]


def default_plan(workloads):
    """Every figure of the page, in about half an hour on two cores."""
    main = "resnet8" if "resnet8" in workloads else "digits"
    edge = {"workload": main, "config": "edge"}
    some = (BASELINE, "lazy-fair", "adaptive", "srtf-ee", OURS)
    found = _headline(main, 10_000, SEEDS)
    found += _points("policies", POLICIES, LOADS, SEEDS, requests=4000, **edge)
    found += _points("host", some, (0.4, 0.6, 0.8, 0.9), SEEDS, requests=4000, decision_cycles=HOST, **edge)
    ours = [(OURS, options) for _, options in variants_of_ours()]
    found += _points("parts", ours, (0.4, 0.6, 0.8, 0.9, 1.1), SEEDS, requests=4000, **edge)
    for slo in SLOS:
        found += _points("slo", some, (0.6, 0.8), 5, slo=slo, requests=4000, **edge)
    for shape in ("bursts", "cameras", "azure"):
        found += _points("arrivals", some, (0.6, 0.8), 5, arrivals=shape, requests=4000, **edge)
    for mix in ("easy", "hard", "shift"):
        found += _points("mixes", some, (0.6, 0.8), 5, mix=mix, requests=4000, **edge)
    found += _points("shift", [OURS, *ours], (0.8,), SEEDS, mix="shift", requests=10_000, **edge)
    for workload, config, bandwidth in product(workloads, CONFIGS, ("full", "half")):
        mix = "easy" if workload == "resnet50" else "answers"
        npu = {"workload": workload, "config": config, "bandwidth": bandwidth, "mix": mix}
        found += _points("networks", ("lazy-fair", "adaptive", OURS), (0.4, 0.8), 5, requests=1000, **npu)
    return found


def full_plan(workloads):
    """The factorial."""
    found = default_plan(workloads)
    mixes = ("answers", "easy", "hard", "shift")
    shapes = ("poisson", "bursts", "cameras", "azure")
    for w, c, b, a, m, slo in product(workloads, CONFIGS, ("full", "half"), shapes, mixes, SLOS):
        if m == "answers" and w == "resnet50":
            continue  # random weights have no answers
        npu = {"workload": w, "config": c, "bandwidth": b, "arrivals": a, "mix": m, "slo": slo}
        for mode, host in product(MODES, (0, HOST)):
            found += _points("factorial", POLICIES, LOADS, 5, decision_cycles=host, **npu, **mode)
    return found


def quick_plan(workloads):
    """A few points of every figure, within a minute: does everything work?"""
    edge = {"workload": "digits", "config": "edge", "requests": 300}
    few = (BASELINE, "adaptive", OURS)
    found = []
    for mode in MODES:
        found += _points("ablation", few, (0.4, 0.8), 2, reference="rigid", **edge, **mode)
    found += _points("policies", few, (0.4, 0.8), 2, **edge)
    found += _points("host", few, (0.8,), 2, decision_cycles=HOST, **edge)
    return found


PLANS = {"default": default_plan, "full": full_plan, "quick": quick_plan}


def plan(name, workloads):
    """Points of a named plan, each once per group. workloads : names of networks that are there."""
    return list(dict.fromkeys(PLANS[name](list(workloads))))
