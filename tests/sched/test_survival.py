"""Survival tables against enumeration of every outcome; exit rates; latency tables."""

import itertools
import random

import numpy as np
import pytest
from fluidnpu.sched.latency import DECISION_CYCLES, LatencyTable, estimate_latency
from fluidnpu.sched.survival import ExitRates, SurvivalTables, binomial

from .enumeration import CASES, TIMES, makespan, outcomes, run, tables
from .fake_device import chain


@pytest.mark.parametrize("name, exits, rates", CASES)
def test_expected_times_equal_enumeration(name, exits, rates):
    t = tables(TIMES[name], exits, rates)
    T = t.latency.cycles
    for l in range(t.L):
        for b in range(1, 4):
            world = list(outcomes(b, l, t.hazard))
            assert sum(p for _, p in world) == pytest.approx(1)
            assert t.remaining[l, b] == pytest.approx(sum(p * makespan(T, c, l) for c, p in world))
            assert t.sojourn[l, b] == pytest.approx(sum(p * sum(run(T, c, l)[1]) for c, p in world))
            start = list(outcomes(b, 0, t.hazard))
            time = sum(p * run(T, c, 0, l)[0] for c, p in start)
            assert t.catch_up[l, b] == pytest.approx(time)
            gathered = sum(p * sum(v if v is not None else run(T, c, 0, l)[0] for v in run(T, c, 0, l)[1])
                           for c, p in start)  # fmt: skip
            assert t.gathered[l, b] == pytest.approx(gathered)


def test_percentile():
    t = tables(TIMES["linear"], (1, 4), (0.6,))
    assert t.percentile(0, 1) == 500  # 60 % leave after 200, 95 % only at the end
    assert t.percentile(0, 2, 0.6) == 400
    assert t.percentile(2, 1) == 300
    assert t.percentile(4, 3) == 300


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_binomial(p):
    bn = binomial(5, p)
    assert np.allclose(bn.sum(1), 1)
    for n in range(6):
        worlds = [(sum(c), np.prod([p if s else 1 - p for s in c])) for c in itertools.product((0, 1), repeat=n)]
        direct = [sum(w for total, w in worlds if total == x) for x in range(6)]
        assert np.allclose(bn[n], direct)


def test_exit_rates_learn_and_follow_a_shift():
    rates = ExitRates(3, start=[0.5, 0.5], weight=4, window=64)
    assert list(rates.rates()) == [0.5, 0.5, 1]
    rates.learn(0)
    assert rates.rates() == pytest.approx([(2 + 1) / 5, 0.5, 1])
    rates.learn(2)
    assert rates.rates() == pytest.approx([3 / 6, 2 / 5, 1])
    rng = random.Random(1)
    for p in (0.8, 0.2):
        for _ in range(1500):
            rates.learn(0 if rng.random() < p else 2)
        assert rates.rates()[0] == pytest.approx(p, abs=0.12)
    before = rates.rates()
    rates.learn(2, mask=0b100)  # only the last exit was enabled: says nothing about the others
    assert list(rates.rates()) == list(before)


def test_tables_are_rebuilt_when_the_rates_drift():
    latency = LatencyTable(np.array([[0, 100.0, 100]] * 4))
    rates = ExitRates(2, start=[0.5], weight=4)
    t = SurvivalTables(latency, [1, 3], rates)
    before = t.remaining[0, 1]
    assert not t.refresh()
    for _ in range(20):
        rates.learn(0)
    assert t.refresh() and not t.refresh()
    assert t.remaining[0, 1] < before
    assert t.hazard[1] == pytest.approx(rates.rates()[0])


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: LatencyTable(np.ones((2, 3))), "those of 0 samples zero"),
        (lambda: LatencyTable(np.zeros(3)), r"is \[3\], it must be \[operations, slots \+ 1\]"),
        (lambda: LatencyTable(np.zeros((2, 3)), ("a",)), "1 names for 2 operations"),
        (lambda: ExitRates(3, [0.5]), "3 exits need 2 rates"),
        (lambda: ExitRates(2, [1.5]), "within 0..1"),
        (lambda: ExitRates(2, window=1), "window 1 at least 2"),
        (lambda: SurvivalTables(LatencyTable(np.zeros((2, 3))), [5], ExitRates(1)), "2 operations"),
        (lambda: SurvivalTables(LatencyTable(np.zeros((2, 3))), [1], ExitRates(1), lines=[1]), "lines of 1 operations"),
    ],
)
def test_wrong_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_estimate_from_the_program_and_file(tmp_path):
    program = chain([1, 1], cycles=lambda op, n: 1000 + 10 * n + op)
    table = estimate_latency(program, 4)
    assert table.names == ("layer0", "jump0", "exit0", "layer3", "exit1")
    assert list(table.cycles[0]) == [0, 1010, 1020, 1030, 1040]
    assert not table.cycles[1].any()
    assert list(table.cycles[2]) == [n * (DECISION_CYCLES + 10) for n in range(5)]
    assert list(estimate_latency(program, 6).cycles[3]) == [0, 1013, 1023, 1033, 1043, 1053, 1063]
    assert not estimate_latency(program, 4, exits=0b10).cycles[2].any()
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert (again.names, again.source) == (table.names, table.source)
    assert np.array_equal(again.cycles, table.cycles)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="not a latency table"):
        LatencyTable.load(tmp_path / "other.json")
    model = SurvivalTables.of_program(program, 4)
    assert (model.L, model.lines) == (5, [1] * 5)
