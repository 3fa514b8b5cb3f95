"""Dysta: remaining time first, corrected by slack and by how long a sample has been idle."""

from .layered import LayerGranular

__all__ = ["Dysta"]


class Dysta(LayerGranular):
    """Least  remaining + eta (slack + penalty)  runs, anew at every layer boundary, with

        slack   = max(0, deadline - now - remaining)
        penalty = time since it last ran / time of the whole network alone / samples in the system

    Source: Sparse-DySta (Fan et al., MICRO 2023, algorithm 2), in the form and with eta = 0.01 of its artifact
    (SamsungLabs/Sparse-Multi-DNN-Scheduling, Dysta_Scheduler). Times of our networks do not depend on sparsity, so the
    sparsity coefficient gamma of its latency predictor is 1. Without a deadline the slack is 0.
    """

    name, boundaries = "dysta", "layers"

    def __init__(self, model=None, eta=0.01, batch=1):
        super().__init__(model, batch)
        if eta < 0:
            raise ValueError(f"dysta: eta = {eta}, it must be at least 0")
        self.eta, self._ran = eta, {}

    def score(self, state, request, op, part):
        left = self.remaining(request, op, part)
        slack = 0.0 if request.deadline is None else max(0.0, request.deadline - state.now - left)
        idle = state.now - self._ran.get(request.id, request.arrival)
        penalty = idle / self._full[request.program][0] / (len(state.live) + len(state.waiting))
        return left + self.eta * (slack + penalty)

    def candidates(self, state):
        """Of each kind, who can still be in time with the least slack, that is the oldest; and of those who cannot,
        whose slack is 0, the one with the least penalty, that is the youngest."""
        in_time, late = {}, {}
        for request in state.waiting:
            due = request.deadline
            slack = 0.0 if due is None else due - state.now - self._full[request.program][0]
            found = (in_time if slack > 0 else late).setdefault(self.kind(request), [])
            if slack <= 0 or len(found) < self.batch:
                found.append(request)
        chosen = [r for found in in_time.values() for r in found]
        return chosen + [r for found in late.values() for r in found[-self.batch :]]

    def decide(self, state):
        for sample in state.live.values():
            if sample.priority > 1:
                self._ran[sample.request.id] = state.now
        return super().decide(state)

    def completed(self, result):
        self._ran.pop(result.id, None)
