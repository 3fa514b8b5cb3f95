"""Runs points on Dask distributed: what is finished is kept, what a lost worker had is run again.

A worker gets cases (networks measured beforehand) as the results of tasks: Dask makes them again when the worker that
held them is gone.
"""

import hashlib
import json
import pickle
from pathlib import Path

from .cases import build_case
from .run import run_point

__all__ = ["Store", "measure_cases", "run_points"]


class Store:
    """Finished points, a file each. ``folder`` is named after the code's version: other code, other results."""

    def __init__(self, folder):
        self.folder = Path(folder) / _version()
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, point):
        """Figures of a point, or None."""
        try:
            return json.loads((self.folder / f"{point.key}.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def put(self, point, figures):
        """Keep the figures of a point; a reader never sees half a file."""
        part = self.folder / f"{point.key}.part"
        part.write_text(json.dumps(figures))
        part.replace(self.folder / f"{point.key}.json")


def measure_cases(client, points, workloads, tell=None):
    """dict (values of NPU_FIELDS) -> Case of all points.

    client : whose workers measure what is not known from an earlier time, and see the same files as the caller; None:
        the caller measures. workloads : cases.find_workloads; tell : function (cases done, of how many)
    """
    from distributed import as_completed

    rigid = {n for p in points for n in p.npus if p.reference == "rigid"}
    wanted = list(dict.fromkeys(n for p in points for n in p.npus))
    if client is not None:
        # A network's cases one after the other compile it once.
        first = [next(n for n in wanted if n[:2] == pair) for pair in dict.fromkeys(n[:2] for n in wanted)]
        done = 0
        for group in (first, [n for n in wanted if n not in first]):
            futures = [client.submit(_measure, workloads[n[0]], n, n in rigid, pure=False) for n in group]
            for future in as_completed(futures):
                future.result()
                done += 1
                if tell:
                    tell(done, len(wanted))
    return {npu: build_case(workloads[npu[0]], *npu[1:], npu in rigid) for npu in wanted}


def _measure(workload, npu, rigid):
    build_case(workload, *npu[1:], rigid)


def run_points(client, points, cases, store, tell=None):
    """(dict point -> figures, dict point -> exception) of all points; those that the store has are not run again.

    client : distributed.Client; cases : dict (values of NPU_FIELDS) -> Case; store : Store
    tell : function (points done, of how many, latest point) or None

    """
    from distributed import as_completed

    found = {p: figures for p in points if (figures := store.get(p)) is not None}
    missing = list({p.key: p for p in points if p not in found}.values())
    if tell:
        tell(len(points) - len(missing), len(points), None)
    there = {
        npu: client.submit(pickle.loads, raw, key=f"case-{hashlib.sha256(raw).hexdigest()}")
        for npu, raw in ((n, pickle.dumps(c)) for n, c in cases.items() if any(n in p.npus for p in missing))
    }
    futures = {
        client.submit(run_point, p, *(there[n] for n in p.npus), key=f"point-{p.key}", retries=2): p for p in missing
    }
    done, failed = len(points) - len(missing), {}
    for future in as_completed(list(futures)):
        point = futures[future]
        error = future.exception()
        if error is None:
            store.put(point, future.result())
        else:
            failed[point.key] = error
        done += 1
        future.release()
        if tell:
            tell(done, len(points), point)
    return (
        {p: store.get(p) for p in points if p.key not in failed},
        {p: failed[p.key] for p in points if p.key in failed},
    )


def _version():
    """Digest of the code that results depend on: all but that which shows them."""
    root = Path(__file__).parent.parent.parent
    files = [f for name in ("hw", "nn", "sched", "sim/tiles", "sim/cycle") for f in (root / name).rglob("*.py")]
    names = ("compiled", "decisions", "measured_latency", "mixes", "timed_npu", "timing", "traffic")
    files += [root / "sim" / f"{name}.py" for name in names]
    files += [
        Path(__file__).parent / f"{name}.py" for name in ("cases", "inputs", "on_rtl", "points", "run", "tenants")
    ]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
