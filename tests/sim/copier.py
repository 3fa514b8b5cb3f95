"""A small device with the NPU's ports, to test the simulation around it: copies memory by bursts and traces its bus.

Registers: 0x00 source, 0x04 destination, 0x08 beats, 0x0C go (write) / busy (read), 0x10 interrupt (read: level, any
write clears), 0x14 cycles since reset, 0x18 burst beats, 0x1C reads in flight, 0x20 read IDs (power of two),
0x24 faults: bit 0 changes a waiting address, bit 1 leaves out WLAST, bit 2 fails a hardware assertion. Others answer
SLVERR.
Source and destination are aligned to bursts, beats a multiple of them.

trace_engine: kind is a mask of AR 1, AW 2, B 4; slot: response of B; data: AR address; data2: AW address.
trace_array: kind is a mask of R 1, W 2, last W 4; slot: read ID, line: response, data: first four bytes read.
"""

from amaranth import *
from amaranth.back import verilog
from amaranth.lib import fifo, wiring
from amaranth.lib.wiring import In, Out
from fluidnpu.hw.axi import SLVERR, Axi4Signature, AxiLiteSignature

__all__ = ["EVENT", "REGISTERS", "Copier", "copier_verilog"]

REGISTERS = dict(
    zip(
        ("source", "destination", "beats", "go", "interrupt", "cycles", "burst", "in_flight", "ids", "faults"),
        range(0, 0x28, 4),
        strict=True,
    )
)

EVENT = wiring.Signature(
    {"valid": Out(1), "kind": Out(5), "slot": Out(4), "pc": Out(16), "line": Out(16), "data": Out(32), "data2": Out(32)}
)


class Copier(wiring.Component):
    def __init__(self, data_bytes):
        self.data_bytes = data_bytes
        super().__init__(
            {
                "axil": In(AxiLiteSignature(12)),
                "mem": Out(Axi4Signature(data_bytes)),
                "irq": Out(1),
                "trace_engine": Out(EVENT),
                "trace_array": Out(EVENT),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, mem = self.axil, self.mem
        source, destination, beats = Signal(32), Signal(32), Signal(32)
        cycles = Signal(32)
        burst, in_flight, ids = Signal(5, init=16), Signal(8, init=4), Signal(4, init=1)
        faults = Signal(3)
        busy = Signal()
        m.d.sync += cycles.eq(cycles + 1)

        # Registers
        write = bus.awvalid & bus.wvalid & ~bus.bvalid
        m.d.comb += [bus.awready.eq(write), bus.wready.eq(write), bus.arready.eq(~bus.rvalid)]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        go = Signal()
        with m.If(write):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(0)]
            with m.Switch(bus.awaddr):
                for address, target in (
                    (0x00, source),
                    (0x04, destination),
                    (0x08, beats),
                    (0x18, burst),
                    (0x1C, in_flight),
                    (0x20, ids),
                    (0x24, faults),
                ):
                    with m.Case(address):
                        m.d.sync += target.eq(bus.wdata)
                with m.Case(0x0C):
                    m.d.comb += go.eq(1)
                with m.Case(0x10):
                    m.d.sync += self.irq.eq(0)
                with m.Default():
                    m.d.sync += bus.bresp.eq(SLVERR)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq(0)]
            with m.Switch(bus.araddr):
                for address, value in (
                    (0x00, source),
                    (0x04, destination),
                    (0x08, beats),
                    (0x0C, busy),
                    (0x10, self.irq),
                    (0x14, cycles),
                ):
                    with m.Case(address):
                        m.d.sync += bus.rdata.eq(value)
                with m.Default():
                    m.d.sync += bus.rresp.eq(SLVERR)

        # Copying
        depth = 256
        m.submodules.buffer = buffer = fifo.SyncFIFOBuffered(width=8 * self.data_bytes, depth=depth)
        to_read, to_write, left = Signal(32), Signal(32), Signal(32)
        reserved = Signal(range(depth + 1))  # beats asked for or in the buffer
        reading = Signal(8)
        granted = Signal(range(depth + 1))  # beats in the buffer whose AW was taken
        beat = Signal(5)
        read_id = Signal(3)
        ar, r = mem.arvalid & mem.arready, mem.rvalid & mem.rready
        aw, w, b = mem.awvalid & mem.awready, mem.wvalid & mem.wready, mem.bvalid & mem.bready
        size = (self.data_bytes - 1).bit_length()
        m.d.comb += [
            mem.arlen.eq(burst - 1),
            mem.arsize.eq(size),
            mem.arburst.eq(1),
            mem.arid.eq(read_id),
            mem.araddr.eq(source),
            mem.rready.eq(1),
            buffer.w_en.eq(mem.rvalid),
            buffer.w_data.eq(mem.rdata),
            mem.awlen.eq(burst - 1),
            mem.awsize.eq(size),
            mem.awburst.eq(1),
            mem.awid.eq(5),
            mem.awaddr.eq(destination),
            mem.wvalid.eq(buffer.r_rdy & (granted != 0)),
            mem.wdata.eq(buffer.r_data),
            mem.wstrb.eq(~0),
            mem.wlast.eq((beat == burst - 1) & ~faults[1]),
            buffer.r_en.eq(w),
            mem.bready.eq(1),
        ]
        step = burst << size
        m.d.sync += [
            reading.eq(reading + ar - (r & mem.rlast)),
            reserved.eq(reserved + Mux(ar, burst, 0) - w),
            granted.eq(granted + Mux(aw, burst, 0) - w),
        ]
        may_read = Signal()
        m.d.comb += may_read.eq(
            (to_read > Mux(ar, burst, 0)) & (reading + ar < in_flight) & (reserved + Mux(ar, 2 * burst, burst) <= depth)
        )
        with m.If(~mem.arvalid | mem.arready):
            m.d.sync += mem.arvalid.eq(may_read)
        with m.Elif(faults[0]):
            m.d.sync += source.eq(source ^ step)
        with m.If(ar):
            m.d.sync += [source.eq(source + step), to_read.eq(to_read - burst), read_id.eq((read_id + 1) & (ids - 1))]
        with m.If(~mem.awvalid | mem.awready):
            m.d.sync += mem.awvalid.eq(
                (to_write > Mux(aw, burst, 0)) & (buffer.level >= granted + Mux(aw, 2 * burst, burst))
            )
        with m.If(aw):
            m.d.sync += [destination.eq(destination + step), to_write.eq(to_write - burst)]
        with m.If(w):
            m.d.sync += beat.eq(Mux(beat == burst - 1, 0, beat + 1))
        with m.If(b):
            m.d.sync += left.eq(left - burst)
            with m.If(left == burst):
                m.d.sync += [busy.eq(0), self.irq.eq(1)]
        with m.If(go):
            m.d.sync += [to_read.eq(beats), to_write.eq(beats), left.eq(beats), busy.eq(1)]
        with m.If(~ResetSignal()):
            m.d.sync += Assert(~(go & faults[2]), "go with fault 2")

        m.d.comb += [
            self.trace_engine.valid.eq(ar | aw | b),
            self.trace_engine.kind.eq(Cat(ar, aw, b)),
            self.trace_engine.slot.eq(mem.bresp),
            self.trace_engine.data.eq(mem.araddr),
            self.trace_engine.data2.eq(mem.awaddr),
            self.trace_array.valid.eq(r | w),
            self.trace_array.kind.eq(Cat(r, w, w & mem.wlast)),
            self.trace_array.slot.eq(mem.rid),
            self.trace_array.line.eq(mem.rresp),
            self.trace_array.data.eq(mem.rdata),
        ]
        return m


def copier_verilog(data_bytes):
    """Verilog of a Copier as module ``npu``."""
    return verilog.convert(Copier(data_bytes), name="npu", emit_src=False)
