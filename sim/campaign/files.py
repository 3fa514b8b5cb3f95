"""Files that points name: how they are called, and what tells their contents apart."""

import hashlib
from dataclasses import replace
from functools import cache

from ..study import InputError

__all__ = ["named_files", "with_files"]


def named_files(option, paths, taken, known=None):
    """dict name -> path: files by their stems, as points name them.

    option : that gave them; taken : names that mean something else; known : path of a further file, or None; one that
    was given goes before it. Raises InputError if a name is taken or given twice.
    """
    found = {}
    for path in paths:
        if path.stem in taken or path.stem in found:
            other = found.get(path.stem, "built in")
            raise InputError(f"{option} {path}: the name {path.stem!r} is taken ({other}); rename the file")
        found[path.stem] = path
    if known is not None:
        found.setdefault(known.stem, known)
    return found


def with_files(points, workloads, traces, mixes):
    """The points, each with the digest of the files behind it (Point.files).

    workloads : cases.find_workloads; traces, mixes : dicts name -> path
    """
    digest = cache(lambda path: hashlib.sha256(path.read_bytes()).digest())  # of one moment: files may change later
    return [replace(p, files=_digest(map(digest, _paths(p, workloads, traces, mixes)))) for p in points]


def _paths(point, workloads, traces, mixes):
    networks = [workloads[name] for name in point.workload.split("+")]
    paths = [path for w in networks for path in (w.network, w.images)]
    return [p for p in (*paths, traces.get(point.arrivals), mixes.get(point.mix)) if p is not None]


def _digest(parts):
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
