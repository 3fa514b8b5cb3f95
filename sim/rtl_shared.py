"""Python's view of the memory it shares with the simulator: the structs of ``sim/rtl/fluid.h`` and its functions.

Only usable inside the simulator's process, where the functions are symbols of the running program.
"""

import ctypes as c
import functools

import numpy as np

__all__ = ["EVENT", "NEVER", "TRANSACTION", "Control", "Operation", "Reason", "library"]

NEVER = 2**64 - 1

u8, u16, u32, u64 = c.c_uint8, c.c_uint16, c.c_uint32, c.c_uint64


class Reason:
    """Bits of ``Control.reasons``."""

    IRQ, TIME, OPERATIONS, RESET, WATCHDOG, VIOLATION = 1, 2, 4, 8, 16, 32


class Control(c.Structure):
    """Cycle count, what the host sleeps for and why it was woken. Fields: see fluid.h."""

    _fields_ = [
        *((name, u64) for name in ("cycle", "edges", "alarm", "operations_target", "operations_done")),
        *((name, u64) for name in ("watchdog", "wakes")),
        *((name, u32) for name in ("irq_armed", "irq", "reset_cycles", "reasons", "woken", "violations")),
        *((name, u32) for name in ("aborted", "reserved")),
        ("violation", c.c_char * 256),
    ]


class Operation(c.Structure):
    """One AXI4-Lite transaction."""

    _fields_ = [
        *((name, u64) for name in ("not_before", "issued", "accepted", "done")),
        *((name, u32) for name in ("address", "data", "strobe", "response")),
        *((name, u8) for name in ("write", "address_delay", "data_delay", "response_delay")),
        ("reserved", u8 * 4),
    ]


class StallStruct(c.Structure):
    _fields_ = [(name, u32) for name in ("mode", "probability", "cycles")]


class ErrorWindowStruct(c.Structure):
    _fields_ = [(name, u32) for name in ("base", "last", "on_read", "on_write", "after", "count", "hits", "enabled")]


class MemorySettingsStruct(c.Structure):
    _fields_ = [
        *((name, u32) for name in ("read_latency", "write_latency", "beats_per_256", "burst_overhead")),
        *((name, u32) for name in ("read_jitter", "write_jitter", "order", "seed")),
        ("stall", StallStruct * 5),
        ("error", ErrorWindowStruct * 8),
    ]


class MemoryStatisticsStruct(c.Structure):
    _fields_ = [
        *((name, u64) for name in ("read_bursts", "read_beats", "write_bursts", "write_beats", "written_bytes")),
        *((name, u64) for name in ("error_bursts", "beyond_bursts", "most_reads", "most_writes")),
        *((name, u64) for name in ("reads_in_flight", "writes_in_flight")),
    ]


# One event of the NPU: source 0 is trace_engine (isa.EngineEvent), 1 is trace_array (isa.ArrayEvent).
EVENT = np.dtype(
    {
        "names": ["cycle", "source", "kind", "slot", "pc", "line", "data", "data2"],
        "formats": ["<u8", "u1", "u1", "u1", "<u2", "<u2", "<u4", "<u4"],
        "offsets": [0, 8, 9, 10, 12, 14, 16, 20],
        "itemsize": 24,
    }
)

# One AXI4-Lite transaction as a numpy record (same layout as Operation).
TRANSACTION = np.dtype(
    [
        *((name, "<u8") for name in ("not_before", "issued", "accepted", "done")),
        *((name, "<u4") for name in ("address", "data", "strobe", "response")),
        *((name, "u1") for name in ("write", "address_delay", "data_delay", "response_delay")),
        ("reserved", "u1", 4),
    ]
)

_FUNCTIONS = {
    "fluid_control": (c.POINTER(Control), []),
    "fluid_restart": (None, [u32]),
    "fluid_submit": (u64, [c.POINTER(Operation)]),
    "fluid_operations": (c.c_void_p, [c.POINTER(u64)]),
    "fluid_elapsed_seconds": (c.c_double, []),
    "fluid_waves": (c.c_int, [c.c_char_p, u64, u64]),
    "fluid_memory_allocate": (c.c_void_p, [u64]),
    "fluid_memory": (c.c_void_p, [c.POINTER(u64)]),
    "fluid_memory_checksum": (u64, []),
    "fluid_memory_settings": (c.POINTER(MemorySettingsStruct), []),
    "fluid_memory_restart": (None, []),
    "fluid_memory_statistics": (c.POINTER(MemoryStatisticsStruct), []),
    "fluid_trace": (c.c_void_p, [c.POINTER(u64)]),
    "fluid_trace_clear": (None, []),
    "fluid_struct_sizes": (u64, [u32]),
}


@functools.cache
def library():
    """Functions of the running simulator; RuntimeError outside of one."""
    program = c.CDLL(None)
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(program, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError:
        raise RuntimeError("not inside a simulator: use fluidnpu.sim.simulate.run_in_simulator") from None
    mirrors = (Control, Operation, EVENT, MemorySettingsStruct, MemoryStatisticsStruct)
    for index, mirror in enumerate(mirrors):
        size = mirror.itemsize if isinstance(mirror, np.dtype) else c.sizeof(mirror)
        if size != program.fluid_struct_sizes(index):
            raise RuntimeError(f"{mirror}: {size} bytes here, {program.fluid_struct_sizes(index)} in fluid.h")
    return program


def records(function, dtype):
    """Copy of the array of records that a C function returns with its length."""
    count = u64()
    address = function(c.byref(count))
    if not count.value:
        return np.empty(0, dtype)
    raw = (u8 * (count.value * dtype.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype).copy()
