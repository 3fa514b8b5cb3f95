"""Loads the second operands of residual additions into their buffer, chunk by chunk, in the epilogue's order."""

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from ..isa import NO_PRODUCER, PC_INDEX_BITS, Code
from ..memory.burst_reader import BurstReader
from ..memory.read_client import ReadClientSignature
from ..post.staging import sub_tile_beats
from ..tile import Layouts, descriptor_layout
from .fragment_window import FragmentWindow, window_layout

__all__ = ["ResidualLoader"]


class ResidualLoader(Component):
    """Reads the second operand of the announced tile, chunk by chunk, each into a half of the residual buffer:

        for chunk in chunks:                     # chunk_beats beats of every pixel, the last one perhaps fewer
            wait until the half is free
            for fragment in fragments: for each of its lines:
                wait until the operand's row is there, read the line's pixels to the next beats of the sub-tile's part
                of the half (post/vector_drain.py)
            wait until all beats have come: the half is full

    Halves alternate. A tile may start when its first chunk is there; the others are read while it runs, each as soon as
    its half was read. The next tile's first chunk comes behind them. Rows are *there* by the stripe loader's rule,
    with res_producer. A chunk that is the whole pixel is read line by line, otherwise pixel by pixel.

    Latency: the first burst is offered 10 cycles after ``announce`` (16 with segments) if the half is free, nothing is
    left to do for the tile before and the row is there; ``loaded`` rises 2 cycles after the last beat's arrival.
    Throughput: a beat per cycle, a run (line or pixel) per cycle, a fragment per 6 cycles.

    Parameters: config.

    Members
    -------
    announce : pulse, a tile is announced; layer, log2_kr, fragments, program and context are levels, stable from then
        to ``start`` or ``revoke``
    revoke : pulse, forget the announced tile; beats under way are discarded when they come
    start : pulse, the announced tile starts
    loaded : level, the announced tile needs no second operand, or its first chunk is in the buffer
    drained : level, no dropped beat is under way (valid from the cycle after ``revoke``)
    waiting : level, the next row is not there yet
    fragment_context, fragment_index -> fragment, there_slot -> done_pc, done_line : combinational reads
    arena_base : per slot, byte address
    client : to the read arbiter
    write, write_valid : to the residual buffer, always taken
    full : per half, the epilogue may begin with it; taken, taken_half : pulse, it has; read, read_half : pulse, the
        half may be written again
    fault, fault_code : pulse per slot in the cycle in which one of its beats arrives (a dropped tile's too) that could
        not be read, and why: Code.RESIDUAL_READ or Code.ADDRESS
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
                "fragments": In(bits_for(config.fragments)),
                "program": In(16 - PC_INDEX_BITS),
                "context": In(layouts.context),
                "loaded": Out(1),
                "drained": Out(1, init=1),
                "waiting": Out(1),
                "fragment_context": Out(layouts.context),
                "fragment_index": Out(layouts.fragment_index),
                "fragment": In(layouts.fragment),
                "arena_base": In(32).array(config.slots),
                "there_slot": Out(layouts.slot),
                "done_pc": In(16),
                "done_line": In(16),
                "client": Out(ReadClientSignature(config)),
                "write": Out(layouts.residual_write),
                "write_valid": Out(1),
                "full": Out(2),
                "taken": In(1),
                "taken_half": In(1),
                "read": In(1),
                "read_half": In(1),
                "fault": Out(config.slots),
                "fault_code": Out(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        place_bits = ceil_log2(c.stage_beats)
        tag = data.StructLayout({"slot": self.layouts.slot, "place": place_bits})
        m.submodules.reader = reader = BurstReader(c, tag, requests_depth=0)
        connect(m, reader.client, flipped(self.client))
        windows = FragmentWindow(c)
        begin, drop = Signal(), Signal()  # drop: the announced tile is revoked, and it is the present one
        m.submodules.windows = ResetInserter(drop)(windows)

        # The present tile, kept because it may run on while the next one is announced
        copied = ("nseg seg_w out_w out_packed chunk_beats res_offset res_line_beats res_pixel_beats res_producer "
                  "res_producer_nseg").split()  # fmt: skip
        tile = Signal(
            data.StructLayout(
                {name: self.layer[name].shape() for name in copied}
                | {
                    "log2_kr": self.layouts.log2_stack,
                    "program": 16 - PC_INDEX_BITS,
                    "context": self.layouts.context,
                    "fragments": bits_for(c.fragments),
                }
            )
        )
        rows = Signal(descriptor_layout())  # the second operand as the input of a 1x1 layer
        m.d.comb += [
            *(rows[name].eq(1) for name in ("kh", "kw", "sy", "sx")),
            *(rows[name].eq(tile[name]) for name in ("nseg", "seg_w", "out_w")),
            rows.in_w.eq(tile.out_w),
            rows.in_packed.eq(tile.out_packed),
            rows.stripe_pixels.eq(tile.seg_w),
            rows.in_offset.eq(tile.res_offset),
            rows.in_line_beats.eq(tile.res_line_beats),
            rows.in_pixel_beats.eq(tile.res_pixel_beats),
            rows.producer_nseg.eq(tile.res_producer_nseg),
            windows.begin.eq(begin),
            windows.layer.eq(rows),
            windows.fragments.eq(tile.fragments),
            windows.fragment.eq(self.fragment),
            self.fragment_index.eq(windows.fragment_index),
            self.fragment_context.eq(tile.context),
            *(sink.eq(source) for sink, source in zip(windows.arena_base, self.arena_base, strict=True)),
        ]

        pending = Signal()  # the announced tile has second operands and is not the present one
        dealt = Signal()  # the present tile has not started
        first_there = Signal()  # the announced tile's first chunk is in the buffer
        half = Signal()  # to be filled next
        free = Signal(2, init=0b11)
        chunk_first = Signal(16)  # beat of the pixel at which the chunk begins
        beats_left = Signal(16)  # of the channels, this chunk included
        used = Signal(8)
        m.d.comb += [
            drop.eq(self.revoke & dealt),
            reader.flush.eq(drop),
            used.eq(Mux(beats_left < tile.chunk_beats, beats_left, tile.chunk_beats)),
            self.loaded.eq(~self.layer.residual | first_there),
        ]
        with m.If(self.taken):
            m.d.sync += self.full.bit_select(self.taken_half, 1).eq(0)
        with m.If(self.read):
            m.d.sync += free.bit_select(self.read_half, 1).eq(1)

        walking = self._walk(m, windows, reader, tile, chunk_first, used, begin, drop)
        with m.FSM(init="Idle"):
            with m.State("Idle"), m.If(pending & ~self.revoke):
                m.d.sync += [
                    *(tile[name].eq(self.layer[name]) for name in copied),
                    tile.log2_kr.eq(self.log2_kr),
                    tile.program.eq(self.program),
                    tile.context.eq(self.context),
                    tile.fragments.eq(self.fragments),
                    chunk_first.eq(0),
                    beats_left.eq((self.layer.out_channels + c.bus_bytes - 1) >> exact_log2(c.bus_bytes)),
                    pending.eq(0),
                    dealt.eq(1),
                ]
                m.next = "Half"
            with m.State("Half"):
                with m.If(drop):
                    m.next = "Idle"
                with m.Elif(free.bit_select(half, 1)):
                    m.d.comb += begin.eq(1)
                    m.d.sync += free.bit_select(half, 1).eq(0)
                    m.next = "Load"
            with m.State("Load"):
                with m.If(drop):
                    m.d.sync += free.bit_select(half, 1).eq(1)
                    m.next = "Idle"
                with m.Elif(windows.finished & ~walking & ~reader.busy):
                    m.d.sync += [
                        self.full.bit_select(half, 1).eq(1),
                        half.eq(~half),
                        chunk_first.eq(chunk_first + used),
                        beats_left.eq(beats_left - used),
                        first_there.eq(first_there | dealt),
                    ]
                    m.next = "Next"
            with m.State("Next"):
                with m.If(drop):
                    m.d.sync += [
                        self.full.bit_select(~half, 1).eq(0),
                        free.bit_select(~half, 1).eq(1),
                        half.eq(~half),
                    ]
                    m.next = "Idle"
                with m.Elif(~dealt):
                    m.next = "Half"
                    with m.If(beats_left == 0):
                        m.next = "Idle"

        # The announced tile comes, starts or goes
        with m.If(self.announce):
            m.d.sync += pending.eq(self.layer.residual)
        with m.If(self.revoke):
            m.d.sync += pending.eq(0)
        with m.If(self.start | self.revoke):
            m.d.sync += [dealt.eq(0), first_there.eq(0)]
        self._receive(m, reader, half, drop)
        return m

    def _walk(self, m, windows, reader, tile, chunk_first, used, begin, drop):
        """Goes through the lines of one fragment after the other; returns the level "there is one"."""
        beat_shift = exact_log2(self.config.bus_bytes)
        walking = Signal()
        now = Signal(window_layout(self.config))  # addr: of the present line
        run = Signal(32)  # byte address of the present run
        pixels_left = Signal(self.layouts.row_count)
        place = Signal(range(self.config.stage_beats))
        whole, there, step, line_ends, ends = (Signal(name=n) for n in ("whole", "there", "step", "line_ends", "ends"))
        next_line = Signal(32)
        request = reader.request
        m.d.comb += [
            whole.eq(used == tile.res_pixel_beats),
            self.there_slot.eq(now.slot),
            there.eq(
                (tile.res_producer == NO_PRODUCER)
                | (Cat(now.need, tile.res_producer[:PC_INDEX_BITS], tile.program) < Cat(self.done_line, self.done_pc))
            ),
            self.waiting.eq(walking & ~there),
            line_ends.eq(whole | (pixels_left == 1)),
            ends.eq(line_ends & (now.lines == 1)),
            next_line.eq(now.addr + (tile.res_line_beats << beat_shift)),
            request.valid.eq(walking & there & ~drop),
            request.p.addr.eq(run),
            request.p.beats.eq(Mux(whole, now.row_beats, used)),
            request.p.arena.eq(1),
            request.p.owner.eq(now.slot),
            request.p.tag.slot.eq(now.slot),
            request.p.tag.place.eq(place),
            step.eq(request.valid & request.ready),
        ]
        with m.If(step):
            m.d.sync += [
                place.eq(place + request.p.beats),
                run.eq(run + (tile.res_pixel_beats << beat_shift)),
                pixels_left.eq(pixels_left - 1),
                walking.eq(~ends),
            ]
            with m.If(line_ends):
                m.d.sync += [
                    run.eq(next_line),
                    now.addr.eq(next_line),
                    now.need.eq(now.need + tile.res_producer_nseg),
                    now.lines.eq(now.lines - 1),
                    pixels_left.eq(now.width),
                ]
        with m.If(begin):
            m.d.sync += place.eq(0)
        window = windows.window
        m.d.comb += window.ready.eq(~walking | (step & ends))
        with m.If(window.valid & window.ready):
            first = window.p.addr + (chunk_first << beat_shift)
            m.d.sync += [now.eq(window.p), now.addr.eq(first), run.eq(first), pixels_left.eq(window.p.width)]
            m.d.sync += walking.eq(1)
            with m.If(window.p.sub_tile != now.sub_tile):
                m.d.sync += place.eq(sub_tile_beats(self.config, window.p.sub_tile, tile.log2_kr))
        with m.If(drop):
            m.d.sync += walking.eq(0)
        return walking

    def _receive(self, m, reader, half, drop):
        """Beats into the buffer, or away; faults."""
        dropping = Signal()
        with m.If(drop | dropping):
            m.d.sync += dropping.eq(reader.outstanding)
        m.d.comb += self.drained.eq(~dropping)
        m.d.sync += [
            self.write_valid.eq(reader.beat_valid & ~dropping & ~drop),
            self.write.half.eq(half),
            self.write.address.eq(reader.tag.place + reader.offset),
            self.write.data.eq(reader.data),
        ]
        with m.If(reader.beat_valid & reader.error):
            m.d.comb += self.fault.eq(1 << reader.tag.slot)
        m.d.comb += self.fault_code.eq(Mux(reader.rejected, Code.ADDRESS, Code.RESIDUAL_READ))
