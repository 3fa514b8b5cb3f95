"""Results of the vector path: the lane sums of complete rows, until the epilogue has taken them."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..tile import Layouts
from .pe import SUM_BITS
from .stacking import select

__all__ = ["TAP_BITS", "VectorResults"]

TAP_BITS = 16
_COUNT_BITS = 9  # padded averages have at most RECIPROCAL_MAX taps


class VectorResults(Component):
    """Keeps the sums and the number of taps inside the image of every stack's last complete row.

    Rigid pipeline. Cycle 0: ``inside``, ``first`` of a tap; cycle 1: its ``sums``, and ``complete`` if it was the
    row's last; from cycle 2 on the row's results can be selected, until the next ``complete`` one cycle later.
    ``values`` are selected in the cycle after their request, to be registered at its end; ``taps`` come one cycle
    later, when the accumulators' values would.

    Parameters: config.

    Members
    -------
    first, inside (per group), complete; sums_0, ... (lanes sums per group)
    request : acc_request with ``vector``
    values : one per post lane, those behind the word's last lane are 0; taps
    """

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        lane_sums = data.ArrayLayout(signed(SUM_BITS), config.lanes)
        super().__init__(
            {
                "first": In(1),
                "inside": In(config.max_stack),
                "complete": In(1),
                **{f"sums_{g}": In(lane_sums) for g in range(config.max_stack)},
                "request": In(layouts.acc_request),
                "values": Out(data.ArrayLayout(signed(SUM_BITS), config.post_lanes)),
                "taps": Out(TAP_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        words, counts = {}, {}
        for g in range(c.max_stack):
            count = Signal(_COUNT_BITS, name=f"count_{g}")
            word = Signal(c.lanes * SUM_BITS, name=f"word_{g}", reset_less=True)
            taps = Signal(_COUNT_BITS, name=f"taps_{g}", reset_less=True)
            m.d.sync += count.eq(Mux(self.first, 0, count) + self.inside[g])
            with m.If(self.complete):
                m.d.sync += [word.eq(getattr(self, f"sums_{g}")), taps.eq(count)]
            words[g], counts[g] = word, taps

        # Cycle 1 of a request
        group = Signal(exact_log2(c.max_stack), reset_less=True)
        quad = Signal(max(1, exact_log2(max(1, c.lanes // c.post_lanes))), reset_less=True)
        m.d.sync += [group.eq(self.request.sub_tile), quad.eq(self.request.quad)]
        width = min(c.lanes, c.post_lanes) * SUM_BITS
        if c.max_stack == 1:
            word, count = words[0], counts[0]
        else:
            word, count = select(group, words), select(group, counts)
        quads = {q: word[q * width : (q + 1) * width] for q in range(c.lanes * SUM_BITS // width)}
        m.d.comb += self.values.as_value().eq(Cat(select(quad, quads)))
        m.d.sync += self.taps.eq(count)
        return m
