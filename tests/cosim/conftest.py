"""Simulators of the whole NPU: one per configuration, built once and found again as long as hw/ does not change."""

import os
import sys
from pathlib import Path

import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.sim.npu_build import npu_build

sys.path.insert(0, str(Path(__file__).parent))  # also how the simulator's process finds npu_host.py


@pytest.fixture(scope="session")
def tiny():
    """(configuration, simulator) of ``tiny``."""
    config = get_config("tiny")
    return config, npu_build(config)


@pytest.fixture(scope="session")
def times():
    """How many times as many random cases as by default: FLUIDNPU_LONG=1 asks for many."""
    return 20 if os.environ.get("FLUIDNPU_LONG") else 1
