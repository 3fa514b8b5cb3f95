"""Controller: the loop nest of a tile, one MAC row or one tap of the vector path per cycle."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2

from ..isa import ArrayEvent
from ..tile import DIMENSION_BITS, Layouts
from .accumulators import RMW_DISTANCE
from .pe import ONES, TAP_ADDRESS_BITS
from .stacking import Stacking

__all__ = ["STATUS", "SWAP", "Controller", "row_layout"]

STATUS = data.StructLayout({"busy": 1, "vector": 1, "waiting_weights": 1, "waiting_output": 1})

# A weight set becomes active. parameters: those of its c-tile come next in the stream, for ``bank``; ctile_ends,
# tile_ends: it is the last set of its c-tile, of its tile.
SWAP = data.StructLayout({"valid": 1, "parameters": 1, "bank": 1, "ctile_ends": 1, "tile_ends": 1})


def row_layout(config):
    """An issued row: what the pipeline behind the controller needs to know.

    x: pixel of the line; row: of the sub-tile; column: x * sx + kx; offset: words from the line's base; first: write
    without reading; last: the last row of its c-tile (vector: its last tap); sums: for the accumulators.
    Vector: tap (of the weights), begins and ends (the row's first and last tap).
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
            "sums": 1,
            "tap": TAP_ADDRESS_BITS,
            "begins": 1,
            "ends": 1,
        }
    )


class Controller(Component):
    """Walks c-tiles, steps and rows of one tile after the other.

    CONV: for each c-tile of cols output channels:
        for ky, kx, channel word, (twice: set)     (a step)
            for line, x                            (a row, one cycle)
    DEPTHWISE, POOL: for each channel word         (a block)
        for line, x                                (a row)
            for ky, kx, (twice: set)               (a tap, one cycle)

    A step whose weights change waits for its set; a c-tile's first step also for its accumulator bank. Nothing waits
    inside a step; one shorter than RMW_DISTANCE is padded. A block waits for its weights (POOL: none) and for its
    permit, a row of it until its last tap can be ``drain`` cycles behind the last tap before, drain = sub-tiles that
    have lines * kd * max(1, lanes / post_lanes). The last cycle of a tile, in which the next may start, is
    the last cycle of its last step or, if that is later, the one in which the last parameters arrive.

    Members
    -------
    next, start_valid, start_ready, drained, drained_bank, status, trace : as in the array's contract
    tile : the running tile; running : it is valid; reading : it has rows to issue
    set_ready : the next weight set (DEPTHWISE: the next block's weights) is complete, at the latest in this cycle
    permit_valid, permit_taken : the results of a block will be taken; it begins
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
                "permit_valid": In(1),
                "permit_taken": Out(1),
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

        # Position in the tile
        left = Signal(16)  # output channels from this c-tile on
        ctile = Signal(16)
        bank = Signal()  # runs on from tile to tile
        first_step = Signal()
        kx, ky, word, second = Signal(8), Signal(8), Signal(10), Signal()
        tap = Signal(TAP_ADDRESS_BITS)
        row_offset, tap_offset = Signal(layouts.word_address), Signal(layouts.word_address)
        line, x, row = Signal(ceil_log2(c.max_lines)), Signal(layouts.row_count), Signal(ceil_log2(c.rows))
        column, x_offset = Signal(DIMENSION_BITS + 2), Signal(layouts.word_address)
        x_step = Signal(layouts.word_address)  # words from one pixel of a line to the next
        pad = Signal(range(RMW_DISTANCE))  # cycles to wait behind the step's last row
        ended = Signal()  # rows are done, parameters are not

        # Where the loops end
        cols = Signal(range(c.pes + 1))
        window_begins, window_ends, word_ends, last_step, last_ctile = (
            Signal(name=n) for n in ("window_begins", "window_ends", "word_ends", "last_step", "last_ctile")
        )
        kx_ends, ky_ends, last_row, first_row = (
            Signal(name=n) for n in ("kx_ends", "ky_ends", "last_row", "first_row")
        )
        vector, conv = Signal(), Signal()
        last_visit = Signal()  # of a word (vector: of a tap)
        m.d.comb += [
            vector.eq(tile.vector),
            conv.eq(~tile.vector),
            cols.eq(self.stacking.cols(tile.log2_kr, tile.log2_kd)),
            kx_ends.eq(kx + 1 == tile.kw),
            ky_ends.eq(ky + 1 == tile.kh),
            last_visit.eq(second | ~tile.twice),
            window_begins.eq((kx == 0) & (ky == 0) & ~second),
            window_ends.eq(kx_ends & ky_ends & last_visit),
            word_ends.eq(word + 1 == tile.words),
            last_step.eq(vector | (window_ends & word_ends)),
            last_ctile.eq(Mux(vector, word_ends, left <= cols)),
            first_row.eq((row == 0) & (pad == 0) & (conv | window_begins)),
            last_row.eq((x + 1 == tile.seg_w) & (line + 1 == tile.lines)),
        ]

        # This cycle
        pending = Signal(2)  # accumulator banks that are filled or drained
        needs_set, needs_room, issue, step_ends = Signal(), Signal(), Signal(), Signal()
        begins, ends, tile_ends, start = Signal(), Signal(), Signal(), Signal()
        late_end = Signal()  # the last block took one cycle
        draining = self._drain_time(m, issue & vector & window_ends)
        m.d.comb += [
            self.reading.eq(self.running & ~ended),
            needs_set.eq(self.reading & first_row & ~tile.pool & ~self.set_ready),
            needs_room.eq(
                self.reading
                & Mux(
                    vector,
                    window_begins & (draining | ((row == 0) & ~self.permit_valid)),
                    first_row & first_step & pending.bit_select(bank, 1),
                )
            ),
            issue.eq(self.reading & (pad == 0) & ~needs_set & ~needs_room),
            begins.eq(issue & first_row & first_step),
            # a one-row step ends while it is padded: a waiting first row is never the end of a step
            step_ends.eq(
                Mux(
                    vector,
                    issue & window_ends & last_row,
                    self.reading & ((pad == 1) | ((pad == 0) & last_row & (row >= RMW_DISTANCE - 1))),
                )
            ),
            ends.eq(step_ends & last_step & last_ctile),
            tile_ends.eq((ended | (ends & ~begins)) & ~self.parameters_left),
            self.start_ready.eq(~self.running | tile_ends),
            start.eq(self.start_valid & self.start_ready),
            self.permit_taken.eq(begins & vector),
        ]
        m.d.sync += late_end.eq(ends & begins)

        # Rows
        with m.If(issue & (conv | window_ends)):
            m.d.sync += [x.eq(x + 1), row.eq(row + 1), column.eq(column + tile.sx), x_offset.eq(x_offset + x_step)]
            with m.If(x + 1 == tile.seg_w):
                m.d.sync += [x.eq(0), line.eq(line + 1), column.eq(0), x_offset.eq(0)]
            with m.If(last_row):
                m.d.sync += [line.eq(0), row.eq(0)]
                with m.If(conv & (row < RMW_DISTANCE - 1)):
                    m.d.sync += pad.eq(RMW_DISTANCE - 1 - row)
        with m.If(pad != 0):
            m.d.sync += pad.eq(pad - 1)

        # Words
        word_done = Signal()
        m.d.comb += word_done.eq(step_ends & last_visit)
        with m.If(step_ends):
            m.d.sync += first_step.eq(0)
        with m.If(Mux(vector, issue, step_ends)):
            m.d.sync += second.eq(~last_visit)
        with m.If(word_done):
            m.d.sync += word.eq(Mux(word_ends, 0, word + 1))

        # Taps
        next_row_offset = Signal.like(row_offset)
        m.d.comb += next_row_offset.eq(row_offset + tile.line_words)
        with m.If(issue & vector):
            m.d.sync += tap.eq(Mux(window_ends, 0, tap + 1))
        with m.If(Mux(vector, issue & last_visit, word_done & word_ends)):
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

        # C-tiles and tiles
        with m.If(step_ends & last_step):
            m.d.sync += [first_step.eq(1), ctile.eq(ctile + 1), left.eq(left - cols)]
            with m.If(conv):
                m.d.sync += bank.eq(~bank)
            with m.If(last_ctile):
                m.d.sync += ended.eq(1)
        with m.If(tile_ends):
            m.d.sync += self.running.eq(0)
        with m.If(start):
            m.d.sync += [
                tile.eq(self.next),
                x_step.eq(self.next.sx * self.next.pixel_words),
                self.running.eq(1),
                ended.eq(0),
                left.eq(self.next.out_channels),
                ctile.eq(0),
                first_step.eq(1),
            ]

        # Accumulator banks
        with m.If(self.drained):
            m.d.sync += pending.bit_select(self.drained_bank, 1).eq(0)
        with m.If(begins & conv):
            m.d.sync += pending.bit_select(bank, 1).eq(1)
            for i in range(2):
                with m.If(bank == i):
                    m.d.sync += [self.modes[i].log2_kr.eq(tile.log2_kr), self.modes[i].log2_kd.eq(tile.log2_kd)]

        m.d.comb += [
            self.swap.valid.eq(issue & first_row & ~tile.pool),
            self.swap.parameters.eq(conv & first_step),
            self.swap.bank.eq(bank),
            self.swap.ctile_ends.eq(last_step),
            self.swap.tile_ends.eq(last_step & last_ctile),
            self.row.valid.eq(issue),
            self.row.line.eq(line),
            self.row.x.eq(x),
            self.row.row.eq(row),
            self.row.ky.eq(ky),
            self.row.column.eq(column + kx),
            self.row.offset.eq(tap_offset + word + x_offset),
            self.row.bank.eq(bank),
            self.row.first.eq(first_step),
            self.row.last.eq(last_row & last_step & (conv | window_ends)),
            self.row.last_tile.eq(last_ctile),
            self.row.sums.eq(issue & conv),
            self.row.tap.eq(Mux(vector, Mux(tile.pool, ONES, tap), 0)),
            self.row.begins.eq(window_begins),
            self.row.ends.eq(issue & vector & window_ends),
            self.status.busy.eq(issue),
            self.status.vector.eq(self.running & vector),
            self.status.waiting_weights.eq(needs_set | (self.running & ended)),
            self.status.waiting_output.eq(needs_room),
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
        with m.Elif(ends | late_end):
            m.d.comb += [event.valid.eq(1), event.kind.eq(ArrayEvent.END)]
        return m

    def _drain_time(self, m, row_ends):
        """Level: if a row began now, its last tap would come too early for the results of the row before.

        ``row_ends``: the last tap of a row is issued. Windows of more taps than any drain takes never wait.
        """
        c, next_ = self.config, self.next
        word_cycles = max(1, c.lanes // c.post_lanes)
        most = c.max_stack * word_cycles
        bits = bits_for(most - 1)
        taps, drain, left = Signal(2 * bits + 1), Signal(bits_for(most)), Signal(bits)
        large = (next_.kh >> bits).any() | (next_.kw >> bits).any()
        sub_tiles = sum((next_.sub_lines[r] != 0 for r in range(c.max_stack)), Const(0))
        with m.If(self.start_valid & self.start_ready):
            m.d.sync += [
                taps.eq(Mux(large, (1 << 2 * bits) - 1, (next_.kh[:bits] * next_.kw[:bits]) << next_.twice)),
                drain.eq((sub_tiles << next_.log2_kd) * word_cycles),
            ]
        with m.If(row_ends):
            m.d.sync += left.eq(drain - 1)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left >= taps
