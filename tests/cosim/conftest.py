"""Simulators of the whole NPU: one per configuration, built once and found again as long as hw/ does not change."""

import os
import sys
from pathlib import Path

import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.sim.npu_build import npu_build

sys.path.insert(0, str(Path(__file__).parent))  # also how the simulator's process finds npu_host.py


def _build(name):
    return npu_build(get_config(name))


@pytest.fixture(scope="session")
def tiny():
    """(configuration, simulator) of ``tiny``."""
    return get_config("tiny"), _build("tiny")


@pytest.fixture(scope="session")
def gemmini16():
    """(configuration, simulator) of ``gemmini16``."""
    return get_config("gemmini16"), _build("gemmini16")


@pytest.fixture(scope="session")
def edge():
    """(configuration, simulator) of ``edge``."""
    return get_config("edge"), _build("edge")


@pytest.fixture(scope="session")
def times():
    """How many times as many random cases as by default: FLUIDNPU_LONG=1 asks for many."""
    return 20 if os.environ.get("FLUIDNPU_LONG") else 1
