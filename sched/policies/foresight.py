"""What a policy can know about a sample in a group, as plain lists: when it reaches its exits, what it is worth to run.

All of it follows from SurvivalTables and is built again when they change, so that decisions only look things up.
"""

from functools import cache, partial

__all__ = ["ALMOST", "Foresight"]

ALMOST = 1.03


class Foresight:
    """Lists over ``tables`` (SurvivalTables); l an operation, b samples in the group.

    next_exit[l] : exit at whose decision the sample at l stands or comes next
    to_exit[l][b] : cycles to that decision; to_end[l][b] : to the last one
    reach(l, b) : [(cycles to the decision at e, P(decided by e | alive at l)), ...] for the exits from l on, if the
        group of b shrinks as expected
    gittins[l] : sup over e of P(decided by e) / E[cycles alone until e], decisions per cycle (Gittins, Bandit Processes
        and Dynamic Allocation Indices, JRSS B 1979; the service of M/G/1 queues: Aalto, Ayesta and Righter 2009)
    remaining[l] : W[l][1]
    share : least expected cycles per sample of any batch
    spare : slots that batches can leave free, at most half of them, and take at most ALMOST times the ``share``
    """

    def __init__(self, tables):
        self.tables = tables
        T, exits, L, B = tables.latency.cycles, tables.exit_operations, tables.L, tables.B
        hazard, ends = tables.hazard.tolist(), [*exits]
        self.next_exit = [next((e for e, x in enumerate(ends) if x >= l), len(ends) - 1) for l in range(L)]
        sums = [[0.0] * (B + 1)]
        for row in T[::-1].tolist():
            sums.append([a + b for a, b in zip(sums[-1], row, strict=True)])
        sums.reverse()  # sums[l][b]: from the beginning of l to the end of the network
        self.to_end = sums[:L]
        self.to_exit = [
            [a - z for a, z in zip(sums[l], sums[max(l, ends[self.next_exit[l]]) + 1], strict=True)] for l in range(L)
        ]
        self.reach = cache(partial(self._reach, sums, ends, hazard))
        self.gittins = [self._gittins(l, hazard, T[:, 1].tolist()) for l in range(L)]
        self.remaining = tables.remaining[:, 1].tolist()
        shares = [w / n for n, w in enumerate(tables.remaining[0].tolist()) if n]
        self.share = min(shares)
        self.spare = max((n for n in range(B // 2 + 1) if shares[B - 1 - n] <= ALMOST * self.share), default=0)

    def _reach(self, sums, ends, hazard, l, b):
        found, alive, now = [], 1.0, 0.0
        for x in (max(x, l) for x in ends[self.next_exit[l] :]):
            n = max(min(b, 1), round(b * alive))
            now += sums[l][n] - sums[x + 1][n]
            alive *= 1 - hazard[x]
            l = x + 1
            found.append((now, 1 - alive))
        return found

    def _gittins(self, l, hazard, times):
        best, alive, work = 0.0, 1.0, 0.0
        for m in range(l, len(times)):
            work += alive * times[m]
            alive *= 1 - hazard[m]
            if hazard[m] and work:
                best = max(best, (1 - alive) / work)
        return best

    def chance(self, l, slack, b=1):
        """P(decided within ``slack`` cycles) of a sample that goes on from l in a group of b."""
        found = 0.0
        for time, share in self.reach(l, b):
            if time > slack:
                break
            found = share
        return found
