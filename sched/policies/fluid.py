"""Fluid batching: exit-aware, preemptive. Newcomers catch up and merge when that pays."""

import numpy as np
from fluidnpu.sched.planning import Plan

from .base import Admit, Batch, Policy

__all__ = ["ACTIVE", "DEFERRED", "URGENT", "Fluid"]

DEFERRED, ACTIVE, URGENT = 1, 2, 3  # priorities

_MERGES = ("profit", "always", "never")
_GAPS = 64  # arrivals that the estimate of their rate remembers
_LEAST_GAPS = 8  # arrivals before it is trusted; until then only the present work counts
_DEFERS = ("hold", "run", "queue")


class Fluid(Policy):
    """Who leads and who rides follows survival-weighted remaining time and the slack to the deadlines.

    Samples of priority ACTIVE or above are the group. Equal priority merges by itself: the NPU lets the laggard lead,
    so a newcomer of that priority preempts the group, catches up and rides. Newcomers that would not pay enter free
    slots with priority DEFERRED: they fill the gaps that the group leaves, and are the next to start.

    At every event

    * nothing runs: start as many as `Plan.start_size` says, all in the same cycle;
    * somebody waits: let as many newcomers catch up as cost least (`Plan.merge_costs`), l being the rearmost operation
      of the group; a deadline that the queue would miss costs ``miss_cost`` times a single sample's full latency;
    * but only as many as leave every sample ahead, if it is not yet late, its catch-up time plus the 95th percentile of
      its remaining time until its deadline, and only if none was preempted ``most_preemptions`` times already;
    * a sample that newcomers were let past, and that would become late by waiting for them but not without them, is
      raised to URGENT and stops waiting.

    Parameters
    ----------
    model : SurvivalTables; its exit rates learn from every completion, the plan follows them and the arrival rate
    most_preemptions : times that a sample may be made to wait for newcomers
    merge : "profit", "always" (as many as there are slots: for comparison), "never"
    defer : newcomers that do not merge "hold" a slot without running, "run" in the gaps that the group leaves (work
        that their own batch will not share), or stay in the "queue"
    miss_cost : see above; 0 merges for the mean latency alone
    """

    name = "fluid"

    def __init__(self, model=None, most_preemptions=2, merge="profit", defer="hold", miss_cost=1.0):
        if model is None:
            raise ValueError("fluid: it needs SurvivalTables (model)")
        if most_preemptions < 0:
            raise ValueError(f"fluid: most_preemptions = {most_preemptions}, it must be at least 0")
        if merge not in _MERGES:
            raise ValueError(f"fluid: merge = {merge!r}, it must be one of {', '.join(_MERGES)}")
        if defer not in _DEFERS:
            raise ValueError(f"fluid: defer = {defer!r}, it must be one of {', '.join(_DEFERS)}")
        if miss_cost < 0:
            raise ValueError(f"fluid: miss_cost = {miss_cost}, it must be at least 0")
        super().__init__(model)
        self.miss_cost = miss_cost
        self._alone = float(model.latency.cycles[:, 1].sum())
        self.most_preemptions, self.merge, self.defer = most_preemptions, merge, defer
        self.plan, self._planned_rate = Plan(model), 0.0
        self._known, self._latest, self._gaps, self._gap = set(), None, 0, 0.0  # arrivals
        self._spread = False  # the group was not all at one operation when last seen

    def needs_positions(self, state):
        group, deferred = self._split(state)
        return bool(group) and (bool(deferred or state.waiting) or self._spread)

    def completed(self, result):
        if result.ok:
            self.model.rates.learn(result.exit)

    def decide(self, state):
        self._learn_rate(state.waiting)
        if self.model.refresh() or not 0.8 <= (self._rate + 1e-12) / (self._planned_rate + 1e-12) <= 1.25:
            self.plan, self._planned_rate = Plan(self.model, self._rate), self._rate
        group, deferred = self._split(state)
        queue = [*deferred, *state.waiting]  # Sample or Request, the deferred first
        room = len(deferred) + len(state.free)
        actions = self._urgent(state, group)
        if not group:
            count, reason = self.plan.start_size(len(queue)), "start"
        else:
            count, reason = self._merge_count(state, group, queue), "merge"
        count = min(count, room)
        if count and group:
            for sample in group:
                sample.preempted += self._place(sample) > 0
        held = len(deferred) - count  # deferred samples that remain so; negative: that many enter and join at once
        free = iter(state.free)
        entering = [(request, next(free)) for request in state.waiting[: max(0, -held)]]
        if count == len(entering) == 1:
            actions.append(Admit(*entering[0], ACTIVE, reason=reason))
        elif count:
            actions += [Admit(*place, ACTIVE, runnable=False) for place in entering]
            slots = [s.slot for s in deferred[:count]] + [slot for _, slot in entering]
            actions.append(Batch(tuple(slots), ACTIVE, reason=reason))
        if self.defer != "queue":
            rest = min(self.plan.start_size(len(queue) - count), room - count) - max(0, held)
            later = state.waiting[len(entering) : len(entering) + max(0, rest)]
            actions += [Admit(r, next(free), DEFERRED, self.defer == "run", reason="defer") for r in later]
        return actions

    # --- parts of a decision ----------------------------------------------------------------------------------

    def _split(self, state):
        """(group, deferred), by arrival."""
        samples = sorted(state.live.values(), key=lambda s: (s.request.arrival, s.slot))
        return [s for s in samples if s.priority >= ACTIVE], [s for s in samples if s.priority < ACTIVE]

    def _learn_rate(self, waiting):
        """Arrivals per cycle from the average gap, the last `_GAPS` counting most."""
        for request in waiting:
            if request.id not in self._known:
                if self._latest is not None:
                    self._gaps += 1
                    self._gap += (request.arrival - self._latest - self._gap) / min(self._gaps, _GAPS)
                self._latest = request.arrival
        self._known = {request.id for request in waiting}

    @property
    def _rate(self):
        return 1 / max(1.0, self._gap) if self._gaps >= _LEAST_GAPS else 0.0

    def _place(self, sample):
        """The operation at which the sample stands, the next one if half of its lines are dealt."""
        op = min(sample.op, self.model.L - 1)
        return min(op + (2 * sample.line >= self.model.lines[op]), self.model.L - 1) if sample.line else op

    def _merge_count(self, state, group, queue):
        """How many of the queue join the group now."""
        l, b = min(self._place(s) for s in group), len(group)
        most = min(len(queue), self.model.B - b)
        if most <= 0 or self.merge == "never":
            return 0
        count = most
        if self.merge == "profit":
            misses = [self._misses(state, l, b, queue, k) for k in range(most + 1)]
            costs = self.plan.merge_costs(l, b, len(queue)) + self._alone * np.array(misses) * self.miss_cost
            count = int(np.argmin(np.round(costs, 6)))
        while count and not self._harmless(state, group, count):
            count -= 1
        return count

    def _misses(self, state, l, b, queue, count):
        """Requests of the queue that miss their deadlines (95th percentile) if ``count`` of them join the group."""
        model = self.model
        joined = model.percentile(0, min(b + count, model.B))
        later = model.catch_up[l, count] + model.remaining[l, min(b + count, model.B)] + model.percentile(0, 1)
        slacks = [self._slack(state, getattr(waiting, "request", waiting)) for waiting in queue]
        return sum(slack is not None and slack < (joined if i < count else later) for i, slack in enumerate(slacks))

    def _harmless(self, state, group, count):
        """No sample ahead is preempted too often or made late by ``count`` newcomers."""
        for sample in group:
            l = self._place(sample)
            if l == 0:
                continue
            if sample.preempted >= self.most_preemptions:
                return False
            slack = self._slack(state, sample.request)
            needed = self.model.catch_up[l, count] + self.model.percentile(l, min(len(group) + count, self.model.B))
            if slack is not None and 0 <= slack < needed:
                return False
        return True

    def _urgent(self, state, group):
        """Samples that laggards would make late stop waiting for them."""
        rear = min((self._place(s) for s in group), default=0)
        self._spread = any(self._place(s) > rear for s in group)
        raised = []
        for sample in group:
            l, slack = self._place(sample), self._slack(state, sample.request)
            if l == rear or slack is None or sample.priority == URGENT:
                continue
            behind = sum(self._place(s) < l for s in group)
            stall = self.model.catch_up[l, behind] - self.model.catch_up[rear, behind]
            ahead = self.model.percentile(l, len(group) - behind)
            if sample.preempted and ahead <= slack < stall + self.model.percentile(l, len(group)):
                raised.append(sample.slot)
        return [Batch(tuple(raised), URGENT, reason="urgent")] if raised else []

    @staticmethod
    def _slack(state, request):
        return None if request.deadline is None else request.deadline - state.now
