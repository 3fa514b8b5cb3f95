"""Requantisers of the columns of two c-tiles and of two blocks, as the weight stream brings them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import PARAMETER_BYTES, Layouts
from .requantize import REQUANTIZER_LAYOUT

__all__ = ["ParameterStore"]


class ParameterStore(Component):
    """``read`` holds the requantisers of columns quad * post_lanes + 0.. of ``bank``.

    There are two banks for c-tiles and two (``vector``) for blocks, whose columns are those of each depth's word, at
    least post_lanes per word.

    Latency: READ_LATENCY from ``vector``, ``bank``, ``quad``; a write is seen by reads of later cycles. One read and
    one write beat per cycle. A column has PARAMETER_BYTES: bias int32, multiplier int32, shift int8, unused bytes; it
    takes two beats of a bus of 8 bytes and half of one of 32.

    With ``override`` (one READ_LATENCY later than ``bank``, ``quad``) every lane gets ``shared`` instead.

    Members: write, write_valid; vector, bank, quad; override, shared; read (one requantiser per post lane).
    """

    READ_LATENCY = 1

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        super().__init__(
            {
                "write": In(layouts.parameter_write),
                "write_valid": In(1),
                "vector": In(1),
                "bank": In(1),
                "quad": In(layouts.parameter_quad),
                "override": In(1),
                "shared": In(REQUANTIZER_LAYOUT),
                "read": Out(data.ArrayLayout(REQUANTIZER_LAYOUT, config.post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        columns_per_beat = max(1, c.bus_bytes // PARAMETER_BYTES)
        beats_per_column = max(1, PARAMETER_BYTES // c.bus_bytes)
        columns = max(c.post_lanes, columns_per_beat)  # of a memory word
        most_columns = max(c.pes, Layouts(c).vector_columns)
        depth = 4 * max(1, most_columns // columns)
        column_bits, entry_bits = exact_log2(columns), exact_log2(depth // 4)

        m.submodules.factors = factors = memory.Memory(shape=data.ArrayLayout(64, columns), depth=depth, init=[])
        m.submodules.shifts = shifts = memory.Memory(shape=data.ArrayLayout(8, columns), depth=depth, init=[])

        # Write: the first column of the beat, and which part of it if a column takes several
        beat = self.write.beat
        part_bits = exact_log2(beats_per_column)
        column = Signal(max(1, ceil_log2(most_columns)))
        m.d.comb += column.eq((beat >> part_bits) << exact_log2(columns_per_beat))
        here = Signal(columns)
        m.d.comb += here.eq(((1 << columns_per_beat) - 1) << column[:column_bits])

        def split(low, high):
            """Bits low..high - 1 of the columns of the beat, repeated over the memory word."""
            if beats_per_column == 2:
                low, high = low % 64, (high - 1) % 64 + 1
            parts = [self.write.data[128 * i + low : 128 * i + high] for i in range(columns_per_beat)]
            return Cat(*parts * (columns // columns_per_beat))

        for store, (low, high) in ((factors, (0, 64)), (shifts, (64, 72))):
            port = store.write_port(granularity=1)
            right_part = beat[:part_bits] == low // 64 if part_bits else 1
            m.d.comb += [
                port.addr.eq(Cat(column[column_bits:][:entry_bits], self.write.bank, self.write.vector)),
                port.data.eq(split(low, high)),
                port.en.eq(Mux(self.write_valid & right_part, here, 0)),
            ]

        # Read: a word holds several quads only if the lanes are fewer than the columns of a beat
        quads_bits = exact_log2(columns // c.post_lanes)
        quad_in_word = Signal(max(1, quads_bits))
        m.d.sync += quad_in_word.eq(self.quad[:quads_bits])
        ports = [store.read_port() for store in (factors, shifts)]
        for port in ports:
            m.d.comb += port.addr.eq(Cat(self.quad[quads_bits:][:entry_bits], self.bank, self.vector))
        for lane in range(c.post_lanes):
            factor = ports[0].data.as_value().word_select(quad_in_word * c.post_lanes + lane, 64)
            shift = ports[1].data.as_value().word_select(quad_in_word * c.post_lanes + lane, 8)
            m.d.comb += self.read[lane].eq(Mux(self.override, self.shared.as_value(), Cat(factor, shift)))
        return m
