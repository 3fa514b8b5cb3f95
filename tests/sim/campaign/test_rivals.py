"""The best baseline of a cell, from made-up figures."""

import pytest
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.rivals import best_baselines

# policy -> seed -> (mean, misses, drops)
FIGURES = {
    "adaptive": {1: (100, 0.30, 0), 2: (120, 0.40, 0)},
    "lazy": {1: (110, 0.20, 0), 2: (90, 0.30, 0)},
    "nexus": {1: (50, 0.10, 0.1), 2: (60, 0.12, 0.1)},
    "oracle": {1: (10, 0.0, 0), 2: (10, 0.0, 0)},
    "fluid": {1: (90, 0.20, 0), 2: (96, 0.21, 0)},
    "fluid-shed": {1: (45, 0.08, 0.05), 2: (60, 0.12, 0.06)},
}


def rivals(figures):
    found = {
        Point("policies", "digits", "edge", policy, 0.8, seed): {"mean": mean, "misses": misses, "drops": drops}
        for policy, seeds in figures.items()
        for seed, (mean, misses, drops) in seeds.items()
    }
    return best_baselines(found)


def test_who_drops_is_compared_with_who_drops():
    by_mean, by_misses, *shed = rivals(FIGURES)
    assert (by_mean.ours, by_mean.cell, by_mean.best) == ("fluid", (0.8,), "mean")
    # chosen on seed 1, judged on seed 2
    assert by_mean.policy == "adaptive" and by_mean.mean.value == pytest.approx(96 / 120)
    assert by_mean.misses.value == pytest.approx(0.21 / 0.40) and by_mean.theirs == (120, 0.40)
    assert by_misses.best == "misses" and by_misses.policy == "lazy"
    assert by_misses.points.value == pytest.approx(0.21 - 0.30)
    assert by_mean.better and by_mean.no_worse and by_misses.no_worse
    assert not by_misses.better  # 30 % fewer misses, but 6.7 % more latency
    assert [(r.ours, r.policy) for r in shed] == [("fluid-shed", "nexus")] * 2
    assert shed[0].mean.value == pytest.approx(1) and shed[0].drops == pytest.approx(-0.04)
    assert shed[0].no_worse and not shed[0].better


def test_worse_is_said():
    figures = FIGURES | {"fluid": {1: (1, 0, 0), 2: (123, 0.31, 0)}}
    by_mean, by_misses, *_ = rivals(figures)
    assert not by_mean.no_worse and not by_mean.better  # 2.5 % more latency, 22 % fewer misses
    assert not by_misses.no_worse


def test_nobody_to_compare_with():
    assert rivals({"fluid": FIGURES["fluid"], "oracle": FIGURES["oracle"]}) == []
