"""results.json: everything that a comparison needs, in numbers."""

import json
import math
from dataclasses import asdict

import numpy as np
from fluidnpu.sim.metrics import measure

__all__ = ["REQUEST_COLUMNS", "metrics_of", "write_results"]

REQUEST_COLUMNS = (
    "id", "status", "code", "arrival", "deadline", "admitted", "stamp", "completed", "slot", "exit", "top", "spread",
    "label", "latency", "waited", "met",
)  # fmt: skip


def metrics_of(record):
    """Figures of a RunRecord (sim.metrics.measure) as a dict."""
    return measure(record).as_dict()


def write_results(records, labels, metrics, stories, path):
    """Write results.json.

    Per record: names, options, metrics, counters, what the trace says (`trace`: preemptions of samples, merges), the
    decisions of the policy by kind, and per request the values of ``columns``. Times are cycles.
    """
    document = {
        "format": "fluidnpu results 1",
        "columns": REQUEST_COLUMNS,
        "records": [_entry(*each) for each in zip(records, labels, metrics, stories, strict=True)],
    }
    path.write_text(json.dumps(_plain(document), indent=1, allow_nan=False))
    return path


def _entry(record, label, metrics, story):
    names = ("policy", "traffic", "config", "network", "slots", "peak_macs", "cycles", "first_read", "last_write")
    kinds = [d.kind for d in record.decisions]
    return {
        "label": label,
        **{name: getattr(record, name) for name in names},
        "options": record.options,
        "metrics": metrics,
        "counters": record.counters,
        "trace": {"tiles": len(story.tiles), "preempted": len(story.waits), "merges": len(story.merges),
                  "revoked": len(story.revocations)},
        "decisions": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "operations": [
            {"name": name, "macs": macs, "head": head}
            for name, macs, head in zip(record.operations, record.macs, record.heads, strict=True)
        ],
        "simulation": {"seconds": record.seconds, "wakes": record.wakes},
        "requests": [_row(result, record.labels) for result in record.results],
    }  # fmt: skip


def _row(result, labels):
    values = asdict(result) | {"latency": result.latency, "waited": result.waited, "met": result.met}
    values["label"] = labels.get(result.id)
    if not result.ok:
        values |= dict.fromkeys(("exit", "top", "spread"))
    return [values[name] for name in REQUEST_COLUMNS]


def _plain(value):
    """Only what JSON knows; numbers that are none become null."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in value]
        case np.ndarray():
            return _plain(value.tolist())
        case np.generic():
            return _plain(value.item())
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
    return str(value)
