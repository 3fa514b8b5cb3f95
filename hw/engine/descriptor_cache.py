"""Descriptors of the operations where slots stand: fetched once for all slots at a pc, checked, kept on chip."""

from amaranth.hdl import Array, C, Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from .. import isa
from ..memory.burst_reader import BurstReader
from ..memory.read_client import ReadClientSignature
from ..tile import descriptor_layout
from .descriptor_check import DescriptorCheck

__all__ = ["DescriptorCache"]


class DescriptorCache(wiring.Component):
    """``slots`` + 1 descriptors, fully associative by pc, so that an entry no slot refers to always exists.

    Works by itself: visits one slot per cycle that is live but does not know its descriptor (``wanted``), and either
    finds it (``found``: the slot may refer to entry ``found_entry`` from the next cycle on) or fetches and checks it.
    A fetch that fails reports every slot that wants this pc in ``fault``; the entry is not kept.

    Latency: a hit at most ``slots`` + 1 cycles after a slot starts to want; a miss that, the memory's latency,
    DESCRIPTOR_BYTES / bus_bytes beats and at most DescriptorCheck.CYCLES.

    Members
    -------
    wanted, pc : slots that need the descriptor of their pc
    used : entries that slots refer to
    found, found_slot, found_entry, found_op : a slot's descriptor is in the cache
    fault, fault_code : slots whose descriptor cannot be had
    read_entry, read : combinational read port
    forget : programs whose entries must go (their region changed)
    fetching, fetch_pc : a fetch is under way
    """

    def __init__(self, config):
        self.config = config
        n = config.slots
        self.entries = n + 1
        entry = ceil_log2(self.entries)
        super().__init__(
            {
                "wanted": In(n),
                "pc": In(16).array(n),
                "used": In(self.entries),
                "found": Out(1),
                "found_slot": Out(ceil_log2(n)),
                "found_entry": Out(entry),
                "found_op": Out(4),
                "fault": Out(n),
                "fault_code": Out(4),
                "read_entry": In(entry),
                "read": Out(descriptor_layout()),
                "forget": In(config.programs),
                "program_base": In(32).array(config.programs),
                "program_ops": In(16).array(config.programs),
                "fetching": Out(1),
                "fetch_pc": Out(16),
                "client": Out(ReadClientSignature(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self.config
        n = config.slots
        beats = isa.DESCRIPTOR_BYTES // config.bus_bytes
        m.submodules.reader = reader = BurstReader(config, tag_shape=1)
        connect(m, reader.client, flipped(self.client))
        m.submodules.check = check = DescriptorCheck(config)
        m.submodules.store = store = memory.Memory(
            shape=32 * isa.DESCRIPTOR_WORDS, depth=self.entries, init=[], attrs={"ram_style": "distributed"}
        )
        write = store.write_port()
        read = store.read_port(domain="comb")
        m.d.comb += [read.addr.eq(self.read_entry), self.read.eq(read.data)]

        tags = Array(Signal(16, name=f"tag_{e}") for e in range(self.entries))
        ops = Array(Signal(4, name=f"op_{e}") for e in range(self.entries))
        valid = Signal(self.entries)

        # Visit
        cursor = Signal(range(n))
        pc = Signal(16)
        m.d.comb += pc.eq(Array(self.pc)[cursor])
        m.d.sync += cursor.eq(cursor + 1)
        wants = Signal()
        hits = Signal(self.entries)
        m.d.comb += [
            wants.eq(self.wanted.bit_select(cursor, 1)),
            hits.eq(Cat(valid[e] & (tags[e] == pc) for e in range(self.entries))),
            self.found.eq(wants & hits.any()),
            self.found_slot.eq(cursor),
        ]
        for e in range(self.entries):
            with m.If(hits[e]):
                m.d.comb += [self.found_entry.eq(e), self.found_op.eq(ops[e])]

        # Fetch. The entry filled last stays until the next one is there: by then every slot was visited, so that slots
        # at different pcs cannot throw out each other's descriptors for ever. Whoever wants leaves two entries unused.
        victim = Signal(range(self.entries))
        filled = Signal.like(victim)
        for e in reversed(range(self.entries)):
            with m.If(~self.used[e] & (filled != e)):
                m.d.comb += victim.eq(e)
        entry = Signal.like(victim)
        incoming = Signal(data.ArrayLayout(8 * config.bus_bytes, beats))
        failed, rejected, stale = Signal(), Signal(), Signal()
        program = self.fetch_pc[isa.PC_INDEX_BITS :]
        index = self.fetch_pc[: isa.PC_INDEX_BITS]
        # index * DESCRIPTOR_BYTES without a multiplier
        place = sum((index << k for k in range(16) if isa.DESCRIPTOR_BYTES >> k & 1), C(0))
        waiting = Cat(self.wanted[s] & (self.pc[s] == self.fetch_pc) for s in range(n))
        m.d.comb += [
            reader.request.p.addr.eq(
                Array(self.program_base)[program] + place,
            ),
            reader.request.p.beats.eq(beats),
            reader.request.p.arena.eq(0),
            reader.request.p.owner.eq(program),
            check.descriptor.eq(incoming),
            check.index.eq(index),
            check.ops.eq(Array(self.program_ops)[program]),
            write.addr.eq(entry),
            write.data.eq(incoming),
        ]
        with m.If(reader.beat_valid):
            m.d.sync += [
                incoming[reader.offset[: ceil_log2(beats)]].eq(reader.data),
                failed.eq(failed | reader.error),
                rejected.eq(rejected | reader.rejected),
            ]
        changed = Array(self.forget)[program] if config.programs > 1 else self.forget[0]
        with m.If(self.fetching & changed):
            m.d.sync += stale.eq(1)

        with m.FSM(init="Idle"):
            with m.State("Idle"), m.If(wants & ~hits.any() & ~self.forget.any()):
                m.d.sync += [
                    self.fetch_pc.eq(pc),
                    entry.eq(victim),
                    failed.eq(0),
                    rejected.eq(0),
                    stale.eq(0),
                    self.fetching.eq(1),
                ]
                m.d.sync += valid.bit_select(victim, 1).eq(0)
                m.next = "Ask"
            with m.State("Ask"):
                with m.If(index >= Array(self.program_ops)[program]):
                    m.d.comb += [self.fault.eq(waiting), self.fault_code.eq(isa.Code.DESCRIPTOR)]
                    m.d.sync += self.fetching.eq(0)
                    m.next = "Idle"
                with m.Else():
                    m.d.comb += reader.request.valid.eq(1)
                    with m.If(reader.request.ready):
                        m.next = "Receive"
            with m.State("Receive"), m.If(reader.beat_valid & reader.last):
                m.next = "Judge"
            with m.State("Judge"):
                with m.If(failed | rejected):
                    m.d.comb += [
                        self.fault.eq(waiting),
                        self.fault_code.eq(isa.Code.DESCRIPTOR_READ),
                    ]
                    with m.If(rejected):
                        m.d.comb += self.fault_code.eq(isa.Code.ADDRESS)
                    m.d.sync += self.fetching.eq(0)
                    m.next = "Idle"
                with m.Else():
                    m.d.comb += check.go.eq(1)
                    m.next = "Check"
            with m.State("Check"), m.If(check.done):
                m.d.sync += self.fetching.eq(0)
                m.next = "Idle"
                with m.If(check.bad):
                    m.d.comb += [self.fault.eq(waiting), self.fault_code.eq(isa.Code.DESCRIPTOR)]
                with m.Elif(~stale & ~changed):
                    m.d.comb += write.en.eq(1)
                    m.d.sync += [
                        filled.eq(entry),
                        valid.bit_select(entry, 1).eq(1),
                        tags[entry].eq(self.fetch_pc),
                        ops[entry].eq(check.descriptor.op),
                    ]
        for e in range(self.entries):
            with m.If(self.forget.bit_select(tags[e][isa.PC_INDEX_BITS :], 1)):
                m.d.sync += valid[e].eq(0)
        return m
