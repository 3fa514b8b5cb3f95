"""Proteus: wait for one more request as long as the oldest can afford it."""

from .base import Policy, Wake
from .batches import alike, expected_times, start_together

__all__ = ["Proteus"]


class Proteus(Policy):
    """With q requests waiting and the NPU idle: wait until T_exp(1) - T_process(q + 1) for one more, else run the q.

    T_exp(1) is the deadline of the oldest, T_process(n) the time of a batch of n. A full batch starts at once; without
    a deadline nothing is gained by waiting, and all that wait start.

    Source: Proteus (Ahmad et al., ASPLOS 2024, section on adaptive batching: "proactive, non-work-conserving").
    Left out: accuracy scaling by choosing among variants of a network.

    exit_aware : times are the expected ones with exits, W[0][n], instead of the whole network's
    """

    name = "proteus"

    def __init__(self, model=None, exit_aware=True):
        if model is None:
            raise ValueError(f"{self.name}: it needs SurvivalTables (model)")
        super().__init__(model)
        self.exit_aware = exit_aware

    def completed(self, result):
        self.learn(result)

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        batch = alike(state.waiting, state.slots)
        if len(batch) < state.slots and batch[0].deadline is not None:
            times = expected_times(self.tables(batch[0]), self.exit_aware)
            until = int(batch[0].deadline - times[min(len(batch) + 1, len(times) - 1)])
            if state.now < until:
                return [Wake(until)]
        return start_together(batch, state.free)
