"""Builds: found again, shared by parallel runs, clear errors."""

import subprocess
import sys
import textwrap

import pytest
from copier import copier_verilog
from fluidnpu.sim import verilator
from fluidnpu.sim.verilator import BuildError, SimulationError, ToolError


def test_a_build_is_found_again(copier_build):
    first = copier_build(16)
    made = first.executable.stat().st_mtime_ns
    assert copier_build(16) == first
    assert first.executable.stat().st_mtime_ns == made
    assert copier_build(8, trace=True).key != first.key
    assert first.path == verilator.build_root() / "verilator" / first.key


def test_parallel_builds_share_one(tmp_path):
    """Two processes ask for a build that does not exist; one compiles, both get it."""
    (tmp_path / "pyproject.toml").write_text("")  # not our tree: builds go to the working directory
    (tmp_path / "npu.v").write_text(copier_verilog(8))
    (tmp_path / "go.py").write_text(
        textwrap.dedent("""
        import os
        from pathlib import Path
        from fluidnpu.sim import verilator
        verilator.build_root = lambda: Path.cwd() / "build"
        b = verilator.build("shared", Path("npu.v"), data_bytes=8, native=False)
        print(b.key, (b.path / "complete").stat().st_mtime_ns, b.executable.stat().st_mtime_ns)
        """)
    )
    command = [sys.executable, "go.py"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=300)[0] for process in both]
    assert answers[0] and answers[0] == answers[1]
    assert len(list((tmp_path / "build" / "verilator").glob("*/complete"))) == 1


def test_parallel_verilog_is_whole(tmp_path):
    """Two processes generate the Verilog of the same NPU at once; both see all of it, nothing else is left."""
    (tmp_path / "go.py").write_text(
        textwrap.dedent("""
        import time
        from pathlib import Path
        from fluidnpu.hw.config import get_config
        from fluidnpu.sim import npu_build
        npu_build.build_root = Path.cwd
        npu_build.generate_verilog = lambda config: time.sleep(1) or "x" * 3_000_000
        path = npu_build.cached_verilog(get_config("tiny"))
        print(path, len(path.read_text()))
        """)
    )
    command = [sys.executable, "go.py"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=100)[0].split() for process in both]
    assert answers[0] == answers[1] and answers[0][1] == "3000000"
    assert [str(p) for p in (tmp_path / "verilog").iterdir()] == [answers[0][0]]


def test_missing_tools(monkeypatch, tmp_path):
    verilator.check_tools.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError) as error:
        verilator.check_tools()
    assert "g++ not found: install a C++17 compiler" in str(error.value)
    assert "make not found: install GNU make" in str(error.value)
    verilator.check_tools.cache_clear()


def test_bad_arguments():
    with pytest.raises(ValueError, match="data_bytes = 4: a bus of 8, 16 or 32 bytes is simulated"):
        verilator.build("x", "", data_bytes=4)
    with pytest.raises(ValueError, match="id_width = 9: 1 to 8 bits are simulated"):
        verilator.build("x", "", data_bytes=8, id_width=9)


def test_broken_verilog_shows_the_log():
    with pytest.raises(BuildError, match="syntax error"):
        verilator.build("broken", "module npu(; endmodule", data_bytes=8)


def test_failing_cocotb_tests_raise(copier_build, tmp_path, monkeypatch):
    (tmp_path / "two_tests.py").write_text(
        textwrap.dedent("""
        import cocotb
        from fluidnpu.sim.rtl_bench import RtlBench

        @cocotb.test
        async def good(dut):
            bench = RtlBench(dut)
            await bench.start()
            await bench.write(0, 1)

        @cocotb.test
        async def bad(dut):
            bench = RtlBench(dut)
            await bench.start()
            assert await bench.read(0) == 17
        """)
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    build = copier_build(16)
    with pytest.raises(SimulationError, match="copier16: 1 of 2 tests failed"):
        build.run("two_tests", directory=tmp_path / "run", timeout=60)
    assert build.run("two_tests", test_filter="good", directory=tmp_path / "run", timeout=60) == 1
    with pytest.raises(SimulationError, match="no test was found"):
        build.run("two_tests", test_filter="neither", directory=tmp_path / "run", timeout=60)
