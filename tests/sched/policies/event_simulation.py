"""The NPU as seen by a policy, without registers: groups go through operations at T[l][b], everything else is the
engine's rule. For policies only: thousands of requests a minute, cycles between operations instead of between tiles."""

from dataclasses import dataclass, field

from fluidnpu.sched.policies.base import Admit, Batch, Cancel, Drop, Leave, State, Wake
from fluidnpu.sched.policies.base import Sample as LiveSample
from fluidnpu.sched.request import DROPPED, Result

__all__ = ["Network", "Simulation", "serve_events"]


@dataclass(frozen=True, eq=False)
class Network:
    """cycles : T[l][b]; exit_operations : index of the EXIT of each exit; heads : exit whose head operation l belongs
    to, -1 for the trunk (so those of a disabled exit are jumped over)"""

    cycles: list
    exit_operations: list
    heads: list = field(default_factory=list)


@dataclass
class _Work:
    """A sample in the array. ``part`` of ``op`` is done; ``decided``: cycle of the decision of a bubble."""

    sample: LiveSample
    exit: int
    age: int
    op: int = 0
    part: float = 0.0
    leave: bool = False
    decided: tuple | None = None


class Simulation:
    """One run. ``true_exits``: dict request id -> exit at which it is confident; nobody but `Simulation` sees it."""

    def __init__(self, networks, requests, policy, true_exits, slots=8):
        self.networks, self.policy, self.true_exits = networks, policy, true_exits
        self.pending = sorted(requests, key=lambda r: r.arrival)
        self.state, self.work, self.results, self.log = State(0, slots), {}, [], []
        self.alarm, self.group, self.recorded, self.age, self.first = None, set(), {}, 0, 0
        self.calls, self.force = 0, {}

    def run(self):
        now = 0.0
        while self.first < len(self.pending) or self.state.waiting or self.work:
            while self.first < len(self.pending) and self.pending[self.first].arrival <= now:
                self.state.waiting.append(self.pending[self.first])
                self.first += 1
            self.state.now = int(now)
            self._decide()
            now = self._until_event(now)
        return self.results

    # --- the engine -------------------------------------------------------------------------------------------

    def _runnable(self):
        live = [w for w in self.work.values() if w.sample.runnable]
        if self.policy.rigid:
            if not self.group & set(self.work):
                leader = min(live, key=self._order, default=None)
                self.group = {w.sample.slot for w in live if self._same(w, leader)}
            live = [w for w in live if w.sample.slot in self.group]
        return live

    @staticmethod
    def _order(w):
        return (-w.sample.priority, w.sample.request.program, w.op, w.part, w.age)

    @staticmethod
    def _same(w, leader):
        place = (w.sample.request.program, w.op)
        return w is leader or (w.sample.ride and place == (leader.sample.request.program, leader.op))

    def _until_event(self, now):
        """Advance until the policy has to be asked again; returns that cycle."""
        while True:
            stops = [t for t in (self.alarm, self._next_arrival()) if t is not None]
            stop = max(now, min(stops, default=float("inf")))
            live = self._runnable()
            if not live:
                assert stops or not self.state.waiting, f"{self.policy.name}: requests wait although nothing runs"
                assert stops or not self.work, f"{self.policy.name}: live samples, none of them runnable"
                return stop if stops else now
            leader = min(live, key=self._order)
            place = [w for w in live if self._same(w, leader)]
            running = [w for w in place if w.part <= leader.part + 1e-9]
            ahead = min((w.part for w in place if w.part > leader.part + 1e-9), default=1.0)
            cycles = self.networks[leader.sample.request.program].cycles[leader.op][len(running)]
            left = (ahead - leader.part) * cycles
            if now + left > stop:
                part = leader.part + (stop - now) / cycles
                for w in running:
                    w.part = part
                return stop
            now += left
            for w in running:
                w.part = ahead
            if ahead == 1.0 and self._advance(running, now):
                return now

    def _next_arrival(self):
        return self.pending[self.first].arrival if self.first < len(self.pending) else None

    def _advance(self, running, now):
        """The operation is complete; True if somebody left."""
        left = False
        for w in running:
            network = self.networks[w.sample.request.program]
            if w.op in network.exit_operations:
                e = network.exit_operations.index(w.op)
                last = e == len(network.exit_operations) - 1
                if (w.leave or w.exit <= e or last) and not w.decided:
                    w.decided = (now, e, w.leave and w.exit > e and not last)
                if w.decided and (last or not self.policy.rigid):
                    left = True
                    self._leave(w, now)
                    continue
            w.op, w.part = w.op + 1, 0.0
            while network.heads and (head := network.heads[w.op]) >= 0 and not self._enabled(w, head):
                w.op += 1
        return left

    @staticmethod
    def _enabled(w, head):
        return w.leave or w.sample.exits is None or w.sample.exits >> head & 1

    def _leave(self, w, now):
        slot, request = w.sample.slot, w.sample.request
        del self.work[slot], self.state.live[slot]
        stamp, e, forced = w.decided
        stamp = now if self.policy.exit_handling == "hold" else stamp
        places = {"slot": slot, "admitted": w.sample.admitted, "exits": w.sample.exits, "program": request.program}
        self._finish(Result(request.id, "ok", request.arrival, request.deadline, stamp, now, exit=e, **places))
        if forced:
            self.force[request.id] = w.exit

    def _finish(self, result):
        self.results.append(result)
        self.policy.completed(result)

    # --- the host ---------------------------------------------------------------------------------------------

    def _decide(self):
        for slot, w in self.work.items():
            sample = self.state.live[slot]
            sample.op, sample.line = w.op, int(w.part * 1000)
        self.alarm = None
        self.calls += 1
        for action in self.policy.decide(self.state):
            self.log.append((self.state.now, action))
            self._execute(action)

    def _execute(self, action):
        match action:
            case Wake():
                assert action.cycle > self.state.now, action
                self.alarm = action.cycle if self.alarm is None else min(self.alarm, action.cycle)
            case Admit():
                assert action.slot in self.state.free, action
                self.state.waiting.remove(action.request)
                sample = LiveSample(
                    action.request, action.slot, self.state.now, action.priority, action.runnable, action.ride,
                    exits=action.request.exits if action.exits is None else action.exits,
                )  # fmt: skip
                self.state.live[action.slot] = sample
                self.age += 1
                self.work[action.slot] = _Work(sample, self.true_exits[action.request.id], self.age)
            case Drop():
                self.state.waiting.remove(action.request)
                r, now = action.request, self.state.now
                self._finish(Result(r.id, DROPPED, r.arrival, r.deadline, now, now))
            case Batch():
                assert action.slots and all(s in self.state.live for s in action.slots), action
                for slot in action.slots:
                    self.recorded[slot] = action
                if action.commit:
                    for slot, entry in self.recorded.items():
                        if slot in self.state.live:
                            s = self.state.live[slot]
                            s.priority, s.runnable, s.ride = entry.priority, entry.runnable, entry.ride
                    self.recorded.clear()
            case Leave():
                for slot in action.slots:
                    self.work[slot].leave = True
            case Cancel():
                for slot in action.slots:
                    w = self.work.pop(slot)
                    del self.state.live[slot]
                    r, now = w.sample.request, self.state.now
                    self._finish(Result(r.id, "cancelled", r.arrival, r.deadline, now, now, w.sample.admitted, slot))


def serve_events(networks, requests, policy, true_exits, slots=8):
    """Results of a run, in order of completion."""
    return Simulation(networks, requests, policy, true_exits, slots).run()
