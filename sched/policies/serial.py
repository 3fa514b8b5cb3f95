"""First come, first served, one sample at a time."""

from .base import Admit, Policy

__all__ = ["Serial"]


class Serial(Policy):
    """FIFO without batching: the next request is admitted when the one before has left."""

    name = "serial"

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        return [Admit(state.waiting[0], state.free[0], reason="start")]
