"""A point of the study: everything that decides what a run gives."""

import hashlib
import json
from dataclasses import asdict, dataclass

__all__ = ["MODES", "NPU_FIELDS", "Point"]

MODES = ("fluid-stacked", "fluid-unstacked", "rigid-stacked", "rigid-unstacked")
NPU_FIELDS = ("workload", "config", "bandwidth", "unstacked")  # what has to be compiled and measured


@dataclass(frozen=True)
class Point:
    """One run.

    group : the part of the study that it belongs to; it does not change the result
    workload, config : names (cases.WORKLOADS, hw.config.CONFIGS); bandwidth : "full" or "half" of a beat per cycle
    rigid, unstacked : mode bits of the NPU
    arrivals : shape or file of timestamps (traffic.arrivals); mix : exit mix (mixes.mix_of), or a file of confidences
    load : share of the reference's capacity
    reference : "fluid", this configuration, stacked, with exits that leave; or "rigid", the same rigid and unstacked,
        where exits free nothing
    slo : multiples of the time that one sample alone takes through the whole stacked network
    policy, options : sched.policies.make_policy; options: tuple of (name, value)
    decision_cycles : that the host takes per decision
    seed : of arrivals and samples, the same for every policy; requests : that count; as many more as a tenth of them
        come before, to warm up
    device : "tiles" or "cycles" (timed_npu.DEVICES), or "rtl": the RTL and the cycle model, which have to agree
    rates : exit rates that the policy begins with, those of the mix at its "begin" or at its "end"
    tenants : of a point with several networks, (workload, its load as a share of what the NPU could do for it alone,
        priority); ``workload`` then joins the names by "+", and ``load`` is the sum
    files : digest of the files behind workload, arrivals and mix: other contents are another point
    """

    group: str
    workload: str
    config: str
    policy: str
    load: float
    seed: int
    bandwidth: str = "full"
    rigid: bool = False
    unstacked: bool = False
    arrivals: str = "poisson"
    mix: str = "answers"
    reference: str = "fluid"
    slo: float = 3.0
    options: tuple = ()
    decision_cycles: int = 0
    requests: int = 10_000
    device: str = "tiles"
    rates: str = "begin"
    tenants: tuple = ()
    files: str = ""

    @property
    def key(self):
        """Names the result; points that differ in their group alone share it."""
        content = {k: v for k, v in asdict(self).items() if k != "group"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]

    @property
    def npus(self):
        """What has to be compiled and measured for it, a tuple of the values of NPU_FIELDS for each of its networks."""
        rest = tuple(getattr(self, name) for name in NPU_FIELDS[1:])
        return [(workload, *rest) for workload in self.workload.split("+")]

    @property
    def mode(self):
        """Name of the mode bits, as in MODES."""
        return f"{'rigid' if self.rigid else 'fluid'}-{'unstacked' if self.unstacked else 'stacked'}"

    @property
    def series(self):
        """Policy with its options, as reports name it."""
        return self.policy + "".join(f" {name}={value}" for name, value in self.options)
