"""The best baseline of a cell, from made-up figures."""

import pytest
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.summary import best_baselines

# policy -> seed -> (mean, misses, drops)
FIGURES = {
    "adaptive": {1: (100, 0.30, 0), 2: (120, 0.40, 0)},
    "lazy": {1: (110, 0.20, 0), 2: (90, 0.30, 0)},
    "nexus": {1: (50, 0.10, 0.1), 2: (60, 0.12, 0.1)},
    "oracle": {1: (10, 0.0, 0), 2: (10, 0.0, 0)},
    "fluid": {1: (90, 0.20, 0), 2: (96, 0.21, 0)},
    "fluid-shed": {1: (45, 0.08, 0.05), 2: (54, 0.10, 0.06)},
}


def test_who_drops_is_compared_with_who_drops():
    found = {
        Point("policies", "digits", "edge", policy, 0.8, seed): {"mean": mean, "misses": misses, "drops": drops}
        for policy, seeds in FIGURES.items()
        for seed, (mean, misses, drops) in seeds.items()
    }
    ours, shed = best_baselines(found)
    assert (ours["ours"], shed["ours"], ours["cell"]) == ("fluid", "fluid-shed", (0.8,))
    # chosen on seed 1, judged on seed 2
    assert ours["mean"][0] == "adaptive" and ours["mean"][1].value == pytest.approx(96 / 120)
    assert ours["misses"][0] == "lazy" and ours["misses"][1].value == pytest.approx(0.21 - 0.30)
    assert shed["mean"][0] == shed["misses"][0] == "nexus"
    assert shed["mean"][1].value == pytest.approx(54 / 60)
    assert shed["drops_misses"] == pytest.approx(0.055 - 0.1)
