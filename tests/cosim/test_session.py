"""Short served runs on tiny: every policy, every mode; and that a wrong answer does not pass."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.exits import limit_of
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sched.latency import estimate_latency
from fluidnpu.sim.answers import WrongAnswer, expected_answers
from fluidnpu.sim.measured_latency import measure_latency
from fluidnpu.sim.memory import random_stalls
from fluidnpu.sim.metrics import measure
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.session import Setup, serve_trace
from fluidnpu.sim.study import read_images, run_study
from fluidnpu.sim.traffic import make_trace

GAP = 15000  # cycles from request to request: shorter than a sample takes alone


@pytest.fixture(scope="module")
def setup(tiny):
    config, build = tiny
    network = read_network(MODELS / "digits.tflite")
    options = CompileOptions(reuse_arena=False, limits=(limit_of(0.8),) * len(network.exits))
    return Setup(config, build, network, compile_network(network, config, options))


@pytest.fixture(scope="module")
def trace(setup):
    images, labels = read_images(MODELS / "digits_views.npz", setup.network.input.shape)
    return make_trace("steady", GAP * np.arange(5), images, labels, slo=150_000, seed=5)


def check(record, setup, trace):
    assert [r.status for r in record.results] == ["ok"] * len(trace.requests)
    m = measure(record)
    assert sum(m.exits) == pytest.approx(1) and 0 < m.utilisation < 1
    assert sum(record.counters[f"cycles_{cause}"] for cause in m.causes) >= record.cycles
    assert m.tiles == record.counters["tiles"] > 0
    assert record.first_read < min(r.stamp for r in record.results) < record.last_write
    assert record.wakes < 100 * len(trace.requests)  # Python sleeps while the NPU works
    return m


def test_policies(setup, trace, tmp_path):
    told = {}
    records = run_study(
        setup, [trace], ["serial", "adaptive", "fluid"], progress=lambda policy, name, n: told.update({policy: n})
    )
    assert told == dict.fromkeys(("serial", "adaptive", "fluid"), len(trace.requests))
    serial, adaptive, fluid = (check(r, setup, trace) for r in records)
    assert serial.mean_batch == 1 and adaptive.mean_batch > 1
    assert serial.exits == adaptive.exits == fluid.exits  # the schedule changes no answer
    assert {r.id: r.top for r in records[0].results} == {r.id: r.top for r in records[2].results}


@pytest.mark.parametrize("mode", [{"rigid": True}, {"unstacked": True}, {"memory": random_stalls(7)}])
def test_modes(setup, trace, mode):
    check(serve_trace(replace(setup, **mode), trace, "adaptive"), setup, trace)


def test_batches_that_hold_their_results(setup, trace):
    """The policy makes the NPU rigid; what left early is handed out with the last of its batch, "bubble" at once."""
    burst = replace(trace, requests=[replace(r, arrival=trace.requests[0].arrival) for r in trace.requests])
    held, bubble = (serve_trace(setup, burst, f"adaptive-{how}") for how in ("hold", "bubble"))
    assert all(r.held and r.end == r.completed for r in held.results)
    assert [r.stamp for r in held.results] == [r.stamp for r in bubble.results]
    assert measure(held).mean > measure(bubble).mean
    batch = [r for r in held.results if r.admitted == held.results[0].admitted]
    assert len(batch) > 1 and len({r.exit for r in held.results}) > 1
    assert max(r.completed for r in batch) - min(r.completed for r in batch) < 1000  # one interrupt after the other


def test_same_seed_same_run(setup, trace):
    first, second = (serve_trace(setup, trace, "fluid") for _ in range(2))
    assert np.array_equal(first.events, second.events) and first.results == second.results


def test_exits_enabled_per_request(setup, trace):
    masks = [0b111, 0b110, 0b101, 0b100, None]
    requests = [replace(r, exits=mask) for r, mask in zip(trace.requests, masks, strict=True)]
    record = serve_trace(setup, replace(trace, requests=requests), "adaptive")
    for result in record.results:
        mask = masks[result.id]
        assert mask is None or mask >> result.exit & 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: replace(a, exit=(a.exit + 1) % 3), r"tiny, serial, steady: .*request 0: exit \d, the reference"),
        (lambda a: replace(a, top=tuple(t + 1 for t in a.top)), r"request 0: class \d+ at exit"),
        (lambda a: replace(a, spread=tuple(s + 1 for s in a.spread)), r"request 0: S \d+ at exit"),
        (lambda a: replace(a, logits=tuple(q ^ 1 for q in a.logits)), r"request 0: logits of exit 0 are"),
    ],
)
def test_a_wrong_answer_does_not_pass(setup, trace, change, message):
    one = replace(trace, requests=trace.requests[:1])
    expected = expected_answers(setup.network, trace.images, setup.limits)
    with pytest.raises(WrongAnswer, match=r"(?s)" + message):
        serve_trace(setup, one, "serial", expected={0: change(expected[0])})


def test_measured_latency(setup, tiny):
    config, build = tiny
    table = measure_latency(build, config, setup.program)
    guess = estimate_latency(setup.program, config.slots)
    assert table.cycles.shape == guess.cycles.shape and not table.cycles[:, 0].any()
    assert (np.diff(table.cycles.sum(0)) > 0).all()
    assert table.cycles.sum(0)[1:] == pytest.approx(guess.cycles.sum(0)[1:], rel=0.25)
