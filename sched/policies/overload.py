"""Samples and requests that cannot be in time: shed, or let go at an early exit."""

from math import ceil

from .base import Cancel, Drop, Leave, Wake
from .turns import late_ones

__all__ = ["Overload"]

SOON = 64  # cycles after which to look again at something that should have happened


class Overload:
    """Part of `fluid.Fluid`: overload."""

    def _watches(self, group):
        return (self.late != "keep" or self.leave) and any(s.request.deadline is not None for s in group)

    def _overload(self, state, group, idle):
        """Members of the group that cannot be in time leave early or give way; they move from ``group`` to ``idle``."""
        if not group or not self._watches(group):
            return []
        actions, foresight = [], self._foresight[group[0].request.program]
        leaving = late_ones(state, group, foresight, self._place, between=True) if self.leave else []
        leaving = [s for s in leaving if s.request.id not in self._forced]
        if leaving:
            self._forced |= {s.request.id for s in leaving}
            actions.append(Leave(tuple(s.slot for s in leaving)))
        if self.late != "shed":
            return actions
        lost = late_ones(state, group, foresight, self._place)
        if lost:
            self._gone |= {s.request.id for s in lost}
            group[:] = [s for s in group if s not in lost]
            actions.append(Cancel(tuple(s.slot for s in lost), reason="shed"))
        return actions

    def _shed(self, entries):
        """Give up what waits and certainly misses; it is taken out of ``entries``."""
        slots = tuple(e.sample.slot for e in entries if not e.chance)
        self._gone |= {e.request.id for e in entries if not e.chance}
        entries[:] = [e for e in entries if e.chance]
        actions = [Drop(request, reason="shed") for request in self._waiting.lost()]
        for action in actions:
            self._waiting.take(action.request)
        return [*actions, Cancel(slots, reason="shed")] if slots else actions

    def _alarm(self, state, group, others):
        """Ask again when the group passes its next head, if somebody might have to give way behind it."""
        if not others or not group or not self._watches(group):
            return []
        program = group[0].request.program
        foresight, tables = self._foresight[program], self.models[program]
        l, b = self._rear(group), len(group)
        x = tables.exit_operations[foresight.next_exit[l]]
        if x + 1 >= tables.L:
            return []
        left = foresight.to_exit[l][b]
        need = left + foresight.to_exit[x + 1][1]
        due = state.now + need
        if any([r.slo is not None and r.arrival + r.slo < due for r in [s.request for s in group]]):
            return [Wake(state.now + max(SOON, ceil(left)))]
        return []
