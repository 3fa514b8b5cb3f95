"""The NPU's RTL in a simulator as a `sched.Device`."""

import numpy as np
from fluidnpu.hw.isa import COMMAND_WORDS, register_address
from fluidnpu.sched.device import BusError, Device

from . import rtl_bench
from .rtl_bench import Transaction

__all__ = ["RtlDevice", "accepted_commands"]

MOST_OPCODE = 255  # a larger doorbell value counts as this one, which is no opcode


class RtlDevice(Device):
    """A `Device` over an RtlBench that was started. Python is awake only at the ends of `submit` and `wait`."""

    def __init__(self, bench):
        self.bench = bench

    async def submit(self, accesses):
        try:
            done = await self.bench.transact(
                Transaction(value is not None, address, 0 if value is None else value) for address, value in accesses
            )
        except rtl_bench.BusError as error:
            t = error.transaction
            raise BusError(t.address, t.write, t.response, t.data) from error
        return [t.data for t in done]

    async def wait(self, until_cycle=None):
        return await self.bench.wait(until_cycle) == "irq"

    async def busy(self, cycles):
        await self.bench.wait(self.bench.cycle() + cycles, irq=False)

    async def cycle(self):
        return self.bench.cycle()

    def read_memory(self, address, count):
        self._check(address, count)
        return self.bench.memory[address : address + count].copy()

    def write_memory(self, address, content):
        content = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
        self._check(address, len(content))
        self.bench.write_memory(address, content)

    def _check(self, address, count):
        if not 0 <= address <= address + count <= self.bench.memory.size:
            raise ValueError(
                f"memory {address:#x} .. {address + count - 1:#x} is not within the {self.bench.memory.size} bytes"
            )


def accepted_commands(transactions):
    """The commands that the NPU's queue took, oldest first: (opcode, list of command words).

    transactions : register accesses since reset (RtlBench.transactions), from which the staged words are read: what
        the bus saw, not what the driver meant
    """
    first, doorbell = register_address("ARGUMENT"), register_address("DOORBELL")
    arguments = {register_address("ARGUMENT", i): i for i in range(COMMAND_WORDS)}
    words, commands = [0] * COMMAND_WORDS, []
    writes = transactions[(transactions["write"] == 1) & (transactions["response"] == 0)]
    for address, data in zip(writes["address"].tolist(), writes["data"].tolist(), strict=True):
        if first <= address <= doorbell:
            if address == doorbell:
                commands.append((min(data, MOST_OPCODE), list(words)))
            elif address in arguments:
                words[arguments[address]] = data
    return commands
