"""Cycles of every operation for every number of samples, measured on the RTL or the cycle model: what policies plan
with."""

import hashlib

import numpy as np
from fluidnpu.hw.isa import LIMIT_NEVER, PC_INDEX_BITS, EngineEvent, Opcode
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.latency import LatencyTable

from .cycle.device import CycleDevice, run_now
from .memory import IDEAL
from .replay import ENGINE_PORT
from .rtl_device import RtlDevice
from .session import memory_bytes_for
from .simulate import run_in_simulator
from .verilator import build_root

__all__ = ["cached_latency", "measure_latency", "operation_cycles", "run_groups"]

_INDEX_MASK = (1 << PC_INDEX_BITS) - 1


def measure_latency(build, config, program, memory=IDEAL, unstacked=False, live=None):
    """LatencyTable of ``program``: for n = 1 .. slots, n samples go through all operations together.

    T[l][n] is the time from the moment in which operation l - 1 is complete for all of them to the moment in which l
    is; the times of a run add up to the whole. A JUMP takes no time of its own. ``build``: the RTL's simulator; None:
    the cycle model, which gives the same.

    live : the n that are measured, 1 and the slots among them (default: all); what lies between is interpolated
    """
    live = list(range(1, config.slots + 1)) if live is None else sorted(live)
    if live[0] != 1 or live[-1] != config.slots:
        raise ValueError(f"measured for {live} samples: 1 and {config.slots}, the slots, must be among them")
    # The first sample after reset finds neither descriptors nor exit tables in the NPU: it does not count.
    arguments = {"program": program, "live": [1, *live], "unstacked": unstacked}
    size = memory_bytes_for(program, config.slots)
    if build is None:
        device = CycleDevice(config, memory, size)
        runs = run_now(run_groups(device, device.events, size, **arguments))
    else:
        runs = run_in_simulator(build, measure_in_simulator, memory=memory, size=size, **arguments)
    measured = np.array([operation_cycles(program, events) for events in runs[1:]], float)
    table = np.zeros((len(program.ops), config.slots + 1))
    for row, cycles in zip(table, measured.T, strict=True):
        row[1:] = np.interp(np.arange(1, config.slots + 1), live, cycles)
    where = "cycle model" if build is None else "RTL"
    return LatencyTable(table, tuple(op.name for op in program.ops), f"measured on the {where} of {config.name}")


def operation_cycles(program, events):
    """Cycles of every operation from the events of one group's way through the whole program."""
    events = events[events["source"] == ENGINE_PORT]
    done = events[(events["kind"] == EngineEvent.DONE) & (events["line"] == 0)]
    decided = events[events["kind"] == EngineEvent.EXIT_RESULT]
    begin = events[(events["kind"] == EngineEvent.COMMAND) & (events["data"] == Opcode.BATCH)]["cycle"].max()
    cycles, now = [], int(begin)
    for i, op in enumerate(program.ops):
        if op.op == "EXIT":
            times = decided["cycle"][(decided["data"] >> 20 & 15) == op.exit]
        elif op.op == "JUMP":
            times = []
        else:
            times = done["cycle"][(done["pc"] & _INDEX_MASK) == i + 1]
        end = max([now, *map(int, times)])
        cycles.append(end - now)
        now = end
    return cycles


async def measure_in_simulator(bench, memory, size, **arguments):
    """The part of `measure_latency` that runs in the simulator."""
    await bench.start(memory, memory_bytes=size)
    return await run_groups(RtlDevice(bench), bench.events, size, **arguments)


async def run_groups(device, all_events, size, program, live, unstacked):
    """Events of the runs with each of the numbers ``live`` of samples, heads computed, nobody leaves early.

    all_events : function, every event of the device so far
    """
    driver = Driver(device, memory_bytes=size)
    await driver.start(unstacked=unstacked)
    await driver.load_program(program)
    for e in range(len(program.exits)):
        await driver.limit(0, e, LIMIT_NEVER)
    place = program.tensors[program.input_tensor]
    image = np.zeros(place.height * place.line_beats * program.bus_bytes, np.uint8)
    runs = []
    for n in live:
        first = len(all_events())
        for slot in range(n):
            await driver.admit(slot, image, slot, runnable=False)
        await driver.batch((1 << n) - 1)
        ended = 0
        while ended < n:
            await device.wait()
            ended += len(await driver.completions())
        runs.append(all_events()[first:])
    return runs


def cached_latency(build, config, program, memory=IDEAL, unstacked=False):
    """`measure_latency`, kept in the build folder for the same simulator, program and memory."""
    if build is None:
        return measure_latency(None, config, program, memory, unstacked)
    exact = repr((build.key, program.to_bytes(), memory, unstacked)).encode()
    folder = build_root() / "latency"
    path = folder / f"{config.name}-{hashlib.sha256(exact).hexdigest()[:20]}.json"
    if path.exists():
        return LatencyTable.load(path)
    table = measure_latency(build, config, program, memory, unstacked)
    folder.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return table
