"""A run as a trace for ui.perfetto.dev or chrome://tracing (Chrome's trace-event format, JSON).

One process per record. Its tracks: the host's decisions, the requests that wait, the array (one slice per tile), and a
track per slot with slices inside each other: the request, the layer, the lines of each tile; a wait after a preemption
is a slice beside the layers, with an arrow to where the sample goes on. Counters: waiting requests, samples in the NPU,
samples in the running tile. One cycle is one microsecond of the trace.
"""

import json

from .words import request_text

__all__ = ["trace_events", "write_trace"]

HOST, ARRAY, FIRST_SLOT = 1, 2, 10  # thread ids


def write_trace(stories, labels, path):
    """Write trace.json of the stories of several records; ``labels`` name them."""
    events = []
    for number, (story, label) in enumerate(zip(stories, labels, strict=True), 1):
        events += trace_events(story, number, label)
    trace = {
        "displayTimeUnit": "ms",
        "otherData": {"producer": "fluidnpu", "time": "1 us of the trace is 1 cycle of the NPU"},
        "traceEvents": events,
    }
    path.write_text(json.dumps(trace, separators=(",", ":")))
    return path


def trace_events(story, process, label):
    """Trace events of one Story as dicts."""
    return [
        {"pid": process, **event}
        for part in (_names(story, label), _slots(story), _array(story), _host(story), _counters(story))
        for event in part
    ]


def _names(story, label):
    threads = {HOST: "host: decisions", ARRAY: "array: tiles"}
    threads |= {FIRST_SLOT + s: f"slot {s}" for s in range(story.slots)}
    yield {"ph": "M", "name": "process_name", "args": {"name": label}}
    for thread, name in threads.items():
        yield {"ph": "M", "name": "thread_name", "tid": thread, "args": {"name": name}}
        yield {"ph": "M", "name": "thread_sort_index", "tid": thread, "args": {"sort_index": thread}}


def _slice(thread, category, name, begin, end, **arguments):
    """A complete event."""
    return {
        "ph": "X", "cat": category, "name": name, "tid": thread, "ts": begin, "dur": max(0, end - begin),
        "args": arguments,
    }  # fmt: skip


def _instant(thread, category, name, cycle, **arguments):
    return {"ph": "i", "s": "t", "cat": category, "name": name, "tid": thread, "ts": cycle, "args": arguments}


def _slots(story):
    for stay in story.stays:
        yield _slice(
            FIRST_SLOT + stay.slot, "request", request_text(stay), stay.begin, stay.end, status=stay.status,
            exit=stay.exit, top=stay.top, **_promise(stay.result),
        )  # fmt: skip
    for visit in story.visits:
        thread, layer = FIRST_SLOT + visit.stay.slot, story.layer(visit.pc)
        count = sum(b - a + 1 for _, piece in visit.tiles for a, b, _ in piece.lines)
        yield _slice(thread, "layer", layer, visit.begin, visit.end, lines=count, tiles=len(visit.tiles))
        for tile, piece in visit.tiles:
            yield _slice(
                thread, "lines", f"lines {piece.text}", tile.first, tile.end, layer=layer, tile=tile.number,
                fragments=[{"lines": [a, b], "sub-tile": r} for a, b, r in piece.lines],
            )  # fmt: skip
    yield from _waits(story)
    for merge in story.merges:
        names = [stay.request for stay in merge.stays]
        for stay in merge.stays:
            yield _instant(FIRST_SLOT + stay.slot, "merge", "merge", merge.cycle, requests=names)
    for e in story.exits:
        name = f"leaves at exit {e.exit + 1}" if e.left else f"exit {e.exit + 1}: goes on"
        yield _instant(FIRST_SLOT + e.stay.slot, "exit", name, e.cycle, top=e.top, S=e.spread)


def _promise(result):
    if result is None:
        return {}
    return {"arrival": result.arrival, "deadline": result.deadline, "latency": result.latency, "met": result.met}


def _waits(story):
    visits = {}
    for visit in story.visits:
        visits.setdefault(id(visit.stay), []).append(visit)
    for number, wait in enumerate(story.waits):
        thread, own = FIRST_SLOT + wait.stay.slot, visits.get(id(wait.stay), [])
        begin = max([wait.begin, *(v.end for v in own if v.begin <= wait.begin)])  # a tile starts in the last's end
        yield _slice(
            thread, "wait", "preempted", begin, max(begin, wait.end), by=request_text(wait.by), reason=wait.reason,
            merged=wait.merged,
        )  # fmt: skip
        yield _instant(thread, "preemption", "preempted", wait.begin, by=request_text(wait.by), reason=wait.reason)
        after = next((v for v in own if v.begin >= wait.end), None)
        if after is not None:
            flow = {"cat": "wait", "name": "goes on", "id": number, "tid": thread}
            yield {"ph": "s", "ts": begin, **flow}
            yield {"ph": "f", "bp": "e", "ts": after.begin, **flow}


def _array(story):
    for tile in story.tiles:
        yield _slice(
            ARRAY, "tile", f"{story.layer(tile.pc)} {tile.kr}x{tile.kd}", tile.first, tile.end, tile=tile.number,
            mode=f"{tile.kr}x{tile.kd}", rows=tile.rows, samples=len(tile.pieces), candidates=len(tile.candidates),
            leader=request_text(tile.leader), variant=tile.variant, dealt=tile.dealt, started=tile.started,
            lines={request_text(piece.stay): piece.text for piece in tile.pieces},
        )  # fmt: skip
    for cycle in story.revocations:
        yield _instant(ARRAY, "tile", "dealt tile revoked", cycle)


def _host(story):
    for d in story.record.decisions:
        requests = [str(request) for request in d.requests]
        yield _instant(HOST, "decision", d.kind, d.cycle, slots=list(d.slots), requests=requests, queue=d.queue)
    for r in story.record.results:
        wait = {"cat": "queue", "name": "waits in the queue", "id": str(r.id), "tid": HOST}
        end = r.stamp if r.admitted is None else r.admitted
        yield {"ph": "b", "ts": r.arrival, **wait, "args": {"request": str(r.id), "status": r.status}}
        yield {"ph": "e", "ts": max(r.arrival, end), **wait}


def _counters(story):
    for name, steps in (
        ("waiting requests", story.waiting()),
        ("samples in the NPU", story.live()),
        ("samples in the tile", _in_tile(story)),
    ):
        for cycle, level in steps:
            yield {"ph": "C", "name": name, "ts": cycle, "args": {"number": level}}


def _in_tile(story):
    steps, last = [(0, 0)], 0
    for tile in story.tiles:
        if tile.first > last:
            steps.append((last, 0))
        steps.append((tile.first, len(tile.pieces)))
        last = tile.end
    steps.append((last, 0))
    return [step for i, step in enumerate(steps) if not i or step[1] != steps[i - 1][1]]
