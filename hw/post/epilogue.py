"""Sequencer of the epilogue: which accumulators to read, and where their values go in the staging buffer."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import Layouts
from .requantize import delayed

__all__ = ["Epilogue", "destination_layout"]


def destination_layout(config):
    """Where a request's values go. chunk_end, tile_end: they are the last ones of their chunk, of the tile.

    residual: they are left operands; the right ones lie at the same place of half ``residual_half`` of their buffer.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "half": 1,
            "address": ceil_log2(config.stage_beats),
            "offset": ceil_log2(config.bus_bytes),
            "log2_width": range(exact_log2(config.post_lanes) + 1),
            "residual": 1,
            "residual_half": 1,
            "chunk_end": 1,
            "tile_end": 1,
        }
    )


class Epilogue(Component):
    """Drains one job (c-tile) after the other, tile after tile.

    Per job one request per cycle without a gap, ordered by sub-tile, row and quad (innermost). The n-th row goes to
    stage row n, that is to beats n * used .. n * used + used - 1 of the half, used = min(chunk_beats, beats that
    out_channels channels have left). A job that begins a chunk is taken only when its half is free and, with
    ``residual``, its second operands are there; halves alternate.

    Timing: a job of N = sum of rows * ceil(cols_used / post_lanes) requests that is taken in cycle n requests in
    cycles n + 1 .. n + N. The next job is taken in cycle n + N + JOB_CYCLES at the earliest, the first of another tile
    TILE_CYCLES later, but a tile without ``residual`` not while ``adding`` (the values of the one before come out of
    the pipeline later than its own would). ``drained`` comes acc_latency - 1 cycles after the last request: from then
    on the array may write the accumulators and the parameters of that bank.

    Parameters: config, acc_latency (cycles from a request to its values, at least 1; ValueError otherwise).

    Members
    -------
    job : stream of drain_job
    tile, tile_valid, tile_taken : the oldest tile that the epilogue has not begun; taken in one cycle
    acc_request, acc_request_valid : read accumulators
    destination : of the values of this cycle's request
    drained, drained_bank : pulse
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
                "tile": In(layouts.post_tile),
                "tile_valid": In(1),
                "tile_taken": Out(1),
                "acc_request": Out(layouts.acc_request),
                "acc_request_valid": Out(1),
                "destination": Out(destination_layout(config)),
                "drained": Out(1),
                "drained_bank": Out(1),
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
            destination.log2_width.eq(Mux(log2_cols < lane_bits, log2_cols, lane_bits)),
        ]

        # The chunk
        half = Signal()
        residual_half = Signal()
        opened = Signal()  # the half is ours
        free = Signal(2, init=0b11)
        used = Signal(8)
        chunk_byte = Signal(8 + bus_bits)  # of the job's first channel, within the pixel's part in the chunk
        next_byte = Signal(9 + bus_bits)
        m.d.comb += [
            used.eq(Mux(beats_left < tile.chunk_beats, beats_left, tile.chunk_beats)),
            next_byte.eq(chunk_byte + cols),
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
        byte = Signal(8 + bus_bits)
        row_ends, sub_tile_ends, job_ends, chunk_ends = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            last_column.eq(Mux(channels_left < cols, channels_left, cols) - 1),
            after_sub_tile.eq(sub_tile + 1),
            rows_next.eq(Mux((after_sub_tile >> tile.log2_kr).any(), 0, sub_rows[after_sub_tile[: layouts.sub_tile]])),
            row_ends.eq(quad == last_quad),
            sub_tile_ends.eq(row_ends & (row + 1 >= rows_now)),
            job_ends.eq(sub_tile_ends & (rows_next == 0)),
            chunk_ends.eq(job.last | (next_byte >= tile.chunk_beats << bus_bits)),
            request.bank.eq(job.bank),
            request.sub_tile.eq(sub_tile),
            request.row.eq(row),
            request.quad.eq(quad),
            destination.valid.eq(self.acc_request_valid),
            destination.half.eq(half),
            destination.address.eq(stage_row + byte[bus_bits:]),
            destination.offset.eq(byte[:bus_bits]),
            destination.residual.eq(tile.residual),
            destination.residual_half.eq(residual_half),
            destination.chunk_end.eq(job_ends & chunk_ends),
            destination.tile_end.eq(job_ends & job.last),
        ]

        with m.FSM(init="Open"):
            with m.State("Open"):
                m.d.comb += self.tile_taken.eq(self.tile_valid & (self.tile.residual | ~self.adding))
                with m.If(self.tile_taken):
                    m.d.sync += [
                        tile.eq(self.tile),
                        channels_left.eq(self.tile.out_channels),
                        beats_left.eq((self.tile.out_channels + c.bus_bytes - 1) >> bus_bits),
                        chunk_byte.eq(0),
                    ]
                    m.next = "Wait"
            with m.State("Wait"):
                operands = ~tile.residual | self.residual_full.bit_select(residual_half, 1)
                m.d.comb += [
                    self.job.ready.eq(opened | (free.bit_select(half, 1) & operands)),
                    self.residual_taken.eq(tile.residual & self.job.valid & self.job.ready & ~opened),
                    self.residual_taken_half.eq(residual_half),
                ]
                with m.If(self.job.valid & self.job.ready):
                    m.d.sync += [
                        free.bit_select(half, 1).eq(0),
                        opened.eq(1),
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
                m.d.comb += self.acc_request_valid.eq(1)
                m.d.sync += [quad.eq(quad + 1), byte.eq(byte + c.post_lanes)]
                with m.If(row_ends):
                    m.d.sync += [
                        quad.eq(0),
                        byte.eq(chunk_byte),
                        stage_row.eq(stage_row + used),
                        row.eq(row + 1),
                    ]
                with m.If(sub_tile_ends):
                    m.d.sync += [row.eq(0), sub_tile.eq(after_sub_tile), rows_now.eq(rows_next)]
                with m.If(job_ends):
                    m.d.sync += [channels_left.eq(channels_left - cols), chunk_byte.eq(next_byte)]
                    m.next = "Wait"
                    with m.If(chunk_ends):
                        m.d.sync += [
                            opened.eq(0),
                            half.eq(~half),
                            residual_half.eq(residual_half ^ tile.residual),
                            chunk_byte.eq(0),
                            beats_left.eq(beats_left - tile.chunk_beats),
                        ]
                    with m.If(job.last):
                        m.next = "Open"

        ended = Signal()
        m.d.comb += ended.eq(self.acc_request_valid & job_ends)
        m.d.comb += [
            self.drained.eq(delayed(m, ended, self.acc_latency - 1, "drained")),
            self.drained_bank.eq(delayed(m, job.bank, self.acc_latency - 1, "drained_bank")),
        ]
        return m
