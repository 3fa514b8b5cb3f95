"""What a run of all benchmarks has measured so far, in a folder: results.json, benchmarks.md, index.html."""

import json
from datetime import UTC, datetime

from .pages import Section, markdown, write_page

__all__ = ["PARTS", "Results"]

# In the order of docs/benchmarks.md
PARTS = ("workloads", "layers", "ablation", "preemption", "speed", "whole", "stacking")
TITLE = "Benchmarks"
INTRO = """\
Written by `make bench` (a copy of build/bench/benchmarks.md; beside it index.html with pictures, results.json, and a
folder of CSV files and pictures for every workload). Every section names the command that measures it again.

*Useful MACs* = output pixels x out_channels x kh*kw*in_channels of the network file; *MAC utilisation* = useful MACs /
(pes x lanes x cycles), cycles from the commit that lets the samples run to the last write response; *ideal memory* = 32
cycles to read data, 16 to the write response, one beat per cycle each way; *limited memory* = half of the beats, and 2
cycles per burst. Cycles by cause come from the NPU's counters. A layer's cycles run from the last MAC of the layer
before to its own last MAC.

Cycle counts repeat exactly. They come from the cycle model, which equals the RTL cycle for cycle; with `--rtl` the same
runs on the RTL, and an event or a counter that differs is an error.
"""


class Results:
    """Sections and numbers by part; written to ``folder`` with every change.

    ``fresh``: forget what an earlier run has left there.
    """

    def __init__(self, folder, fresh=True):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._path = folder, folder / "results.json"
        self._parts = {}
        if not fresh and self._path.exists():
            self._parts = json.loads(self._path.read_text())["parts"]

    def put(self, part, sections, data):
        """The figures of a part so far: Sections, and JSON-able numbers."""
        self._parts[part] = {"sections": [s.as_dict() for s in sections], "data": data}
        said = {"written": datetime.now(UTC).isoformat(timespec="seconds"), "parts": self._parts}
        self._path.write_text(json.dumps(said, indent=1) + "\n")
        sections = self.sections()
        text = f"# {TITLE}\n\n" + INTRO + "\n" + markdown(sections)
        (self.folder / "benchmarks.md").write_text(text)
        write_page(self.folder / "index.html", TITLE, [], sections)

    def sections(self):
        """Every Section, in the order of PARTS."""
        raw = [s for part in PARTS if part in self._parts for s in self._parts[part]["sections"]]
        return [Section.of_dict(section) for section in raw]
