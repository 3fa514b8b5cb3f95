"""The served NPU as a queue: M/D/1 at batch 1, conservation, bounded stretch under overload."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.policies.base import Admit, Drop, Policy
from fluidnpu.sched.request import Request
from fluidnpu.sched.survival import ExitRates, SurvivalTables
from fluidnpu.sim.decisions import Decided
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.study import load_program
from fluidnpu.sim.timed_npu import TimedNpu
from fluidnpu.sim.traffic import LEAD_IN, poisson

EDGE = get_config("edge")
SEEDS = range(1, 9)


@pytest.fixture(scope="module")
def npu():
    _, program = load_program(EDGE, MODELS / "digits.tflite")
    return TimedNpu.build(EDGE, (program,))


def requests(times, slo=None):
    return [Request(n, LEAD_IN + int(t), None, slo) for n, t in enumerate(times)]


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_m_d_1(npu, load):
    """Batch 1 without exits: the mean wait is rho D / (2 (1 - rho)) (Pollaczek and Khinchine), D the time from one
    admission to the next while requests wait."""
    count, warm = 4000, 400
    never = Decided.at(np.full(count, 2))
    busy = npu.serve(requests(np.zeros(50)), Decided.at(np.full(50, 2)), make_policy("serial")).results
    service = np.diff([r.admitted for r in busy]).mean()
    waits = []
    for seed in SEEDS:
        served = npu.serve(requests(poisson(load / service, count, seed)), never, make_policy("serial"))
        by_id = sorted(served.results, key=lambda r: r.id)
        waits.append(np.mean([r.waited for r in by_id[warm:]]))
    wanted = load * service / (2 * (1 - load))
    half = 2.36 * np.std(waits, ddof=1) / len(waits) ** 0.5  # Student's t, 7 degrees of freedom, 95 %
    # A free NPU learns of an arrival some cycles later, and the last batch of a request's bus accesses is its own.
    found = np.mean(waits)
    assert abs(found - wanted) < half + 0.02 * service, f"{found:.0f} against {wanted:.0f} +- {half:.0f}"


@pytest.mark.parametrize("rigid", [False, True])
@pytest.mark.parametrize("policy", ["serial", "adaptive", "lazy", "prema", "llf", "dysta", "fluid", "fluid-shed"])
@pytest.mark.parametrize("load", [0.5, 1.3])
def test_every_request_comes_back_once(npu, policy, load, rigid):
    """In rigid mode too, where nothing else runs until a batch has left: whoever parks it waits for ever."""
    count = 600
    rates = ExitRates(3, [1 / 3, 1 / 2])
    tables = SurvivalTables.of_program(npu.programs[0], EDGE.slots, rates=rates, latency=npu.latencies[0])
    exits = np.random.default_rng(5).integers(0, 3, count)
    capacity = (np.arange(1, EDGE.slots + 1) / tables.remaining[0, 1:]).max()
    served = replace(npu, rigid=rigid).serve(
        requests(poisson(load * capacity, count, 5), slo=40_000), Decided.at(exits), make_policy(policy, tables)
    )
    assert sorted(r.id for r in served.results) == list(range(count))
    assert all(r.admitted is None or r.arrival <= r.admitted <= r.stamp for r in served.results)
    assert all(r.exit == exits[r.id] for r in served.results if r.ok)


@pytest.mark.parametrize("seed", range(1, 7))
def test_ours_parks_no_batch_of_a_rigid_npu(npu, seed):
    """Where nothing else runs until a batch has left, one that was told to wait would wait for ever."""
    count, rates = 400, ExitRates(3, [1 / 3, 1 / 2])
    tables = SurvivalTables.of_program(npu.programs[0], EDGE.slots, rates=rates, latency=npu.latencies[0])
    alone = tables.latency.cycles[:, 1].sum()
    policy, calls = make_policy("fluid", tables), iter(range(50 * count))
    decide = policy.decide

    def counted(state):
        assert next(calls, None) is not None, "it only asks again"
        return decide(state)

    policy.decide = counted
    times = requests(poisson(0.8 / alone, count, seed), slo=round(3 * alone))
    served = replace(npu, rigid=True).serve(times, Decided.at(np.full(count, 2)), policy)
    assert sum(r.ok for r in served.results) == count


class _Shedding(Policy):
    """First come, first served; who waits longer than ``patience`` is dropped."""

    name, patience = "shedding", 60_000

    def decide(self, state):
        late = [r for r in state.waiting if state.now - r.arrival > self.patience]
        rest = [r for r in state.waiting if state.now - r.arrival <= self.patience]
        start = [Admit(rest[0], 0)] if rest and not state.live else []
        return [*(Drop(r) for r in late), *start]


def test_nobody_starves_where_the_late_are_shed(npu):
    """Twice the capacity: no answer takes longer than patience and one service, and the NPU is never idle."""
    count, alone = 1500, npu.latencies[0].cycles[:, 1].sum()
    times = poisson(2 / alone, count, 3)
    served = npu.serve(requests(times), Decided.at(np.full(count, 2)), _Shedding())
    answered = [r for r in served.results if r.ok]
    assert max(r.latency for r in answered) <= _Shedding.patience + 1.1 * alone
    assert len(answered) == pytest.approx(times[-1] / alone, rel=0.05)


def test_ours_sheds_under_overload(npu):
    """Twice what the best batch could do: what is answered is answered in bounded time, the rest is told so at once."""
    rates = ExitRates(3, [1 / 3, 1 / 2])
    tables = SurvivalTables.of_program(npu.programs[0], EDGE.slots, rates=rates, latency=npu.latencies[0])
    count, capacity = 1200, (np.arange(1, EDGE.slots + 1) / tables.remaining[0, 1:]).max()
    exits = np.random.default_rng(7).integers(0, 3, count)
    slo = round(5 * npu.latencies[0].cycles[:, 1].sum())
    served = npu.serve(
        requests(poisson(2 * capacity, count, 7), slo), Decided.at(exits), make_policy("fluid", tables, late="shed")
    )
    answered = [r for r in served.results if r.ok]
    assert len(served.results) == count and 0.3 * count < len(answered) < 0.8 * count
    assert max(r.latency for r in answered) < 2 * slo
    assert max(r.completed - r.arrival for r in served.results) < 2 * slo
