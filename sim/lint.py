"""Verilator's lint of the generated Verilog; what is waived, and why, stands in rtl/lint.vlt."""

import os
import subprocess
import tempfile
from pathlib import Path

from .verilator import RTL, check_tools

__all__ = ["WAIVERS", "lint_verilog"]

WAIVERS = RTL / "lint.vlt"


def lint_verilog(text, waivers=WAIVERS):
    """Verilator's complaints about Verilog (module ``npu``) with all warnings on; an empty text if there are none.

    waivers : file of lint_off directives, None for none. Raises ToolError without Verilator.
    """
    path = check_tools()
    with tempfile.TemporaryDirectory(prefix="fluidnpu-lint-") as folder:
        source = Path(folder) / "npu.v"
        source.write_text(text)
        command = ["verilator", "--lint-only", "-Wall", "-Wpedantic", "--top-module", "npu"]
        result = subprocess.run(
            [*command, *([str(waivers)] if waivers else []), str(source)],
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode or "%Warning" in result.stderr or "%Error" in result.stderr:
        return result.stderr or result.stdout or f"verilator ended with code {result.returncode}\n"
    return ""
