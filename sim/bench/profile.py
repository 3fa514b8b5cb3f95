"""Figures of every layer of a network, from the cycle model: what the RTL's counters would say, without RTL."""

from fluidnpu.hw import isa
from fluidnpu.hw.isa import CAUSES
from fluidnpu.sched.driver import Driver
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..cycle.device import CycleDevice, run_now
from ..memory import IDEAL
from ..session import memory_bytes_for
from .layers import START_CYCLE, figures_of

__all__ = ["profile", "profile_table"]


def profile(config, program, live, *, memory=IDEAL, unstacked=False):
    """Rows of `layers.figures_of` for ``live`` samples that begin together, heads jumped over.

    Raises ValueError if ``live`` is not within 1..slots.
    """
    if not 1 <= live <= config.slots:
        raise ValueError(f"{live} samples at a time: {config.name} has slots for 1..{config.slots}")

    def run(samples):
        return run_now(_run_group(config, program, live, memory, unstacked, samples))

    return figures_of(config, program, live, run)


async def _run_group(config, program, live, memory, unstacked, samples):
    size = memory_bytes_for(program, config.slots)
    device = CycleDevice(config, memory, size)
    driver = Driver(device, memory_bytes=size)
    await driver.start(unstacked=unstacked)
    await driver.load_program(program)
    for e in range(len(program.exits)):
        await driver.limit(0, e, isa.LIMIT_NEVER)
    place = program.tensors[program.input_tensor]
    image = bytes(place.height * place.line_beats * config.bus_bytes)
    for slot in range(live):
        await driver.admit(slot, image, slot, runnable=False, exits=0)
    await device.wait(START_CYCLE)
    await driver.batch((1 << live) - 1)
    counters = []
    for cycle in samples:
        device.model.run(cycle + 1)
        counters.append(device.model.counters())
    causes = [{cause: counter[f"cycles_{cause}"] for cause in CAUSES} for counter in counters]
    ended = 0
    while ended < live:
        await device.wait()
        ended += len(await driver.completions())
    return {"events": device.events(), "counters": causes}


def profile_table(rows, title):
    """The rows as a rich table, with their sum."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for name in ("layer", "kr x kd", "tiles", "cycles", "MAC use", "cycles by cause"):
        table.add_column(name, justify="right" if name in ("tiles", "cycles", "MAC use") else "left")

    def add(name, modes, group):
        cycles = sum(r["cycles"] for r in group)
        share = sum(r["cycles"] * r["utilisation"] for r in group) / cycles
        causes = {cause: sum(r["causes"][cause] for r in group) / cycles for cause in CAUSES}
        shown = ", ".join(f"{cause} {part:.0%}" for cause, part in causes.items() if part >= 0.005)
        table.add_row(name, modes, f"{sum(r['tiles'] for r in group):,}", f"{cycles:,}", f"{share:.1%}", shown)

    for row in rows:
        add(row["layer"], " ".join(row["modes"]), [row])
    table.add_section()
    add("all", "", rows)
    return table
