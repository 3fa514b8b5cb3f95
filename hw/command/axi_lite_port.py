"""AXI4-Lite subordinate: turns bus transactions into single accesses of a register file."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, Signature
from fluidnpu.hw.axi import OKAY, SLVERR, AxiLiteSignature

__all__ = ["AxiLitePort", "ReadAccess", "WriteAccess"]


class WriteAccess(Signature):
    """A full-word write. ``error`` answers in the cycle of ``valid``; a write in error must change nothing."""

    def __init__(self, addr_width):
        super().__init__({"valid": Out(1), "address": Out(addr_width - 2), "data": Out(32), "error": In(1)})


class ReadAccess(Signature):
    """A word read. ``address`` holds for two cycles; ``data`` and ``error`` are taken in the second, where ``sample``
    is high, so that a memory addressed by ``address`` has one cycle to answer."""

    def __init__(self, addr_width):
        super().__init__({"address": Out(addr_width - 2), "sample": Out(1), "data": In(32), "error": In(1)})


class AxiLitePort(wiring.Component):
    """Serves one write and one read at a time, independently of each other.

    AW and W are accepted in any order. A write with missing byte strobes and every access of an address that is no
    multiple of 4 is answered SLVERR without an access. Every ready depends on registers only. Latency without stalls:
    a write is performed in the cycle after its later half, B follows one cycle later; R comes 3 cycles after AR.
    Throughput: a write every 2 cycles, a read every 4.

    Members: ``axil`` the bus; ``write``, ``read``: word addresses, see `WriteAccess` and `ReadAccess`.
    """

    READ_LATENCY = 3  # cycles from the transfer of AR to the first cycle of R

    def __init__(self, addr_width):
        self.addr_width = addr_width
        self.held_address = Signal(addr_width)  # of the write that waits for its other half or its turn
        self.held_strobes = Signal(4)
        super().__init__(
            {
                "axil": In(AxiLiteSignature(addr_width)),
                "write": Out(WriteAccess(addr_width)),
                "read": Out(ReadAccess(addr_width)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._writes(m)
        self._reads(m)
        return m

    def _writes(self, m):
        bus, write = self.axil, self.write
        address, strobes = self.held_address, self.held_strobes
        have_address = Signal()
        have_data = Signal()
        perform = Signal()
        legal = Signal()
        m.d.comb += [
            bus.awready.eq(~have_address),
            bus.wready.eq(~have_data),
            perform.eq(have_address & have_data & ~bus.bvalid),
            legal.eq(strobes.all() & (address[:2] == 0)),
            write.valid.eq(perform & legal),
            write.address.eq(address[2:]),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [have_address.eq(1), address.eq(bus.awaddr)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [have_data.eq(1), write.data.eq(bus.wdata), strobes.eq(bus.wstrb)]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(perform):
            m.d.sync += [
                have_address.eq(0),
                have_data.eq(0),
                bus.bvalid.eq(1),
                bus.bresp.eq(Mux(legal & ~write.error, OKAY, SLVERR)),
            ]

    def _reads(self, m):
        bus, read = self.axil, self.read
        address = Signal(self.addr_width)
        aligned = Signal()
        m.d.comb += [aligned.eq(address[:2] == 0), read.address.eq(address[2:])]
        with m.FSM(init="Idle"):
            with m.State("Idle"):
                m.d.comb += bus.arready.eq(1)
                with m.If(bus.arvalid):
                    m.d.sync += address.eq(bus.araddr)
                    m.next = "Lookup"
            with m.State("Lookup"):
                m.next = "Sample"
            with m.State("Sample"):
                good = aligned & ~read.error
                m.d.comb += read.sample.eq(aligned)
                m.d.sync += [bus.rdata.eq(Mux(good, read.data, 0)), bus.rresp.eq(Mux(good, OKAY, SLVERR))]
                m.next = "Respond"
            with m.State("Respond"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.next = "Idle"
