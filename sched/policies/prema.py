"""PREMA: tokens for waiting, the shortest of those with enough tokens."""

from .base import Wake
from .layered import RUNS, LayerGranular

__all__ = ["Prema"]

LEVELS = (9, 3, 1)  # tokens of high, medium and low priority (table II of the paper)


class Prema(LayerGranular):
    """Every sample has tokens: its priority to begin with, and priority x (time that it waited / its time alone) more
    at every decision. Those with at least the threshold are candidates, the one with the least remaining time runs.
    Threshold: the most tokens, rounded down to a level of priority (9, 3, 1).

    Source: PREMA (Choi and Rhu, HPCA 2020, algorithm 2 and table II). Decisions at arrivals, completions and every
    ``quantum`` cycles (0.25 ms there; None: a quarter of one sample's full latency, which is finer). Left out: the
    choice between CHECKPOINT, KILL and DRAIN (algorithm 3), since nothing moves when a sample is preempted here.
    """

    name = "prema"

    def __init__(self, model=None, quantum=None, batch=1):
        super().__init__(model, batch)
        if quantum is not None and quantum < 1:
            raise ValueError(f"prema: quantum = {quantum}, it must be at least 1 cycle")
        self.quantum = quantum or max(1.0, self._full[0][0] / 4)
        self._tokens, self._seen = {}, {}

    def decide(self, state):
        running = {s.request.id for s in state.live.values() if s.priority == RUNS}
        self._candidates = super().candidates(state)  # of those who wait, the oldest of a kind have the most tokens
        requests = [s.request for s in state.live.values()] + self._candidates
        for r in requests:
            waited = 0 if r.id in running else state.now - self._seen.get(r.id, r.arrival)
            tokens = self._tokens.get(r.id, r.priority)
            self._tokens[r.id] = tokens + r.priority * waited / self._full[r.program][0]
            self._seen[r.id] = state.now
        most = max((self._tokens[r.id] for r in requests), default=0)
        self._threshold = next((level for level in LEVELS if most >= level), 0)
        return super().decide(state)

    def candidates(self, state):
        return self._candidates

    def score(self, state, request, op, part):
        return (self._tokens[request.id] < self._threshold, self.remaining(request, op, part))

    def _alarm(self, state, chosen):
        return [Wake(state.now + int(self.quantum))] if len(state.live) + len(state.waiting) > 1 else []

    def completed(self, result):
        self._tokens.pop(result.id, None)
        self._seen.pop(result.id, None)
