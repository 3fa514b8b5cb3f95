"""Where the tests find report_runs.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
