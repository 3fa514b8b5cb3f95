"""Expected times of batches that shrink at exits, and the exit rates that they follow from.

    layers l = 0..L-1 are the operations of a program, T[l][b] cycles of l for b live samples
    h[l] = P(exit at l | alive at l): 0 where nothing decides, 1 at the last EXIT
    S[0] = 1, S[l+1] = S[l] (1 - h[l])                               survival
    W[l][b] = T[l][b] + sum_x bn(b,x,1-h[l]) W[l+1][x]               expected remaining time of b samples at l
    F[l][b] = b T[l][b] + sum_x bn(b,x,1-h[l]) F[l+1][x]             expected remaining sum of sojourn times
    D[l][k] = sum_{m<l} sum_x p_m^k(x) T[m][x]                       time for k newcomers to catch up to l
    G[l][k] = sum_{m<l} sum_x p_m^k(x) x T[m][x]                     the sojourn that they gather on the way

bn is the binomial probability, p_m^k(x) = bn(k,x,S[m]) the probability that x of k newcomers are alive at m.
"""

from functools import cache
from math import comb

import numpy as np
from fluidnpu.hw import isa

__all__ = ["ExitRates", "SurvivalTables", "binomial"]


@cache
def _choose(most):
    return np.array([[comb(n, x) for x in range(most + 1)] for n in range(most + 1)], float)


def binomial(most, p):
    """bn(n, x, p), array [most + 1, most + 1] indexed n, x."""
    n = np.arange(most + 1)
    return _choose(most) * p ** n[None, :] * (1 - p) ** np.maximum(n[:, None] - n[None, :], 0)


class ExitRates:
    """Share of the samples that leave at each head, learned from completions: (a + exited) / (a + b + reached).

    The counts are halved whenever a head was reached ``window`` times, so the estimate follows a mix that shifts.

    Parameters
    ----------
    exits : number of exits; the last one always finishes
    start : rates to begin with, one per exit but the last (default 0.5 each)
    weight : of the beginning, in samples (a + b)
    window : a power of two is cheap on a small host, any number >= 2 works
    """

    def __init__(self, exits, start=None, weight=4.0, window=512):
        start = [0.5] * (exits - 1) if start is None else list(start)
        if exits < 1 or len(start) != exits - 1 or not all(0 <= r <= 1 for r in start):
            raise ValueError(f"exit rates: {exits} exits need {exits - 1} rates within 0..1, not {start}")
        if weight <= 0 or window < 2:
            raise ValueError(f"exit rates: weight {weight} must be positive, window {window} at least 2")
        self.start, self.weight, self.window = start, weight, window
        self.exited, self.reached = [0.0] * (exits - 1), [0.0] * (exits - 1)

    def learn(self, exit, mask=None):
        """A sample took ``exit``; ``mask``: exits that were enabled for it (default: all)."""
        for e in range(min(exit + 1, len(self.start))):
            if mask is None or mask >> e & 1:
                self.reached[e] += 1
                self.exited[e] += e == exit
                if self.reached[e] >= self.window:
                    self.reached[e], self.exited[e] = self.reached[e] / 2, self.exited[e] / 2

    def rates(self):
        """P(exit at e | alive at e), array [exits]; the last is 1."""
        return np.array([*self._early(), 1.0])

    def differ(self, rates, by):
        """Whether a rate is more than ``by`` away from those of an earlier time."""
        return any([abs(now - then) > by for now, then in zip(self._early(), rates, strict=False)])

    def _early(self):
        seen = zip(self.start, self.exited, self.reached, strict=True)
        return [(self.weight * start + exited) / (self.weight + reached) for start, exited, reached in seen]


class SurvivalTables:
    """The tables of this module's docstring.

    Parameters
    ----------
    latency : LatencyTable
    exit_operations : index of the EXIT operation of each exit
    rates : ExitRates; `refresh` rebuilds the tables when they have drifted
    drift : largest change of a rate that needs no new tables
    lines : of each operation (default 1)
    heads : exit whose head an operation belongs to, -1: the trunk (default: a head is its EXIT)

    Members: ``hazard`` [L], ``survival`` [L + 1]; ``remaining`` W, ``sojourn`` F, ``catch_up`` D, ``gathered`` G, all
    [L + 1, B + 1]; ``alive`` p, list of L + 1 arrays indexed k, x; ``percentile(l, b, share=0.95)``: time within which
    that share of the samples at l have left; ``delay[l][k]`` and ``waited[l][k][b]``, D[l][k] and D[l][k] + W[l][b] as
    plain lists for decisions; ``B`` most live samples, ``L`` operations.
    """

    def __init__(self, latency, exit_operations, rates, drift=0.05, lines=None, heads=None):
        self.latency, self.rates, self.drift = latency, rates, drift
        self.exit_operations = list(exit_operations)
        self.L, self.B = latency.operations, latency.slots
        if len(self.exit_operations) != len(rates.start) + 1 or not all(0 <= i < self.L for i in self.exit_operations):
            raise ValueError(
                f"exit operations {self.exit_operations} do not go with {len(rates.start) + 1} exits and "
                f"{self.L} operations"
            )
        self.lines = [1] * self.L if lines is None else list(lines)
        if len(self.lines) != self.L:
            raise ValueError(f"lines of {len(self.lines)} operations, there are {self.L}")
        exits = self.exit_operations[:-1]
        self.heads = [exits.index(l) if l in exits else -1 for l in range(self.L)] if heads is None else list(heads)
        if len(self.heads) != self.L or not all(-1 <= e < len(exits) for e in self.heads):
            raise ValueError(
                f"heads of {len(self.heads)} operations: there are {self.L}, and exits 0..{len(exits) - 1}"
            )
        self._build()

    @classmethod
    def of_program(cls, program, slots, rates=None, latency=None):
        """Tables of a Program, with the mapping's estimated cycles and rates to be learned unless given."""
        from .latency import estimate_latency

        latency = estimate_latency(program, slots) if latency is None else latency
        rates = ExitRates(len(program.exits)) if rates is None else rates
        words = np.frombuffer(program.region, "<u4", len(program.ops) * isa.DESCRIPTOR_WORDS)
        descriptors = [isa.decode(isa.DESCRIPTOR_FIELDS, w) for w in words.reshape(len(program.ops), -1)]
        early = range(len(program.exits) - 1)
        heads = [op.exit if op.op == "EXIT" else op.head for op in program.ops]
        heads = [e if e in early and op.op != "JUMP" else -1 for e, op in zip(heads, program.ops, strict=True)]
        lines = [max(1, d["lines"]) for d in descriptors]
        return cls(latency, [e.op for e in program.exits], rates, lines=lines, heads=heads)

    def with_rates(self, rates):
        """The same for other ExitRates."""
        return type(self)(self.latency, self.exit_operations, rates, self.drift, self.lines, self.heads)

    def refresh(self):
        """Rebuild the tables if a rate has moved by more than ``drift``; True if so."""
        if not self.rates.differ(self._built, self.drift):
            return False
        self._build()
        return True

    def _build(self):
        L, B, T = self.L, self.B, self.latency.cycles
        built = self.rates.rates()
        self._built = built.tolist()
        hazard = np.zeros(L)
        hazard[self.exit_operations] = built
        hazard[self.exit_operations[-1] :] = 1.0
        self.hazard = hazard
        self.survival = np.concatenate([[1.0], np.cumprod(1 - hazard)])
        shares = cache(lambda p: binomial(B, p))  # of few different survivals
        self.alive = [shares(p) for p in self.survival.tolist()]  # p_l^k(x)
        live = np.arange(B + 1)
        self.remaining, self.sojourn, self.catch_up, self.gathered = (np.zeros((L + 1, B + 1)) for _ in range(4))
        for l in reversed(range(L)):
            after = self.remaining[l + 1], self.sojourn[l + 1]
            if hazard[l]:
                stay = binomial(B, 1 - hazard[l])
                after = [stay @ times for times in after]
            self.remaining[l], self.sojourn[l] = T[l] + after[0], live * T[l] + after[1]
        for l in range(L):
            self.catch_up[l + 1] = self.catch_up[l] + self.alive[l] @ T[l]
            self.gathered[l + 1] = self.gathered[l] + self.alive[l] @ (live * T[l])
        self.delay = self.catch_up.tolist()
        self.waited = (self.catch_up[:, :, None] + self.remaining[:, None, :]).tolist()
        self._percentiles = cache(self._percentiles_of)

    def percentile(self, l, b, share=0.95):
        """Time within which ``share`` of the samples at l have left, if its group of b never shrinks (upper bound)."""
        return self._percentiles(l, share)[b]

    def _percentiles_of(self, l, share):
        alive = self.survival[l + 1 :] / self.survival[l] if self.survival[l] > 0 else np.zeros(self.L - l)
        last = l + int(np.argmax(1 - alive >= share - 1e-12))
        return self.latency.cycles[l : last + 1].sum(0).tolist()
