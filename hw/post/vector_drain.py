"""Drain of the vector path: requests the results of each row as it completes, and says where they go."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import Layouts
from .staging import sub_tile_beats

__all__ = ["VectorDrain"]


class VectorDrain(Component):
    """Takes the results of the rows of vector tiles, one tile after the other.

    For each row: for each sub-tile that has rows, for each depth, for each quad of its word: one request per cycle,
    from the cycle after ``row`` on. A sub-tile that has no such row costs its cycles, but asks and writes nothing.
    ``quad`` is counted over the words of the block: depth * (quads of a word) + quad of the word.

    Parameters: config.

    Members
    -------
    tile, offered, take : the next tile and its place, held until ``take``; it is taken when the one before is drained
    busy : level, a tile is in hand
    row_valid, row : a row's last tap has passed
    request, request_valid, parameter_quad, bank : read results; parameters of the block (its bank alternates)
    residual : the tile's; write : the values belong to a row, and go to beat ``address`` of the half, byte ``offset``
    chunk_ends, tile_ends, block_ends : with the last request of those; block_ends of tiles that have parameters
    """

    def __init__(self, config):
        self.config = config
        self.word_quads = max(1, config.lanes // config.post_lanes)
        layouts = Layouts(config)
        super().__init__(
            {
                "tile": In(layouts.post_tile),
                "offered": In(1),
                "take": Out(1),
                "busy": Out(1),
                "row_valid": In(1),
                "row": In(layouts.vector_row),
                "request": Out(layouts.acc_request),
                "request_valid": Out(1),
                "parameter_quad": Out(max(1, ceil_log2(config.max_stack * self.word_quads))),
                "bank": Out(1),
                "write": Out(1),
                "residual": Out(1),
                "address": Out(ceil_log2(config.stage_beats)),
                "offset": Out(ceil_log2(config.bus_bytes)),
                "chunk_ends": Out(1),
                "tile_ends": Out(1),
                "block_ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts(c)
        stack_bits, place_bits = exact_log2(c.max_stack), exact_log2(c.words_per_beat)
        width_bits = exact_log2(min(c.lanes, c.post_lanes))
        quad_bits = exact_log2(self.word_quads)

        # The tile and the chunk
        tile = Signal(layouts.post_tile)
        beats_left = Signal(16)  # of the channels, this chunk included
        used = Signal(8)
        m.d.comb += [
            used.eq(Mux(beats_left < tile.chunk_beats, beats_left, tile.chunk_beats)),
            self.take.eq(self.offered & (~self.busy | self.tile_ends)),
        ]
        with m.If(self.tile_ends):
            m.d.sync += self.busy.eq(0)
        with m.If(self.take):
            m.d.sync += [
                self.busy.eq(1),
                tile.eq(self.tile),
                beats_left.eq((self.tile.out_channels + c.bus_bytes - 1) >> exact_log2(c.bus_bytes)),
            ]

        # The row: d and quad are one counter
        active, last, last_tile = Signal(), Signal(), Signal()
        row = Signal(layouts.row_count)
        row_beat = Signal(ceil_log2(c.stage_beats))  # of the row, in its sub-tile's part of the half
        beat, next_beat = Signal(8), Signal(9)  # of d = 0, in the chunk
        place = Signal(place_bits)  # of the block's words in their beats
        sub_tile, after = Signal(layouts.sub_tile), Signal(layouts.sub_tile + 1)
        quad, depth, last_quad = (Signal(stack_bits + quad_bits, name=n) for n in ("quad", "depth", "last_quad"))
        rows_now, rows_next = Signal(layouts.row_count), Signal(layouts.row_count)
        sub_tile_ends, row_ends, chunk_ends = Signal(), Signal(), Signal()
        sub_rows = Array(tile.sub_rows[i] for i in range(c.max_stack))
        places_end = place.all() if place_bits else Const(1)
        m.d.comb += [
            after.eq(sub_tile + 1),
            rows_now.eq(sub_rows[sub_tile[:stack_bits]] if stack_bits else tile.sub_rows[0]),
            rows_next.eq(Mux((after >> tile.log2_kr).any(), 0, sub_rows[after[: layouts.sub_tile]])),
            last_quad.eq((self.word_quads << tile.log2_kd) - 1),
            depth.eq(quad >> quad_bits),
            sub_tile_ends.eq(quad == last_quad),
            row_ends.eq(active & sub_tile_ends & (rows_next == 0)),
            next_beat.eq(beat + (1 << tile.log2_kd)),
            chunk_ends.eq(last_tile | (places_end & (next_beat >= tile.chunk_beats))),
            self.request_valid.eq(active),
            self.request.vector.eq(1),
            self.request.sub_tile.eq(((sub_tile << stack_bits) >> tile.log2_kr) | depth),
            self.request.quad.eq(quad[:quad_bits]),
            self.parameter_quad.eq(quad),
            self.write.eq(row < rows_now),
            self.residual.eq(tile.residual),
            self.address.eq(sub_tile_beats(c, sub_tile, tile.log2_kr) + row_beat + beat + depth),
            self.offset.eq(
                Cat(
                    Const(0, width_bits),
                    quad[:quad_bits],
                    Const(0, exact_log2(c.lanes) - width_bits - quad_bits),
                    place,
                )
            ),
            self.chunk_ends.eq(row_ends & last & chunk_ends),
            self.tile_ends.eq(row_ends & last & last_tile),
            self.block_ends.eq(row_ends & last & ~tile.pool),
        ]
        with m.If(active):
            m.d.sync += quad.eq(quad + 1)
            with m.If(sub_tile_ends):
                m.d.sync += [quad.eq(0), sub_tile.eq(after)]
        with m.If(row_ends):
            m.d.sync += [active.eq(0), sub_tile.eq(0), row.eq(row + 1), row_beat.eq(row_beat + used)]
            with m.If(last):
                m.d.sync += [row.eq(0), row_beat.eq(0), place.eq(place + 1), self.bank.eq(self.bank ^ ~tile.pool)]
                with m.If(places_end):
                    m.d.sync += beat.eq(next_beat)
                with m.If(chunk_ends):
                    m.d.sync += [place.eq(0), beat.eq(0)]
                    with m.If(~self.take):
                        m.d.sync += beats_left.eq(beats_left - tile.chunk_beats)
        with m.If(self.row_valid):
            m.d.sync += [active.eq(1), last.eq(self.row.last), last_tile.eq(self.row.last & self.row.last_tile)]
        return m
