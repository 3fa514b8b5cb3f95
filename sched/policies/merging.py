"""How many newcomers catch up with a group, and what a miss may cost it."""

from math import inf, log

from fluidnpu.sched.planning import MOST_LOAD, Plan

from .base import Batch

__all__ = ["ACTIVE", "AHEAD", "DEFERRED", "URGENT", "Merging"]

DEFERRED, ACTIVE, URGENT = 1, 2, 3  # priorities
AHEAD = 8  # requests of the queue whose deadlines count when a batch is chosen
BUCKET = 1.25  # arrival rates are told apart by this factor
IDLE = 0.3  # share of idle time below which misses have to be cheaper


class Merging:
    """Part of `fluid.Fluid`: merging."""

    def _plan(self, program):
        rate = self._arrivals.rate(program)
        bucket = round(log(rate) / log(BUCKET)) if rate else None
        plan = self._plans.get((program, bucket))
        if plan is None:
            plan = Plan(self.models[program], BUCKET**bucket if rate else 0.0)
            self._plans[program, bucket] = plan
        return plan

    def _idle_share(self):
        """Share of the time that the NPU needs not work, in its best batches, at the present arrival rates."""
        return 1 - sum([self._arrivals.usual_rate(n) * f.share for n, f in enumerate(self._foresight)])

    def _price(self, program):
        """Cycles that a miss may cost the others: less where the NPU is nearly saturated and every cycle that is lost
        makes many wait."""
        idle = max(1 - MOST_LOAD, self._idle)
        return self._foresight[program].to_end[0][1] * self.miss_cost * min(1.0, idle / IDLE)

    def _locate(self, live):
        """Where the ``live`` samples (slot -> Sample) stand in the present decision."""
        self._places, self._rearmost = {}, None
        for slot, sample in live.items():
            tables, place = self.models[sample.request.program], sample.op
            if sample.line and 2 * sample.line >= tables.lines[min(place, tables.L - 1)]:
                place += 1
            self._places[slot] = min(place, tables.L - 1)

    def _place(self, sample):
        """The operation at which the sample stands, the next one if half of its lines are dealt."""
        return self._places[sample.slot]

    def _rear(self, group):
        """The rearmost place of the present decision's group."""
        if self._rearmost is None:
            places = self._places
            self._rearmost = min([places[s.slot] for s in group])
        return self._rearmost

    def _merge_count(self, state, group, queue, waiting):
        """How many of the queue, who have room, join the group now; ``waiting``: as many could join."""
        program = group[0].request.program
        l, b = self._rear(group), len(group)
        most = min(len(queue), self.models[program].B - b)
        if most <= 0 or self.merge == "never":
            return 0
        if self.late == "shed" and any(s.request.deadline is not None for s in group):
            return 0  # what the group would lose is worth more than what it costs
        if any([s.preempted >= self.most_preemptions and self._place(s) for s in group]):
            return 0
        count = most
        if self.merge == "profit":
            costs = self._confidence.merge_costs(self._plan(program), group, l, waiting)[: most + 1]
            slacks = [inf if e.slack is None else e.slack for e in queue[: most + AHEAD]]
            count = self._cheapest(costs, self._price(program), lambda k: self._misses(program, l, b, slacks, k))
        while count and not self._harmless(state, group, count):
            count -= 1
        return count

    @staticmethod
    def _cheapest(costs, price, misses):
        """The least k (within 1e-6) whose costs[k] and ``misses(k)`` at their ``price`` are least."""
        best, count = inf, 0
        for k in sorted(range(len(costs)), key=costs.__getitem__):
            if round(costs[k], 6) > best:
                break  # misses cost nothing less
            cost = round(costs[k] + price * misses(k), 6) if price else round(costs[k], 6)
            if (cost, k) < (best, count):
                best, count = cost, k
        return count

    def _misses(self, program, l, b, slacks, count):
        """Of those with these slacks, who will miss their deadlines (95th percentile) if ``count`` join the group."""
        model = self.models[program]
        together = min(b + count, model.B)
        joined, later = model.percentile(0, together), model.waited[l][count][together] + model.percentile(0, 1)
        return sum([s < joined for s in slacks[:count]]) + sum([s < later for s in slacks[count:]])

    def _harmless(self, state, group, count):
        """No sample ahead is made late by ``count`` newcomers."""
        model = self.models[group[0].request.program]
        for sample in group:
            l = self._place(sample)
            if l == 0:
                continue
            slack = self._slack(state, sample.request)
            percentile = self._confidence.tables(sample).percentile(l, min(len(group) + count, model.B))
            needed = model.delay[l][count] + percentile
            if slack is not None and 0 <= slack < needed:
                return False
        return True

    def _urgent(self, state, group):
        """Samples that laggards would make late stop waiting for them."""
        places = [self._places[s.slot] for s in group]
        rear = self._rear(group)
        self._spread = max(places) > rear
        if not self._spread:
            return []
        model, raised = self.models[group[0].request.program], []
        for sample, l in zip(group, places, strict=True):
            if l == rear or sample.request.slo is None or sample.priority == URGENT or not sample.preempted:
                continue
            slack = self._slack(state, sample.request)
            behind = sum([place < l for place in places])
            stall = model.delay[l][behind] - model.delay[rear][behind]
            percentile = self._confidence.tables(sample).percentile
            if percentile(l, len(group) - behind) <= slack < stall + percentile(l, len(group)):
                raised.append(sample.slot)
        return [Batch(tuple(raised), URGENT, reason="urgent")] if raised else []
