"""Sequencer of the epilogue: which sums to read, and where their values go in the staging buffer."""

from amaranth.hdl import Array, Const, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import Layouts
from .requantize import delayed
from .staging import sub_tile_beats
from .vector_drain import VectorDrain

__all__ = ["Epilogue", "destination_layout"]


def destination_layout(config):
    """Where a request's values go.

    row_end: with them a pixel's part of the chunk, ``beats`` beats, is complete; chunk_begin: the chunk's first one;
    tile_ends: the chunk is the tile's last one; chunk_end, tile_end: they are the last values of the chunk, the tile.
    vector: of a vector tile, whose chunk begins when it is complete: its sub-tiles' rows come side by side;
    write: they belong to a row (of vector rows a shorter sub-tile has none);
    residual: they are left operands; the right ones lie at the same place of half ``residual_half`` of their buffer.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "vector": 1,
            "write": 1,
            "half": 1,
            "address": ceil_log2(config.stage_beats),
            "offset": ceil_log2(config.bus_bytes),
            "log2_width": range(exact_log2(config.post_lanes) + 1),
            "residual": 1,
            "residual_half": 1,
            "row_end": 1,
            "beats": 8,
            "chunk_begin": 1,
            "chunk_end": 1,
            "tile_ends": 1,
            "tile_end": 1,
        }
    )


class Epilogue(Component):
    """Drains one job (c-tile) after the other, tile after tile; permits a vector tile's blocks and drains their rows.

    Per job one request per cycle without a gap, ordered by sub-tile, row and quad (innermost). Row n of sub-tile r goes
    to beats b .. b + used - 1 of the half, b = r * (stage_beats / kr) + n * used, used = min(chunk_beats, beats that
    out_channels channels have left); with ``packed`` to word n % words_per_beat of the sub-tile's beat
    n // words_per_beat. A job that begins a chunk is taken only when its half is free and, with ``residual``, its
    second operands are there; halves alternate.

    A block is permitted when its chunk's half is free and the CONV tiles before are drained, one per cycle; what
    follows is the array's rhythm (VectorDrain). A job waits until the vector tiles before it are drained.

    Timing: a job of N = sum of rows * ceil(cols_used / post_lanes) requests that is taken in cycle n requests in
    cycles n + 1 .. n + N. The next job is taken in cycle n + N + JOB_CYCLES at the earliest, the first of another tile
    TILE_CYCLES later, but a tile without ``residual`` not while ``adding`` (the values of the one before come out of
    the pipeline later than its own would). ``drained`` comes acc_latency - 1 cycles after the last request: from then
    on the array may write the accumulators and the parameters of that bank.

    Parameters: config, acc_latency (cycles from a request to its values, at least 1; ValueError otherwise).

    Members
    -------
    job : stream of drain_job
    permit_valid, permit_taken : the next block of the tile may begin; it does
    vector_row, vector_row_valid : a row's last tap has passed
    tile, tile_valid, tile_taken : the oldest tile that the epilogue has not begun; taken in one cycle
    vector_tile_taken : the vector tile taken last is the one whose rows come
    acc_request, acc_request_valid : read accumulators, or results with ``vector``
    parameter_vector, parameter_bank, parameter_quad : of the same cycle's values
    destination : of the values of this cycle's request
    drained, drained_bank; block_drained (of a tile with parameters) : pulses
    chunk_free, chunk_free_half : pulse, a half may be written again
    adding : level, a tile without ``residual`` may not begin
    residual_full : per half of the residual buffer, a chunk's second operands are there
    residual_taken, residual_taken_half : pulse, the epilogue begins with them; the level falls with it
    """

    JOB_CYCLES = 1
    TILE_CYCLES = 1

    def __init__(self, config, acc_latency):
        if acc_latency < 1:
            raise ValueError(f"Epilogue: acc_latency = {acc_latency} is not at least 1")
        self.config = config
        self.acc_latency = acc_latency
        layouts = Layouts(config)
        super().__init__(
            {
                "job": In(stream.Signature(layouts.drain_job)),
                "permit_valid": Out(1),
                "permit_taken": In(1),
                "vector_row": In(layouts.vector_row),
                "vector_row_valid": In(1),
                "tile": In(layouts.post_tile),
                "tile_valid": In(1),
                "tile_taken": Out(1),
                "vector_tile_taken": Out(1),
                "acc_request": Out(layouts.acc_request),
                "acc_request_valid": Out(1),
                "parameter_vector": Out(1),
                "parameter_bank": Out(1),
                "parameter_quad": Out(layouts.parameter_quad),
                "destination": Out(destination_layout(config)),
                "drained": Out(1),
                "drained_bank": Out(1),
                "block_drained": Out(1),
                "chunk_free": In(1),
                "chunk_free_half": In(1),
                "adding": In(1),
                "residual_full": In(2),
                "residual_taken": Out(1),
                "residual_taken_half": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts(c)
        lane_bits, bus_bits = exact_log2(c.post_lanes), exact_log2(c.bus_bytes)
        request, destination = self.acc_request, self.destination

        # The tile
        tile = Signal(layouts.post_tile)
        log2_cols = Signal(range(exact_log2(c.pes) + 1))
        cols = Signal(range(c.pes + 1))
        channels_left = Signal(16)
        beats_left = Signal(16)  # of the channels, this chunk included
        m.d.comb += [
            log2_cols.eq(exact_log2(c.pes) - tile.log2_kr - tile.log2_kd),
            cols.eq(1 << log2_cols),
        ]
        m.submodules.vector = vector = VectorDrain(c)
        offered = Signal()  # a vector tile, to the drain
        m.d.comb += [
            vector.tile.eq(tile),
            vector.offered.eq(offered),
            vector.row.eq(self.vector_row),
            vector.row_valid.eq(self.vector_row_valid),
            self.vector_tile_taken.eq(vector.take),
        ]
        with m.If(vector.take):
            m.d.sync += offered.eq(0)

        # The chunk
        half, residual_half = Signal(), Signal()  # that are being filled, read
        next_half, next_residual_half = Signal(), Signal()  # of the next chunk to be opened
        opened = Signal()  # the chunk of the next job or block has its half
        free = Signal(2, init=0b11)
        has_half = Signal()
        used = Signal(8)
        chunk_byte = Signal(8 + bus_bits)  # of the job's first channel, within the pixel's part in the chunk
        next_byte = Signal(9 + bus_bits)
        m.d.comb += [
            used.eq(Mux(beats_left < tile.chunk_beats, beats_left, tile.chunk_beats)),
            next_byte.eq(chunk_byte + cols),
            has_half.eq(
                opened
                | (
                    free.bit_select(next_half, 1)
                    & (~tile.residual | self.residual_full.bit_select(next_residual_half, 1))
                )
            ),
        ]
        with m.If(self.chunk_free):
            m.d.sync += free.bit_select(self.chunk_free_half, 1).eq(1)

        # The job
        job = Signal(layouts.drain_job)
        sub_tile, row, quad = Signal(layouts.sub_tile), Signal(layouts.row_count), Signal.like(request.quad)
        last_column = Signal(range(c.pes))
        last_quad = Signal.like(quad)
        rows_now, rows_next = Signal(layouts.row_count), Signal(layouts.row_count)
        after_sub_tile = Signal(layouts.sub_tile + 1)
        sub_rows = Array(tile.sub_rows[i] for i in range(c.max_stack))
        stage_row = Signal(ceil_log2(c.stage_beats))  # first beat of the present row
        wpb = exact_log2(c.words_per_beat)
        word_of_beat = Signal(wpb)  # packed: of the present row
        beat_ends = Signal()  # with the present row
        byte = Signal(8 + bus_bits)
        draining = Signal()  # a job
        row_ends, sub_tile_ends, job_ends, chunk_ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            last_column.eq(Mux(channels_left < cols, channels_left, cols) - 1),
            after_sub_tile.eq(sub_tile + 1),
            rows_next.eq(Mux((after_sub_tile >> tile.log2_kr).any(), 0, sub_rows[after_sub_tile[: layouts.sub_tile]])),
            row_ends.eq(quad == last_quad),
            beat_ends.eq(~tile.packed | word_of_beat.all()),
            sub_tile_ends.eq(row_ends & (row + 1 >= rows_now)),
            job_ends.eq(sub_tile_ends & (rows_next == 0)),
            chunk_ends.eq(job.last | (next_byte >= tile.chunk_beats << bus_bits)),
            destination.half.eq(half),
            destination.residual_half.eq(residual_half),
        ]
        with m.If(vector.request_valid):
            m.d.comb += [
                request.eq(vector.request),
                self.parameter_vector.eq(1),
                self.parameter_bank.eq(vector.bank),
                self.parameter_quad.eq(vector.parameter_quad),
                destination.write.eq(vector.write),
                destination.residual.eq(vector.residual),
                destination.address.eq(vector.address),
                destination.offset.eq(vector.offset),
                destination.log2_width.eq(min(lane_bits, exact_log2(c.lanes))),
                destination.vector.eq(1),
                destination.chunk_begin.eq(vector.chunk_ends),
                destination.chunk_end.eq(vector.chunk_ends),
                destination.tile_ends.eq(vector.tile_ends),
                destination.tile_end.eq(vector.tile_ends),
            ]
        with m.Else():
            widest = Mux(tile.packed, min(lane_bits, exact_log2(c.lanes)), lane_bits)
            m.d.comb += [
                request.bank.eq(job.bank),
                request.sub_tile.eq(sub_tile),
                request.row.eq(row),
                request.quad.eq(quad),
                self.parameter_bank.eq(job.bank),
                self.parameter_quad.eq(quad),
                destination.write.eq(1),
                destination.residual.eq(tile.residual),
                destination.address.eq(stage_row + byte[bus_bits:]),
                destination.offset.eq(byte[:bus_bits]),
                destination.log2_width.eq(Mux(log2_cols < widest, log2_cols, widest)),
                destination.row_end.eq(row_ends & chunk_ends & beat_ends),
                destination.beats.eq(used),
                destination.chunk_begin.eq(row_ends & chunk_ends & beat_ends & (stage_row == 0)),
                destination.chunk_end.eq(job_ends & chunk_ends),
                destination.tile_ends.eq(job.last),
                destination.tile_end.eq(job_ends & job.last),
            ]
        m.d.comb += [
            self.acc_request_valid.eq(draining | vector.request_valid),
            destination.valid.eq(self.acc_request_valid),
        ]
        with m.If(destination.valid & destination.chunk_end):
            m.d.sync += [half.eq(~half), residual_half.eq(residual_half ^ destination.residual)]

        # Blocks of a vector tile, permitted ahead of their rows
        word, place, beat, next_beat = Signal(10), Signal(exact_log2(c.words_per_beat)), Signal(8), Signal(9)
        last_word, chunk_permitted = Signal(), Signal()
        places_end = place.all() if len(place) else Const(1)
        m.d.comb += [
            next_beat.eq(beat + (1 << tile.log2_kd)),
            last_word.eq(word + 1 == tile.words),
            chunk_permitted.eq(last_word | (places_end & (next_beat >= tile.chunk_beats))),
        ]

        def open_half():
            """The next job or block has its half, and its second operands, from now on."""
            with m.If(~opened):
                m.d.sync += [free.bit_select(next_half, 1).eq(0), next_half.eq(~next_half), opened.eq(1)]
                m.d.sync += next_residual_half.eq(next_residual_half ^ tile.residual)
                m.d.comb += self.residual_taken.eq(tile.residual)

        m.d.comb += self.residual_taken_half.eq(next_residual_half)

        with m.FSM(init="Open"):
            with m.State("Open"):
                # Values without addition are faster than those with it: they wait until none of these is on its way
                added = self.adding | (tile.residual & (offered | vector.busy))
                m.d.comb += self.tile_taken.eq(
                    self.tile_valid & (~offered | vector.take) & (self.tile.residual | ~added)
                )
                with m.If(self.tile_taken):
                    m.d.sync += [
                        tile.eq(self.tile),
                        offered.eq(self.tile.vector),
                        channels_left.eq(self.tile.out_channels),
                        beats_left.eq((self.tile.out_channels + c.bus_bytes - 1) >> bus_bits),
                        chunk_byte.eq(0),
                        word.eq(0),
                        place.eq(0),
                        beat.eq(0),
                    ]
                    m.next = "Wait"
                    with m.If(self.tile.vector):
                        m.next = "Permit"
            with m.State("Permit"):
                m.d.comb += self.permit_valid.eq(has_half)
                with m.If(self.permit_taken):
                    open_half()
                    m.d.sync += [word.eq(word + 1), place.eq(place + 1)]
                    with m.If(places_end):
                        m.d.sync += beat.eq(next_beat)
                    with m.If(chunk_permitted):
                        m.d.sync += [opened.eq(0), place.eq(0), beat.eq(0)]
                    with m.If(last_word):
                        m.next = "Open"
            with m.State("Wait"):
                m.d.comb += self.job.ready.eq(has_half & ~offered & ~vector.busy)
                with m.If(self.job.valid & self.job.ready):
                    open_half()
                    m.d.sync += [
                        job.eq(self.job.payload),
                        last_quad.eq(last_column >> lane_bits),
                        sub_tile.eq(0),
                        row.eq(0),
                        quad.eq(0),
                        rows_now.eq(tile.sub_rows[0]),
                        stage_row.eq(0),
                        byte.eq(chunk_byte),
                    ]
                    m.next = "Drain"
            with m.State("Drain"):
                m.d.comb += draining.eq(1)
                m.d.sync += [quad.eq(quad + 1), byte.eq(byte + c.post_lanes)]
                with m.If(row_ends):
                    m.d.sync += [
                        quad.eq(0),
                        byte.eq(chunk_byte + Mux(beat_ends, 0, (word_of_beat + 1) << exact_log2(c.lanes))),
                        word_of_beat.eq(Mux(beat_ends, 0, word_of_beat + 1)),
                        stage_row.eq(stage_row + Mux(beat_ends, used, 0)),
                        row.eq(row + 1),
                    ]
                with m.If(sub_tile_ends):
                    m.d.sync += [
                        row.eq(0),
                        sub_tile.eq(after_sub_tile),
                        rows_now.eq(rows_next),
                        stage_row.eq(sub_tile_beats(c, after_sub_tile, tile.log2_kr)),
                    ]
                with m.If(job_ends):
                    m.d.sync += [channels_left.eq(channels_left - cols), chunk_byte.eq(next_byte)]
                    m.next = "Wait"
                    with m.If(chunk_ends):
                        m.d.sync += [opened.eq(0), chunk_byte.eq(0), beats_left.eq(beats_left - tile.chunk_beats)]
                    with m.If(job.last):
                        m.next = "Open"

        def announce(ended, name):
            """When the last value of this cycle's request is there."""
            return delayed(m, ended, self.acc_latency - 1, name)

        m.d.comb += [
            self.drained.eq(announce(draining & job_ends, "drained")),
            self.drained_bank.eq(announce(job.bank, "drained_bank")),
            self.block_drained.eq(announce(vector.block_ends, "block_drained")),
        ]
        return m
