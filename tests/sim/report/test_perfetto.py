"""trace.json: the rules of the trace-event format, and that everything is in it."""

import json
from collections import Counter

import pytest
from fluidnpu.sim.report import read_story, write_trace
from report_runs import merging_run, world_run

REQUIRED = {
    "M": {"name", "args"},
    "X": {"name", "cat", "ts", "dur", "tid", "args"},
    "i": {"name", "cat", "ts", "tid", "s"},
    "C": {"name", "ts", "args"},
    "b": {"name", "cat", "ts", "id"},
    "e": {"name", "cat", "ts", "id"},
    "s": {"name", "cat", "ts", "tid", "id"},
    "f": {"name", "cat", "ts", "tid", "id", "bp"},
}
METADATA = {"process_name", "thread_name", "thread_sort_index"}


def check_trace(trace):
    """Everything that ui.perfetto.dev asks of a JSON trace with these phases."""
    events = trace["traceEvents"]
    for e in events:
        assert e["ph"] in REQUIRED, e
        assert REQUIRED[e["ph"]] | {"pid"} <= set(e), e
        assert isinstance(e["name"], str) and isinstance(e.get("ts", 0), int) and e.get("ts", 0) >= 0, e
        assert e.get("dur", 0) >= 0 and isinstance(e.get("args", {}), dict)
        if e["ph"] == "M":
            assert e["name"] in METADATA
        if e["ph"] == "C":
            assert all(isinstance(v, int | float) for v in e["args"].values())
        if e["ph"] == "i":
            assert e["s"] in "tpg"
    named = {(e["pid"], e["tid"]) for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if "tid" in e} <= named, "a track without a name"
    check_nesting(events)
    check_pairs(events)


def check_nesting(events):
    """Slices of a track lie in each other or beside each other."""
    tracks = {}
    for e in events:
        if e["ph"] == "X":
            tracks.setdefault((e["pid"], e["tid"]), []).append((e["ts"], -e["dur"], e["name"]))
    for track, slices in tracks.items():
        stack = []
        for begin, minus, name in sorted(slices, key=lambda s: s[:2]):
            end = begin - minus
            while stack and stack[-1][0] <= begin:
                stack.pop()
            assert not stack or end <= stack[-1][0], f"track {track}: {name} at {begin} ends after {stack[-1][1]}"
            stack.append((end, name))


def check_pairs(events):
    """Every asynchronous begin has its end, every flow its target, both ends of a flow in a slice."""
    waiting = Counter()
    for e in sorted((e for e in events if e["ph"] in "be"), key=lambda e: (e["ts"], e["ph"])):
        waiting[e["pid"], e["cat"], e["name"], e["id"]] += 1 if e["ph"] == "b" else -1
    assert not any(waiting.values())
    flows, tracks = {}, {}
    for x in events:
        if x["ph"] == "X":
            tracks.setdefault((x["pid"], x["tid"]), []).append((x["ts"], x["ts"] + x["dur"]))
    for e in events:
        if e["ph"] in "sf":
            assert flows.setdefault((e["pid"], e["cat"], e["id"]), {}).setdefault(e["ph"], e) is e, "twice"
            inside = any(begin <= e["ts"] <= end for begin, end in tracks[e["pid"], e["tid"]])
            assert inside, f"flow {e} is in no slice"
    assert all({"s", "f"} == set(pair) and pair["s"]["ts"] <= pair["f"]["ts"] for pair in flows.values())


def write(tmp_path, *records):
    stories = [read_story(record) for record in records]
    labels = [f"run {i}" for i in range(len(records))]
    return json.loads(write_trace(stories, labels, tmp_path / "trace.json").read_text())


def test_merging_run(tmp_path):
    trace = write(tmp_path, merging_run())
    check_trace(trace)
    events = trace["traceEvents"]
    count = Counter((e["ph"], e.get("cat")) for e in events)
    assert count["X", "request"] == 2
    assert count["X", "tile"] == 10
    assert count["X", "lines"] == 13
    assert count["X", "layer"] == 9
    assert count["X", "wait"] == count["i", "preemption"] == count["s", "wait"] == count["f", "wait"] == 1
    assert count["i", "merge"] == 2
    assert count["i", "exit"] == 3
    assert count["i", "decision"] == 2
    assert count["b", "queue"] == count["e", "queue"] == 2
    tile = next(e for e in events if e.get("cat") == "tile" and e["args"]["tile"] == 5)
    assert tile["name"] == "conv1 1x2" and tile["args"]["samples"] == 2 and tile["args"]["rows"] == 16
    assert tile["args"]["lines"] == {"request b": "4-5", "request a": "4-5"}
    threads = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert threads == {"host: decisions", "array: tiles", "slot 0", "slot 1", "slot 2", "slot 3"}


def test_records_are_processes(tmp_path):
    trace = write(tmp_path, merging_run(), merging_run(policy="serial"))
    check_trace(trace)
    names = {e["pid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"}
    assert names == {1: "run 0", 2: "run 1"}


@pytest.mark.parametrize("seed", range(40, 60))
def test_random_worlds(tmp_path, monkeypatch, seed):
    record, model = world_run(monkeypatch, seed)
    trace = write(tmp_path, record)
    check_trace(trace)
    assert sum(e.get("cat") == "tile" and e["ph"] == "X" for e in trace["traceEvents"]) == len(model.tiles)
