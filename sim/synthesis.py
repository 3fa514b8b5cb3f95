"""Synthesis check: what the NPU costs on an FPGA, and what run-time stacking adds to that.

Yosys maps each configuration to Xilinx 7-series cells (no place and route), as it is and with ``max_stack`` = 1.
The blocks of the NPU (hw/npu.py) are synthesised one by one, flattened inside; a module with REPEATED or more equal
instances (the PEs) is synthesised once and multiplied. So nothing is optimised across those borders: the sums are
a little above those of a flat run, on both sides of the comparison alike. Results are kept under build/synth by the
hash of the RTL and of the script. A large module that both sides have alike is synthesised once, too: the noise of
the mapping, a percent and more, would otherwise drown the difference. Seven minutes of processor time from nothing.

    python -m fluidnpu.sim.synthesis                    what `make synth-check` runs
    python -m fluidnpu.sim.synthesis --update           accept the figures as the new golden ones
    python -m fluidnpu.sim.synthesis --detail array     also the parts of a block, each on its own
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

from amaranth.back import rtlil
from fluidnpu.hw.config import ConfigError, get_config
from fluidnpu.hw.npu import Npu
from fluidnpu.sim.synthesis_flow import RESOURCES, Design, SynthesisError, Yosys, synthesise

__all__ = ["GOLDEN", "TARGET", "TOLERANCE", "compare", "main", "measure", "ratios", "total"]

GOLDEN = Path(__file__).with_name("synthesis_golden.json")
TOLERANCE = 0.05  # of a figure against the golden one
TARGET = ("edge", 1.08)  # stacking may cost this configuration 8 % more LUTs, and no multiplier


def total(blocks):
    """Sum of the resources of all blocks."""
    return {name: sum(block[name] for block in blocks.values()) for name in RESOURCES}


def ratios(stackable, single):
    """Resources of the stackable NPU per resource of the one with ``max_stack`` = 1; nothing per nothing is 1."""
    return {name: (stackable[name] / single[name] if single[name] else 1.0) for name in RESOURCES}


def measure(config, yosys, jobs=1, detail=()):
    """Blocks of a configuration: {"stackable": block -> resources, "max_stack 1": block -> resources}.

    ``detail``: names of blocks of the NPU ("array") whose parts become blocks.
    """
    designs = {}
    for side, variant in (("stackable", config), ("max_stack 1", config.unstackable())):
        designs[side] = Design(rtlil.convert(Npu(variant), name="npu", emit_src=False), "npu")
    hashes = [{design.hash(module) for module in design.bodies} for design in designs.values()]
    apart = [f"npu.{name}" for name in detail]
    sides = {}
    for side, design in designs.items():
        for name in apart:
            if name not in design.children["npu"]:
                blocks = ", ".join(sorted(n.removeprefix("npu.") for n in design.children["npu"]))
                raise SynthesisError(f"there is no block {name.removeprefix('npu.')!r}; there are {blocks}")
        title = f"{config.name}, {side}"
        sides[side] = synthesise(design, yosys, jobs, apart, set.intersection(*hashes), title)
    return sides


def compare(name, measured, golden):
    """Lines of what is more than TOLERANCE off. Parameters: configuration; name of a row -> figures, twice."""
    if not golden:
        return [f"{name}: no golden figures; --update writes them"]
    lines = []
    for row, figures in measured.items():
        for resource, figure in figures.items():
            wanted = golden.get(row, {}).get(resource)
            if wanted is None:
                lines.append(f"{name} {row}: no golden figure for {resource}")
            elif abs(figure - wanted) > TOLERANCE * wanted:
                lines.append(f"{name} {row}: {resource} {figure:g}, golden {wanted:g}: more than {TOLERANCE:.0%} off")
    return lines


def _rows(sides):
    """Figures that have golden ones: totals of both sides and their ratios."""
    totals = {side: total(blocks) for side, blocks in sides.items()}
    rounded = {name: round(value, 4) for name, value in ratios(*totals.values()).items()}
    return {**totals, "ratio": rounded}


def _print_rows(name, rows, golden):
    print(f"\n{name:<14}{'':<10}" + "".join(f"{resource:>10}" for resource in RESOURCES))
    for row, figures in rows.items():
        wanted = golden.get(row, {})
        form = "{:>10.3f}" if row == "ratio" else "{:>10g}"
        print(f"{row:<24}" + "".join(form.format(figures[n]) for n in RESOURCES))
        if wanted:
            off = [figures[n] / wanted[n] - 1 if wanted[n] else float(figures[n] != 0) for n in RESOURCES]
            print(f"{'':<14}{'golden':<10}" + "".join(form.format(wanted[n]) for n in RESOURCES))
            print(f"{'':<14}{'off':<10}" + "".join(f"{value:>+10.1%}" for value in off))


def _families(blocks):
    """Blocks whose names differ in numbers only are summed up: family -> resources."""
    families = {}
    for name, figures in blocks.items():
        family = re.sub(r"(_\d+)+$", "_*", re.sub(r"\$\d+", "", name))
        sums = families.setdefault(family, dict.fromkeys(RESOURCES, 0))
        for resource in RESOURCES:
            sums[resource] += figures[resource]
    return families


def _print_blocks(sides):
    """Where the price of stacking lies: blocks side by side, LUTs added as a share of all LUTs of max_stack 1."""
    stackable, single = map(_families, sides.values())
    all_luts = total(single)["LUT"]
    nothing = dict.fromkeys(RESOURCES, 0)
    print(f"\n  {'block':<24}" + "".join(f"{n:>8}{'max 1':>7}" for n in RESOURCES) + f"{'LUT added':>11}{'of all':>8}")
    for block in dict.fromkeys([*stackable, *single]):
        a, b = stackable.get(block, nothing), single.get(block, nothing)
        added = a["LUT"] - b["LUT"]
        line = "".join(f"{a[n]:>8g}{b[n]:>7g}" for n in RESOURCES)
        print(f"  {block:<24}{line}{added:>+11g}{added / all_luts:>+8.1%}")


def main(argv=None):
    """Command line; returns the exit status: 0, 1 (a figure is off), 2 (not synthesizable, or a wrong argument)."""
    parser = argparse.ArgumentParser(prog="fluidnpu.sim.synthesis", description=__doc__.split("\n")[0])
    parser.add_argument("--config", action="append", help="configuration, several times; default tiny and edge")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="Yosys runs at the same time")
    parser.add_argument("--folder", default="build/synth", help="kept results and logs")
    parser.add_argument("--detail", action="append", default=[], help="block whose parts are synthesised apart, too")
    parser.add_argument("--update", action="store_true", help="make the figures the golden ones")
    arguments = parser.parse_args(argv)
    if arguments.jobs < 1:
        parser.error(f"--jobs {arguments.jobs} is not at least 1")
    start, off = time.monotonic(), []
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    try:
        yosys = Yosys(arguments.folder)
        for name in arguments.config or ("tiny", "edge"):
            config = get_config(name)
            sides = measure(config, yosys, arguments.jobs)
            rows, wanted = _rows(sides), golden.get(name, {})
            _print_rows(name, rows, wanted)
            _print_blocks(sides)
            if arguments.detail:
                _print_blocks(measure(config, yosys, arguments.jobs, arguments.detail))
            if name == TARGET[0]:
                ratio = rows["ratio"]
                met = ratio["LUT"] <= TARGET[1] and ratio["DSP"] <= 1
                print(f"\ntarget on {name}: LUT ratio at most {TARGET[1]}, no more DSPs: {'met' if met else 'MISSED'}")
            off += compare(name, rows, wanted)
            golden[name] = rows
    except (SynthesisError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.update:
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
        print(f"wrote {GOLDEN.name}")
        off = []
    print("\n".join(["", *off, f"{'off' if off else 'as expected'}, {time.monotonic() - start:.0f} s"]))
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
