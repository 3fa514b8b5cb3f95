"""One group of samples through a network, on the cycle model or on the RTL: the run that its figures are made of.

Both do the same, register access for register access: the samples are admitted, may run from a commit at START_CYCLE
on, and the host listens again when the counters have been read.
"""

from dataclasses import dataclass

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import ArrayEvent, EngineEvent, Opcode
from fluidnpu.sched.driver import Driver

from ..cycle.device import CycleDevice, run_now
from ..cycle.replay import first_difference
from ..memory import IDEAL
from ..replay import ENGINE_PORT
from ..rtl_device import RtlDevice
from ..rtl_progress import reporting
from ..session import memory_bytes_for
from ..simulate import run_in_simulator

__all__ = ["START_CYCLE", "GroupRun", "ModelDiffers", "check_on_rtl", "run_group", "started_tiles"]

START_CYCLE = 4000


class ModelDiffers(AssertionError):
    """The RTL did not do what the cycle model says; the message has the first difference."""


@dataclass(frozen=True, eq=False)
class GroupRun:
    """What a group did.

    events : every trace event (rtl_shared.EVENT); tiles : of `started_tiles`
    begin : cycle of the commit; end : cycle in which the last write response was taken
    ends : dict pc -> cycle of the layer's last MAC, in the order of cycles
    counters : isa.COUNTERS up to and with these cycles: begin, every one of ``ends``, end
    """

    events: np.ndarray
    tiles: list
    begin: int
    ends: dict
    end: int
    counters: list


def started_tiles(events):
    """Tiles in the order in which they ran: dicts with pc, rows, log2_kr, log2_kd, leader, first, last, ctiles and
    fragments.

    first, last : cycles of the first and last MAC row; ctiles : cycles of each c-tile's first row; fragments : tuples
    (slot, first line, lines, sub-tile)
    """
    dealt, fragments, waiting, tiles = {}, [], [], []
    columns = (events[name].tolist() for name in ("cycle", "source", "kind", "slot", "pc", "line", "data"))
    for cycle, source, kind, slot, pc, line, data in zip(*columns, strict=True):
        if source == ENGINE_PORT:
            if kind == EngineEvent.FRAGMENT:
                fragments.append((slot, line, data & 0xFFFF, data >> 16))
            elif kind == EngineEvent.DEAL:
                dealt[line] = {"pc": pc, "fragments": fragments, "leader": slot}
                fragments = []
            elif kind == EngineEvent.START:
                waiting.append(dealt.pop(line))
        elif kind == ArrayEvent.TILE:
            size = {"rows": data & 0xFFFF, "log2_kr": data >> 16 & 15, "log2_kd": data >> 20}
            tiles.append(waiting.pop(0) | size | {"first": cycle, "ctiles": [cycle]})
        elif kind == ArrayEvent.CTILE:
            tiles[-1]["ctiles"].append(cycle)
        elif kind == ArrayEvent.END:
            tiles[-1]["last"] = cycle
    return tiles


def run_group(config, program, live, *, exits=0, memory=IDEAL, unstacked=False):
    """GroupRun of ``live`` samples on the cycle model; no sample leaves early.

    exits : mask of the exits whose heads are computed (0: heads are jumped over). Raises ValueError if ``live`` is not
    within 1..slots.
    """
    if not 1 <= live <= config.slots:
        raise ValueError(f"{live} samples at a time: {config.name} has slots for 1..{config.slots}")
    size = memory_bytes_for(program, config.slots)
    way = {"program": program, "size": size, "live": live, "exits": exits, "unstacked": unstacked}
    events = run_now(_run(CycleDevice(config, memory, size), _no_samples, **way))["events"]
    tiles, begin, ends, end = _moments(events)
    exact = run_now(_run(CycleDevice(config, memory, size), _exact, samples=[begin, *ends.values(), end], **way))
    return GroupRun(events, tiles, begin, ends, end, exact["counters"][:-1])


def check_on_rtl(build, config, program, live, run, *, exits=0, memory=IDEAL, unstacked=False, progress=None):
    """Repeat a GroupRun on the RTL: every event in its cycle (but class and S of decisions), every counter wherever a
    layer ends. Else ModelDiffers.

    Layers that end before the copy of the counters at the layer before was read are looked at with the next one.
    progress : rtl_progress.CycleProgress, which must be open, or None
    """
    size = memory_bytes_for(program, config.slots)
    way = {"program": program, "size": size, "live": live, "exits": exits, "unstacked": unstacked}
    samples = list(run.ends.values())
    expected = run_now(_run(CycleDevice(config, memory, size), _through_the_bus, samples=samples, **way))
    ticks = progress.ticks if progress else None
    found = run_in_simulator(
        build, run_in_rtl, memory=memory, samples=samples, watchdog=2 * run.end + 100_000, ticks=ticks, **way
    )
    where = f"{program.name} on {config.name}, {live} live"
    if difference := first_difference(_without_answers(found["events"]), _without_answers(expected["events"])):
        raise ModelDiffers(f"{where}: first difference (RTL, cycle model) {difference}")
    for rtl, model in zip(found["counters"], expected["counters"], strict=True):
        if rtl != model:
            wrong = {name: (rtl[name], model[name]) for name in rtl if rtl[name] != model[name]}
            raise ModelDiffers(f"{where}: counters (RTL, cycle model) at cycle {model['cycle']}: {wrong}")


def _without_answers(events):
    """The events without class and S of decisions, which the model does not compute."""
    events = events.copy()
    decided = (events["source"] == ENGINE_PORT) & (events["kind"] == EngineEvent.EXIT_RESULT)
    events["data"][decided] &= 0xFFFF0000
    events["data2"][decided] = 0
    return events


async def run_in_rtl(bench, *, memory, watchdog, ticks, **way):
    """The part of `check_on_rtl` that runs in the simulator."""
    await bench.start(memory, memory_bytes=way["size"], watchdog=watchdog)
    with reporting(bench, ticks):
        return await _run(RtlDevice(bench), _through_the_bus, events=bench.events, **way)


def _moments(events):
    """(tiles, begin, ends, end) of a group's events."""
    engine = events[events["source"] == ENGINE_PORT]
    tiles, last = started_tiles(events), {}
    for tile in tiles:
        last[tile["pc"]] = tile["last"]
    commit = (engine["kind"] == EngineEvent.COMMAND) & (engine["data"] == Opcode.BATCH)
    retired = engine["cycle"][engine["kind"] == EngineEvent.RETIRE]
    return tiles, int(engine["cycle"][commit].max()), dict(sorted(last.items(), key=lambda i: i[1])), int(retired.max())


async def _run(device, observe, *, program, size, live, exits, unstacked, samples=(), events=None):
    """One group on any Device; ``observe``: coroutine (device, driver, samples) -> list of counters."""
    driver = Driver(device, memory_bytes=size)
    await driver.start(unstacked=unstacked, interrupt_enable=False)
    await driver.load_program(program)
    for e in range(len(program.exits)):
        await driver.limit(0, e, isa.LIMIT_NEVER)
    place = program.tensors[program.input_tensor]
    image = bytes(place.height * place.line_beats * program.bus_bytes)
    for slot in range(live):
        await driver.admit(slot, image, slot, runnable=False, exits=exits)
    await device.wait(START_CYCLE)
    await driver.batch((1 << live) - 1)
    counters = await observe(device, driver, samples)
    await driver.control(unstacked=unstacked)
    ended = 0
    while ended < live:
        await device.wait()
        ended += len(await driver.completions())
    counters.append({"cycle": await device.cycle()} | await driver.counters())
    return {"events": (events or device.events)(), "counters": counters}


async def _no_samples(device, driver, samples):
    return []


async def _exact(device, driver, samples):
    """On the cycle model: the counters themselves."""
    counters = []
    for cycle in samples:
        device.model.run(cycle + 1)
        counters.append(device.model.counters())
    await device.wait(device.model.cycle)  # the host is as far
    return counters


async def _through_the_bus(device, driver, samples):
    """Copies of the counters as a host gets them, at each of ``samples`` that is still to come."""
    counters = []
    for cycle in samples:
        if await device.cycle() <= cycle:
            await device.wait(cycle)
            counters.append({"cycle": cycle} | await driver.counters())
    return counters
