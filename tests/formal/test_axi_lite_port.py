"""The AXI4-Lite port, for every master: protocol, one response per transaction, one access per legal one."""

import pytest
from amaranth.hdl import Assert, Assume, Cover, Elaboratable, Module, Signal
from fluidnpu.hw.axi import OKAY, SLVERR
from fluidnpu.hw.command.axi_lite_port import AxiLitePort

from . import formal

WIDTH = 4


class Master(Elaboratable):
    """Raises valid and ready at will, and keeps valid and content until the transfer, as AXI asks."""

    def __init__(self, port=AxiLitePort):
        self.port = port(WIDTH)

    def elaborate(self, platform):
        m = Module()
        m.submodules.port = port = self.port
        bus = port.axil
        for channel, names in (("aw", ["addr"]), ("w", ["data", "strb"]), ("ar", ["addr"])):
            self._stable(m, Assume, channel, names)
        for channel, names in (("b", ["resp"]), ("r", ["data", "resp"])):
            self._stable(m, Assert, channel, names)

        # Writes: the contents of the transaction under way, and how far it is.
        address, data, strobes = Signal(WIDTH), Signal(32), Signal(4)
        have_aw, have_w, done = Signal(), Signal(), Signal()
        expected = Signal(2)
        aw, w, b = bus.awvalid & bus.awready, bus.wvalid & bus.wready, bus.bvalid & bus.bready
        perform = have_aw & have_w & ~done
        legal = strobes.all() & (address[:2] == 0)
        m.d.comb += [
            Assert(bus.awready == ~have_aw),
            Assert(bus.wready == ~have_w),
            Assert(bus.bvalid == done),
            Assert(~done | (bus.bresp == expected)),
            Assert(port.write.valid == (perform & legal)),
            # What makes it inductive: a half that waits is kept as it came.
            Assert(~have_aw | (port.held_address == address)),
            Assert(~have_w | ((port.held_strobes == strobes) & (port.write.data == data))),
            Assert(~port.write.valid | ((port.write.address == address[2:]) & (port.write.data == data))),
        ]
        with m.If(aw):
            m.d.sync += [have_aw.eq(1), address.eq(bus.awaddr)]
        with m.If(w):
            m.d.sync += [have_w.eq(1), data.eq(bus.wdata), strobes.eq(bus.wstrb)]
        with m.If(b):
            m.d.sync += done.eq(0)
        with m.If(perform):
            m.d.sync += [have_aw.eq(0), have_w.eq(0), done.eq(1)]
            m.d.sync += expected.eq(SLVERR)
            with m.If(legal & ~port.write.error):
                m.d.sync += expected.eq(OKAY)

        # Reads: idle, then READ_LATENCY cycles later the value of the cycle before R.
        age = Signal(range(AxiLitePort.READ_LATENCY + 1))
        read_address, value, response = Signal(WIDTH), Signal(32), Signal(2)
        m.d.comb += [
            Assert(bus.arready == (age == 0)),
            Assert(bus.rvalid == (age == AxiLitePort.READ_LATENCY)),
            Assert((age == 0) | (port.read.address == read_address[2:])),
            Assert(port.read.sample == ((age == AxiLitePort.READ_LATENCY - 1) & (read_address[:2] == 0))),
            Assert(~bus.rvalid | ((bus.rdata == value) & (bus.rresp == response))),
        ]
        with m.If(age == 0):
            with m.If(bus.arvalid):
                m.d.sync += [age.eq(1), read_address.eq(bus.araddr)]
        with m.Elif(age < AxiLitePort.READ_LATENCY):
            m.d.sync += [age.eq(age + 1), value.eq(0), response.eq(SLVERR)]
            with m.If(port.read.sample & ~port.read.error):
                m.d.sync += [value.eq(port.read.data), response.eq(OKAY)]
        with m.Elif(bus.rready):
            m.d.sync += age.eq(0)

        m.d.comb += [
            Cover(b & (bus.bresp == OKAY)),
            Cover(b & (bus.bresp == SLVERR)),
            Cover(bus.rvalid & bus.rready & (bus.rdata == 5)),
            Cover(have_aw & have_w & done),
        ]
        return m

    def _stable(self, m, check, channel, names):
        """valid and content stay until the transfer (not over a reset)."""
        bus = self.port.axil
        valid, ready = getattr(bus, f"{channel}valid"), getattr(bus, f"{channel}ready")
        waited = Signal(name=f"{channel}_waited")
        m.d.sync += waited.eq(valid & ~ready)
        same = valid
        for name in names:
            content = getattr(bus, f"{channel}{name}")
            before = Signal.like(content, name=f"{channel}{name}_before")
            m.d.sync += before.eq(content)
            same = same & (content == before)
        m.d.comb += check(~waited | same)


def prepare(workdir, port=AxiLitePort):
    system = Master(port)
    return formal.prepare(system, [system.port], workdir)


def test_proof(tmp_path):
    system = prepare(tmp_path)
    assert (verdict := formal.bounded(system, 4)).passed, verdict.failed_lines
    assert (verdict := formal.induction(system, 3)).passed, verdict.failed_lines
    assert (verdict := formal.cover(system, 10)).passed, verdict.failed_lines


# --- seeded faults ------------------------------------------------------------------------------------------------


class LosesAnOverlappingWrite(AxiLitePort):
    """Drops a write whose halves wait while the response before it is held."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.axil.bvalid & ~self.axil.bready):
            m.d.comb += self.axil.awready.eq(1)
        return m


class TakesPartialWords(AxiLitePort):
    """Ignores a byte strobe."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.axil.awready & ~self.axil.wready & ~self.axil.bvalid):
            m.d.comb += self.write.valid.eq(1)
        return m


class DropsResponses(AxiLitePort):
    """B does not wait for ready."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.axil.bvalid):
            m.d.sync += self.axil.bvalid.eq(0)
        return m


@pytest.mark.parametrize("fault", [LosesAnOverlappingWrite, TakesPartialWords, DropsResponses])
def test_fault_is_caught(fault, tmp_path):
    assert not formal.bounded(prepare(tmp_path, fault), 8).passed
