"""DREX: those that stay at a head wait there for company, if splitting off the others pays."""

from .base import Policy
from .batches import alike, start_together

__all__ = ["Drex"]


class Drex(Policy):
    """When b' of a batch of b leave at a head, newcomers are let into the free slots; the rest of the batch waits at
    the head until what stays of the newcomers has joined it. But only if

        b' > (c / t_d) b        c = t_shallow + t_deep - t_full

    Otherwise the rest goes on at once. t_shallow and t_deep are the cycles up to and behind the head, t_full those of
    a pass that does not stop at it, all for a full batch: c is what the head costs. Nobody is let in either if one of
    those who wait would miss its deadline by it (expected catch-up and remaining time).

    Source: DREX (Liu et al., "Dynamic Rebatching for Efficient Early-Exit Inference", arXiv 2512.15705: adaptive
    rebatching threshold, rebatching buffer, SLA-aware flush). On our NPU the buffer is free: samples of equal priority
    wait for those behind them, and a full house goes on. Left out: key-value caches and their state copying (no
    language models here), and involuntary stays (a confident sample leaves whatever the host thinks of it; the rule
    decides about the rest of its batch).
    """

    name = "drex"

    def __init__(self, model=None):
        if model is None:
            raise ValueError("drex: it needs SurvivalTables (model)")
        super().__init__(model)
        self._left, self._batch = [], set()  # exits taken since the last decision; slots that ran together

    def completed(self, result):
        self._batch.discard(result.slot)
        if result.ok:
            self._left.append(result.exit)
            self.learn(result)

    def needs_positions(self, state):
        return bool(state.live and state.waiting and self._left)

    def decide(self, state):
        left, self._left = self._left, []
        if not state.waiting:
            return []
        if not state.live:
            batch, reason = alike(state.waiting, state.slots), "start"
        else:
            first = next(iter(state.live.values()))
            tables, program = self.tables(first.request), first.request.program
            if not left or not self.pays(tables, left[-1], len(left), len(self._batch) + len(left)):
                self._batch |= set(state.live)
                return []
            batch = [r for r in state.waiting if r.program == program][: len(state.free)]
            while batch and self._late(state, tables, len(batch)):
                batch.pop()
            reason = "merge"
        if not batch:
            return []
        self._batch = set(state.free[: len(batch)])
        return start_together(batch, state.free, reason)

    @staticmethod
    def pays(tables, exit, left, batch):
        """Whether waiting for newcomers pays when ``left`` of a ``batch`` leave at ``exit``."""
        times = tables.latency.cycles[:, tables.B]
        deep = times[tables.exit_operations[exit] + 1 :].sum()
        head = sum(t for t, e in zip(times, tables.heads, strict=True) if e == exit)
        return bool(deep > 0 and left > head / deep * batch)

    def _late(self, state, tables, count):
        """Whether somebody who waits for ``count`` newcomers would miss a deadline that can still be kept."""
        for sample in state.live.values():
            l = min(sample.op, tables.L - 1)
            b = min(tables.B, len(state.live) + count)
            slack = float("inf") if sample.request.deadline is None else sample.request.deadline - state.now
            if tables.remaining[l, 1] <= slack < tables.catch_up[l, count] + tables.remaining[l, b]:
                return True
        return False
