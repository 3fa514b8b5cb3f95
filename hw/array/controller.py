"""Controller: the loop nest of a tile, one MAC row per cycle."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..isa import ArrayEvent
from ..tile import DIMENSION_BITS, Layouts
from .accumulators import RMW_DISTANCE
from .stacking import Stacking

__all__ = ["STATUS", "SWAP", "Controller", "row_layout"]

STATUS = data.StructLayout({"busy": 1, "vector": 1, "waiting_weights": 1, "waiting_output": 1})

# A weight set becomes active. parameters: those of its c-tile come next in the stream, for ``bank``; ctile_ends,
# tile_ends: it is the last set of its c-tile, of its tile.
SWAP = data.StructLayout({"valid": 1, "parameters": 1, "bank": 1, "ctile_ends": 1, "tile_ends": 1})


def row_layout(config):
    """An issued row: what the pipeline behind the controller needs to know.

    x: pixel of the line; row: of the sub-tile; column: x * sx + kx; offset: words from the line's base; first: write
    without reading; last: the last row of its c-tile; count_taps: the first word of a POOL c-tile.
    """
    layouts = Layouts(config)
    return data.StructLayout(
        {
            "valid": 1,
            "line": ceil_log2(config.max_lines),
            "x": layouts.row_count,
            "row": ceil_log2(config.rows),
            "ky": 8,
            "column": DIMENSION_BITS + 2,
            "offset": layouts.word_address,
            "bank": 1,
            "first": 1,
            "last": 1,
            "last_tile": 1,
            "count_taps": 1,
        }
    )


class Controller(Component):
    """Walks c-tiles, steps and rows of one tile after the other.

    for each c-tile of cols output channels:
        CONV: for ky, kx, channel word        POOL: for channel word of the c-tile, ky, kx        (a step)
            for line, x                                                                           (a row, one cycle)

    A step whose weights change waits for its set; a c-tile's first step also for its accumulator bank. Nothing waits
    inside a step; one shorter than RMW_DISTANCE is padded. The last cycle of a tile, in which the next may start, is
    the last cycle of its last step or, if that is later, the one in which the last parameters arrive.

    Members
    -------
    next, start_valid, start_ready, drained, drained_bank, status, trace : as in the array's contract
    tile : the running tile; running : it is valid; reading : it has rows to issue
    set_ready : the next weight set is complete, at the latest in this cycle
    parameters_left : parameters of the running tile are missing after this cycle
    swap : a set becomes active with this cycle's row
    row : the row issued in this cycle
    modes : log2 kr, log2 kd of the c-tile in each accumulator bank

    The trace: TILE with the first row of a tile, CTILE with that of its other c-tiles, END in the last cycle of its
    last step, which is never the first. line: the tile's context; data of TILE: rows | log2_kr << 16 | log2_kd << 20.
    """

    def __init__(self, config):
        self.config = config
        self.stacking = Stacking(config)
        self.layouts = layouts = Layouts(config)
        mode = data.StructLayout({"log2_kr": layouts.log2_stack, "log2_kd": layouts.log2_stack})
        super().__init__(
            {
                "next": In(layouts.array_tile),
                "start_valid": In(1),
                "start_ready": Out(1),
                "tile": Out(layouts.array_tile),
                "running": Out(1),
                "reading": Out(1),
                "set_ready": In(1),
                "parameters_left": In(1),
                "swap": Out(SWAP),
                "row": Out(row_layout(config)),
                "drained": In(1),
                "drained_bank": In(1),
                "modes": Out(data.ArrayLayout(mode, 2)),
                "status": Out(STATUS),
                "trace": Out(layouts.event),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c, layouts, tile = self.config, self.layouts, self.tile
        lane_bits = exact_log2(c.lanes)

        # Position in the tile
        left = Signal(16)  # output channels from this c-tile on
        channel = Signal(10 + lane_bits)  # the c-tile's first one
        ctile = Signal(16)
        bank = Signal()  # runs on from tile to tile
        first_step = Signal()
        kx, ky, word, word_index = Signal(8), Signal(8), Signal(10), Signal(10)
        row_offset, tap_offset = Signal(layouts.word_address), Signal(layouts.word_address)
        line, x, row = Signal(ceil_log2(c.max_lines)), Signal(layouts.row_count), Signal(ceil_log2(c.rows))
        column, x_offset = Signal(DIMENSION_BITS + 2), Signal(layouts.word_address)
        x_step = Signal(layouts.word_address)  # words from one pixel of a line to the next
        pad = Signal(range(RMW_DISTANCE))  # cycles to wait behind the step's last row
        ended = Signal()  # rows are done, parameters are not

        # Where the loops end
        cols, used = Signal(range(c.pes + 1)), Signal(range(c.pes + 1))
        last_word = Signal(10)
        kx_ends, ky_ends, word_ends, last_step, last_ctile = (
            Signal(name=n) for n in ("kx_ends", "ky_ends", "word_ends", "last_step", "last_ctile")
        )
        last_row, first_row, new_set = Signal(), Signal(), Signal()
        m.d.comb += [
            cols.eq(self.stacking.cols(tile.log2_kr, tile.log2_kd)),
            last_ctile.eq(left <= cols),
            used.eq(Mux(last_ctile, left, cols)),
            last_word.eq(Mux(tile.vector, (used - 1)[: len(used)] >> lane_bits, tile.words - 1)),
            kx_ends.eq(kx + 1 == tile.kw),
            ky_ends.eq(ky + 1 == tile.kh),
            word_ends.eq(word_index == last_word),
            last_step.eq(kx_ends & ky_ends & word_ends),
            first_row.eq((row == 0) & (pad == 0)),
            last_row.eq((x + 1 == tile.seg_w) & (line + 1 == tile.lines)),
            new_set.eq(~tile.vector | ((kx == 0) & (ky == 0))),
        ]

        # This cycle
        pending = Signal(2)  # accumulator banks that are filled or drained
        needs_set, needs_bank, issue, step_ends = Signal(), Signal(), Signal(), Signal()
        tile_ends, start = Signal(), Signal()
        m.d.comb += [
            self.reading.eq(self.running & ~ended),
            needs_set.eq(self.reading & first_row & new_set & ~self.set_ready),
            needs_bank.eq(self.reading & first_row & first_step & pending.bit_select(bank, 1)),
            issue.eq(self.reading & (pad == 0) & ~needs_set & ~needs_bank),
            # a one-row step ends while it is padded: a waiting first row is never the end of a step
            step_ends.eq(self.reading & ((pad == 1) | ((pad == 0) & last_row & (row >= RMW_DISTANCE - 1)))),
            tile_ends.eq((ended | (step_ends & last_step & last_ctile)) & ~self.parameters_left),
            self.start_ready.eq(~self.running | tile_ends),
            start.eq(self.start_valid & self.start_ready),
        ]

        # Rows of a step
        with m.If(issue):
            m.d.sync += [x.eq(x + 1), row.eq(row + 1), column.eq(column + tile.sx), x_offset.eq(x_offset + x_step)]
            with m.If(x + 1 == tile.seg_w):
                m.d.sync += [x.eq(0), line.eq(line + 1), column.eq(0), x_offset.eq(0)]
            with m.If(last_row):
                m.d.sync += [line.eq(0), row.eq(0)]
                with m.If(row < RMW_DISTANCE - 1):
                    m.d.sync += pad.eq(RMW_DISTANCE - 1 - row)
        with m.If(pad != 0):
            m.d.sync += pad.eq(pad - 1)

        # Steps of a c-tile: CONV counts words inside, POOL outside of the taps
        next_channel, next_row_offset = Signal.like(channel), Signal.like(row_offset)
        m.d.comb += [
            next_channel.eq(channel + cols),
            next_row_offset.eq(row_offset + tile.line_words),
        ]
        with m.If(step_ends):
            m.d.sync += first_step.eq(0)
            with m.If(tile.vector | word_ends):
                m.d.sync += [kx.eq(kx + 1), tap_offset.eq(tap_offset + tile.pixel_words)]
                with m.If(kx_ends):
                    m.d.sync += [
                        kx.eq(0),
                        ky.eq(ky + 1),
                        row_offset.eq(next_row_offset),
                        tap_offset.eq(next_row_offset),
                    ]
                    with m.If(ky_ends):
                        m.d.sync += [ky.eq(0), row_offset.eq(0), tap_offset.eq(0)]
            with m.If(~tile.vector | (kx_ends & ky_ends)):
                m.d.sync += [word.eq(word + 1), word_index.eq(word_index + 1)]
                with m.If(word_ends):
                    m.d.sync += [word.eq(0), word_index.eq(0)]
            with m.If(last_step):
                m.d.sync += [
                    first_step.eq(1),
                    bank.eq(~bank),
                    ctile.eq(ctile + 1),
                    left.eq(left - cols),
                    channel.eq(next_channel),
                    word.eq(Mux(tile.vector, next_channel >> lane_bits, 0)),
                ]
                with m.If(last_ctile):
                    m.d.sync += ended.eq(1)

        # Tiles
        with m.If(tile_ends):
            m.d.sync += self.running.eq(0)
        with m.If(start):
            m.d.sync += [
                tile.eq(self.next),
                x_step.eq(self.next.sx * self.next.pixel_words),
                self.running.eq(1),
                ended.eq(0),
                left.eq(self.next.out_channels),
                channel.eq(0),
                word.eq(0),
                ctile.eq(0),
                first_step.eq(1),
            ]

        # Accumulator banks
        begins = Signal()
        m.d.comb += begins.eq(issue & first_row & first_step)
        with m.If(self.drained):
            m.d.sync += pending.bit_select(self.drained_bank, 1).eq(0)
        with m.If(begins):
            m.d.sync += pending.bit_select(bank, 1).eq(1)
            for i in range(2):
                with m.If(bank == i):
                    m.d.sync += [self.modes[i].log2_kr.eq(tile.log2_kr), self.modes[i].log2_kd.eq(tile.log2_kd)]

        m.d.comb += [
            self.swap.valid.eq(issue & first_row & new_set),
            self.swap.parameters.eq(~tile.vector & first_step),
            self.swap.bank.eq(bank),
            self.swap.ctile_ends.eq(word_ends & (tile.vector | (kx_ends & ky_ends))),
            self.swap.tile_ends.eq(self.swap.ctile_ends & last_ctile),
            self.row.valid.eq(issue),
            self.row.line.eq(line),
            self.row.x.eq(x),
            self.row.row.eq(row),
            self.row.ky.eq(ky),
            self.row.column.eq(column + kx),
            self.row.offset.eq(tap_offset + word + x_offset),
            self.row.bank.eq(bank),
            self.row.first.eq(first_step),
            self.row.last.eq(last_row & last_step),
            self.row.last_tile.eq(last_ctile),
            self.row.count_taps.eq(tile.vector & (word_index == 0)),
            self.status.busy.eq(issue),
            self.status.vector.eq(self.running & tile.vector),
            self.status.waiting_weights.eq(needs_set | (self.running & ended)),
            self.status.waiting_output.eq(needs_bank),
        ]

        # Events
        event = self.trace
        m.d.comb += event.line.eq(tile.context)
        with m.If(begins):
            m.d.comb += [event.valid.eq(1), event.kind.eq(Mux(ctile == 0, ArrayEvent.TILE, ArrayEvent.CTILE))]
            rows = Signal(16)
            m.d.comb += rows.eq(tile.lines * tile.seg_w)
            with m.If(ctile == 0):
                m.d.comb += event.data.eq(rows | (tile.log2_kr << 16) | (tile.log2_kd << 20))
            with m.Else():
                m.d.comb += event.data.eq(ctile)
        with m.Elif(step_ends & last_step & last_ctile):
            m.d.comb += [event.valid.eq(1), event.kind.eq(ArrayEvent.END)]
        return m
