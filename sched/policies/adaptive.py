"""Adaptive batching: when idle take what waits, run to the end. Greedy, or with Clipper's limit that learns."""

from .base import Policy
from .batches import alike, start_together

__all__ = ["Adaptive", "AdaptiveBubble", "AdaptiveHold", "Aimd", "AimdBubble", "AimdHold"]


class Adaptive(Policy):
    """When no sample lives, all that wait enter together, up to ``most`` (default: the slots); nobody else enters
    until the last of them has left.

    Source: the greedy batching that serving systems call adaptive or dynamic, e.g. Clipper (Crankshaw et al., NSDI
    2017, section 4.3) without a delay, TF Serving with batch_timeout = 0. The batch starts with one committed BATCH
    command, so that all begin at once (in rigid mode the group that forms is the whole batch). Requests for another
    network wait for their own batch.
    """

    name = "adaptive"

    def __init__(self, model=None, most=None):
        super().__init__(model)
        if most is not None and most < 1:
            raise ValueError(f"{self.name}: most = {most}, it must be at least 1")
        self.most = most

    def decide(self, state):
        if state.live or not state.waiting:
            return []
        return start_together(alike(state.waiting, min(state.slots, self.limit(state))), state.free)

    def limit(self, state):
        """Most samples of the next batch."""
        return self.most or state.slots


class AdaptiveBubble(Adaptive):
    """`Adaptive` on a machine that keeps and computes the place of a sample that exited."""

    name, exit_handling = "adaptive-bubble", "bubble"


class AdaptiveHold(Adaptive):
    """`Adaptive` on a machine that hands out all results when the batch ends."""

    name, exit_handling = "adaptive-hold", "hold"


class Aimd(Adaptive):
    """`Adaptive` whose limit grows by one with every batch that ends in time and shrinks by a tenth with every batch
    that does not.

    Source: Clipper (Crankshaw et al., NSDI 2017, section 4.3.1: additive increase, multiplicative decrease, "a small
    multiplicative constant (10%)"). In time means: the batch took no longer than the least SLO in it. Left out: the
    quantile regression variant and delayed batching, which Clipper describes as alternatives.

    first, step, backoff : limit to begin with, increase, factor of the decrease
    """

    name = "aimd"

    def __init__(self, model=None, most=None, first=1.0, step=1.0, backoff=0.9):
        super().__init__(model, most)
        if not (first >= 1 and step > 0 and 0 < backoff < 1):
            raise ValueError(
                f"{self.name}: first = {first} must be at least 1, step = {step} positive, "
                f"backoff = {backoff} within 0..1"
            )
        self.learned, self.step, self.backoff = float(first), step, backoff
        self._begin, self._left, self._promise, self._end = 0, 0, None, 0

    def limit(self, state):
        return min(super().limit(state), int(self.learned))

    def decide(self, state):
        if not state.live and self._left == 0 and self._begin is not None and self._end:
            late = self._promise is not None and self._end - self._begin > self._promise
            self.learned = max(1.0, self.learned * self.backoff) if late else self.learned + self.step
            self.learned, self._end = min(self.learned, float(super().limit(state))), 0
        actions = super().decide(state)
        if actions:
            batch = alike(state.waiting, min(state.slots, self.limit(state)))
            promises = [r.slo for r in batch if r.slo is not None]
            self._begin, self._left, self._promise = state.now, len(batch), min(promises, default=None)
        return actions

    def completed(self, result):
        self._left -= 1
        self._end = result.completed


class AimdBubble(Aimd):
    """`Aimd` on a machine that keeps and computes the place of a sample that exited."""

    name, exit_handling = "aimd-bubble", "bubble"


class AimdHold(Aimd):
    """`Aimd` on a machine that hands out all results when the batch ends."""

    name, exit_handling = "aimd-hold", "hold"
