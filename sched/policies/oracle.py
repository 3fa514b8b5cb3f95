"""The oracle: fluid batching that knows where every sample exits."""

from .fluid import Fluid

__all__ = ["Oracle"]


class Oracle(Fluid):
    """`Fluid` with the true exit of every sample in the place of probabilities.

    Whether a waiting sample can be in time is known, not expected. Those that can start in order of their true
    remaining times, so those that exit early go first, and samples of one exit share a batch; behind them the others,
    likewise. Everything else is `Fluid`. It is no bound (see sched.bounds), but shows what the knowledge is worth.

    true_exits : dict request id -> exit, from the experiment; the other options are those of `Fluid`
    """

    name = "oracle"
    wants_true_exits = True

    def __init__(self, model=None, true_exits=None, **options):
        super().__init__(model, **options)
        if true_exits is None:
            raise ValueError("oracle: it needs true_exits, a dict request id -> exit")
        self.true_exits, self._left = true_exits, []  # [program][exit][operation][samples]: cycles to the decision
        for tables in self.models:
            sums = [[0.0] * (tables.B + 1)]
            for row in tables.latency.cycles[::-1].tolist():
                sums.append([a + b for a, b in zip(sums[-1], row, strict=True)])
            sums.reverse()
            ends = [x + 1 for x in tables.exit_operations]
            self._left.append(
                [[[max(0.0, a - z) for a, z in zip(row, sums[x], strict=True)] for row in sums] for x in ends]
            )

    def _true_time(self, request, op, b=1):
        return self._left[request.program][self.true_exits[request.id]][op][b]

    def _chance(self, request, op, slack, b=1, foresight=None):
        return 1.0 if slack >= self._true_time(request, op, b) else 0.0

    def _steps(self, request):
        return [] if self.late == "keep" else [self._true_time(request, 0)]

    def _waiting_rank(self, request, level, levels):
        return self._true_time(request, 0)

    def _in_turn(self, entries, now):
        return sorted(
            entries, key=lambda e: (e.above, not e.chance, e.turn, self._true_time(e.request, e.op), e.request.arrival)
        )
