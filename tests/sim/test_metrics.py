"""Figures of hand-made runs, against what pencil and paper say."""

import numpy as np
import pytest
from fluidnpu.hw.isa import CAUSES, EngineEvent, Opcode, Status
from fluidnpu.sched.request import DROPPED, Result
from fluidnpu.sim.metrics import CAUSE_MEANING, measure, summarise
from fluidnpu.sim.record import RunRecord
from fluidnpu.sim.rtl_shared import EVENT

MACS = (100, 10, 0, 200, 20, 0)  # layer, head, exit 0, layer, last head, exit 1
HEADS = (-1, 0, 0, -1, 1, 1)


def admit(cycle, slot):
    return (cycle, 0, EngineEvent.COMMAND, slot, 0, 0, Opcode.ADMIT, slot)


def tile(cycle, pc, *slots):
    """A tile with one fragment per slot: dealt and started at once."""
    mask = sum(1 << s for s in slots)
    return [
        *((cycle, 0, EngineEvent.FRAGMENT, s, pc, 0, 1, 0) for s in slots),
        (cycle, 0, EngineEvent.DEAL, slots[0], pc, 0, mask, len(slots)),
        (cycle + 1, 0, EngineEvent.START, 0, 0, 0, 0, 0),
        (cycle + 9, 0, EngineEvent.RETIRE, 0, 0, 0, 0, 0),
    ]


def leave(cycle, slot, exit):
    return [
        (cycle, 0, EngineEvent.EXIT_RESULT, slot, 0, 0, 1 << 16 | exit << 20, 0),
        (cycle + 1, 0, EngineEvent.RELEASE, slot, 0, 0, int(Status.OK), 0),
    ]


def events(*parts):
    flat = [e for part in parts for e in (part if isinstance(part, list) else [part])]
    return np.array(flat, EVENT)


def result(id, stamp, slot=0, exit=0, top=0, arrival=0, deadline=None, status="ok"):
    admitted = None if status == DROPPED else arrival
    return Result(id, status, arrival, deadline, stamp, stamp, admitted, slot, exit, top)


def record(trace, results, labels=None, counters=None, cycles=1000):
    summary = summarise(trace)
    return RunRecord(
        policy="serial", traffic="poisson", config="tiny", network="net", results=results, decisions=[], events=trace,
        counters=counters or {}, cycles=cycles, labels=labels or {}, operations=tuple("abcdef"), macs=MACS, heads=HEADS,
        slots=4, peak_macs=10, first_read=summary.first_admit, last_write=summary.last_retire,
    )  # fmt: skip


SERIAL = events(
    admit(10, 0), tile(20, 0, 0), tile(40, 1, 0), leave(60, 0, 0),
    admit(70, 0), tile(80, 0, 0), tile(100, 1, 0), tile(120, 3, 0), tile(140, 4, 0), leave(160, 0, 1),
)  # fmt: skip


def test_serial():
    m = measure(record(SERIAL, [result(0, 60), result(1, 160, exit=1)]))
    assert (m.mean_batch, m.merging, m.preemptions) == (1, 1, 0)
    assert m.exits == (0.5, 0.5)
    useful = (100 + 10) + (100 + 10 + 200 + 20)
    assert m.utilisation == pytest.approx(useful / (10 * (149 - 10)))


def test_two_samples_ride_together_and_one_leaves():
    trace = events(
        admit(10, 0), admit(12, 1), tile(20, 0, 0, 1), tile(40, 1, 0, 1), leave(60, 0, 0), tile(80, 3, 1),
        tile(100, 4, 1), leave(120, 1, 1),
    )  # fmt: skip
    m = measure(record(trace, [result(0, 60, 0), result(1, 120, 1, exit=1)]))
    assert m.mean_batch == 6 / 4 and m.merging == 1 and m.preemptions == 0


def test_a_newcomer_preempts_catches_up_and_rides():
    trace = events(
        admit(10, 0), tile(20, 0, 0), tile(30, 1, 0), tile(40, 3, 0),
        admit(45, 1), tile(50, 0, 1), tile(60, 1, 1), tile(70, 3, 0, 1), tile(80, 4, 0, 1),
        leave(90, 0, 1), leave(95, 1, 1),
    )  # fmt: skip
    summary = summarise(trace)
    assert summary.preemptions == 1
    assert (summary.visits, summary.runs) == (8, 7)  # layer 3 was run twice: before and after
    assert summary.starts == [None, 0, 1, 3, 0, 1, 3, 4]
    assert measure(record(trace, [])).merging == 7 / 4


def test_a_slot_that_is_used_again_is_another_sample():
    """The group of the tile before has left; the sample that has its slot now is no victim."""
    trace = events(
        admit(10, 0), tile(20, 0, 0), tile(30, 1, 0), leave(40, 0, 0),
        admit(50, 0), admit(51, 1), tile(60, 0, 1), tile(70, 0, 0), leave(80, 0, 0), leave(85, 1, 0),
    )  # fmt: skip
    assert summarise(trace).preemptions == 0


def test_a_revoked_tile_did_nothing():
    dealt = tile(20, 0, 0)[:2]
    trace = events(
        admit(10, 0), dealt, (22, 0, EngineEvent.REVOKE, 0, 0, 0, 0, 0), tile(30, 0, 0), tile(40, 1, 0), leave(50, 0, 0)
    )
    assert summarise(trace).starts == [None, 0, 1] and summarise(trace).visits == 2


def test_refused_admits_and_other_sources_do_not_count():
    refused = (5, 0, EngineEvent.COMMAND, 0, 0, 3, Opcode.ADMIT, 0)
    array = (6, 1, EngineEvent.START, 0, 0, 0, 0, 0)
    summary = summarise(events(refused, array, admit(10, 0), tile(20, 0, 0)))
    assert summary.first_admit == 10 and summary.starts == [None, 0] and summary.last_retire == 29


def test_latencies_misses_accuracy():
    results = [result(n, n, top=n % 2, deadline=150 if n % 4 else None) for n in range(1, 201)]
    results.append(result(0, 10, deadline=20, status=DROPPED))
    m = measure(record(SERIAL, results, labels={n: 1 for n in range(1, 101)}))
    assert (m.requests, m.answered, m.dropped) == (201, 200, 1)
    assert (m.mean, m.p50, m.p95, m.p99, m.longest) == (100.5, 100, 190, 198, 200)  # nearest rank
    due = [n for n in range(1, 201) if n % 4]
    assert m.misses == pytest.approx((sum(n > 150 for n in due) + 1) / (len(due) + 1))
    assert m.accuracy == 0.5
    assert measure(record(SERIAL, [result(1, 5)])).misses is None
    assert measure(record(SERIAL, [result(1, 5)])).accuracy is None


def test_work_after_the_exit_is_not_useful():
    """In rigid mode a decided sample goes on to the end."""
    trace = events(
        admit(10, 0), tile(20, 0, 0), tile(30, 1, 0), tile(40, 3, 0), tile(50, 4, 0), leave(60, 0, 0), tile(90, 0, 1)
    )
    m = measure(record(trace, [result(0, 35, exit=0)]))
    assert m.utilisation == pytest.approx(110 / (10 * (99 - 10)))


def test_causes_are_shares():
    counters = {f"cycles_{cause}": n for n, cause in enumerate(CAUSES, 1)}
    counters |= {"preemptions": 3, "tiles": 7, "stripe_beats": 50, "write_beats": 10}
    m = measure(record(SERIAL, [result(0, 60), result(1, 160)], counters=counters))
    assert sum(m.causes.values()) == pytest.approx(1) and m.causes["vector"] == 2 / 36
    assert (m.turns, m.tiles, m.beats) == (3, 7, 30)
    assert set(CAUSE_MEANING) == set(CAUSES)


def test_nothing_answered():
    m = measure(record(events(), [result(0, 5, status=DROPPED)]))
    assert m.answered == 0 and m.mean == 0 and m.utilisation == 0
    assert m.as_dict()["dropped"] == 1
