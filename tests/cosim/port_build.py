"""A simulator in which Python drives the NPU's own ports, for bus models that are not ours. Slow, but independent.

The NPU is the top level; VPI sees its ports and nothing else.
"""

import fcntl
import hashlib
import pickle
import shutil
import tempfile
from pathlib import Path

import cocotb
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Verilator
from fluidnpu.sim.npu_build import cached_verilog, sources_key
from fluidnpu.sim.verilator import build_root, check_tools

__all__ = ["CASE", "RESULT", "port_build", "run_at_ports"]

CASE, RESULT = "FLUIDNPU_CASE", "FLUIDNPU_RESULT"  # environment variables: files of the case and of its result
PORTS = ("clk", "rst", "irq", "axil__*", "mem__*")
# npu.v is linted elsewhere (sim/rtl/lint.vlt).
FLAGS = ["-O3", "-Wno-fatal", "--x-assign", "fast", "--x-initial", "fast", "--no-timing"]


class _Runner(Verilator):
    """cocotb's runner, but only the ports are public."""

    def _set_env_common(self):
        super()._set_env_common()
        self.env["PATH"] = check_tools()
        self.env.pop("MAKEFLAGS", None)

    def _simulator_in_path_build_only(self):
        self.executable = shutil.which("verilator", path=check_tools())

    def _build_command(self):
        verilate, make = super()._build_command()
        verilate.remove("--public-flat-rw")
        return [verilate, [*make, "OPT_FAST=-O1"]]


def port_build(config):
    """Folder of the compiled simulator, built once per version of hw/ and of the options above."""
    key = hashlib.sha256(f"{sources_key(config)}{FLAGS}{PORTS}{cocotb.__version__}".encode()).hexdigest()[:20]
    folder = build_root() / "verilator" / f"ports-{key}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shutil.copy(cached_verilog(config), folder / "npu.v")
            names = "".join(f'public_flat_rw -module "npu" -var "{port}"\n' for port in PORTS)
            (folder / "ports.vlt").write_text(f"`verilator_config\n{names}")
            _Runner().build(
                sources=[folder / "ports.vlt", folder / "npu.v"],
                hdl_toplevel="npu",
                build_dir=folder,
                build_args=FLAGS,
                timescale=("1ns", "1ps"),
                log_file=folder / "build.log",
            )
            (folder / "complete").touch()
    return folder


def run_at_ports(folder, test_module, case, seed=1):
    """Run the cocotb tests of ``test_module`` in a simulator of `port_build`; what they pickled into RESULT.

    case : picklable, found in the file CASE. Raises AssertionError with the end of the log if a test fails.
    """
    runs = build_root() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ports-", dir=runs) as place:
        case_file, result_file = Path(place) / "case.pickle", Path(place) / "result.pickle"
        case_file.write_bytes(pickle.dumps(case))
        log, results = Path(place) / "sim.log", Path(place) / "results.xml"
        try:
            _Runner().test(
                test_module,
                "npu",
                hdl_toplevel_lang="verilog",
                seed=seed,
                build_dir=folder,
                test_dir=place,
                results_xml=str(results),
                extra_env={CASE: str(case_file), RESULT: str(result_file), "COCOTB_LOG_LEVEL": "WARNING"},
                log_file=log,
            )
            count, failed = get_results(results)
        except (SystemExit, RuntimeError):
            count, failed = 0, 1
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
        assert count and not failed, f"{failed} of {count} tests failed:\n{tail}"
        return pickle.loads(result_file.read_bytes())
