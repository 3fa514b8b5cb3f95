"""Graph batching with a time window: wait up to N cycles for up to B requests, then run the whole network."""

from .adaptive import Adaptive
from .base import Wake
from .batches import alike, full_times

__all__ = ["Graph", "GraphBubble", "GraphHold"]


class Graph(Adaptive):
    """A batch starts when the NPU is idle and either B requests wait or the oldest has waited for ``window`` cycles.

    Source: "graph batching (N)" of LazyBatching (Choi et al., HPCA 2021, section III: batching time-window and
    model-allowed maximum batch size), as TF Serving and Triton do it. ``window`` is swept there; None: a quarter of
    one sample's full latency (0 needs no model). ``most``: B, default the slots.
    """

    name = "graph"

    def __init__(self, model=None, window=None, most=None):
        super().__init__(model, most)
        if window is None:
            if model is None:
                raise ValueError(f"{self.name}: it needs a window or SurvivalTables (model)")
            window = full_times(self.model)[1] / 4
        if window < 0:
            raise ValueError(f"{self.name}: window = {window}, it must be at least 0 cycles")
        self.window = window

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        fire = state.waiting[0].arrival + self.window
        most = min(state.slots, self.limit(state))
        if state.now < fire and len(alike(state.waiting, most)) < most:
            return [Wake(-int(-fire // 1))]
        return super().decide(state)


class GraphBubble(Graph):
    """`Graph` on a machine that keeps and computes the place of a sample that exited."""

    name, exit_handling = "graph-bubble", "bubble"


class GraphHold(Graph):
    """`Graph` on a machine that hands out all results when the batch ends."""

    name, exit_handling = "graph-hold", "hold"
