"""Cycle counter and performance counters (isa.COUNTERS)."""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from fluidnpu.hw import isa

__all__ = ["EVENTS", "INCREMENT_BITS", "RAW_CAUSES", "Counters"]

RAW_CAUSES = isa.CAUSES[:-1]  # "idle": none of these
EVENTS = isa.COUNTERS[len(isa.CAUSES) :]  # counters that are no causes
INCREMENT_BITS = 8


class Counters(wiring.Component):
    """Counts every cycle under exactly one cause, and events.

    In every cycle ``sum of the cycles_* counters == cycle`` (modulo 2**48): the first high bit of ``causes`` in the
    order of isa.CAUSES counts, none of them counts as idle. All counters run from reset on and are never cleared.

    Members
    -------
    causes : raw conditions, a struct named as RAW_CAUSES
    increments : what each counter of EVENTS counts in this cycle, 0..255, a struct of these names
    cycle : cycles since reset; of a cycle's own events nothing is counted yet
    latch : copy all counters; the copies hold what was counted before this cycle
    index : copy to read, in the order of isa.COUNTERS
    value : that copy, one cycle later
    """

    def __init__(self):
        super().__init__(
            {
                "causes": In(data.StructLayout({name: 1 for name in RAW_CAUSES})),
                "increments": In(data.StructLayout({name: INCREMENT_BITS for name in EVENTS})),
                "cycle": Out(64),
                "latch": In(1),
                "index": In(range(len(isa.COUNTERS))),
                "value": Out(isa.COUNTER_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.cycle.eq(self.cycle + 1)

        exclusive = {}
        taken = 0
        for cause in RAW_CAUSES:
            exclusive[f"cycles_{cause}"] = self.causes[cause] & ~taken
            taken = taken | self.causes[cause]
        exclusive["cycles_idle"] = ~taken

        copies = []
        for name in isa.COUNTERS:
            counter = Signal(isa.COUNTER_BITS, name=name)
            copy = Signal(isa.COUNTER_BITS, name=f"latched_{name}")
            step = self.increments[name] if name in EVENTS else exclusive[name][0]
            m.d.sync += counter.eq(counter + step)
            with m.If(self.latch):
                m.d.sync += copy.eq(counter)
            copies.append(copy)
        m.d.sync += self.value.eq(Array(copies)[self.index])
        return m
