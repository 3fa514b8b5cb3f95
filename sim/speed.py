"""How fast the co-simulation is, beside the same design, memory and clock without Python.

The run with Python is recorded (memory image, register accesses and host writes into memory with their cycles) and
repeated by the bare executable; checksums of memory at the end, the number of trace events and the cycle of every bus
response prove that both did the same.
"""

import ctypes
import json
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .rtl_shared import library
from .simulate import _find, _name_of, run_in_simulator
from .verilator import SimulationError, build_root

__all__ = ["SpeedReport", "compare_speed", "facts_of", "measure_speed", "recording_folder", "run_bare"]


@dataclass(frozen=True)
class SpeedReport:
    """Speeds in simulated cycles per second of processor time, from the first register access to the last cycle: what
    else the machine does counts on neither side.

    ``python_cycles``: share of the cycles in which Python was awake. ``same``: both runs ended with the same memory,
    the same number of trace events and every register access in the same cycle.
    """

    cycles: int
    cosimulation: float
    bare: float
    python_cycles: float
    same: bool

    @property
    def ratio(self):
        """Speed of the co-simulation relative to the bare run."""
        return self.cosimulation / self.bare

    def as_dict(self):
        """For reports: the fields and ``ratio``."""
        return asdict(self) | {"ratio": self.ratio}

    def __str__(self):
        return (
            f"{self.cycles} cycles: co-simulation {self.cosimulation / 1e3:.0f} k cycles/s, "
            f"bare {self.bare / 1e3:.0f} k cycles/s, ratio {self.ratio:.2f}, "
            f"Python awake in {100 * self.python_cycles:.4f} % of the cycles"
            f"{'' if self.same else '; THE RUNS DIFFER'}"
        )


def facts_of(bench):
    """In the simulator: what is known at the end of a run that may be repeated without Python."""
    seconds, cycles = bench.processor_seconds(), bench.cycle() - int(bench.transactions()["issued"][0])
    events = ctypes.c_uint64()
    library().fluid_trace(ctypes.byref(events))
    return {
        "seconds": seconds,
        "cycles": cycles,
        "wakes": bench.wakes(),
        "events": events.value,
        "checksum": f"{library().fluid_memory_checksum():016x}",
    }


async def timed(bench, name, arguments):
    """Runs the measured function inside the simulator; returns the facts of the run."""
    await _find(name)(bench, **arguments)
    return facts_of(bench)


def measure_speed(build, bare, function, *, repeat=3, timeout=None, **arguments):
    """Runs ``function(bench, **arguments)`` in ``build`` and repeats it in ``bare``; returns a SpeedReport.

    ``build``, ``bare``: of the same Verilog (``verilator.build(..., bare=True)``). ``function``: as for
    ``run_in_simulator``; it begins with ``bench.start``, and after its first register access it writes external memory
    only by ``bench.write_memory`` (a RtlDevice does). Each side runs ``repeat`` times in turn and its best time counts.
    """
    name = function if isinstance(function, str) else _name_of(function)
    with recording_folder() as folder:
        recording = folder / "recording"
        with_python, without = [], []
        for _ in range(repeat):
            with_python.append(
                run_in_simulator(build, timed, timeout=timeout, recording=recording, name=name, arguments=arguments)
            )
            without.append(run_bare(bare, recording, timeout))
    return compare_speed(with_python, without)


@contextmanager
def recording_folder():
    """A folder for a recording, deleted afterwards."""
    runs = build_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="speed-", dir=runs) as folder:
        yield Path(folder)


def run_bare(bare, recording, timeout=None):
    """Repeats a recording without Python, in the simulator ``bare``; returns the facts of the run."""
    if not bare.bare:
        raise ValueError(f"{bare.name}: build it with bare=True")
    command = [str(bare.executable), str(recording)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if result.returncode:
        raise SimulationError(f"{bare.name}: bare run ended with code {result.returncode}: {result.stderr[-2000:]}")
    return json.loads(result.stdout)


def compare_speed(with_python, without):
    """SpeedReport of facts of the same run, measured several times with and without Python."""
    cosim = min(with_python, key=lambda r: r["seconds"])
    alone = min(without, key=lambda r: r["seconds"])
    same = all(cosim[key] == alone[key] for key in ("cycles", "events", "checksum"))
    return SpeedReport(
        cycles=cosim["cycles"],
        cosimulation=cosim["cycles"] / cosim["seconds"],
        bare=alone["cycles"] / alone["seconds"],
        python_cycles=cosim["wakes"] / cosim["cycles"],
        same=same and not alone["late_operations"],
    )
