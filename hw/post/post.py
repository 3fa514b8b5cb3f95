"""The post block: epilogue, parameters, requantisation and staging of the started tiles, in order."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..queue import Queue
from ..tile import Layouts
from .addition import OPERANDS_LAYOUT, RESULT_LAYOUT, Addition
from .epilogue import Epilogue
from .parameters import ParameterStore
from .requantize import Requantizer, delayed
from .residual_buffer import ResidualBuffer
from .staging import Staging, stage_read_layout

__all__ = ["Post"]


class Post(Component):
    """Turns the sums of complete c-tiles and the results of vector rows into int8 pixels in the staging buffer.

    A tile is held from its arrival until its last value is staged; jobs belong to the tiles in their order, and the
    job with ``last`` ends its tile. ``post_lanes`` values per cycle; order, gaps and ``drained`` as in Epilogue. The
    values requested in cycle n are written to the staging buffer in cycle n + latency (with a residual addition, which
    comes behind the requantisation: n + residual_latency), in which ``staged`` counts the beats that are complete with
    them, in the order of the chunks and of their beats. A chunk is offered from the cycle behind its first complete
    beats on. Flow control: streams at the edges, a rigid pipeline between them; a chunk is begun only in a free half
    and with its second operands there, so nothing in the pipeline ever waits.

    The array must not write parameters into a bank before that bank is drained.

    Parameters: config, acc_latency (cycles from acc_request to acc_values, at least 1).

    Members
    -------
    tile : stream of post_tile, given when the tile starts; at most ``trackers`` are held
    job : stream of drain_job
    permit_valid, permit_taken, vector_row, vector_row_valid, block_drained : as in Epilogue
    drained, drained_bank : pulse: the last values of a job's bank are read
    acc_request, acc_request_valid; acc_values, acc_taps : accumulators, acc_latency cycles later
    parameter_write, parameter_write_valid : always taken
    stage_read, stage_data : read port of the staging buffer, data one cycle after the address
    staged : beats of the offered and coming chunks that are complete from the next cycle on; those of vector tiles are
        offered complete and not counted
    chunk : stream of chunk; chunk_free, chunk_free_half : pulse: its half is read
    residual_write, residual_write_valid : second operands into their buffer
    residual_full, residual_taken, residual_taken_half : see Epilogue
    residual_read, residual_read_half : pulse, that half of the residual buffer is read and may be written
    idle : no tile is held and no chunk is offered
    """

    def __init__(self, config, acc_latency):
        self.config = config
        self.acc_latency = acc_latency
        layouts = Layouts(config)
        super().__init__(
            {
                "tile": In(stream.Signature(layouts.post_tile)),
                "job": In(stream.Signature(layouts.drain_job)),
                "permit_valid": Out(1),
                "permit_taken": In(1),
                "vector_row": In(layouts.vector_row),
                "vector_row_valid": In(1),
                "block_drained": Out(1),
                "drained": Out(1),
                "drained_bank": Out(1),
                "acc_request": Out(layouts.acc_request),
                "acc_request_valid": Out(1),
                "acc_values": In(layouts.acc_values),
                "acc_taps": In(16),
                "parameter_write": In(layouts.parameter_write),
                "parameter_write_valid": In(1),
                "stage_read": In(stage_read_layout(config)),
                "stage_data": Out(8 * config.bus_bytes),
                "staged": Out(8),
                "chunk": Out(stream.Signature(layouts.chunk)),
                "chunk_free": In(1),
                "chunk_free_half": In(1),
                "residual_write": In(layouts.residual_write),
                "residual_write_valid": In(1),
                "residual_full": In(2),
                "residual_taken": Out(1),
                "residual_taken_half": Out(1),
                "residual_read": Out(1),
                "residual_read_half": Out(1),
                "idle": Out(1),
            }
        )

    @property
    def latency(self):
        """Cycles from a request to the write into the staging buffer, without residual addition."""
        return self.acc_latency + Requantizer.LATENCY

    @property
    def residual_latency(self):
        """The same with residual addition."""
        return self.latency + Addition.LATENCY

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts(c)
        m.submodules.epilogue = epilogue = Epilogue(c, self.acc_latency)
        m.submodules.parameters = parameters = ParameterStore(c)
        m.submodules.requantizer = requantizer = Requantizer(c.post_lanes)
        m.submodules.residual = residual = ResidualBuffer(c)
        m.submodules.addition = addition = Addition(c.post_lanes)
        m.submodules.staging = staging = Staging(c)
        m.submodules.chunks = chunks = Queue(layouts.chunk, 2)

        # Held tiles, a ring of pointers: next to arrive, next for the epilogue, in the epilogue, its vector rows come.
        # An idle epilogue takes a tile as it arrives: a vector tile can get its permit in the next cycle.
        tiles = Array(Signal(layouts.post_tile, name=f"tile_{i}") for i in range(c.trackers))
        arriving, beginning, drawn, vector_drawn = (
            Signal(range(c.trackers), name=n) for n in ("arriving", "beginning", "drawn", "vector_drawn")
        )
        held, waiting = Signal(range(c.trackers + 1)), Signal(range(c.trackers + 1))
        arrives, ends = Signal(), Signal()

        def after(pointer):
            return Mux(pointer == c.trackers - 1, 0, pointer + 1)

        m.d.comb += [
            self.tile.ready.eq(held != c.trackers),
            arrives.eq(self.tile.valid & self.tile.ready),
            epilogue.tile.eq(Mux(waiting == 0, self.tile.payload.as_value(), tiles[beginning].as_value())),
            epilogue.tile_valid.eq((waiting != 0) | arrives),
        ]
        with m.If(arrives):
            m.d.sync += [tiles[arriving].eq(self.tile.payload), arriving.eq(after(arriving))]
        with m.If(epilogue.tile_taken):
            m.d.sync += [drawn.eq(beginning), beginning.eq(after(beginning))]
        with m.If(epilogue.vector_tile_taken):
            m.d.sync += vector_drawn.eq(drawn)
        m.d.sync += [
            held.eq(held + arrives - ends),
            waiting.eq(waiting + arrives - epilogue.tile_taken),
        ]

        # Cycle 0: requests
        connect(m, flipped(self.job), epilogue.job)
        m.d.comb += [
            self.permit_valid.eq(epilogue.permit_valid),
            epilogue.permit_taken.eq(self.permit_taken),
            epilogue.vector_row.eq(self.vector_row),
            epilogue.vector_row_valid.eq(self.vector_row_valid),
            self.block_drained.eq(epilogue.block_drained),
            self.acc_request.eq(epilogue.acc_request),
            self.acc_request_valid.eq(epilogue.acc_request_valid),
            self.drained.eq(epilogue.drained),
            self.drained_bank.eq(epilogue.drained_bank),
            epilogue.chunk_free.eq(self.chunk_free),
            epilogue.chunk_free_half.eq(self.chunk_free_half),
            epilogue.residual_full.eq(self.residual_full),
            self.residual_taken.eq(epilogue.residual_taken),
            self.residual_taken_half.eq(epilogue.residual_taken_half),
        ]
        # A tile's first request follows its acceptance by 2 cycles at least: values must not meet at the staging buffer
        adding = Signal(range(Addition.LATENCY))
        m.d.comb += epilogue.adding.eq(adding != 0)
        with m.If(epilogue.destination.valid & epilogue.destination.residual):
            m.d.sync += adding.eq(Addition.LATENCY - 2)
        with m.Elif(adding != 0):
            m.d.sync += adding.eq(adding - 1)

        # Cycle acc_latency: values and parameters
        ahead = self.acc_latency - parameters.READ_LATENCY
        drawing = Mux(epilogue.parameter_vector, vector_drawn, drawn)
        drawn = delayed(m, drawing, self.acc_latency, "drawing")
        tile = tiles[drawn]
        mode = requantizer.mode
        m.d.comb += [
            parameters.write.eq(self.parameter_write),
            parameters.write_valid.eq(self.parameter_write_valid),
            parameters.vector.eq(delayed(m, epilogue.parameter_vector, ahead, "parameter_vector")),
            parameters.bank.eq(delayed(m, epilogue.parameter_bank, ahead, "parameter_bank")),
            parameters.quad.eq(delayed(m, epilogue.parameter_quad, ahead, "parameter_quad")),
            parameters.override.eq(tile.pool),
            parameters.shared.bias.eq(tile.bias),
            parameters.shared.multiplier.eq(tile.multiplier),
            parameters.shared.shift.eq(tile.shift),
            mode.single_rounding.eq(tile.single_rounding),
            mode.average.eq(tile.average),
            mode.padded.eq(tile.padded_average),
            mode.half_up.eq(tile.half_up),
            mode.count.eq(tile.bias),
            mode.taps.eq(self.acc_taps),
            mode.zero.eq(tile.out_zero),
            mode.clamp_min.eq(tile.clamp_min),
            mode.clamp_max.eq(tile.clamp_max),
            requantizer.values.eq(self.acc_values),
            requantizer.parameters.eq(parameters.read),
        ]

        # Cycle latency: into the staging buffer, or through the addition and then into it
        ahead = self.latency - residual.READ_LATENCY
        second = delayed(m, epilogue.destination, ahead, "second_operand")
        short = delayed(m, second, residual.READ_LATENCY, "destination")
        long = delayed(m, short, Addition.LATENCY, "added_destination")
        drawn = delayed(m, drawn, Requantizer.LATENCY, "added")
        left, summed = tiles[drawn], tiles[delayed(m, drawn, Addition.RESULT_CYCLES, "summed")]
        m.d.comb += [
            residual.write.eq(self.residual_write),
            residual.write_valid.eq(self.residual_write_valid),
            residual.half.eq(second.residual_half),
            residual.address.eq(second.address),
            residual.offset.eq(second.offset),
            self.residual_read.eq(second.valid & second.residual & second.chunk_end),
            self.residual_read_half.eq(second.residual_half),
            addition.left.eq(requantizer.out),
            addition.right.eq(residual.values),
            *(addition.operands[name].eq(left[name]) for name, _ in OPERANDS_LAYOUT),
            *(addition.result[name].eq(summed[name]) for name, _ in RESULT_LAYOUT),
        ]
        destination = Signal.like(short)
        added = long.valid & long.residual
        m.d.comb += [
            destination.eq(Mux(added, long.as_value(), short.as_value())),
            destination.valid.eq(added | (short.valid & ~short.residual)),
            staging.read.eq(self.stage_read),
            self.stage_data.eq(staging.read_data),
            staging.valid.eq(destination.valid & destination.write),
            staging.half.eq(destination.half),
            staging.address.eq(destination.address),
            staging.offset.eq(destination.offset),
            staging.log2_width.eq(destination.log2_width),
            staging.values.eq(Mux(added, addition.out.as_value(), requantizer.out.as_value())),
            ends.eq(destination.valid & destination.tile_end),
            chunks.i.valid.eq(destination.valid & destination.chunk_begin),
            chunks.i.payload.half.eq(destination.half),
            chunks.i.payload.last.eq(destination.tile_ends),
            chunks.i.payload.complete.eq(destination.vector),
            self.staged.eq(Mux(destination.valid & destination.row_end, destination.beats, 0)),
            self.idle.eq((held == 0) & ~chunks.o.valid),
        ]
        connect(m, chunks.o, flipped(self.chunk))
        return m
