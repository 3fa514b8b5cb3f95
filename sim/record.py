"""What one served run leaves behind; metrics, reports and files are made from it alone."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["RunRecord"]


@dataclass(frozen=True)
class RunRecord:
    """One policy on one trace.

    policy, traffic, config, network : names
    results : sched.request.Result per request, in order of completion
    decisions : sched.request.Decision of the policy, oldest first
    events : numpy array of trace events (sim.rtl_shared.EVENT), oldest first
    counters : dict of isa.COUNTERS over the run
    cycles : from the first bus transaction to the last completion; first_read, last_write : of external memory
    labels : dict request id -> true class, where known
    operations : names of the program's operations; macs : useful MACs of each for one sample; heads : exit whose head
        an operation belongs to, -1 for the trunk
    slots, peak_macs : of the configuration
    seconds : real time of the run; wakes : edges at which Python was awake
    facts : of speed.facts_of, if the run was recorded
    options : JSON-able settings that made the run (seed, rate, SLO, thresholds, memory, ...)
    """

    policy: str
    traffic: str
    config: str
    network: str
    results: list
    decisions: list
    events: np.ndarray
    counters: dict
    cycles: int
    labels: dict
    operations: tuple
    macs: tuple
    heads: tuple
    slots: int
    peak_macs: int
    first_read: int = 0
    last_write: int = 0
    seconds: float = 0.0
    wakes: int = 0
    facts: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
