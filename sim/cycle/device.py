"""The cycle model as a `sched.Device`: same registers, same cycles of every access as sim/rtl/host.sv."""

import numpy as np
from fluidnpu.sched.device import BusError, Device

from ..memory import IDEAL
from ..rtl_shared import EVENT, TRANSACTION
from .model import CycleModel
from .registers import RegisterFile
from .state import NEVER
from .values import NoValues, ReferenceValues

__all__ = ["CycleDevice", "ModelStopped", "run_now"]

ACCEPTED, PERFORMED, WRITTEN = 1, 2, 3  # cycles from the issue of a write to its handshake, effect and response
SAMPLED, READ = 3, 4  # from the issue of a read to its sample and response


class ModelStopped(RuntimeError):
    """The host waits for an interrupt that cannot come, or the cycle limit of the run is reached."""


def run_now(coroutine):
    """Result of a coroutine that waits for nothing outside of the model: every await in it returns at once."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise RuntimeError("a coroutine waited for something that is not a CycleDevice")


class CycleDevice(Device):
    """An NPU of ``config`` and its external memory.

    Parameters
    ----------
    config, settings : NpuConfig, MemorySettings (NotModelled for those that the model does not cover)
    memory_bytes : size of external memory, a multiple of 4
    values : where tensors and decisions come from (values.py)
    jumps, record : as CycleModel; without ``record`` register accesses are not kept either, and ``values`` may not be
        ReferenceValues, which follow the events
    watchdog : cycle at which every wait raises ModelStopped

    ``wakes`` : how often the host slept and woke
    """

    def __init__(
        self, config, settings=IDEAL, memory_bytes=64 << 20, values=None, watchdog=1 << 40, jumps=True, record=True
    ):
        if not record and isinstance(values, ReferenceValues):
            raise ValueError("the cycle model cannot follow tensors without recording its events (record=False)")
        self.memory = np.zeros(memory_bytes, np.uint8)
        self.values = values or NoValues()
        self.values.connect(self.memory)
        self.model = CycleModel(config, settings, self.memory, self._answer, jumps, record)
        self._registers = RegisterFile(self.model)
        self._watchdog = watchdog
        self._now = 0
        self._issue = 0  # cycle of the next register access
        self._followed = 0
        self._transactions, self._record = [], record
        self.wakes = 0

    def _follow(self):
        """The values catch up with what the engine did."""
        events = self.model.new_events(self._followed)
        self._followed += len(events)
        self.values.follow(self.model, events)

    def _answer(self, slot, program, exit):
        self._follow()
        return self.values.answer(self.model, slot, program, exit)

    async def submit(self, accesses):
        answers, wrong = [], None
        for address, value in accesses:
            at = self._issue
            if value is None:
                response, data = self._registers.read(at + SAMPLED, address)
                self._issue = at + READ
            else:
                response, data = self._registers.write(at + PERFORMED, address, value)
                self._issue = at + WRITTEN
            if self._record:
                self._transactions.append((value is not None, address, data, response, at + ACCEPTED))
            answers.append(data)
            if response and wrong is None:
                wrong = BusError(address, value is not None, response, data)
        if answers:
            self.wakes += 1
            self._now = self._issue
            self._issue += 1
        if wrong is not None:
            raise wrong
        return answers

    async def wait(self, until_cycle=None):
        self.model.run(self._now)
        if self._irq():
            return True
        if until_cycle is not None and until_cycle <= self._now:
            return False
        self.wakes += 1
        limit = min(NEVER if until_cycle is None else until_cycle, self._watchdog)
        self.model.run(limit, irq=self._registers.interrupt)
        self._now = self.model.cycle
        self._issue = self._now + 1
        if self._irq():
            return True
        if self._now != until_cycle:
            raise ModelStopped(f"cycle {self._now}: the limit is reached, or nothing can happen any more")
        return False

    async def busy(self, cycles):
        if cycles:
            self._now += cycles
            self._issue = self._now + 1

    def _irq(self):
        return self._registers.interrupt and self.model.state.c_level > 0

    async def cycle(self):
        return self._now

    def read_memory(self, address, count):
        self._check(address, count)
        self.model.run(self._now)
        self._follow()
        return self.memory[address : address + count].copy()

    def write_memory(self, address, content):
        content = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
        self._check(address, len(content))
        self.model.run(self._now)
        self._follow()
        self.model.memory_written(address, len(content))
        self.memory[address : address + len(content)] = content

    def finish(self, cycles):
        """Go on for a number of cycles without the host."""
        self.model.run(self._now)
        self._now += cycles
        self.model.run(self._now)
        self._issue = self._now + 1

    def events(self):
        """Trace events since reset, as RtlBench.events."""
        found = self.model.events()
        events = np.zeros(len(found), EVENT)
        for name in found.dtype.names:
            events[name] = found[name]
        return events

    def transactions(self):
        """Every register access since reset, as RtlBench.transactions (of its cycles only ``accepted``)."""
        names = ("write", "address", "data", "response", "accepted")
        found = np.zeros(len(self._transactions), TRANSACTION)
        for name, values in zip(names, zip(*self._transactions, strict=True), strict=False):
            found[name] = values
        return found

    def _check(self, address, count):
        if not 0 <= address <= address + count <= self.memory.size:
            raise ValueError(
                f"memory {address:#x} .. {address + count - 1:#x} is not within the {self.memory.size} bytes"
            )
