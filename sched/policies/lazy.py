"""LazyBatching: newcomers preempt at a layer boundary if every deadline still holds, catch up and merge."""

from .base import Admit, Policy
from .batches import start_together

__all__ = ["Lazy", "LazyFair"]


class Lazy(Policy):
    """A stack of (layer, samples): the newest samples run first, merge with those below when they reach their layer.

    Newcomers are let in, oldest first, while for everybody who lives and for them

        now + sum over all of them of the remaining time of a single sample <= deadline

    Source: LazyBatching (Choi, Kim and Rhu, HPCA 2021, section IV: BatchTable, and the conservative slack model of
    equation 2 in which a batch costs the sum of its members alone). As published it does not know of exits: a sample
    is expected to go through the whole network. On our NPU samples of equal priority are that stack: the rearmost
    leads, those that it reaches ride along. A sample that would miss its deadline even alone is not asked (in the
    paper it would stop all batching; that would only weaken the baseline). An idle NPU takes at least one.

    Left out: the profiled unrolling of recurrent layers.
    """

    name = "lazy"
    exit_aware = False

    def __init__(self, model=None, most=None):
        if model is None:
            raise ValueError(f"{self.name}: it needs SurvivalTables (model)")
        super().__init__(model)
        if most is not None and most < 1:
            raise ValueError(f"{self.name}: most = {most}, it must be at least 1")
        self.most = most
        self._build()

    def _build(self):
        self._left = []
        for tables in self.models:
            alone = tables.remaining[:, 1].tolist()
            if not self.exit_aware:
                cycles = tables.latency.cycles[:, 1]
                alone = [*cycles[::-1].cumsum()[::-1].tolist(), 0.0]
            self._left.append(alone)

    def needs_positions(self, state):
        return bool(state.live and state.waiting)

    def remaining(self, request, op=0):
        """Cycles that a sample at operation ``op`` still needs alone."""
        left = self._left[request.program]
        return left[min(op, len(left) - 1)]

    def decide(self, state):
        room = min(len(state.free), (self.most or state.slots) - len(state.live))
        if room <= 0 or not state.waiting:
            return []
        lives = [(s.request, self.remaining(s.request, s.op)) for s in state.live.values()]
        program = lives[0][0].program if lives else state.waiting[0].program
        total, least = sum(left for _, left in lives), float("inf")
        for request, left in lives:
            least = self._due(state, request, left, least)
        entering = []
        for request in state.waiting:
            if len(entering) == room or request.program != program:
                continue
            left = self.remaining(request)
            least = self._due(state, request, left, least)
            total += left
            if state.now + total > least and (lives or entering):
                break
            entering.append(request)
        if not entering:
            return []
        if not lives:
            return start_together(entering, state.free)
        places = list(zip(entering, state.free, strict=False))
        if len(places) == 1:
            return [Admit(*places[0], reason="merge")]
        return start_together(entering, state.free, reason="merge")

    @staticmethod
    def _due(state, request, left, least):
        """The least deadline so far, without those that nothing can save."""
        if request.deadline is None or state.now + left > request.deadline:
            return least
        return min(least, request.deadline)


class LazyFair(Lazy):
    """`Lazy` with the survival-weighted remaining time W[l][1] in the place of the full one, learned on line: nobody
    can say that the baseline was kept from knowing about exits. (Our variant of the paper's rule.)"""

    name = "lazy-fair"
    exit_aware = True

    def completed(self, result):
        if self.learn(result):
            self._build()
