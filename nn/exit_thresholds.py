"""What thresholds do: where samples leave, how often they are right, what they cost; and the search for good ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from .exits import ONE, limit_of
from .intervals import mean_interval, wilson_interval

__all__ = ["Answers", "Outcome", "calibrate"]

NEVER = 1.01  # a threshold above 1
COARSE, FINE = 40, 12  # thresholds that the search tries per exit: over all images, then around the best


@dataclass(frozen=True, eq=False)
class Answers:
    """What every exit says of labelled images, in the integers of the exit unit (nn/exits.py).

    right bool [exits, n]; spread int64 [exits, n], S; macs [exits]: useful MACs of a sample that leaves there, the
    heads that it tried on the way included; backbone_macs: of the backbone alone.
    """

    right: np.ndarray
    spread: np.ndarray
    macs: np.ndarray
    backbone_macs: int

    @property
    def count(self) -> int:
        return self.right.shape[1]

    def left_at(self, thresholds: Sequence[float]) -> np.ndarray:
        """Exit [n] that every image takes; one threshold per exit but the last."""
        limits = np.array([limit_of(t) for t in thresholds], np.int64)
        leaves = np.concatenate([self.spread[:-1] <= limits[:, None], np.ones((1, self.count), bool)])
        return leaves.argmax(0)

    def outcome(self, thresholds: Sequence[float]) -> "Outcome":
        taken = self.left_at(thresholds)
        return Outcome(tuple(thresholds), self, taken)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one threshold per exit but the last gives; all figures are shares in 0..1."""

    thresholds: tuple[float, ...]
    answers: Answers
    taken: np.ndarray  # exit of every image

    @property
    def right(self) -> np.ndarray:
        return self.answers.right[self.taken, np.arange(self.answers.count)]

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def macs(self) -> float:
        """Mean MACs as a share of the backbone's."""
        return float(self._costs.mean())

    @property
    def shares(self) -> tuple[float, ...]:
        """Of images that leave at each exit."""
        return tuple(float((self.taken == e).mean()) for e in range(len(self.answers.macs)))

    @property
    def loss(self) -> float:
        """Accuracy of the backbone alone minus `accuracy`."""
        return float(self._losses.mean())

    @property
    def _costs(self) -> np.ndarray:
        return self.answers.macs[self.taken] / self.answers.backbone_macs

    @property
    def _losses(self) -> np.ndarray:
        return self.answers.right[-1].astype(float) - self.right

    def as_dict(self) -> dict:
        """The figures and their intervals, for JSON."""
        count = self.answers.count
        return {
            "thresholds": list(self.thresholds),
            "limits": [limit_of(t) for t in self.thresholds],
            "left_at_exit": list(self.shares),
            "left_at_exit_interval": [
                wilson_interval(int((self.taken == e).sum()), count) for e in range(len(self.shares))
            ],
            "accuracy": self.accuracy,
            "accuracy_interval": wilson_interval(int(self.right.sum()), count),
            "loss": self.loss,
            "loss_interval": mean_interval(self._losses),
            "macs_share": self.macs,
            "macs_share_interval": mean_interval(self._costs),
        }


def calibrate(answers: Answers, loss: float) -> tuple[float, ...]:
    """Thresholds, one per exit but the last, with the fewest MACs among those that lose at most ``loss`` of accuracy.

    ``loss`` is a share of the images, against the last exit on the same images. The search changes pairs of thresholds,
    over quantiles of the confidences, then finer around the best: complete, but for the grid, up to two exits before
    the last. A threshold above 1: no image should leave there.
    """
    exits = len(answers.macs) - 1
    allowed = answers.right[-1].mean() - loss
    best = (NEVER,) * exits
    grids = [_thresholds(answers.spread[e], np.linspace(0, 1, COARSE)) for e in range(exits)]
    best = _descend(answers, best, grids, allowed)
    fine = [_around(answers.spread[e], best[e], grids[e]) for e in range(exits)]
    return _descend(answers, best, fine, allowed)


def _thresholds(spread: np.ndarray, shares: np.ndarray) -> list[float]:
    """Thresholds (4 decimals, rounded down) at which these shares of the images leave, and one at which none does."""
    values = np.quantile(spread, shares, method="inverted_cdf")
    return sorted({float(np.floor(1e4 * ONE / v) / 1e4) for v in values} | {NEVER})


def _around(spread: np.ndarray, threshold: float, grid: list[float]) -> list[float]:
    """Finer thresholds between the neighbours of one in its grid."""
    at = grid.index(threshold)
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    shares = [(spread <= limit_of(t)).mean() for t in (high, low)]
    return sorted({*_thresholds(spread, np.linspace(*shares, FINE)), threshold})


def _descend(answers: Answers, best: tuple[float, ...], grids: list[list[float]], allowed: float) -> tuple[float, ...]:
    """Change one or two thresholds at a time, over their whole grids, as long as that saves MACs."""
    exits = range(len(best))
    pairs = list(combinations(exits, 2)) or [(e,) for e in exits]
    figure = answers.outcome(best).macs
    improved = True
    while improved:
        improved = False
        for pair in pairs:
            for choice in _choices(grids, pair):
                trial = list(best)
                for e, threshold in zip(pair, choice, strict=True):
                    trial[e] = threshold
                outcome = answers.outcome(trial)
                if outcome.accuracy >= allowed - 1e-12 and outcome.macs < figure - 1e-12:
                    best, figure, improved = tuple(trial), outcome.macs, True
    return best


def _choices(grids: list[list[float]], pair: tuple[int, ...]) -> list[tuple[float, ...]]:
    if len(pair) == 1:
        return [(t,) for t in grids[pair[0]]]
    return [(a, b) for a in grids[pair[0]] for b in grids[pair[1]]]
