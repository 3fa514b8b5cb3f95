"""Outcomes of thresholds by brute force, and the search for good ones."""

from itertools import product

import numpy as np
import pytest
from fluidnpu.nn.exit_thresholds import Answers, calibrate
from fluidnpu.nn.intervals import mean_interval, wilson_interval


def made_up(exits=3, count=400, seed=0) -> Answers:
    """Exits that get better and surer with depth, and are the surer the likelier they are right."""
    rng = np.random.default_rng(seed)
    chance = np.clip(rng.beta(2, 1, (exits, count)) + np.linspace(-0.1, 0.2, exits)[:, None], 0.1, 1)
    right = rng.random((exits, count)) < chance
    spread = np.floor(65536 / chance).astype(np.int64)
    return Answers(right, spread, np.cumsum(rng.integers(100, 200, exits)), 460)


def by_hand(answers: Answers, thresholds) -> tuple[float, float, list[int]]:
    """(accuracy, share of MACs, exits), one image at a time."""
    right = macs = 0
    left = [0] * len(answers.macs)
    for i in range(answers.count):
        exit = next((e for e, t in enumerate(thresholds) if answers.spread[e, i] <= int(65536 / t)), len(thresholds))
        right += answers.right[exit, i]
        macs += answers.macs[exit]
        left[exit] += 1
    return right / answers.count, macs / answers.count / answers.backbone_macs, left


@pytest.mark.parametrize("thresholds", [(0.8, 0.8), (0.3, 0.95), (0.99, 0.5)])
def test_outcomes(thresholds):
    answers = made_up()
    outcome = answers.outcome(thresholds)
    accuracy, macs, left = by_hand(answers, thresholds)
    assert (outcome.accuracy, outcome.macs) == pytest.approx((accuracy, macs))
    assert [round(400 * share) for share in outcome.shares] == left
    said = outcome.as_dict()
    assert said["loss"] == pytest.approx(answers.right[-1].mean() - accuracy)
    for what in ("accuracy", "loss", "macs_share"):
        low, high = said[f"{what}_interval"]
        assert low <= said[what] <= high
    assert said["accuracy_interval"] == wilson_interval(round(400 * accuracy), 400)
    assert said["limits"] == [int(65536 / t) for t in thresholds]


def test_never_and_always():
    answers = made_up()
    assert answers.outcome((1.01, 1.01)).shares == (0, 0, 1)
    assert answers.outcome((0.0, 0.5)).shares == (1, 0, 0)
    assert answers.outcome((1.01, 1.01)).loss == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", [0.0, 0.02, 0.1])
def test_calibration_is_about_as_good_as_every_pair_of_thresholds(seed, loss):
    answers = made_up(seed=seed)
    thresholds = calibrate(answers, loss)
    found = answers.outcome(thresholds)
    assert found.loss <= loss + 1e-9
    grid = [*np.linspace(0.3, 1, 36), 1.01]
    tried = [answers.outcome(pair) for pair in product(grid, grid)]
    best = min(outcome.macs for outcome in tried if outcome.loss <= loss + 1e-9)
    assert found.macs <= best + 0.01


def test_calibration_of_one_and_of_four_exits():
    for exits in (2, 5):
        answers = made_up(exits=exits)
        losses = [0.0, 0.03, 0.2, 1.0]
        found = [answers.outcome(calibrate(answers, loss)) for loss in losses]
        macs = [outcome.macs for outcome in found]
        assert macs == sorted(macs, reverse=True) and macs[-1] < macs[0]
        assert all(outcome.loss <= loss + 1e-9 for outcome, loss in zip(found, losses, strict=True))


def test_thresholds_can_be_typed_in():
    for threshold in calibrate(made_up(), 0.05):
        assert float(f"{threshold:g}") == threshold


def test_intervals():
    low, high = mean_interval(np.tile([0.0, 1.0], 50))
    assert (low, high) == pytest.approx((0.5 - 0.0985, 0.5 + 0.0985), abs=1e-3)
    assert mean_interval(np.ones(1)) == (1.0, 1.0)
