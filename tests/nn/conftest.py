"""Tests of this folder share modules: reference_kernels.py, random_net.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
