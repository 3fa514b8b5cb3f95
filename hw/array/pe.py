"""Processing elements: ``lanes`` multipliers, a pipelined adder tree, double-buffered weights."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import VECTOR_TAPS

__all__ = ["ONES", "SUM_BITS", "TAP_ADDRESS_BITS", "LaneElement", "ProcessingElement", "sum_width"]

PRODUCT_BITS = 16
SUM_BITS = 24  # of a lane's sum: 255 * 255 taps of -128, or VECTOR_TAPS products
TAP_ADDRESS_BITS = ceil_log2(VECTOR_TAPS + 1)
ONES = VECTOR_TAPS  # the word of a half that holds ones


def sum_width(lanes):
    """Bits of the sum of ``lanes`` products of two int8 values."""
    return PRODUCT_BITS + exact_log2(lanes)


def _add(m, products, out, lend, lent, attrs=None):
    """Two cycles: two levels of the adder tree, then the others. ``lent`` as in ProcessingElement.

    attrs : of the signals between the first two levels
    """
    quads, pairs = [], []
    for i in range(0, len(products), 2):
        pair = Signal(signed(PRODUCT_BITS + 1), name=f"pair_{i // 2}", attrs=attrs)
        m.d.comb += pair.eq(products[i] + products[i + 1])
        pairs.append(pair)
    for i in range(0, len(pairs), 2):
        quad = Signal(signed(PRODUCT_BITS + 2), name=f"quad_{i // 2}", reset_less=True)
        m.d.sync += quad.eq(pairs[i] + pairs[i + 1])
        quads.append(quad)
    while len(quads) > 1:
        quads = [a + b for a, b in zip(quads[::2], quads[1::2], strict=True)]
    m.d.sync += [out.eq(quads[0]), lent.eq(Mux(lend, quads[0], 0))]


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

        products = [Signal(signed(PRODUCT_BITS), name=f"product_{i}", reset_less=True) for i in range(self.lanes)]
        for i, product in enumerate(products):
            x, weight = self.x.word_select(i, 8).as_signed(), active.word_select(i, 8).as_signed()
            m.d.sync += product.eq(x * weight)
        _add(m, products, self.out, self.lend, self.lent)
        return m


class LaneElement(Component):
    """A ProcessingElement whose lanes can also be used one by one, over the taps of a window.

        sums[n + 1][i] = x[n][i] * weights[address[n - 1]][i] + (sums[n][i] if keep[n] else 0)
        out[n + LATENCY] = sum(sums[n + 1][i] for i in range(lanes)), right if keep[n] is 0

    The weights are a memory of two halves of VECTOR_TAPS words; word ONES of each half is never written and holds 1 in
    every lane. Product and sum are one register, which the multiplier of an FPGA has behind its own adder.

    Members: x, weight, load, out, lend, lent as in ProcessingElement; write, read (addresses of the weights; ``read``
    one cycle before x); keep; sums.
    """

    LATENCY = ProcessingElement.LATENCY

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(
            {
                "x": In(8 * lanes),
                "weight": In(8 * lanes),
                "load": In(1),
                "write": In(TAP_ADDRESS_BITS + 1),
                "read": In(TAP_ADDRESS_BITS + 1),
                "keep": In(1),
                "sums": Out(data.ArrayLayout(signed(SUM_BITS), lanes)),
                "out": Out(signed(sum_width(lanes))),
                "lend": In(1),
                "lent": Out(signed(sum_width(lanes))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        half = [0] * VECTOR_TAPS + [int.from_bytes(bytes([1] * self.lanes), "little")]
        m.submodules.weights = weights = memory.Memory(shape=8 * self.lanes, depth=2 * len(half), init=2 * half)
        write, read = weights.write_port(), weights.read_port()
        m.d.comb += [
            write.addr.eq(self.write),
            write.data.eq(self.weight),
            write.en.eq(self.load),
            read.addr.eq(self.read),
        ]
        sums = [Signal(signed(SUM_BITS), name=f"lane_sum_{i}", reset_less=True) for i in range(self.lanes)]
        for i, total in enumerate(sums):
            x, weight = self.x.word_select(i, 8).as_signed(), read.data.word_select(i, 8).as_signed()
            m.d.sync += total.eq(x * weight + Mux(self.keep, total, 0))
        m.d.comb += self.sums.as_value().eq(Cat(sums))
        # Two-input adders: what synthesis would make of four operands takes half as many LUTs again.
        products = [total[:PRODUCT_BITS].as_signed() for total in sums]
        _add(m, products, self.out, self.lend, self.lent, attrs={"keep": 1})
        return m
