"""Groups of all sizes through programs, on any Device: what test_cycle_layers.py compares."""

from fluidnpu.sched.driver import Driver
from fluidnpu.sim.measured_latency import run_groups
from fluidnpu.sim.rtl_device import RtlDevice

__all__ = ["groups_on", "groups_on_rtl"]


async def groups_on(device, all_events, size, program, slots):
    """(events of each group of 1 .. ``slots`` samples, the counters behind them)."""
    runs = await run_groups(device, all_events, size, program=program, live=range(1, slots + 1), unstacked=False)
    return runs, await Driver(device, memory_bytes=size).counters()


async def groups_on_rtl(bench, memory, size, programs, slots):
    """`groups_on` for each program, in the simulator."""
    found = []
    for program in programs:
        await bench.start(memory, memory_bytes=size)
        found.append(await groups_on(RtlDevice(bench), bench.events, size, program, slots))
    return found
