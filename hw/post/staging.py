"""Staging buffer: gathers the bytes of pixels until memory can be written in whole beats."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

__all__ = ["Staging", "stage_read_layout", "sub_tile_beats"]


def stage_read_layout(config):
    """What a reader of the staging buffer asks for: a beat of a half."""
    return data.StructLayout({"address": ceil_log2(config.stage_beats), "half": 1})


def sub_tile_beats(config, sub_tile, log2_kr):
    """First beat of a sub-tile in a staging half: sub_tile * (stage_beats / kr)."""
    return ((sub_tile << exact_log2(config.stage_beats)) >> log2_kr)[: ceil_log2(config.stage_beats)]


class Staging(Component):
    """Two halves of stage_beats beats. Writes ``width`` = 2 ** log2_width values, 1..post_lanes, at byte ``offset``.

    ``offset`` is a multiple of ``width``, and ``width`` of the granule min(post_lanes, group_pes, lanes), so that a
    write stays in its beat. One write and one read per cycle; a read sees the writes of earlier cycles.

    Members
    -------
    valid, half, address (beat), offset (byte within the beat), log2_width, values : the write
    read, read_data : read port, data one cycle after the address
    """

    def __init__(self, config):
        self.config = c = config
        self.granule = min(c.post_lanes, c.group_pes, c.lanes)  # bytes
        super().__init__(
            {
                "valid": In(1),
                "half": In(1),
                "address": In(ceil_log2(c.stage_beats)),
                "offset": In(ceil_log2(c.bus_bytes)),
                "log2_width": In(range(exact_log2(c.post_lanes) + 1)),
                "values": In(data.ArrayLayout(signed(8), c.post_lanes)),
                "read": In(stage_read_layout(config)),
                "read_data": Out(8 * c.bus_bytes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.buffer = buffer = memory.Memory(
            shape=data.ArrayLayout(8 * self.granule, c.bus_bytes // self.granule), depth=2 * c.stage_beats, init=[]
        )
        write = buffer.write_port(granularity=1)
        read = buffer.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.address, self.half)),
            read.addr.eq(Cat(self.read.address, self.read.half)),
            self.read_data.eq(read.data),
        ]
        block = Signal(ceil_log2(c.bus_bytes))  # of ``width`` bytes, within the beat
        with m.Switch(self.log2_width):
            for log2_width in range(exact_log2(self.granule), exact_log2(c.post_lanes) + 1):
                width = 1 << log2_width
                values = self.values.as_value()[: 8 * width]
                granules = width // self.granule
                with m.Case(log2_width):
                    m.d.comb += [
                        block.eq(self.offset >> log2_width),
                        write.data.eq(values.replicate(c.bus_bytes // width)),
                    ]
                    for g in range(c.bus_bytes // self.granule):
                        m.d.comb += write.en[g].eq(self.valid & (block == g // granules))
        return m
