"""Points of the study on the RTL of tiny: the cycle model repeats every completion."""

from dataclasses import replace

import pytest
from fluidnpu.sim.campaign.cases import build_case, find_workloads
from fluidnpu.sim.campaign.inputs import policy_of, traffic_of
from fluidnpu.sim.campaign.on_rtl import agreement
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.run import run_point
from fluidnpu.sim.study import InputError


@pytest.fixture(scope="module")
def case(tiny):
    return build_case(find_workloads()["digits"], "tiny", "full", False)


@pytest.mark.parametrize(
    "policy, more",
    [
        ("lazy", {}),
        ("adaptive-hold", {}),
        ("nexus", {}),
        ("dysta", {}),
        ("oracle", {}),
        ("fluid", {"decision_cycles": 400, "seed": 2}),
        ("fluid-leave", {"rigid": True}),
        ("prema", {"mix": "hard"}),
    ],
)
def test_the_cycle_model_repeats_the_rtl(case, policy, more):
    point = Point("rtl", **{"workload": "digits", "config": "tiny", "policy": policy, "load": 1.0, "seed": 1, **more})
    figures = run_point(replace(point, device="rtl", requests=20), case)
    assert figures["agreed"] == 1.0 and figures["requests"] == 20


def test_the_rtl_shows_the_same_spreads(case):
    """The policy that looks at S decides alike on RTL and model, and not as it does without S."""
    point = Point("rtl", "digits", "tiny", "fluid", 1.0, 1, requests=100, slo=6.0, options=(("confidence", True),))
    assert run_point(replace(point, device="rtl"), case)["agreed"] == 1.0
    requests, decided, _ = traffic_of(point, case)
    seen, unseen = (
        case.npu.serve(requests, d, policy_of(point, case, d), device="cycles")
        for d in (decided, replace(decided, spread=None))
    )
    assert 0 < agreement(seen, unseen) < 1


def test_a_difference_shows(case):
    point = Point("rtl", "digits", "tiny", "serial", 0.5, 1, requests=20)
    requests, decided, _ = traffic_of(point, case)

    def serve():
        return case.npu.serve(requests, decided, policy_of(point, case, decided), device="cycles")

    one, other = serve(), serve()
    assert agreement(one, other) == 1.0
    other.results[3] = replace(other.results[3], stamp=other.results[3].stamp + 1)
    assert agreement(one, other) == pytest.approx(21 / 22)


def test_samples_without_images(case):
    point = Point("rtl", "digits", "tiny", "serial", 0.5, 1, requests=20, device="rtl")
    with pytest.raises(InputError, match="digits has no images"):
        run_point(point, replace(case, images=None))
