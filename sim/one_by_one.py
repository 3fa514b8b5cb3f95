"""What ``fluidnpu run`` does: images through the whole network on the RTL, one after the other, every value checked."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from .bench.group import run_group
from .npu_build import bare_build, npu_build
from .options import telling
from .rtl_progress import CycleProgress
from .session import Setup, serve_trace
from .speed import compare_speed, recording_folder, run_bare
from .study import InputError, limits_of, load_program, read_images
from .tables import answers_table
from .traffic import LEAD_IN, make_trace

__all__ = ["run_images"]


def run_images(
    config, network, images, first, count, *, rounding, thresholds, memory, waves, console, seed=1, bare=False, out=None
):
    """Send images through the network one by one and print what every exit says; returns (RunRecord, SpeedReport or
    None).

    network, images : paths; images None: ``count`` random ones of ``seed``; first, count : which of the file
    bare : repeat the run in Verilator without Python and compare the speeds; out : JSON file of figures
    Raises WrongAnswer if a value differs from the integer reference, AssertionError if the bare run is another one.
    """
    with telling(console) as tell:
        tell(f"compiling {network} for {config.name}")
        net, program = load_program(config, network, (2.0,), rounding, tell)
        limits = limits_of(thresholds, len(net.ends))
        x, y = _images(images, net.input.shape, first, count, seed)
        build = npu_build(config, trace=waves is not None, status=tell)
        without = bare_build(config, status=tell) if bare else None
        tell(f"cycle model: how long {program.name} takes")
        everything = (1 << len(program.exits)) - 1
        alone = run_group(config, program, 1, exits=everything, memory=memory)
        setup = Setup(config, build, net, program, memory=memory)
        trace = make_trace("one by one", [0] * count, x, y, shuffle=False)
        path = Path("waves.vcd") if waves else None
    total = LEAD_IN + count * (alone.end - alone.begin)
    with recording_folder() if bare else nullcontext() as folder:
        options = {"waves": (path, *waves) if waves else None, "recording": folder / "recording" if bare else None}
        with CycleProgress(console, f"{program.name} on {config.name}", total) as progress:
            record = serve_trace(setup, trace, "serial", ticks=progress.ticks, **options)
        speed = _compare(console, record, without, folder) if bare else None
    _say(console, program, record, limits, first)
    cycles = [r.completed - r.admitted for r in sorted(record.results, key=lambda r: r.id)]
    console.print(
        f"{record.cycles:,} cycles in {record.seconds:.0f} s, {record.cycles / record.seconds / 1e3:,.0f} k cycles/s"
    )
    if speed:
        console.print(str(speed), soft_wrap=True)
    if path:
        console.print(f"Waves: {path}")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        said = {"network": program.name, "config": config.name, "images": count, "cycles": cycles}
        said |= {"seconds": record.seconds, "speed": speed.as_dict() if speed else None}
        out.write_text(json.dumps(said, indent=1) + "\n")
    if speed and not speed.same:
        raise AssertionError("the run without Python did something else")
    return record, speed


def _images(path, shape, first, count, seed):
    if path is None:
        return np.random.default_rng(seed).integers(-128, 128, (count, *shape)).astype(np.int8), None
    x, y = read_images(path, shape)
    if first + count > len(x):
        raise InputError(f"images {path}: {len(x)} images, number {first + count - 1} is not among them")
    chosen = slice(first, first + count)
    return x[chosen], None if y is None else y[chosen]


def _compare(console, record, bare, folder):
    with telling(console) as tell:
        tell("the same run in Verilator without Python")
        return compare_speed([record.facts], [run_bare(bare, folder / "recording")])


def _say(console, program, record, limits, first):
    if program.has_no_exits:
        for r in record.results:
            console.print(f"image {first + r.id}: {r.completed - r.admitted:,} cycles")
        console.print(f"Every value of {', '.join(program.outputs)} equals the integer reference bit for bit.")
        return
    console.print(answers_table(record, limits, {r.id: f"{first + r.id}" for r in record.results}))
    console.print("Every class, S and logit equals the integer reference bit for bit.")
