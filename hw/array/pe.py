"""One processing element: ``lanes`` multipliers, a pipelined adder tree, double-buffered weights."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

__all__ = ["ProcessingElement", "sum_width"]

PRODUCT_BITS = 16


def sum_width(lanes):
    """Bits of the sum of ``lanes`` products of two int8 values."""
    return PRODUCT_BITS + exact_log2(lanes)


class ProcessingElement(Component):
    """Dot product of an activation word with the PE's weights.

        out[n + LATENCY] = sum(x[n][i] * active[n][i] for i in range(lanes))

    Rigid pipeline, one word per cycle: products, one register in the adder tree, the sum. ``load`` writes the shadow
    weights, ``swap`` makes them active from the next cycle on; both may come together: the old shadow is taken.

    Members: x (``lanes`` int8 values), weight (a word) and load, swap, out (signed); lent: the same as out if ``lend``
    was given in the cycle before, else 0.
    """

    LATENCY = 3

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(
            {
                "x": In(8 * lanes),
                "weight": In(8 * lanes),
                "load": In(1),
                "swap": In(1),
                "out": Out(signed(sum_width(lanes))),
                "lend": In(1),
                "lent": Out(signed(sum_width(lanes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        word = 8 * self.lanes
        shadow = Signal(word, reset_less=True)
        active = Signal(word, reset_less=True)
        with m.If(self.load):
            m.d.sync += shadow.eq(self.weight)
        with m.If(self.swap):
            m.d.sync += active.eq(shadow)

        # Cycle 0: multiply
        products = [Signal(signed(PRODUCT_BITS), name=f"product_{i}", reset_less=True) for i in range(self.lanes)]
        for i, product in enumerate(products):
            x, weight = self.x.word_select(i, 8).as_signed(), active.word_select(i, 8).as_signed()
            m.d.sync += product.eq(x * weight)

        # Cycle 1: two levels of the tree; cycle 2: the others
        quads = []
        for i in range(0, self.lanes, 4):
            quad = Signal(signed(PRODUCT_BITS + 2), name=f"quad_{i // 4}", reset_less=True)
            m.d.sync += quad.eq((products[i] + products[i + 1]) + (products[i + 2] + products[i + 3]))
            quads.append(quad)
        while len(quads) > 1:
            quads = [a + b for a, b in zip(quads[::2], quads[1::2], strict=True)]
        m.d.sync += [self.out.eq(quads[0]), self.lent.eq(Mux(self.lend, quads[0], 0))]
        return m
