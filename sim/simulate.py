"""Runs an asynchronous Python function inside a simulator and hands back its result.

The simulator is a process of its own, with Python embedded by cocotb. ``run_in_simulator`` starts it; the function is
found there by name, its arguments and result travel as pickles. This module is both ends: the caller's, and the cocotb
test module that the simulator loads.
"""

import importlib
import importlib.util
import inspect
import os
import pickle
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import cocotb

from .verilator import SimulationError, build_root

__all__ = ["run_in_simulator"]

_FOLDER = "FLUIDNPU_RUN"  # environment variable: the folder with call.pickle, which receives result.pickle


def run_in_simulator(build, function, *, timeout=None, seed=None, keep=None, recording=None, **arguments):
    """Runs ``await function(bench, **arguments)`` in the simulator ``build``; returns what it returns.

    Parameters
    ----------
    build : verilator.Build
    function : "package.module:name", "path/file.py:name", or the function itself (at module level)
    timeout : seconds of real time; cycles are limited by ``watchdog`` of ``RtlBench.start``
    seed : of cocotb's and Python's random numbers in the simulator
    keep : folder that receives sim.log and whatever the function writes into its working directory
    recording : file for ``sim.speed``: what a run without Python needs to repeat this one
    arguments : keyword arguments; they and the result must be picklable

    An exception of the function is raised here again, with the simulator's traceback as a note. A simulator that
    ends without an answer (failed hardware assertion, crash, timeout) raises SimulationError.
    """
    call = {
        "function": function if isinstance(function, str) else _name_of(function),
        "arguments": arguments,
        "recording": str(Path(recording).resolve()) if recording else None,
    }
    runs = build_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    folder = Path(keep).resolve() if keep else Path(tempfile.mkdtemp(prefix=f"{build.name}-", dir=runs))
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.pickle"
    result.unlink(missing_ok=True)
    (folder / "call.pickle").write_bytes(pickle.dumps(call))
    failure = None
    try:
        build.run(__name__, seed=seed, env={_FOLDER: str(folder)}, directory=folder, timeout=timeout)
    except SimulationError as problem:
        failure = problem
    answer, error, note = pickle.loads(result.read_bytes()) if result.exists() else (None, None, "")
    if failure and error is None:
        raise failure
    if error is not None:
        error.add_note(f"in the simulator ({folder}):\n{note}")
        raise error
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    return answer


def _name_of(function):
    """Name by which another process finds the function: of its module if that is in a package, else of its file."""
    if function.__qualname__ != function.__name__:
        raise ValueError(f"{function.__qualname__}: only a function at module level can run in the simulator")
    file = Path(inspect.getsourcefile(function)).resolve()
    module = function.__module__
    if module == "__main__":  # `python -m` says in __spec__ what it runs, a script has none
        spec = sys.modules["__main__"].__spec__
        module = spec.name if spec else None
    packaged = (file.parent / "__init__.py").exists() and module
    return f"{module if packaged else file}:{function.__name__}"


def _find(name):
    where, _, function = name.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(where).stem, where)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # so that results may hold the module's classes
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    return getattr(module, function)


@cocotb.test
async def run(dut):
    """The one cocotb test of a ``run_in_simulator`` process."""
    from .rtl_bench import RtlBench

    folder = Path(os.environ[_FOLDER])
    call = pickle.loads((folder / "call.pickle").read_bytes())
    answer = error = note = None
    try:
        function = _find(call["function"])
        bench = RtlBench(dut)
        if call["recording"]:
            bench.record(call["recording"])
        answer = await function(bench, **call["arguments"])
        bench.check()
        if call["recording"]:
            bench.save_recording()
    except Exception as problem:  # travels to the caller
        error, note = problem, traceback.format_exc()
    (folder / "result.pickle").write_bytes(_pickle(answer, error, note))


def _pickle(answer, error, note):
    try:
        content = pickle.dumps((answer, error, note))
        pickle.loads(content)
        return content
    except Exception as problem:
        text = f"{type(error).__name__}: {error}" if error else f"the result cannot be pickled: {problem}"
        return pickle.dumps((None, SimulationError(text), note or ""))
