"""The exit unit: reads an exit's logits, finds the top class and how clear the decision is."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from .. import isa
from ..memory.burst_reader import BurstReader
from ..memory.read_client import ReadClientSignature

__all__ = ["ExitUnit"]


class ExitUnit(wiring.Component):
    """top = argmax(q), ties to the lowest index; S = sum over classes of E[max(q) - q].

    E is the exit's table of 256 32-bit entries in the program region, E[d] = round(2^16 exp(-scale d)); the last TABLES
    tables stay on chip (direct mapped by exit number). S saturates at 2^32 - 1.

    Latency from ``go`` to ``done``: 2 * classes + beats of the logits + 7 + the memory's from a burst to its first
    beat; with a new table also its beats. One decision at a time.

    Members
    -------
    go, slot, program, exit, logits (byte address), table (byte address), classes : a decision; stable until ``done``
    done, top, spread, fault, fault_code : pulse and result
    forget : programs whose tables must go
    """

    TABLES = 4

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "go": In(1),
                "slot": In(ceil_log2(config.slots)),
                "program": In(2),
                "exit": In(4),
                "logits": In(32),
                "table": In(32),
                "classes": In(11),
                "done": Out(1),
                "top": Out(16),
                "spread": Out(32),
                "fault": Out(1),
                "fault_code": Out(4),
                "forget": In(config.programs),
                "client": Out(ReadClientSignature(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.config.bus_bytes
        log_bus = exact_log2(bus)
        m.submodules.reader = reader = BurstReader(self.config, tag_shape=1)  # tag 1: table, 0: logits
        connect(m, reader.client, flipped(self.client))

        per_beat = bus // 4
        table_beats = isa.EXIT_TABLE_BYTES // bus
        m.submodules.tables = tables = memory.Memory(
            shape=data.ArrayLayout(17, per_beat), depth=self.TABLES * table_beats, init=[]
        )
        m.submodules.buffer = buffer = memory.Memory(
            shape=data.ArrayLayout(signed(8), bus), depth=isa.MAX_CLASSES // bus, init=[]
        )
        table_write, table_read = tables.write_port(), tables.read_port()
        write, read = buffer.write_port(), buffer.read_port()

        way = self.exit[: exact_log2(self.TABLES)]
        tags = Array(Signal(34, name=f"tag_{i}") for i in range(self.TABLES))
        valid = Signal(self.TABLES)
        tag = Cat(self.table, self.program)
        hit = Signal()
        m.d.comb += hit.eq(valid.bit_select(way, 1) & (tags[way] == tag))

        entries = reader.data.as_value() if hasattr(reader.data, "as_value") else reader.data
        m.d.comb += [
            table_write.addr.eq(Cat(reader.offset[: exact_log2(table_beats)], way)),
            table_write.en.eq(reader.beat_valid & reader.tag),
            Cat(table_write.data[i] for i in range(per_beat)).eq(
                Cat(entries.word_select(i, 32)[:17] for i in range(per_beat))
            ),
            write.addr.eq(reader.offset),
            write.en.eq(reader.beat_valid & ~reader.tag),
            write.data.eq(entries),
        ]
        failed, rejected = Signal(), Signal()
        with m.If(reader.beat_valid):
            m.d.sync += [failed.eq(failed | reader.error), rejected.eq(rejected | reader.rejected)]

        m.d.comb += [reader.request.p.owner.eq(self.slot), reader.request.p.arena.eq(1)]
        index = Signal(11)  # class whose logit is asked for
        asked = Signal()  # a read of class ``index_1`` is under way
        index_1 = Signal(11)
        m.d.comb += [read.addr.eq(index >> log_bus), read.en.eq(1)]
        logit = Signal(signed(8))
        m.d.comb += logit.eq(Array(read.data)[index_1[:log_bus]])
        best = Signal(signed(8))
        gap = Signal(8)
        m.d.comb += [
            gap.eq(best - logit),
            table_read.en.eq(1),
            table_read.addr.eq(Cat(gap >> exact_log2(per_beat), way)),
        ]
        if per_beat > 1:
            m.d.comb += table_read.addr.eq(Cat(gap[exact_log2(per_beat) :], way))
        looked_up = Signal()
        lane = Signal(max(1, exact_log2(per_beat)))
        total = Signal(33)
        m.d.comb += total.eq(self.spread + Array(table_read.data)[lane])

        with m.FSM(init="Idle"):
            with m.State("Idle"), m.If(self.go):
                m.d.sync += [failed.eq(0), rejected.eq(0), index.eq(0), asked.eq(0), looked_up.eq(0), self.spread.eq(0)]
                m.next = "Logits"
            with m.State("Logits"):
                m.d.comb += [
                    reader.request.valid.eq(1),
                    reader.request.p.addr.eq(self.logits),
                    reader.request.p.beats.eq((self.classes + bus - 1) >> log_bus),
                ]
                with m.If(reader.request.ready):
                    m.next = "Table"
                    with m.If(hit):
                        m.next = "Receive"
            with m.State("Table"):
                m.d.comb += [
                    reader.request.valid.eq(1),
                    reader.request.p.addr.eq(self.table),
                    reader.request.p.beats.eq(table_beats),
                    reader.request.p.arena.eq(0),
                    reader.request.p.owner.eq(self.program),
                    reader.request.p.tag.eq(1),
                ]
                with m.If(reader.request.ready):
                    m.d.sync += [valid.bit_select(way, 1).eq(1), tags[way].eq(tag)]
                    m.next = "Receive both"
            with m.State("Receive both"), m.If(reader.beat_valid & reader.last & reader.tag):
                m.next = "Maximum"
            with m.State("Receive"), m.If(reader.beat_valid & reader.last):
                m.next = "Maximum"
            with m.State("Maximum"):
                with m.If(failed):
                    m.next = "Done"
                with m.Else():
                    m.d.sync += [index.eq(index + 1), index_1.eq(index), asked.eq(1)]
                    with m.If(asked & ((index_1 == 0) | (logit > best))):
                        m.d.sync += [best.eq(logit), self.top.eq(index_1)]
                    with m.If(asked & (index_1 == self.classes - 1)):
                        m.d.sync += [index.eq(0), asked.eq(0)]
                        m.next = "Sum"
            with m.State("Sum"):
                m.d.sync += [
                    index.eq(index + 1),
                    index_1.eq(index),
                    asked.eq(index != self.classes),
                    looked_up.eq(asked),
                    lane.eq(gap if per_beat > 1 else 0),
                ]
                with m.If(looked_up):
                    m.d.sync += self.spread.eq(Mux(total[32], 0xFFFFFFFF, total))
                with m.If(looked_up & ~asked):
                    m.next = "Done"
                with m.If(index == self.classes):
                    m.d.sync += index.eq(index)
            with m.State("Done"):
                m.d.comb += [
                    self.done.eq(1),
                    self.fault.eq(failed),
                    self.fault_code.eq(Mux(rejected, isa.Code.ADDRESS, isa.Code.EXIT_READ)),
                ]
                with m.If(failed):
                    m.d.sync += valid.bit_select(way, 1).eq(0)
                m.next = "Idle"
        for i in range(self.TABLES):
            with m.If(self.forget.bit_select(tags[i][32:], 1)):
                m.d.sync += valid[i].eq(0)
        return m
