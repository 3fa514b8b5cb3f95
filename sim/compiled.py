"""Programs of networks, their variants chosen by the cycle model; kept in the build folder."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.program import Program

from .timing import operation_ends
from .verilator import build_root

__all__ = ["compiled_program"]


def compiled_program(config, network, options=CompileOptions(), status=None):
    """Program of a nn.graph.Network.

    options : CompileOptions; ``timing`` and ``status`` are set here. status : told what takes the time. A program that
    was compiled before of the same network, in the same way and by the same software, is taken from build/programs/.
    Raises CompileError.
    """
    kept = replace(options, limits=None, timing=None, status=None)
    exact = hashlib.sha256(_software().encode())
    for part in (network, config, kept):
        _digest(part, exact)
    digest = exact.hexdigest()[:20]
    file = build_root() / "programs" / f"{config.name}-{digest}.fnp"
    if file.exists():
        program = Program.load(file)
    else:
        program = compile_network(network, config, replace(kept, timing=operation_ends, status=status))
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent)  # whoever looks at the same time finds all of it or nothing
        os.close(handle)
        program.save(name)
        os.replace(name, file)
    limits = options.limits or (isa.LIMIT_NEVER,) * len(program.exits)
    exits = tuple(replace(exit, limit=limit) for exit, limit in zip(program.exits, limits, strict=True))
    return replace(program, exits=exits)


def _digest(value, into):
    """Put all that dataclasses, mappings, sequences and arrays hold into a hash."""
    if is_dataclass(value):
        into.update(type(value).__name__.encode())
        value = [(f.name, getattr(value, f.name)) for f in fields(value)]
    elif isinstance(value, Mapping):
        value = sorted(value.items())
    if isinstance(value, np.ndarray):
        into.update(repr((value.dtype, value.shape)).encode() + value.tobytes())
    elif isinstance(value, (list, tuple)):
        into.update(f"{len(value)} of".encode())
        for part in value:
            _digest(part, into)
    else:
        into.update(repr(value).encode() + b";")


@cache
def _software():
    """Digest of all that decides what a program is."""
    root = Path(__file__).parents[1]
    files = [Path(__file__).with_name("timing.py")]
    for folder in (root / "hw", root / "nn", root / "sim" / "cycle"):
        files += folder.rglob("*.py")
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()
