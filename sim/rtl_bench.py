"""The host's hands inside the simulator: registers, interrupt, time, memory, trace.

Python runs only at edges where it has something to do; between them the simulator runs alone. A wake-up happens in the
time step of a rising edge; what Python does then is seen by the design at the next edge.

Cycles: cycle n is the (n+1)-th rising edge with ``rst`` low; an NPU counter that is 0 after reset reads n there.
"""

import ctypes
import time
from dataclasses import dataclass
from pathlib import Path

import cocotb
import numpy as np
from cocotb.triggers import ValueChange

from .memory import IDEAL, MemoryStatistics, memory_view
from .rtl_shared import EVENT, NEVER, TRANSACTION, Operation, Reason, library, records

__all__ = ["BusError", "ProtocolError", "RtlBench", "Transaction", "WatchdogError"]

_RESPONSES = ("OKAY", "EXOKAY", "SLVERR", "DECERR")


class BusError(RuntimeError):
    """A register access was answered by an error response; ``transaction`` is the access."""

    def __init__(self, transaction):
        self.transaction = t = transaction
        kind = "write to" if t.write else "read of"
        super().__init__(f"{kind} register {t.address:#x} at cycle {t.accepted}: {_RESPONSES[t.response]}")

    def __reduce__(self):
        return BusError, (self.transaction,)


class ProtocolError(RuntimeError):
    """The design broke a rule of AXI; the message has the cycle."""


class WatchdogError(RuntimeError):
    """The cycle limit of the run is reached."""


@dataclass(frozen=True)
class Transaction:
    """A register access; cycles of ``issued`` (taken by the bus master), ``accepted`` (address and data handshake),
    ``done`` (response handshake). ``data``: written or read. ``response``: 0 OKAY, 2 SLVERR, 3 DECERR."""

    write: bool
    address: int
    data: int
    strobe: int = 0xF
    not_before: int = 0
    address_delay: int = 0
    data_delay: int = 0
    response_delay: int = 0
    issued: int = 0
    accepted: int = 0
    done: int = 0
    response: int = 0

    def _operation(self):
        fields = ("not_before", "address", "data", "strobe", "address_delay", "data_delay", "response_delay", "write")
        return Operation(**{name: getattr(self, name) for name in fields})


class RtlBench:
    """Access to the one design in this simulator process.

    ``memory``: numpy uint8 array, the external memory itself (replaced by ``start``).
    """

    def __init__(self, dut=None):
        self._wake = ValueChange((cocotb.top if dut is None else dut).wake)
        self._lib = library()
        self._control = self._lib.fluid_control().contents
        self._count = ctypes.c_uint64()
        self.memory = memory_view()
        self._recording = None
        self._image = None
        self._began = 0.0  # processor time at the first register access
        self._written = []  # (cycle, address, content) of host writes into memory behind the recording's image

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self, memory=IDEAL, memory_bytes=64 << 20, watchdog=100_000_000, reset_cycles=8):
        """Fresh memory of ``memory_bytes`` zeros, settings ``memory``, then reset.

        Returns in the last cycle of reset: operations queued now are issued at cycle 0. ``watchdog``: cycle at which
        every wait raises WatchdogError.
        """
        self.memory = memory_view(memory_bytes)
        self._image = None
        self._began, self._written = 0.0, []
        memory.apply()
        await self.reset(watchdog, reset_cycles)

    async def reset(self, watchdog=100_000_000, reset_cycles=8):
        """Resets the design, forgets trace, transactions and statistics; memory and its settings stay."""
        if reset_cycles < 1:
            raise ValueError(f"reset_cycles = {reset_cycles}: at least 1")
        self._lib.fluid_restart(reset_cycles)
        while True:
            await self._wake
            if self._control.reasons & Reason.RESET:
                break
        self._control.watchdog = watchdog

    def set_memory(self, settings):
        """Changes the behaviour of the external memory from the next cycle on."""
        settings.apply()

    # --- time ---------------------------------------------------------------------------------------------------

    def cycle(self):
        """Number of the present cycle."""
        return self._control.cycle

    def irq(self):
        """Level of the interrupt line in this cycle."""
        return bool(self._control.irq)

    async def wait(self, until_cycle=None, irq=True):
        """Sleeps until the interrupt line is high or until the given cycle; returns "irq" or "time".

        Returns at once if that is already so. ``irq=False``: sleeps through interrupts.
        """
        if until_cycle is None and not irq:
            raise ValueError("wait: neither a cycle nor the interrupt to wait for")
        while True:
            if irq and self._control.irq:
                return "irq"
            if until_cycle is not None and self._control.cycle >= until_cycle:
                return "time"
            await self._sleep(irq=irq, cycle=until_cycle)

    async def _sleep(self, irq=False, cycle=None, operations=None):
        """Until the next wake-up, which is at the latest when one of the conditions holds. Several tasks may sleep."""
        control = self._control
        if irq:
            control.irq_armed = 1
        if cycle is not None:
            control.alarm = min(control.alarm, cycle)
        if operations is not None:
            control.operations_target = min(control.operations_target, operations)
        await self._wake
        self.check()
        if control.cycle >= control.watchdog:
            raise WatchdogError(f"cycle {control.cycle}: the limit of {control.watchdog} cycles is reached")

    def check(self):
        """Raises ProtocolError if the design has broken a rule of AXI since reset."""
        if self._control.violations:
            raise ProtocolError(self._control.violation.decode())

    # --- memory -------------------------------------------------------------------------------------------------

    def write_memory(self, address, content):
        """Writes bytes (uint8 array) into the external memory, seen by what the NPU reads from this cycle on.

        A recording repeats what is written this way; what is assigned to ``memory`` only before the first access.
        """
        self.memory[address : address + len(content)] = content
        if self._image is not None:
            self._written.append((self.cycle(), address, bytes(content)))

    # --- registers ----------------------------------------------------------------------------------------------

    def submit(self, transactions):
        """Queues register accesses, done one after the other; returns the index of the last one. Does not wait."""
        self._snapshot()
        self._began = self._began or time.process_time()
        index = -1
        for transaction in transactions:
            index = self._lib.fluid_submit(ctypes.byref(transaction._operation()))
        return index

    async def transact(self, transactions, check=True):
        """Performs register accesses with one wake-up at their end; returns them completed.

        Raises BusError for the first one that is answered by an error, unless ``check`` is False.
        """
        transactions = list(transactions)
        if not transactions:
            return []
        last = self.submit(transactions)
        while self._control.operations_done <= last:
            await self._sleep(operations=last + 1)
        done = self._completed(last + 1 - len(transactions), last + 1)
        if check and (wrong := next((t for t in done if t.response), None)):
            raise BusError(wrong)
        return done

    async def write(self, address, value, **timing):
        """Writes a 32-bit register; returns its Transaction. ``timing``: further fields of Transaction."""
        return (await self.transact([Transaction(True, address, value, **timing)]))[0]

    async def write_many(self, pairs):
        """Writes (address, value) pairs in order, waking once; returns their Transactions."""
        return await self.transact([Transaction(True, address, value) for address, value in pairs])

    async def read(self, address, **timing):
        """Value of a 32-bit register."""
        return (await self.transact([Transaction(False, address, 0, **timing)]))[0].data

    async def read_many(self, addresses):
        """Values of several registers, read in order, waking once."""
        return [t.data for t in await self.transact([Transaction(False, address, 0) for address in addresses])]

    def _completed(self, first, end):
        array = self._lib.fluid_operations(ctypes.byref(self._count))
        size = ctypes.sizeof(Operation)
        names = Transaction.__dataclass_fields__
        done = (Operation.from_address(array + size * i) for i in range(first, end))
        return [Transaction(**{n: bool(o.write) if n == "write" else getattr(o, n) for n in names}) for o in done]

    def transactions(self):
        """Every register access since reset that is complete, as a numpy array (dtype TRANSACTION)."""
        return records(self._lib.fluid_operations, TRANSACTION)[: self._control.operations_done]

    # --- observation --------------------------------------------------------------------------------------------

    def events(self, first=0):
        """Trace events since reset, from the ``first``-th on, as a numpy array (dtype EVENT), oldest first."""
        array = self._lib.fluid_trace(ctypes.byref(self._count))
        count = self._count.value - first
        if count <= 0:
            return np.empty(0, EVENT)
        raw = (ctypes.c_uint8 * (count * EVENT.itemsize)).from_address(array + first * EVENT.itemsize)
        return np.frombuffer(raw, EVENT).copy()

    def statistics(self):
        """MemoryStatistics since reset."""
        return MemoryStatistics.read()

    def wakes(self):
        """Number of edges since reset at which Python was awake."""
        return self._control.wakes

    def seconds(self):
        """Real time since the first register access was issued."""
        return self._lib.fluid_elapsed_seconds()

    def processor_seconds(self):
        """Processor time since the first register access was asked for, simulator and Python together."""
        return time.process_time() - self._began

    def waves(self, path, first_cycle=0, last_cycle=NEVER):
        """Writes a VCD file of these cycles; the build needs ``trace=True``. A second call closes the first file."""
        if not self._lib.fluid_waves(str(Path(path).resolve()).encode(), first_cycle, last_cycle):
            raise RuntimeError(f"cannot write waves to {path}: built without trace=True, or the folder is missing")

    # --- recording for the bare executable (sim/speed.py) -------------------------------------------------------

    def record(self, path):
        """Keeps what a run without Python needs to repeat this one; ``save_recording`` writes it to ``path``: the
        memory image at the first register access, every access, and every later `write_memory`."""
        self._recording = path

    def _snapshot(self):
        if self._recording is not None and self._image is None:
            pages = self.memory.reshape(-1, 4096)
            used = np.flatnonzero(pages.any(axis=1))
            self._image = used, pages[used].copy()
            self._settings = bytes(self._lib.fluid_memory_settings().contents)

    def save_recording(self):
        """Writes the recording asked for by ``record``; its last cycle is the present one."""
        self._snapshot()
        used, pages = self._image
        done = self.transactions()
        counts = len(used), len(done), len(self._written)
        header = np.array([0x32434552444C4655, self.memory.size, *counts, self.cycle(), 8], "<u8")
        image = np.zeros(len(used), [("address", "<u8"), ("page", "u1", 4096)])
        image["address"], image["page"] = used * 4096, pages
        parts = [header.tobytes(), self._settings, image.tobytes(), done.tobytes()]
        for cycle, address, content in self._written:
            parts += [np.array([cycle, address, len(content)], "<u8").tobytes(), content]
        Path(self._recording).write_bytes(b"".join(parts))
