"""Second operands of residual additions, on chip, in the order in which the epilogue takes its rows."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import Layouts

__all__ = ["ResidualBuffer"]


class ResidualBuffer(Component):
    """Two halves of stage_beats beats: a chunk lies in a half exactly as its sums will lie in the staging buffer.

    ``values`` are post_lanes bytes of the beat at ``half``, ``address``, from byte ``offset`` on (a multiple of the
    staging buffer's granule min(post_lanes, group_pes, lanes)); bytes behind the end of the beat are 0. They come
    READ_LATENCY cycles after half, address and offset. One write and one read per cycle; a read sees the writes of
    earlier cycles.

    Parameters: config. Members: write, write_valid; half, address, offset; values.
    """

    READ_LATENCY = 2

    def __init__(self, config):
        self.config = c = config
        super().__init__(
            {
                "write": In(Layouts(config).residual_write),
                "write_valid": In(1),
                "half": In(1),
                "address": In(ceil_log2(c.stage_beats)),
                "offset": In(ceil_log2(c.bus_bytes)),
                "values": Out(data.ArrayLayout(signed(8), c.post_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.buffer = buffer = memory.Memory(shape=8 * c.bus_bytes, depth=2 * c.stage_beats, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        log2_granule = exact_log2(min(c.post_lanes, c.group_pes, c.lanes))
        granule = Signal(max(1, exact_log2(c.bus_bytes) - log2_granule))
        m.d.comb += [
            write.addr.eq(Cat(self.write.address, self.write.half)),
            write.data.eq(self.write.data),
            write.en.eq(self.write_valid),
            read.addr.eq(Cat(self.address, self.half)),
        ]
        m.d.sync += [
            granule.eq(self.offset[log2_granule:]),
            self.values.eq((read.data >> (granule << (3 + log2_granule)))[: 8 * c.post_lanes]),
        ]
        return m
