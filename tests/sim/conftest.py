"""Simulations of the test device (copier.py), one per bus width, built once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # also how the simulator's process finds copier.py


@pytest.fixture(scope="session")
def copier_build():
    """Function (data_bytes, options) -> Build of the copier."""
    from copier import copier_verilog
    from fluidnpu.sim.verilator import build

    verilog = {}

    def make(data_bytes, **options):
        text = verilog.setdefault(data_bytes, copier_verilog(data_bytes))
        return build(f"copier{data_bytes}", text, data_bytes=data_bytes, **options)

    return make
