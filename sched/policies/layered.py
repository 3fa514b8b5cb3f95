"""Policies that choose one sample at a time, anew at layer boundaries: SJF, EDF, LLF, SRTF with exits, Dysta, PREMA."""

from math import ceil, inf

from .base import Admit, Batch, Policy, Wake

__all__ = ["Edf", "LayerGranular", "Llf", "Sjf", "SrtfEe"]

WAITS, RUNS = 1, 2  # priorities
SOON = 0.02  # of the time that a sample alone takes: a nearer boundary is not worth a decision of its own


class LayerGranular(Policy):
    """The request of least `score` runs, alone; ties: the oldest. Preempted samples keep their slots and go on where
    they stood, so preemption costs nothing.

    Asked at arrivals and completions and, as ``boundaries`` of the class says, also where the running sample decides at
    a head and stays ("heads"), or not (""); or only where it ends a layer or leaves ("layers"), but who has just taken
    over keeps the array as long as the longest layer takes: samples whose scores cross again and again would otherwise
    revoke one another's tiles before they start.

    batch : samples at the same operation that run together, the best by score (default 1: as published)
    """

    boundaries = ""

    def __init__(self, model=None, batch=1):
        if model is None:
            raise ValueError(f"{self.name}: it needs SurvivalTables (model)")
        super().__init__(model)
        if batch < 1:
            raise ValueError(f"{self.name}: batch = {batch}, it must be at least 1")
        self.batch = batch
        self._full, self._runs, self._until = [], None, 0
        self._soon = max(1.0, SOON * float(max(tables.latency.cycles[:, 1].sum() for tables in self.models)))
        self._longest = max(float(tables.latency.cycles[:, 1].max()) for tables in self.models)
        for tables in self.models:
            cycles = tables.latency.cycles[:, 1]
            self._full.append([*cycles[::-1].cumsum()[::-1].tolist(), 0.0])

    def score(self, state, request, op, part):
        """Least runs. The sample stands at operation ``op``, of which ``part`` (0..1) is done."""
        raise NotImplementedError

    def candidates(self, state):
        """Those of the waiting requests among which the best `batch` are, by arrival: the oldest of every `kind`."""
        found, counts = [], {}
        for request in state.waiting:
            kind = self.kind(request)
            count = counts.get(kind, 0)
            if count < self.batch:
                counts[kind] = count + 1
                found.append(request)
        return found

    @staticmethod
    def kind(request):
        """Waiting requests that differ in age alone are of one kind."""
        return request.program, request.priority, request.slo

    def remaining(self, request, op, part):
        """Cycles of the rest of the network, alone, without exits."""
        full = self._full[request.program]
        return full[op] - part * (full[op] - full[op + 1])

    def needs_positions(self, state):
        return bool(state.live)

    def decide(self, state):
        if not state.live and not state.waiting:
            return []
        if (
            self.boundaries == "layers"
            and state.now < self._until
            and self._runs in [x.request.id for x in state.live.values()]
        ):
            return [Wake(self._until)]
        entries = []
        for slot, sample in state.live.items():
            tables = self.tables(sample.request)
            op = min(sample.op, tables.L - 1)
            part = min(1.0, sample.line / tables.lines[op])
            entries.append((self.score(state, sample.request, op, part), sample.request.arrival, slot, op, part, None))
        free = state.free
        if free:
            for n, request in enumerate(self.candidates(state)):
                entries.append((self.score(state, request, 0, 0.0), request.arrival, state.slots + n, 0, 0.0, request))
        first, *others = sorted(entries, key=lambda e: e[:3])
        chosen = [first]
        if self.batch > 1:
            program, op = self._request(state, first).program, first[3]
            together = [e for e in others if e[3] == op and self._request(state, e).program == program]
            room = len(free) - (first[5] is not None)
            for entry in together:
                if len(chosen) < self.batch and (entry[5] is None or room > 0):
                    room -= entry[5] is not None
                    chosen.append(entry)
        self._chosen(state, [self._request(state, e) for e in chosen])
        return [*self._switch(state, chosen, free), *self._alarm(state, chosen)]

    def _chosen(self, state, requests):
        """Told who runs from now on."""

    @staticmethod
    def _request(state, entry):
        return entry[5] or state.live[entry[2]].request

    def _switch(self, state, chosen, free):
        """Commands after which the chosen run and nobody else does: the others do not ride, and lead only in gaps."""
        run = {e[2] for e in chosen if e[5] is None}
        ride = len(chosen) > 1
        stop = tuple(s for s, x in state.live.items() if s not in run and (x.priority, x.ride) != (WAITS, False))
        start = tuple(s for s in sorted(run) if (state.live[s].priority, state.live[s].ride) != (RUNS, ride))
        actions = []
        if stop:
            actions.append(Batch(stop, WAITS, ride=False, commit=not start, reason="preempt"))
        if start:
            actions.append(Batch(start, RUNS, ride=ride, reason="start"))
        slots = iter(free)
        actions += [Admit(e[5], next(slots), RUNS, ride=ride, reason="start") for e in chosen if e[5] is not None]
        return actions

    def _alarm(self, state, chosen):
        """Ask again at the next boundary, if somebody might then be better."""
        if not self.boundaries or len(state.live) + len(state.waiting) < 2:
            return []
        request, op, part = self._request(state, chosen[0]), chosen[0][3], chosen[0][4]
        tables = self.tables(request)
        cycles = tables.latency.cycles[:, min(len(chosen), tables.B)]
        left = (1 - part) * cycles[op]
        if self.boundaries == "heads":
            end = next((e for e in tables.exit_operations if e >= op), tables.L - 1)
            left += cycles[op + 1 : end + 1].sum()
        elif request.id != self._runs:
            left = max(left, self._longest)
        self._runs, self._until = request.id, state.now + ceil(max(self._soon, left))
        return [Wake(self._until)]


class Sjf(LayerGranular):
    """Least remaining time without exits: shortest job first, with preemption (SRPT on the estimates).

    Source: Dysta's artifact (SamsungLabs/Sparse-Multi-DNN-Scheduling, SJF_Scheduler): sum of the estimated latencies
    of the layers that are left.
    """

    name = "sjf"

    def score(self, state, request, op, part):
        return self.remaining(request, op, part)


class Edf(LayerGranular):
    """Earliest deadline first, preemptive (Liu and Layland, JACM 1973, section 7). Late samples keep their deadline and
    so go first, as the rule says; nobody is dropped."""

    name = "edf"

    def score(self, state, request, op, part):
        return inf if request.deadline is None else request.deadline


class Llf(LayerGranular):
    """Least laxity first: deadline - now - remaining time without exits, at every layer boundary (Mok, MIT 1983;
    Dertouzos and Mok, TSE 1989). Left out: anything for samples that are late already, whose laxity is negative."""

    name, boundaries = "llf", "layers"

    def score(self, state, request, op, part):
        if request.deadline is None:
            return inf
        return request.deadline - state.now - self.remaining(request, op, part)


class SrtfEe(LayerGranular):
    """Shortest survival-weighted remaining time W[l][1] first, learned on line: the early-exit aware form of SRTF.

    A sample that has just stayed at a head has more expected work than before, so it may be preempted there.
    """

    name, boundaries = "srtf-ee", "heads"

    def score(self, state, request, op, part):
        tables = self.tables(request)
        W, T = tables.remaining, tables.latency.cycles
        return W[op, 1] - part * T[op, 1]

    def completed(self, result):
        self.learn(result)
