"""A typed stream FIFO."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In, Out

__all__ = ["Queue"]


class Queue(Component):
    """Show-ahead FIFO of ``depth`` payloads of ``shape``.

    Flow control: valid/ready on both sides, no combinational path between them. One transfer per cycle on both
    sides (``depth`` 1: every other cycle), latency 1: what is taken in cycle n is offered from cycle n + 1.
    Meant for small depths: the read is asynchronous (registers or LUT RAM).

    Parameters: shape (of the payload), depth (entries, at least 1; ValueError otherwise).
    Members: i (in stream), o (out stream), level (entries held, out).
    """

    LATENCY = 1

    def __init__(self, shape, depth):
        if depth < 1:
            raise ValueError(f"Queue: depth = {depth} is not at least 1")
        self.shape = shape
        self.depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "level": Out(range(depth + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.entries = entries = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write = entries.write_port()
        read = entries.read_port(domain="comb")
        head = Signal(range(self.depth))
        tail = Signal(range(self.depth))
        put = Signal()
        get = Signal()

        def after(pointer):
            return Mux(pointer == self.depth - 1, 0, pointer + 1)

        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            self.o.valid.eq(self.level != 0),
            put.eq(self.i.valid & self.i.ready),
            get.eq(self.o.valid & self.o.ready),
            write.addr.eq(tail),
            write.data.eq(self.i.payload),
            write.en.eq(put),
            read.addr.eq(head),
            self.o.payload.eq(read.data),
        ]
        with m.If(put):
            m.d.sync += tail.eq(after(tail))
        with m.If(get):
            m.d.sync += head.eq(after(head))
        m.d.sync += self.level.eq(self.level + put - get)
        return m
