"""Hand-made tables and states for the tests of policies."""

import numpy as np
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.policies.base import Sample, State
from fluidnpu.sched.request import Request
from fluidnpu.sched.survival import ExitRates, SurvivalTables

__all__ = ["SLOTS", "live", "request", "state", "tables"]

SLOTS = 4


def tables(parts=((100, 100), (100, 100)), head=0, growth=0.0, rate=0.5, slots=SLOTS):
    """Tables of a network with an exit behind each part: its layers' cycles, then an EXIT of ``head`` cycles (the last
    one takes none). b samples take 1 + growth (b - 1) times as long: 0 a wide array, 1 a narrow one."""
    cycles, exits = [], []
    for e, part in enumerate(parts):
        cycles += [*part, head if e < len(parts) - 1 else 0]
        exits.append(len(cycles) - 1)
    many = np.array([0.0, *(1 + growth * n for n in range(slots))])
    return SurvivalTables(
        LatencyTable(np.outer(cycles, many)), exits, ExitRates(len(parts), [rate] * (len(parts) - 1), weight=1e9)
    )


def request(id, arrival=0, deadline=None, **more):
    """A request that is due at cycle ``deadline``."""
    return Request(id, arrival, None, None if deadline is None else deadline - arrival, **more)


def live(request, slot, op=0, priority=1, ride=True):
    """A sample of ``request`` at the beginning of operation ``op``."""
    return Sample(request, slot, request.arrival, priority, True, ride, op)


def state(now, waiting=(), samples=()):
    """State at ``now``."""
    return State(now, SLOTS, list(waiting), {s.slot: s for s in samples})
