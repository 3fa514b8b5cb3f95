"""What the host needs of an NPU: its registers, its memory, its interrupt and its time.

Backends (RTL in a simulator, the cycle model, a board) implement `Device`; driver, serving loop and policies see
nothing else. Everything that takes time on the bus is a coroutine; time is NPU cycles.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

__all__ = ["BusError", "Device"]


class BusError(RuntimeError):
    """A register access was answered by an error response.

    address, write : the access; response : 2 SLVERR, 3 DECERR; value : what was written
    """

    def __init__(self, address, write, response=2, value=0):
        self.address, self.write, self.response, self.value = address, write, response, value
        kind = "write to" if write else "read of"
        super().__init__(f"{kind} register {address:#x} was refused (response {response})")

    def __reduce__(self):
        return BusError, (self.address, self.write, self.response, self.value)


class Device(Protocol):
    """An NPU and its external memory. A backend derives from this class and gives the methods without a body."""

    async def submit(self, accesses: Sequence[tuple[int, int | None]]) -> list[int]:
        """Perform register accesses one after the other, waking the host once, at their end.

        An access is (byte address, value) for a write, (byte address, None) for a read. Returns one value per access:
        what was read or written. Raises BusError for the first access that was refused; those behind it may have been
        performed.
        """
        ...

    async def wait(self, until_cycle: int | None = None) -> bool:
        """Sleep until the interrupt is high (returns True) or ``until_cycle`` is reached (returns False).

        Returns at once if that is already so; None waits for the interrupt alone.
        """
        ...

    async def busy(self, cycles: int) -> None:
        """The host computes for a number of cycles and looks at nothing meanwhile."""
        ...

    async def cycle(self) -> int:
        """The present cycle."""
        ...

    def read_memory(self, address: int, count: int) -> np.ndarray:
        """``count`` bytes of external memory, a copy (uint8)."""
        ...

    def write_memory(self, address: int, content) -> None:
        """Write bytes (bytes or uint8 array) to external memory."""
        ...

    async def read(self, address: int) -> int:
        """Value of one register."""
        return (await self.submit([(address, None)]))[0]

    async def write(self, address: int, value: int) -> None:
        """Write one register."""
        await self.submit([(address, value)])
