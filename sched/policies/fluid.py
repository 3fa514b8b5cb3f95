"""Fluid batching: exit-aware, preemptive. Newcomers catch up and merge when that pays."""

from .arrivals import Arrivals
from .base import Admit, Batch, Policy
from .confidence import Confidence, NoConfidence
from .foresight import Foresight
from .merging import ACTIVE, AHEAD, DEFERRED, URGENT, Merging
from .overload import Overload
from .sharing import Sharing
from .tenants import Tenants, tenant_of
from .turns import Entry, due, in_turn
from .waiting import Waiting

__all__ = ["ACTIVE", "DEFERRED", "URGENT", "Fluid"]

_CHOICES = {
    "merge": ("profit", "always", "never"),
    "defer": ("hold", "run", "queue"),
    "late": ("last", "shed", "keep"),
    "leader": ("gittins", "remaining", "arrival"),
}
_PAYS = 1.25  # batching pays if a sample alone takes so many times its share of the best batch


class Fluid(Sharing, Merging, Overload, Policy):
    """Who leads and who rides follows survival-weighted remaining time and the slack to the deadlines.

    Samples of priority ACTIVE or above are the group, all of one network. Equal priority merges by itself: the NPU lets
    the laggard lead, so a newcomer of that priority preempts the group, catches up and rides. Others wait outside, or
    in free slots with priority DEFERRED.

    At every event

    * nothing runs: who is first `in_turn` starts, with as many at the same place as `Plan.start_size` says and as no
      deadline of theirs forbids, all in the same cycle;
    * somebody waits: let as many newcomers catch up as cost least (`Plan.merge_costs`), l being the rearmost operation
      of the group; a deadline that the queue would miss costs ``miss_cost`` times a single sample's full latency;
    * but only as many as leave every sample ahead, if it is not yet late, its catch-up time plus the 95th percentile of
      its remaining time until its deadline, and only if none was preempted ``most_preemptions`` times already;
    * a sample that newcomers were let past, and that would become late by waiting for them but not without them, is
      raised to URGENT and stops waiting;
    * a sample that can no longer be decided in time gives way to those that can;
    * a tenant within its share goes ahead of groups of tenants above theirs (`sharing`, `tenants`).

    Parameters
    ----------
    model : SurvivalTables, or one per program; exit rates learn from completions, plans follow them and the arrivals
    most_preemptions : times that a sample may be made to wait for newcomers
    merge : "profit", "always" (as many as there are slots: for comparison), "never"
    defer : newcomers that do not merge "hold" a slot without running, "run" in the gaps that the group leaves (work
        that their own batch will not share), or stay in the "queue"
    miss_cost : see above; 0 merges for the mean latency alone
    leader : who starts among those without a deadline that can be kept: the highest "gittins" index, the least expected
        "remaining" time, or the oldest "arrival"
    late : samples that certainly miss their deadline come "last", or are "shed" (dropped, cancelled), or "keep" their
        turn
    give_way : with late = "last", newcomers who would miss their deadlines behind samples that are late go ahead; for
        them those run in batches that leave as many slots free as costs hardly any throughput (`Foresight.spare`)
    leave : a sample whose deadline lies between the next head and the one after leaves at the next head. Its answer is
        not confident: a trade of accuracy for time, off unless asked for
    skip : heads that are expected to save less than they cost are not tried, but by one sample in 16, to learn. The
        answers are those of later exits, so off unless asked for
    learn : exit rates follow completions; False: the tables stay as given
    confidence : S of the last head that a sample passed decides which rates it is expected to leave with
        (confidence.py); reading it costs a bus access per live sample
    """

    name = "fluid"

    def __init__(
        self, model=None, most_preemptions=2, merge="profit", defer="queue", miss_cost=1.0, leader="gittins",
        late="last", give_way=True, leave=False, skip=False, learn=True, confidence=False,
    ):  # fmt: skip
        if model is None:
            raise ValueError(f"{self.name}: it needs SurvivalTables (model)")
        if most_preemptions < 0:
            raise ValueError(f"{self.name}: most_preemptions = {most_preemptions}, it must be at least 0")
        for option, value in (("merge", merge), ("defer", defer), ("late", late), ("leader", leader)):
            if value not in _CHOICES[option]:
                raise ValueError(f"{self.name}: {option} = {value!r}, it must be one of {', '.join(_CHOICES[option])}")
        if miss_cost < 0:
            raise ValueError(f"{self.name}: miss_cost = {miss_cost}, it must be at least 0")
        super().__init__(model)
        self.most_preemptions, self.merge, self.defer, self.miss_cost = most_preemptions, merge, defer, miss_cost
        self.leader, self.late, self.give_way = leader, late, give_way
        self.leave, self.skip, self.learns = leave, skip, learn
        self._arrivals, self._tenants = Arrivals(len(self.models)), Tenants()
        self._plans, self._spread, self._admitted = {}, False, 0
        self._rearmost = None  # of those places, of the group
        self._places = {}  # slot -> operation, of the present decision
        self._idle = 1.0  # of the present decision
        self._forced, self._gone = set(), set()  # ids: told to leave early; cancelled, but not released yet
        self._foresight = [Foresight(tables) for tables in self.models]
        self.wants_spread, self._confidence = confidence, (Confidence if confidence else NoConfidence)(self.models)
        self._waiting = Waiting(self._steps, self._waiting_rank)

    # --- the interface ----------------------------------------------------------------------------------------

    def needs_positions(self, state):
        group = [s for s in state.live.values() if s.priority >= ACTIVE]
        others = state.waiting or len(state.live) > len(group)
        return bool(group) and bool(others or self._spread or self._watches(group))

    def completed(self, result):
        self._arrivals.forget(result.id)
        forced = result.id in self._forced
        self._forced.discard(result.id)
        self._gone.discard(result.id)
        self._confidence.completed(result, learns=not forced)
        if self.learns and not forced and self.learn(result):
            self._foresight[result.program] = Foresight(self.models[result.program])
            self._confidence.rebuilt(result.program)
            self._plans = {key: plan for key, plan in self._plans.items() if key[0] != result.program}

    def decide(self, state):
        for request in self._arrivals.learn(state.waiting):
            self._tenants.arrived(request, self._foresight[request.program].share)
        self._tenants.look(state.now)
        self._idle = self._idle_share()
        self._waiting.update(state.waiting, state.now)
        self._locate(state.live)
        self._confidence.look(state.live.values())
        actions = self._decide(state)
        for action in actions:
            if isinstance(action, Admit):
                self._waiting.take(action.request)
        return actions

    def _decide(self, state):
        group, idle = self._split(state)
        actions = self._overload(state, group, idle)
        several = self._tenants.several
        entries = [self._entry(state, s) for s in idle if several or not group or self._place(s) == 0]
        if self.late == "shed":
            actions += self._shed(entries)
        entries += self._waiting_entries(state, group)
        if not entries and not group:
            return actions
        others, room = bool(idle or self._waiting), self._room(state)
        queue = self._in_turn(entries, state.now) if entries else []
        if group and queue and self._overtake(state, group, queue, room):
            for sample in group:
                sample.preempted += 1
            slots = tuple(s.slot for s in group)
            actions.append(Batch(slots, DEFERRED, runnable=False, ride=False, reason="overtake"))
            group, tenant = [], tenant_of(queue[0].request)
            queue = [e for e in queue if e.chance and tenant_of(e.request) == tenant]
        if group:
            actions += self._urgent(state, group)
            queue = self._mergers(group, queue)
            chosen, reason = room.within(queue), "merge"
            chosen = chosen[: self._merge_count(state, group, chosen, len(queue))]
            if chosen:
                for sample in group:
                    sample.preempted += self._place(sample) > 0
        else:
            chosen, reason = self._start(queue, room) if queue else [], "start"
        actions += self._enter(chosen, state.free, reason)
        if self.defer != "queue":
            actions += self._defer(state, queue, chosen, room)
        return actions + self._alarm(state, group, others)

    # --- who ----------------------------------------------------------------------------------------------------

    def _split(self, state):
        """(group, others), by arrival, without cancelled samples that the NPU has not released yet."""
        live = [s for s in state.live.values() if s.request.id not in self._gone]
        samples = sorted(live, key=lambda s: (s.request.arrival, s.slot))
        return [s for s in samples if s.priority >= ACTIVE], [s for s in samples if s.priority < ACTIVE]

    def _entry(self, state, sample):
        request, op = sample.request, self._place(sample)
        slack = None if request.deadline is None else request.deadline - state.now
        own = self._confidence.foresight(sample)
        chance = 1.0 if slack is None else self._chance(request, op, slack, foresight=own)
        return Entry(request, sample, op, slack, chance, self._tenants.turn(request), self._tenants.above(request), own)

    def _chance(self, request, op, slack, b=1, foresight=None):
        """P(decided within ``slack`` cycles) if it goes on from ``op`` in a group of b."""
        return (foresight or self._foresight[request.program]).chance(op, slack, b)

    def _in_turn(self, entries, now):
        return in_turn(entries, self._foresight, self.late, self.leader, now)

    def _start(self, queue, room):
        """Who starts on an idle array: the first in turn that has or gets a slot, and company at the same place. Those
        that were overtaken together go on together."""
        first = next((e for e in queue if room.within([e])), None)
        if first is None:
            return []
        op, program = first.op, first.request.program
        if op:
            return [e for e in queue if e.op and e.request.program == program and bool(e.chance) == bool(first.chance)]
        alike = [e for e in queue if e.op == 0 and e.request.program == program and e.above == first.above]
        waiting = self._waiting.count(program) + sum(e.sample is not None for e in alike)
        entering = room.within(alike)
        most = min(len(entering), self.models[program].B)
        if self.late == "shed" and all(e.slack is not None for e in alike[: most + AHEAD]):
            return room.within(self._start_most(program, alike))
        if most > 1:
            costs = self._plan(program).start_costs(waiting)[:most]
            price = self._price(program)
            if price and any(e.slack is not None for e in alike[:most]):
                costs = [c + price * self._start_misses(program, alike, m) for m, c in enumerate(costs, 1)]
            least = min(costs)
            most = max(m for m, c in enumerate(costs, 1) if c <= least + 1e-6)
        return entering[:most]

    def _start_most(self, program, queue):
        """The batch of a policy that sheds, earliest deadline first: who misses is lost, so all must be in time.

        Where batching pays, members need the expected time of a batch of `target` (Nexus' rule: the largest that fits
        twice into the least SLO); who needs longer is passed over. Where it does not, as many start as are all in time
        whatever exits they take.
        """
        foresight, waits, B = self._foresight[program], self.models[program].waited[0][0], self.models[program].B
        if waits[1] >= _PAYS * foresight.share:
            slo = min(e.request.slo for e in queue)
            target = max((b for b in range(1, B + 1) if 2 * waits[b] <= slo), default=1)
            queue = sorted(queue, key=lambda e: (e.turn, e.slack))
            for i, entry in enumerate(queue):
                window = queue[i : i + target]
                if entry.slack >= waits[len(window)]:
                    return window
            return queue[:1]
        most = min(len(queue), B)
        slacks = [e.slack if e.chance == 1.0 else 0 for e in queue[:most]]
        while most > 1 and min(slacks[:most]) < foresight.to_end[0][most]:
            most -= 1
        return queue[:most]

    def _start_misses(self, program, queue, count):
        """Expected misses if the first ``count`` of the queue start together and the others wait for them."""
        wait, missed = self.models[program].waited[0][0][count], 0.0
        for i, e in enumerate(queue[: count + AHEAD]):
            if e.slack is not None and e.chance:
                missed -= self._chance(e.request, 0, *((e.slack, count) if i < count else (e.slack - wait,)))
        return missed

    def _steps(self, request):
        """Cycles that a waiting request needs alone to each of its exits; []: its turn does not depend on them."""
        return [] if self.late == "keep" else [t for t, _ in self._foresight[request.program].reach(0, 1)]

    def _waiting_rank(self, request, level, levels):
        """Order of requests that can reach as many exits in time; as `in_turn` has it."""
        if level == levels and levels:
            return due(request, self._foresight[request.program])
        return -request.priority if not level and self.leader != "arrival" else 0.0

    def _waiting_entries(self, state, group):
        """Entries of the requests that may be chosen now, the first of each kind: nobody who is late joins a group."""
        most, lost, found = state.slots - len(group) + AHEAD, 0 if group else state.slots, []
        several, turn, above = self._tenants.several, 0.0, False
        for request, level, levels in self._waiting.heads(most, lost):
            slack = None if request.slo is None else request.arrival + request.slo - state.now
            if slack is None or (level == levels and levels):
                chance = 1.0
            else:
                chance = self._chance(request, 0, slack) if level or not levels else 0.0
            if several:
                turn, above = self._tenants.turn(request), self._tenants.above(request)
            found.append(Entry(request, None, 0, slack, chance, turn, above))
        return found

    def _enter(self, chosen, free, reason):
        if not chosen:
            return []
        for entry in chosen:
            self._charge(entry)
        entering = list(zip([e.request for e in chosen if e.sample is None], free, strict=False))
        if len(chosen) == len(entering) == 1:
            return [Admit(*entering[0], ACTIVE, exits=self._mask(entering[0][0]), reason=reason)]
        slots = [e.sample.slot for e in chosen if e.sample] + [slot for _, slot in entering]
        admits = [Admit(r, slot, ACTIVE, runnable=False, exits=self._mask(r)) for r, slot in entering]
        return [*admits, Batch(tuple(slots), ACTIVE, reason=reason)]

    def _charge(self, entry):
        if entry.sample is None:
            self._tenants.charge(entry.request, self._foresight[entry.request.program].share)

    def _defer(self, state, queue, chosen, room):
        """Those who start next get a slot now."""
        taken = {e.request.id for e in chosen}
        later = [e for e in queue if e.request.id not in taken and e.op == 0 and e.chance]
        free = state.free[sum(e.sample is None for e in chosen) :]
        most = self._plan(later[0].request.program).start_size(len(later)) if later and free else 0
        entering = room.within([*chosen, *(e for e in later[:most] if e.sample is None)])[len(chosen) :]
        for entry in entering:
            self._charge(entry)
        return [
            Admit(r, slot, DEFERRED, self.defer == "run", exits=self._mask(r), reason="defer")
            for r, slot in zip([e.request for e in entering], free, strict=False)
        ]

    def _mask(self, request):
        """Exits to try, None: all that the request allows."""
        self._admitted += 1
        if not self.skip or self._admitted % 16 == 0:
            return None
        tables, mask = self.models[request.program], -1
        for e, x in enumerate(tables.exit_operations[:-1]):
            head = sum(t for t, of in zip(tables.latency.cycles[:, 1], tables.heads, strict=True) if of == e)
            if tables.hazard[x] * tables.remaining[x + 1, 1] < head:
                mask &= ~(1 << e)
        return None if mask == -1 else mask & (1 << len(tables.exit_operations)) - 1

    @staticmethod
    def _slack(state, request):
        return None if request.deadline is None else request.deadline - state.now
