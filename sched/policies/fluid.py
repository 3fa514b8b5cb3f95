"""Fluid batching: exit-aware, preemptive. Newcomers catch up and merge when that pays."""

from .base import Admit, Batch, Policy

__all__ = ["ACTIVE", "DEFERRED", "URGENT", "Fluid"]

DEFERRED, ACTIVE, URGENT = 1, 2, 3  # priorities

_MERGES = ("profit", "always", "never")


class Fluid(Policy):
    """Who leads and who rides follows survival-weighted remaining time and the slack to the deadlines.

    Samples of priority ACTIVE or above are the group. Equal priority merges by itself: the NPU lets the laggard lead,
    so a newcomer of that priority preempts the group, catches up and rides. Newcomers that would not pay enter free
    slots with priority DEFERRED: they fill the gaps that the group leaves, and are the next to start.

    At every event

    * nothing runs: start as many as `SurvivalTables.start_size` says;
    * somebody waits: let K[l][b][q] (`SurvivalTables.merge_size`) newcomers catch up, l being the rearmost operation of
      the group of b; more, if a newcomer would otherwise miss its deadline;
    * but only as many as leave every sample ahead, if it is not yet late, its catch-up time plus the 95th percentile of
      its remaining time until its deadline, and only if none was preempted ``most_preemptions`` times already;
    * a sample that waits for laggards and would become late by it is raised to URGENT and stops waiting.

    Parameters
    ----------
    model : SurvivalTables; its exit rates learn from every completion
    most_preemptions : times that a sample may be made to wait for newcomers
    merge : "profit", "always" (as many as there are slots: for comparison), "never"
    defer : newcomers that do not merge enter free slots (else they stay in the queue)
    """

    name = "fluid"

    def __init__(self, model=None, most_preemptions=2, merge="profit", defer=True):
        if model is None:
            raise ValueError("fluid: it needs SurvivalTables (model)")
        if most_preemptions < 0:
            raise ValueError(f"fluid: most_preemptions = {most_preemptions}, it must be at least 0")
        if merge not in _MERGES:
            raise ValueError(f"fluid: merge = {merge!r}, it must be one of {', '.join(_MERGES)}")
        super().__init__(model)
        self.most_preemptions, self.merge, self.defer = most_preemptions, merge, defer
        self._spread = False  # the group was not all at one operation when last seen

    def needs_positions(self, state):
        group, deferred = self._split(state)
        return bool(group) and (bool(deferred or state.waiting) or self._spread)

    def completed(self, result):
        if result.ok:
            self.model.rates.learn(result.exit)

    def decide(self, state):
        self.model.refresh()
        group, deferred = self._split(state)
        queue = [*deferred, *state.waiting]  # Sample or Request, the deferred first
        room = len(deferred) + len(state.free)
        actions = self._urgent(state, group)
        if not group:
            count, reason = self.model.start_size(len(queue)), "start"
        else:
            count, reason = self._merge_count(state, group, queue), "merge"
        count = min(count, room)
        if count and group:
            for sample in group:
                sample.preempted += self._place(sample) > 0
        joining, held = deferred[:count], deferred[count:]
        if joining:
            actions.append(Batch(tuple(s.slot for s in joining), ACTIVE, reason=reason))
        entering = max(0, count - len(deferred))
        free = iter(state.free)
        actions += [Admit(r, next(free), ACTIVE, reason=reason) for r in state.waiting[:entering]]
        if self.defer:
            rest = min(self.model.start_size(len(queue) - count), room - count) - len(held)
            later = state.waiting[entering : entering + max(0, rest)]
            actions += [Admit(r, next(free), DEFERRED, reason="defer") for r in later]
        return actions

    # --- parts of a decision ----------------------------------------------------------------------------------

    def _split(self, state):
        """(group, deferred), by arrival."""
        samples = sorted(state.live.values(), key=lambda s: (s.request.arrival, s.slot))
        return [s for s in samples if s.priority >= ACTIVE], [s for s in samples if s.priority < ACTIVE]

    def _place(self, sample):
        return min(sample.op, self.model.L - 1)

    def _merge_count(self, state, group, queue):
        """How many of the queue join the group now."""
        l, b, q = min(self._place(s) for s in group), len(group), len(queue)
        most = min(q, self.model.B - b)
        if most <= 0 or self.merge == "never":
            return 0
        count = most if self.merge == "always" else self.model.merge_size(l, b, q)
        if self.merge == "profit":
            done = self.model.remaining[l, b]
            for i, waiting in enumerate(queue[count:most], count + 1):
                slack = self._slack(state, getattr(waiting, "request", waiting))
                if slack is not None:
                    alone, joined = self.model.percentile(0, 1), self.model.percentile(0, b + i)
                    if joined <= slack < done + alone:
                        count = i
        while count and not self._harmless(state, group, count):
            count -= 1
        return count

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
            if self.model.percentile(l, 1) <= slack < stall + self.model.percentile(l, len(group)):
                raised.append(sample.slot)
        return [Batch(tuple(raised), URGENT, reason="urgent")] if raised else []

    @staticmethod
    def _slack(state, request):
        return None if request.deadline is None else request.deadline - state.now
