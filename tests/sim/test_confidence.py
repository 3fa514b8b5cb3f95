"""Exit rates by the S of the last head: learned in a served trace they are those of the network's own answers."""

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.confidence import BANDS
from fluidnpu.sched.request import Request
from fluidnpu.sched.survival import ExitRates, SurvivalTables
from fluidnpu.sim.mixes import answers_mix
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.study import limits_of, load_program, read_images
from fluidnpu.sim.timed_npu import TimedNpu
from fluidnpu.sim.traffic import LEAD_IN, poisson

EDGE = get_config("edge")
COUNT, LOAD, SEED = 6000, 0.9, 3


def test_learned_rates_are_those_of_the_answers():
    network, program = load_program(EDGE, MODELS / "digits.tflite", (0.8,))
    images, _ = read_images(MODELS / "digits_views.npz", network.input.shape)
    mix = answers_mix(network, limits_of([0.8], 3), images[:600])
    npu = TimedNpu.build(EDGE, (program,))
    tables = SurvivalTables.of_program(program, EDGE.slots, ExitRates(3), npu.latencies[0])
    true = SurvivalTables.of_program(program, EDGE.slots, ExitRates(3, mix.rates()), npu.latencies[0])
    capacity = (np.arange(1, EDGE.slots + 1) / true.remaining[0, 1:]).max()
    times = poisson(LOAD * capacity, COUNT, SEED) + LEAD_IN
    policy = make_policy("fluid", tables, confidence=True)
    decided, _ = mix.draw(COUNT, SEED)
    served = npu.serve([Request(n, int(t), None, slo=40_000) for n, t in enumerate(times)], decided, policy)
    assert len(served.results) == COUNT

    head = policy._confidence._heads[0][0]
    stayed = mix.taken > 0
    bands = np.array([head.band(s) for s in mix.spread[stayed, 0].tolist()])
    next_exit = mix.taken[stayed] == 1
    compared = 0
    for band in range(BANDS):
        seen = head.bands[band].reached[1]
        if seen >= 40:
            wanted = next_exit[bands == band].mean()
            found = policy._confidence.rates(0, 0, band)[1]
            assert found == pytest.approx(wanted, abs=0.05 + 3 * 0.5 / seen**0.5), f"seed {SEED}, band {band}, {seen}"
            compared += 1
    assert compared == BANDS
    near, far = (policy._confidence.rates(0, 0, band)[1] for band in (0, BANDS - 1))
    assert near > far + 0.2
