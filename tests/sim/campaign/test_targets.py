"""What the study says of its targets, from made-up figures."""

import pytest
from fluidnpu.sim.campaign.plans import BASELINE, FROZEN, OURS
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.targets import targets


def runs(group, policy, load, figures, **more):
    """{Point: figures} of two seeds."""
    return {Point(group, "digits", "edge", policy, load, seed, **more): figures for seed in (1, 2)}


def headline(mean, misses):
    ours = runs("headline", OURS, 0.8, {"mean": mean, "misses": misses})
    return ours | runs("headline", BASELINE, 0.8, {"mean": 300, "misses": 0.5}, rigid=True, unstacked=True)


@pytest.mark.parametrize("mean, misses, hits", [(120, 0.05, [True, True]), (121, 0.051, [False, False])])
def test_headline(mean, misses, hits):
    found = targets(headline(mean, misses))
    assert [t.hit for t in found] == hits
    assert found[0].measured.startswith(f"{300 / mean:.3g}x")


def test_best_baselines_need_fifteen_per_cent_under_load_alone():
    found = {}
    for load in (0.4, 0.8):
        found |= runs("policies", "lazy", load, {"mean": 100, "misses": 0.5, "drops": 0, "bound_mean": 90})
    for mean, misses, hits in ((101, 0.42, [True, True]), (101, 0.43, [True, False]), (103, 0.42, [False, False])):
        for load in (0.4, 0.8):
            ours = {"mean": mean, "misses": misses, "drops": 0, "bound_mean": 90}
            found |= runs("policies", OURS, load, ours)
        rivals = [t for t in targets(found) if "baseline" in t.what]
        assert [t.hit for t in rivals] == hits
    assert "0.8 against lazy" in rivals[1].note


def test_bound_shift_decisions_and_quiet_tenants():
    found = runs("policies", OURS, 0.6, {"mean": 126, "misses": 0, "drops": 0, "bound_mean": 100})
    found |= runs("policies", "oracle", 0.6, {"mean": 120, "misses": 0, "drops": 0, "bound_mean": 100})
    (bound,) = targets(found)
    assert bound.hit is False and "1.26 at load 0.6" in bound.measured and "1.20" in bound.note
    for mean, hit in ((102, True), (104, False)):
        found = runs("shift", OURS, 0.6, {"mean_end": mean}, mix="shift")
        found |= runs("shift", OURS, 0.6, {"mean_end": 100}, mix="shift", options=FROZEN, rates="end")
        assert [t.hit for t in targets(found)] == [hit]
    for host, hit in ((99, True), (101, False)):
        (time,) = targets(runs("decisions", OURS, 0.9, {"decisions": 2, "host_us": host, "nothing_us": 0.1}))
        assert time.hit is hit and time.note.endswith("0.1")
    flood = (("a", 1.5, 1.0), ("b", 0.3, 1.0))
    for missed, hit in ((0.009, True), (0.011, False)):
        figures = {"tenant1_misses": 1.0, "tenant2_misses": missed}
        (quiet,) = targets(runs("tenants", OURS, 1.8, figures, tenants=flood))
        assert quiet.hit is hit and "b at load 0.3" in quiet.what
