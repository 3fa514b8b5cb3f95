"""The NPU between bus models of others: cocotbext-axi's AXI4-Lite master and AXI4 memory.

Runs in the simulator's process. The driver of sched/ works here as everywhere: the models are one more `Device`.
"""

import os
import pickle
import random
from dataclasses import dataclass
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from fluidnpu.hw.isa import Opcode, Status
from fluidnpu.sched.device import BusError, Device
from fluidnpu.sched.driver import Driver
from port_build import CASE, RESULT

__all__ = ["PAUSES", "Case", "PortDevice"]

PERIOD = 2  # nanoseconds
RESET_CYCLES = 8
MEMORY_BYTES = 1 << 20
PATIENCE = 1_000_000  # cycles of a case


def _random_pause(rng):
    while True:
        yield rng.random() < 0.5


def _slow(rng):
    while True:
        yield from (True, True, True, False)


def _bursts(rng):
    while True:
        yield from [False] * rng.randrange(1, 1500) + [True] * 500


PAUSES = {"none": None, "random": _random_pause, "slow": _slow, "burst": _bursts}


@dataclass(frozen=True, eq=False)
class Case:
    """``pauses``: of the memory's channels and of the host's, names of PAUSES. ``images``: bytes of input tensors.
    ``wrong``: (opcode, fields) of commands that are answered by ERROR."""

    seed: int
    pauses: str
    host_pauses: str
    program: object
    images: tuple
    wrong: tuple


class PortDevice(Device):
    """A Device of cocotbext-axi's models at the ports of ``dut``."""

    def __init__(self, dut, case):
        self.dut = dut
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "axil_"), dut.clk, dut.rst)
        self.ram = AxiRam(AxiBus.from_prefix(dut, "mem_"), dut.clk, dut.rst, size=MEMORY_BYTES)
        rng = random.Random(case.seed)
        write, read = self.bus.write_if, self.bus.read_if
        host = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        write, read = self.ram.write_if, self.ram.read_if
        memory = (write.aw_channel, write.w_channel, write.b_channel, read.ar_channel, read.r_channel)
        for channels, kind in ((host, case.host_pauses), (memory, case.pauses)):
            for channel in channels:
                if PAUSES[kind]:
                    channel.set_pause_generator(PAUSES[kind](random.Random(rng.random())))

    async def reset(self):
        self.dut.rst.value = 1
        await ClockCycles(self.dut.clk, RESET_CYCLES)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    async def submit(self, accesses):
        values = []
        for address, value in accesses:
            if value is None:
                done = await self.bus.read(address, 4)
                values.append(int.from_bytes(done.data, "little"))
            else:
                done = await self.bus.write(address, value.to_bytes(4, "little"))
                values.append(value)
            if done.resp:
                raise BusError(address, value is not None, int(done.resp), value or 0)
        return values

    async def wait(self, until_cycle=None):
        while not (high := bool(self.dut.irq.value)):
            left = None if until_cycle is None else until_cycle - await self.cycle()
            if left is not None and left <= 0:
                break
            rise = RisingEdge(self.dut.irq)
            await (rise if left is None else First(rise, Timer(left * PERIOD, unit="ns")))
        return high

    async def cycle(self):
        return round(cocotb.utils.get_sim_time("ns") / PERIOD)

    def read_memory(self, address, count):
        return np.frombuffer(bytes(self.ram.read(address, count)), np.uint8)

    def write_memory(self, address, content):
        self.ram.write(address, bytes(content))


async def _serve(device, case):
    """Everybody as soon as a slot is free. Returns completions by tag, and every tensor of every sample."""
    driver = Driver(device, memory_base=4096, memory_bytes=MEMORY_BYTES - 8192)
    await driver.start()
    await driver.load_program(case.program)
    guard = device.read_memory(0, 4096), device.read_memory(MEMORY_BYTES - 4096, 4096)
    for opcode, fields in case.wrong:
        await driver.command(Opcode(opcode), **fields)
    waiting, answers, ended, tensors = list(range(len(case.images))), [], {}, {}
    while len(ended) < len(case.images) or len(answers) < len(case.wrong):
        for slot, state in enumerate(driver.slots):
            if waiting and state.tag is None:
                tag = waiting.pop(0)
                await driver.admit(slot, case.images[tag], tag)
        await device.wait()
        for c in await driver.completions():
            if c.of_sample:
                ended[c.tag] = c
                names = [name for name in case.program.tensors if name != case.program.input_tensor]
                tensors[c.tag] = {name: driver.tensor(c.slot, name) for name in names}
            else:
                assert c.status == Status.ERROR, c
                answers.append(c)
    after = device.read_memory(0, 4096), device.read_memory(MEMORY_BYTES - 4096, 4096)
    assert all((a == b).all() for a, b in zip(guard, after, strict=True)), "guard bytes were written"
    counters = await driver.counters()
    return {"completions": ended, "tensors": tensors, "answers": answers, "counters": counters}


@cocotb.test
async def serve(dut):
    """The one test of a process: reads its case, writes its result."""
    case = pickle.loads(Path(os.environ[CASE]).read_bytes())
    Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
    device = PortDevice(dut, case)
    await device.reset()
    result = await with_timeout(_serve(device, case), PATIENCE * PERIOD, "ns")
    Path(os.environ[RESULT]).write_bytes(pickle.dumps(result))
