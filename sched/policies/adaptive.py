"""Adaptive batching: when idle take what waits, run to the end."""

from .base import Admit, Batch, Policy

__all__ = ["Adaptive"]


class Adaptive(Policy):
    """When no sample lives, all that wait enter together, up to ``most`` (default: the slots); nobody else enters
    until the last of them has left.

    The batch starts with one committed BATCH command, so that all begin at once (in rigid mode the group that forms
    is the whole batch).
    """

    name = "adaptive"

    def __init__(self, model=None, most=None):
        super().__init__(model)
        if most is not None and most < 1:
            raise ValueError(f"adaptive: most = {most}, it must be at least 1")
        self.most = most

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        count = min(len(state.waiting), state.slots, self.most or state.slots)
        batch = list(zip(state.waiting[:count], state.free, strict=False))
        if count == 1:
            return [Admit(*batch[0], reason="start")]
        admits = [Admit(request, slot, runnable=False, reason="admit") for request, slot in batch]
        return [*admits, Batch(tuple(slot for _, slot in batch), reason="start")]
