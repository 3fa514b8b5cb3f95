"""Nexus: early drop, so that what starts can still end in time."""

from .base import Drop, Policy
from .batches import alike, expected_times, start_together

__all__ = ["Nexus"]


class Nexus(Policy):
    """Scans the queue in order of deadline with a window of the target batch size; the first window whose head can
    still be served within its deadline is the batch, and all before it are dropped.

    Source: Nexus (Shen et al., SOSP 2019, section 6.3, "early drop"). Target batch: the largest whose latency is at
    most half the SLO (section 4.1: the worst case is a request that just missed a batch, 2 l(b) <= SLO), unless
    ``batch`` gives it. Left out: squishy bin packing over many GPUs (there is one NPU), prefix batching of specialised
    networks.

    exit_aware : latencies are the expected ones with exits, W[0][b], instead of the whole network's
    """

    name, drops = "nexus", True

    def __init__(self, model=None, batch=None, exit_aware=True):
        if model is None:
            raise ValueError(f"{self.name}: it needs SurvivalTables (model)")
        super().__init__(model)
        if batch is not None and batch < 1:
            raise ValueError(f"{self.name}: batch = {batch}, it must be at least 1")
        self.batch, self.exit_aware = batch, exit_aware

    def completed(self, result):
        self.learn(result)

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        queue = sorted(state.waiting, key=lambda r: (_due(r), r.arrival))
        queue = alike(queue, len(queue))
        times = expected_times(self.tables(queue[0]), self.exit_aware)
        target = self._target(queue[0], times, state.slots)
        drops = []
        for i, request in enumerate(queue):
            window = queue[i : i + target]
            if state.now + times[len(window)] <= _due(request):
                break
            drops.append(Drop(request))
        else:
            return drops
        return [*drops, *start_together(window, state.free)]

    def _target(self, request, times, slots):
        if self.batch is not None or request.slo is None:
            return min(slots, self.batch or slots)
        return max((b for b in range(1, min(slots, len(times) - 1) + 1) if 2 * times[b] <= request.slo), default=1)


def _due(request):
    return float("inf") if request.deadline is None else request.deadline
