"""Who gets a slot, and who goes ahead of whom: what is fair between tenants, and what keeps the most deadlines."""

from collections import Counter
from math import inf

from fluidnpu.sched.planning import MOST_LOAD

from .tenants import tenant_of
from .turns import late_ones

__all__ = ["Room", "Sharing"]

GAIN = 0.5  # of a miss's price where passing a group has to be worth it: small batches cost more than the plan knows


class Room:
    """Free slots at a decision, and who may take them.

    held : dict tenant -> slots that it has; tenants : Tenants, whose expected requests keep slots free;
    spare : slots that requests which are late already leave free
    """

    def __init__(self, state, tenants, spare):
        self._free, self._slots = state.slots - len(state.live), state.slots
        self._tenants, self._spare = tenants, spare
        self._held = Counter(tenant_of(s.request) for s in state.live.values()) if tenants.several else {}

    def within(self, entries):
        """Those of the entries that have a slot, or get one if all before them do."""
        free, found, several = self._free, [], self._tenants.several
        held, kept = self._held.copy(), {}
        for entry in entries:
            if entry.sample is None:
                least = 0 if entry.chance else self._spare
                if several:
                    tenant = tenant_of(entry.request)
                    if tenant not in kept:
                        kept[tenant] = self._tenants.kept(entry.request, self._slots, held)
                    least = max(least, kept[tenant])
                    held[tenant] += free > least
                if free <= least:
                    continue
                free -= 1
            found.append(entry)
        return found


class Sharing:
    """Part of `fluid.Fluid`: overtaking."""

    def _room(self, state):
        return Room(state, self._tenants, min(f.spare for f in self._foresight) if self._gives_way else 0)

    @property
    def _gives_way(self):
        """Late samples run while nobody waits who can be in time."""
        return self.late == "last" and self.give_way and self._idle > 1 - MOST_LOAD

    def _mergers(self, group, queue):
        """Those of the queue that may join the group: no tenant above its share while one within it waits for the
        array or is in the group."""
        program, keep = group[0].request.program, self.late == "keep"
        if queue and not keep and any(e.above for e in queue):
            first = queue[0]
            if first.chance and first.request.program != program and self._behind(first, group):
                return []
            if not first.above or not all(self._tenants.above(s.request) for s in group):
                queue = [e for e in queue if not e.above]
        return [e for e in queue if e.request.program == program and e.op == 0 and (e.chance or keep)]

    def _behind(self, entry, group):
        """Whether all of the group ask for more than their share, and the entry's tenant does not."""
        return not entry.above and all(self._tenants.above(s.request) for s in group)

    def _overtake(self, state, group, queue, room):
        """Whether the first in turn goes ahead of the whole group, which waits in its slots.

        It does if it might miss its deadline otherwise, and

        * its tenant asks for less than its share, those of the group for more: it cannot take more than its share by
          going ahead;
        * or all of the group are late already, so that only time is lost (``give_way``);
        * or, another network's, it gains more than the group loses: P(in time now) - P(in time behind the group), at
          the price ``miss_cost``, and the time of the group, against what every member of it loses by waiting.

        Never on a rigid NPU, where nothing else runs until the group has left.
        """
        if state.rigid:
            return False
        first = queue[0]
        if self.late == "keep" or not first.chance or first.slack is None or not room.within([first]):
            return False
        program = group[0].request.program
        l, b = self._rear(group), len(group)
        left = self.models[program].percentile(l, b)
        if self._chance(first.request, first.op, first.slack - left, foresight=first.foresight) >= first.chance:
            return False
        if self._behind(first, group):
            return True
        if first.above and not all(self._tenants.above(s.request) for s in group):
            return False
        here, there = self._foresight[program], first.foresight or self._foresight[first.request.program]
        if first.request.program == program:
            late = self._gives_way and len(late_ones(state, group, here, self._place)) == b
            return late and self._pays(state, group, queue, room)
        if any(s.preempted >= self.most_preemptions for s in group):
            return False
        left, delay = self.models[program].waited[l][0][b], there.remaining[first.op]
        gain = first.chance - self._chance(first.request, first.op, first.slack - left, foresight=first.foresight)
        for s in group:
            slack, own = self._slack(state, s.request), self._confidence.foresight(s) or here
            if slack is not None:
                gain -= own.chance(self._place(s), slack) - own.chance(self._place(s), slack - delay)
        return gain * self.miss_cost * there.to_end[0][1] > b * delay - left

    def _pays(self, state, group, queue, room):
        """Whether those in time gain more by going ahead of their network's group, which is late, than that costs."""
        program = group[0].request.program
        queue = [e for e in queue if e.chance and e.op == 0 and e.request.program == program]
        l, b = self._rear(group), len(group)
        costs = self._plan(program).pass_costs(l, b, self._waiting.count(program, chance=True))
        price, left = GAIN * self._price(program), self.models[program].waited[l][0][b]
        missed = -sum([self._chance(e.request, 0, e.slack - left) for e in queue if e.slack is not None])
        most = len(room.within(queue))
        passed = [c + price * self._start_misses(program, queue, m) for m, c in enumerate(costs[1 : most + 1], 1)]
        return min(passed, default=inf) < costs[0] + price * missed
