"""How many samples to start together, and whether letting newcomers catch up pays.

The array is idle and n samples wait; m of them start together and run to the end, which takes W[0][m]; arrivals at a
rate r wait meanwhile. The best choice of m for every n is a semi-Markov decision process with

    cost      F[0][m] + (n-m) W[0][m] + r W[0][m]^2 / 2         sojourn times of everybody until the batch has left
    time      W[0][m]
    next      n - m + Poisson(r W[0][m]); from n = 0: 1 after a time of 1 / r

Policy iteration gives the average number g of samples in the system and the relative costs h[n]. Without arrivals
g = 0 and h[q] = min_m F[0][m] + (q-m) W[0][m] + h[q-m].

A group of b at layer l, q waiting: if k of them catch up first and merge, everybody has left after
E[k] = D[l][k] + sum_x p_l^k(x) W[l][b+x], and it costs

    J(k) = b D[l][k] + G[l][k] + sum_x p_l^k(x) F[l][b+x] + (q-k) E[k] + r E[k]^2 / 2 - g E[k]
           + h[q-k + Poisson(r E[k])]
    K[l][b][q] = argmin_{0 <= k <= min(q,B-b)} J(k)

One step of improvement over the best policy that never preempts. Without r, newcomers that catch up in tiny batches
would eat the capacity near saturation. W, F, D, G, p: see survival.py. (Our definition.)
"""

from functools import cache, lru_cache

import numpy as np

__all__ = ["MOST_LOAD", "Plan"]

MOST_LOAD = 0.95  # higher arrival rates count as this one: the queue's mean would not exist
_ITERATIONS = 50
_KEPT = 4096  # tables of merge_costs, some KB each


class Plan:
    """Decisions for given SurvivalTables and arrival rate (samples per cycle).

    ``h`` [Q + 1], ``g``: see the module; Q = ``most_waiting`` (default 4 B), longer queues count as Q.
    """

    def __init__(self, tables, rate=0.0, most_waiting=None):
        if rate < 0:
            raise ValueError(f"plan: arrival rate {rate} is negative")
        self.tables, self.Q = tables, most_waiting or 4 * tables.B
        W, n = tables.remaining[0], np.arange(1, tables.B + 1)
        fastest = (W[1:] / n).min()  # cycles per sample of the most efficient batch
        self._lost = (W[1:] - fastest * n).tolist()
        self.rate = min(rate, MOST_LOAD / fastest) if fastest > 0 else 0.0
        self._solve(W, tables.sojourn[0])
        self.merge_size, self._merge_table_of = cache(self._merge_size), lru_cache(_KEPT)(self._merge_table)
        self._pass_costs_of = lru_cache(_KEPT)(self._pass_costs)

    def start_size(self, q):
        """With an idle array and q waiting: how many to start together (ties: the most)."""
        costs = self.start_costs(q)
        least = min(costs, default=0.0)
        return max((m for m, c in enumerate(costs, 1) if c <= least + 1e-6), default=0)

    def start_costs(self, q):
        """With an idle array and q waiting: relative costs of starting 1..min(q, B) together, a list.

        Beyond Q / 2, where it shows that longer queues count as Q, everybody further behind waits for what a batch
        takes longer than its share of the best one.
        """
        costs, beyond = self._start_costs[min(q, self.Q // 2)], q - self.Q // 2
        if beyond <= 0:
            return costs
        return [c + beyond * lost for c, lost in zip(costs, self._lost, strict=True)]

    def merge_costs(self, l, b, q, ahead=None):
        """J(k) for k = 0..min(q, B - b), a list.

        ahead : SurvivalTables of the merged group from l on, if other ones than those of newcomers
        """
        q = min(q, self.Q // 2)
        return self._merge_table_of(l, b, ahead or self.tables)[q, : min(q, self.tables.B - b) + 1].tolist()

    def _merge_table(self, l, b, ahead):
        """J of every queue up to Q / 2, [q, k]: what takes time does not depend on q."""
        t = self.tables
        k, q = np.arange(t.B - b + 1), np.arange(self.Q // 2 + 1)
        alive = t.alive[l][: t.B - b + 1, : t.B - b + 1]
        end = t.catch_up[l, k] + alive @ ahead.remaining[l, b:]
        present = b * t.catch_up[l, k] + t.gathered[l, k] + alive @ ahead.sojourn[l, b:]
        present += self.rate * end**2 / 2 - self.g * end
        left = np.maximum(q[:, None] - k, 0)  # k > q is no choice
        return present + left * end + self._expected(end)[k, left]

    def pass_costs(self, l, b, q):
        """Cost if k = 0..min(q, B) of q waiting samples go ahead of a group of b at l, which then goes on, a list."""
        return self._pass_costs_of(l, b, min(q, self.Q // 2))

    def _pass_costs(self, l, b, q):
        W, F = self.tables.remaining, self.tables.sojourn
        k = np.arange(min(q, self.tables.B) + 1)
        end = W[0, k] + W[l, b]
        present = F[0, k] + b * W[0, k] + F[l, b] + (q - k) * end
        later = self._expected(end)[k, q - k]
        return (present + self.rate * end**2 / 2 - self.g * end + later).tolist()

    def _merge_size(self, l, b, q):
        """K[l][b][q]: how many of q waiting samples should catch up with a group of b at l (ties: the fewest)."""
        return int(np.argmin(np.round(self.merge_costs(l, b, q), 6)))

    def _expected(self, times):
        """Mean h of queues in which 0..Q/2 samples remain and arrivals joined for ``times`` [n] cycles, [n, left]."""
        arrivals = self._poisson(times)
        return arrivals @ self._joined + np.maximum(0.0, 1 - arrivals.sum(1))[:, None] * self.h[self.Q]

    def _poisson(self, times):
        """Probabilities [n, Q] of 0..Q-1 arrivals in ``times`` [n] cycles."""
        steps = np.empty((len(times), self.Q))
        steps[:, 0] = np.exp(-self.rate * times)
        steps[:, 1:] = self.rate * times[:, None] / np.arange(1, self.Q)
        return steps.cumprod(1)

    def _solve(self, W, F):
        """Policy iteration; sets h, g and the best start for every queue."""
        r, Q, B = self.rate, self.Q, self.tables.B
        n, m = np.arange(1, Q + 1)[:, None], np.arange(1, B + 1)[None, :]
        legal = m <= n
        left = np.where(legal, n - m, 0)
        cost = np.where(legal, F[m] + left * W[m] + r * W[m] ** 2 / 2, np.inf)  # of queue n and m of them started
        arrivals = np.zeros((B, 2 * Q + 1))  # [m - 1, Q + arrivals]
        arrivals[:, Q : 2 * Q] = self._poisson(W[1:])
        after = arrivals[:, Q + np.arange(Q + 1) - np.arange(Q)[:, None]]  # [m - 1, left, queue]
        after[:, :, Q] = 0.0
        after[:, :, Q] = np.maximum(0.0, 1 - after.sum(2))
        rows, start = np.arange(Q), np.minimum(np.arange(1, Q + 1), B) - 1  # start: m - 1 for every n - 1
        for _ in range(_ITERATIONS):
            # Unknowns h[1..Q], and g in the place of h[0] = 0.
            matrix, right = np.eye(Q + 1), np.zeros(Q + 1)
            if r:
                matrix[0, :2] = 1 / r, -1  # h[0] = -g / r + h[1]
            matrix[1:, 1:] -= after[start, left[rows, start], 1:]
            matrix[1:, 0] = W[start + 1] if r else 0.0
            right[1:] = cost[rows, start]
            solution = np.linalg.solve(matrix, right)
            self.g, self.h = float(solution[0]) if r else 0.0, np.concatenate([[0.0], solution[1:]])
            values = cost - self.g * W[m] + (after @ self.h)[m - 1, left]
            best = B - 1 - values[:, ::-1].argmin(1)  # ties: the most
            kept = values[rows, start] <= values[rows, best] + 1e-9 * abs(values[rows, best])
            better = np.where(kept, start, best)
            if (better == start).all():
                break
            start = better
        queues = np.arange(Q)[:, None] + np.arange(Q // 2 + 1)
        self._joined = self.h[np.minimum(queues, Q)]  # h of a queue that so many arrivals joined, [arrivals, left]
        self._start_costs = [[], *(row[: min(k + 1, B)] for k, row in enumerate(values.tolist()))]
