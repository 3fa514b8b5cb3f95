"""Leader order: which of some slots comes first."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["LeaderScan"]


class LeaderScan(wiring.Component):
    """Finds the slot of ``mask`` that is least in (-priority, pc, line, age).

    Looks at one slot per cycle, oldest first, so that equal keys leave the older one in front.
    Latency: ``count`` + 1 cycles from ``go`` to ``done``.

    Members
    -------
    go, mask : start a scan over ``mask`` (must not be empty); inputs stay stable until ``done``
    order, count : live slots by age, oldest first
    priority, pc, line : keys of every slot
    done, leader : pulse and the result (which stays until the next scan)
    """

    def __init__(self, config):
        self.config = config
        slot = ceil_log2(config.slots)
        n = config.slots
        super().__init__(
            {
                "go": In(1),
                "mask": In(n),
                "order": In(data.ArrayLayout(slot, n)),
                "count": In(range(n + 1)),
                "priority": In(8).array(n),
                "pc": In(16).array(n),
                "line": In(16).array(n),
                "done": Out(1),
                "leader": Out(slot),
            }
        )

    def elaborate(self, platform):
        m = Module()
        running = Signal()
        found = Signal()
        index = Signal(range(self.config.slots))
        best = Signal(40)
        slot = Signal.like(self.leader)
        key = Signal(40)
        m.d.comb += [
            slot.eq(self.order[index]),
            key.eq(Cat(Array(self.line)[slot], Array(self.pc)[slot], ~Array(self.priority)[slot])),
        ]
        with m.If(self.go):
            m.d.sync += [running.eq(1), found.eq(0), index.eq(0)]
        with m.If(running):
            with m.If(self.mask.bit_select(slot, 1) & (~found | (key < best))):
                m.d.sync += [found.eq(1), best.eq(key), self.leader.eq(slot)]
            m.d.sync += index.eq(index + 1)
            with m.If(index == Mux(self.count == 0, 0, self.count - 1)):
                m.d.sync += running.eq(0)
        last = Signal()
        m.d.sync += last.eq(running & (index == Mux(self.count == 0, 0, self.count - 1)))
        m.d.comb += self.done.eq(last)
        return m
