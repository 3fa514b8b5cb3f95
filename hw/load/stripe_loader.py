"""Loads the announced tile's stripes into the activation banks, every input row as soon as it is there."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from ..isa import NO_PRODUCER, PC_INDEX_BITS, Code
from ..memory.burst_reader import BurstReader
from ..memory.read_client import ReadClientSignature
from ..tile import Layouts, descriptor_layout
from .fragment_window import FragmentWindow, stack_beat_bits, window_layout

__all__ = ["StripeLoader"]

_CODE_BITS = 4


class StripeLoader(Component):
    """Reads the input rows of the announced tile's fragments and writes the line tables, in the order

        for fragment in fragments:                            # a new sub-tile begins at stripe line 0 of its banks
            for each input row of its windows, shared rows once, rows between windows (sy > kh) left out:
                first row of a window: write the output line's entry
                row inside the image:  wait until it is there, read it to the present stripe line
                next stripe line

    A row is *there* if the layer reads the input image or (pc, last line of the row) of its producer is in front of
    the slot's done position. Beat j of a stripe line goes to the stack's depth d = j mod kd, beat address j / kd; the
    upper bits of a stack's beat address choose the bank. At most one of the pulses ``announce``, ``revoke`` and
    ``start`` comes in a cycle.

    Latency: the first burst is offered 8 cycles after ``announce`` (14 with segments) if its row is there; a beat is
    in its bank 2 cycles after its arrival, which is when ``loaded`` rises after the last one. Throughput: one row per
    cycle, one beat per cycle, a fragment per 6 cycles (the next one is prepared while the present one is read).

    Parameters: config.

    Members
    -------
    announce : pulse, begin; only while ``drained``. layer, log2_kr, log2_kd, half, fragments, program are levels,
        stable from then to ``start`` or ``revoke``
    revoke : pulse, stop; beats under way are discarded when they come
    start : pulse, the tile was handed over
    loaded : level, the stripes are in the banks and the line entries written; falls with each of the pulses
    drained : level, no dropped beat is under way (valid from the cycle after ``revoke``)
    waiting : level, the next input row is not there yet
    fragment_index -> fragment, there_slot -> done_pc, done_line : combinational reads
    arena_base : per slot, byte address
    client : to the read arbiter
    fill, fill_valid, line_write, line_write_valid : to the array, always taken
    fault, fault_code : pulse per slot in the cycle in which one of its beats arrives (a dropped tile's too) that could
        not be read, and why: Code.STRIPE_READ or Code.ADDRESS
    """

    def __init__(self, config):
        self.config = config
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "announce": In(1),
                "revoke": In(1),
                "start": In(1),
                "layer": In(descriptor_layout()),
                "log2_kr": In(layouts.log2_stack),
                "log2_kd": In(layouts.log2_stack),
                "half": In(1),
                "fragments": In(bits_for(config.fragments)),
                "program": In(16 - PC_INDEX_BITS),
                "loaded": Out(1),
                "drained": Out(1, init=1),
                "waiting": Out(1),
                "fragment_index": Out(layouts.fragment_index),
                "fragment": In(layouts.fragment),
                "arena_base": In(32).array(config.slots),
                "there_slot": Out(layouts.slot),
                "done_pc": In(16),
                "done_line": In(16),
                "client": Out(ReadClientSignature(config)),
                "fill": Out(layouts.fill),
                "fill_valid": Out(1),
                "line_write": Out(layouts.line_write),
                "line_write_valid": Out(1),
                "fault": Out(config.slots),
                "fault_code": Out(_CODE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        tag = data.StructLayout(
            {"slot": self.layouts.slot, "sub_tile": self.layouts.sub_tile, "place": stack_beat_bits(c)}
        )
        m.submodules.reader = reader = BurstReader(c, tag, requests_depth=0)
        connect(m, reader.client, flipped(self.client))
        m.d.comb += reader.flush.eq(self.revoke)

        windows = FragmentWindow(c)
        stop = self.revoke | self.start
        m.submodules.windows = ResetInserter(stop)(windows)
        m.d.comb += [
            windows.begin.eq(self.announce),
            windows.layer.eq(self.layer),
            windows.log2_kd.eq(self.log2_kd),
            windows.fragments.eq(self.fragments),
            self.fragment_index.eq(windows.fragment_index),
            windows.fragment.eq(self.fragment),
            *(sink.eq(source) for sink, source in zip(windows.arena_base, self.arena_base, strict=True)),
        ]

        walking = self._walk(m, windows, reader, stop)
        self._fill(m, reader)
        with m.If(stop | self.announce):
            m.d.sync += self.loaded.eq(0)
        with m.Elif(windows.finished & ~walking & ~reader.busy):
            m.d.sync += self.loaded.eq(1)
        return m

    def _walk(self, m, windows, reader, stop):
        """Goes through the rows of one window list after the other; returns the level "there is one"."""
        c, layer = self.config, self.layer
        beat_shift = exact_log2(c.bus_bytes)
        walking = Signal()
        fresh = Signal()  # no fragment of this tile was taken
        now = Signal(window_layout(c))  # of the present row; lines: those whose window does not begin before it
        line_place = Signal(stack_beat_bits(c))  # beats in front of the present stripe line
        index = Signal(ceil_log2(c.max_lines))  # of the next output line in its sub-tile
        to_window = Signal(8)  # stripe lines to the next window
        rows_left = Signal(8)  # of the present window, without this row

        # Does a window begin here, does it end here?
        begins, ends, row_end, inside, there, step = (
            Signal(name=name) for name in ("begins", "ends", "row_end", "inside", "there", "step")
        )
        skipping = layer.sy > layer.kh
        rows_after = Mux(begins, layer.kh - 1, rows_left)[:8]
        m.d.comb += [
            begins.eq((now.lines != 0) & (to_window == 0)),
            row_end.eq(rows_after == 0),
            ends.eq(row_end & (now.lines == begins)),
            inside.eq((now.y_top >= 0) & (now.y_top < layer.in_h) & (now.row_beats != 0)),
            self.there_slot.eq(now.slot),
            there.eq(
                (layer.producer == NO_PRODUCER)
                | (Cat(now.need, layer.producer[:PC_INDEX_BITS], self.program) < Cat(self.done_line, self.done_pc))
            ),
            self.waiting.eq(walking & inside & ~there),
            reader.request.valid.eq(walking & inside & there & ~stop),
            reader.request.p.addr.eq(now.addr),
            reader.request.p.beats.eq(now.row_beats),
            reader.request.p.arena.eq(1),
            reader.request.p.owner.eq(now.slot),
            reader.request.p.tag.slot.eq(now.slot),
            reader.request.p.tag.sub_tile.eq(now.sub_tile),
            reader.request.p.tag.place.eq(line_place + now.place),
            step.eq(walking & ~stop & (~inside | (there & reader.request.ready))),
        ]

        with m.If(step):
            m.d.sync += [
                line_place.eq(line_place + (layer.stripe_line_beats >> self.log2_kd)),
                rows_left.eq(rows_after - 1),
                to_window.eq(to_window - 1),
                now.y_top.eq(now.y_top + 1),
                now.addr.eq(now.addr + (layer.in_line_beats << beat_shift)),
                now.need.eq(now.need + layer.producer_nseg),
                walking.eq(~ends),
            ]
            with m.If(begins):
                m.d.sync += [
                    now.lines.eq(now.lines - 1),
                    index.eq(index + 1),
                    to_window.eq(Mux(skipping, layer.kh, layer.sy) - 1),
                ]
            with m.If(row_end & skipping):
                m.d.sync += [
                    now.y_top.eq(now.y_top + 1 + layer.sy - layer.kh),
                    now.addr.eq(now.addr + (layer.in_line_beats << beat_shift) + windows.skip_addr),
                    now.need.eq(now.need + layer.producer_nseg + windows.skip_need),
                ]

        # Take the next fragment.
        m.d.comb += windows.window.ready.eq(~walking | (step & ends))
        with m.If(windows.window.valid & windows.window.ready):
            m.d.sync += [now.eq(windows.window.p), walking.eq(1), to_window.eq(0), fresh.eq(0)]
            with m.If(fresh | (windows.window.p.sub_tile != now.sub_tile)):
                m.d.sync += [line_place.eq(0), index.eq(0)]
        with m.If(self.announce):
            m.d.sync += fresh.eq(1)
        with m.If(stop):
            m.d.sync += walking.eq(0)

        # The line entry goes with the first row of its window.
        entry = self.line_write
        m.d.sync += [
            self.line_write_valid.eq(step & begins),
            entry.half.eq(self.half),
            entry.banks.eq(self._banks_of(now.sub_tile)),
            entry.index.eq(index),
            entry.line.base.eq((line_place << exact_log2(c.words_per_beat)) - windows.pad_words),
            entry.line.y_top.eq(now.y_top),
            entry.line.x_left.eq(now.x_left),
            entry.line.width.eq(now.width),
        ]
        return walking

    def _banks_of(self, sub_tile):
        """Mask of the banks of all stacks (sub_tile, d): their upper log2(kr) index bits equal it."""
        bits = ceil_log2(self.config.max_stack)
        return Cat(((bank << self.log2_kr) >> bits) == sub_tile for bank in range(self.config.max_stack))

    def _fill(self, m, reader):
        """Beats to their banks, or away; faults."""
        c = self.config
        bits = ceil_log2(c.max_stack)
        dropping = Signal()
        with m.If(self.revoke | dropping):
            m.d.sync += dropping.eq(reader.outstanding)

        tag = reader.tag
        place = Signal(stack_beat_bits(c))
        depth = Signal(max(1, bits))
        bank = Signal(max(1, bits))
        m.d.comb += [
            place.eq(tag.place + (reader.offset >> self.log2_kd)),
            depth.eq(reader.offset & ((1 << self.log2_kd) - 1)),
            bank.eq(
                ((tag.sub_tile << bits) >> self.log2_kr) | (place[self.layouts.bank_address :] << self.log2_kd) | depth
            ),
            self.drained.eq(~dropping),
        ]
        m.d.sync += [
            self.fill_valid.eq(reader.beat_valid & ~dropping & ~self.revoke),
            self.fill.half.eq(self.half),
            self.fill.banks.eq(1 << bank),
            self.fill.address.eq(place[: self.layouts.bank_address]),
            self.fill.data.eq(reader.data),
        ]
        with m.If(reader.beat_valid & reader.error):
            m.d.comb += self.fault.eq(1 << tag.slot)
        m.d.comb += self.fault_code.eq(Mux(reader.rejected, Code.ADDRESS, Code.STRIPE_READ))
