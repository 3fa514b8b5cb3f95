"""The NPU: its blocks in the order in which data flow."""

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from . import isa
from .array.array import Array
from .axi import Axi4Signature, AxiLiteSignature
from .command.command_bus import CommandBus
from .engine.engine import Engine
from .load.residual_loader import ResidualLoader
from .load.stripe_loader import StripeLoader
from .load.weight_streamer import WeightStreamer
from .memory.output_writer import OutputWriter
from .memory.read_arbiter import ReadArbiter
from .post.post import Post
from .tile import Layouts

__all__ = ["Npu", "npu_members"]


def npu_members(config):
    """Members of the NPU's signature."""
    event = Layouts(config).event
    return {
        "axil": In(AxiLiteSignature(isa.REGISTER_ADDR_WIDTH)),
        "mem": Out(Axi4Signature(config.bus_bytes)),
        "irq": Out(1),
        "trace_engine": Out(wiring.Signature({name: Out(width.shape) for name, width in event})),
        "trace_array": Out(wiring.Signature({name: Out(width.shape) for name, width in event})),
    }


class Npu(wiring.Component):
    """The whole NPU, one clock.

    Members
    -------
    axil : AXI4-Lite subordinate, the command bus (docs/isa.md)
    mem : AXI4 manager, external memory
    irq : level, the completion queue is not empty and the interrupt is enabled
    trace_engine, trace_array : one event per cycle at most (Layouts.event); leave them open where nobody listens
    """

    def __init__(self, config):
        self.config = config
        super().__init__(npu_members(config))

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.command_bus = bus = CommandBus(c)
        m.submodules.engine = engine = Engine(c)
        m.submodules.weights = weights = WeightStreamer(c)
        m.submodules.loader = loader = StripeLoader(c)
        m.submodules.residual = residual = ResidualLoader(c)
        m.submodules.arbiter = arbiter = ReadArbiter(c)
        m.submodules.array = array = Array(c)
        m.submodules.post = post = Post(c, acc_latency=array.ACC_LATENCY)
        m.submodules.writer = writer = OutputWriter(c)

        self._connect_host(m, bus, engine)
        self._connect_reads(m, bus, engine, weights, residual, loader, arbiter)
        self._connect_tile(m, engine, weights, residual, loader, array)
        self._connect_residual(m, engine, residual, post)

        # array -> epilogue -> staging -> writer
        connect(m, job=array.drain, epilogue=post.job)
        connect(m, engine=engine.post, epilogue=post.tile)
        connect(m, engine=engine.write, writer=writer.tile)
        connect(m, epilogue=post.chunk, writer=writer.chunk)
        m.d.comb += writer.staged.eq(post.staged)
        connect(m, writer=writer.event, engine=engine.write_event)
        m.d.comb += [
            array.permit_valid.eq(post.permit_valid),
            post.permit_taken.eq(array.permit_taken),
            post.vector_row.eq(array.vector_row),
            post.vector_row_valid.eq(array.vector_row_valid),
            array.block_drained.eq(post.block_drained),
            array.drained.eq(post.drained),
            array.drained_bank.eq(post.drained_bank),
            array.acc_request.eq(post.acc_request),
            array.acc_request_valid.eq(post.acc_request_valid),
            post.acc_values.eq(array.acc_values),
            post.acc_taps.eq(array.acc_taps),
            post.parameter_write.eq(array.parameter_write),
            post.parameter_write_valid.eq(array.parameter_write_valid),
            post.chunk_free.eq(writer.chunk_free),
            post.chunk_free_half.eq(writer.chunk_free_half),
            post.stage_read.eq(writer.stage_read),
            writer.stage_data.eq(post.stage_data),
            engine.write_fragment_context.eq(writer.fragment_context),
            engine.write_fragment_index.eq(writer.fragment_index),
            writer.fragment.eq(engine.write_fragment),
        ]
        for s in range(c.slots):
            m.d.comb += [
                writer.arena_base[s].eq(engine.arena_base[s]),
                writer.arena_bytes[s].eq(engine.arena_bytes[s]),
            ]
        self._connect_bus(m, arbiter, writer)
        self._observe(m, bus, engine, weights, residual, loader, arbiter, array, writer)
        return m

    def _connect_host(self, m, bus, engine):
        connect(m, flipped(self.axil), bus.axil)
        connect(m, bus=bus.command, engine=engine.command)
        sample = (bus.popped.status == isa.Status.OK) | (bus.popped.status == isa.Status.CANCELLED)
        m.d.comb += [
            self.irq.eq(bus.irq),
            bus.completion.valid.eq(engine.completion_valid),
            bus.completion.p.eq(engine.completion),
            bus.release_reservation.eq(engine.release_reservation),
            engine.popped.eq(bus.popped.valid & (sample | (bus.popped.status == isa.Status.FAILED))),
            engine.popped_slot.eq(bus.popped.slot),
            engine.rigid.eq(bus.control.rigid),
            engine.unstacked.eq(bus.control.unstacked),
            engine.soft_reset.eq(bus.soft_reset),
            engine.program_written.eq(bus.program_written),
            engine.cycle.eq(bus.cycle),
            bus.resetting.eq(engine.resetting),
            bus.busy.eq(engine.busy),
            engine.view_slot.eq(bus.slot_view.index),
            bus.slot_view.data.eq(engine.view),
        ]
        for i in range(self.config.programs):
            m.d.comb += [
                engine.program_base[i].eq(bus.program_base[i]),
                engine.program_ops[i].eq(bus.program_ops[i]),
            ]

    def _connect_reads(self, m, bus, engine, weights, residual, loader, arbiter):
        for client, block in (
            (isa.Client.WEIGHT, weights.client),
            (isa.Client.RESIDUAL, residual.client),
            (isa.Client.STRIPE, loader.client),
            (isa.Client.DESCRIPTOR, engine.descriptor_client),
            (isa.Client.EXIT, engine.exit_client),
        ):
            connect(m, client=block, arbiter=arbiter.clients[client])
        for s in range(self.config.slots):
            m.d.comb += [
                arbiter.arena_base[s].eq(engine.arena_base[s]),
                arbiter.arena_bytes[s].eq(engine.arena_bytes[s]),
                loader.arena_base[s].eq(engine.arena_base[s]),
                residual.arena_base[s].eq(engine.arena_base[s]),
            ]
        for i in range(self.config.programs):
            m.d.comb += [
                arbiter.program_base[i].eq(bus.program_base[i]),
                arbiter.program_bytes[i].eq(bus.program_bytes[i]),
            ]

    def _connect_tile(self, m, engine, weights, residual, loader, array):
        """The announced tile: to the loaders, the weight streamer and the array."""
        tile = engine.next_tile
        for block in (weights, residual, loader):
            m.d.comb += [
                block.announce.eq(engine.announce),
                block.revoke.eq(engine.revoke),
                block.start.eq(engine.start),
            ]
        m.d.comb += [
            weights.next_addr.eq(engine.next_weights),
            weights.next_beats.eq(engine.next_weight_beats),
            weights.next_program.eq(engine.next_program),
            loader.layer.eq(engine.layer),
            loader.log2_kr.eq(tile.log2_kr),
            loader.log2_kd.eq(tile.log2_kd),
            loader.half.eq(tile.half),
            loader.fragments.eq(engine.next_fragments),
            loader.program.eq(engine.next_program),
            engine.drained.eq(loader.drained & residual.drained & weights.drained),
            engine.loaded.eq(loader.loaded & residual.loaded),
            engine.waiting.eq(loader.waiting),
            engine.there_slot.eq(loader.there_slot),
            loader.done_pc.eq(engine.there_pc),
            loader.done_line.eq(engine.there_line),
            engine.load_fragment_index.eq(loader.fragment_index),
            loader.fragment.eq(engine.load_fragment),
            engine.load_fault.eq(loader.fault),
            engine.load_fault_code.eq(loader.fault_code),
            engine.weight_error.eq(weights.error),
            engine.weight_error_next.eq(weights.error_next),
            engine.weight_error_code.eq(weights.error_code),
            array.next.eq(tile),
            array.announced.eq(engine.announced),
            array.revoke.eq(engine.revoke),
            array.start_valid.eq(engine.start_valid),
            engine.start_ready.eq(array.start_ready),
            engine.half_free.eq(array.half_free),
            array.fill.eq(loader.fill),
            array.fill_valid.eq(loader.fill_valid),
            array.line_write.eq(loader.line_write),
            array.line_write_valid.eq(loader.line_write_valid),
        ]
        connect(m, streamer=weights.weights, array=array.weights)

    def _connect_residual(self, m, engine, residual, post):
        """Second operands: of the announced and of the running tile, into the epilogue's buffer."""
        tile = engine.next_tile
        m.d.comb += [
            residual.layer.eq(engine.layer),
            residual.log2_kr.eq(tile.log2_kr),
            residual.fragments.eq(engine.next_fragments),
            residual.program.eq(engine.next_program),
            residual.context.eq(tile.context),
            engine.residual_waiting.eq(residual.waiting),
            engine.residual_there_slot.eq(residual.there_slot),
            residual.done_pc.eq(engine.residual_there_pc),
            residual.done_line.eq(engine.residual_there_line),
            engine.residual_fragment_context.eq(residual.fragment_context),
            engine.residual_fragment_index.eq(residual.fragment_index),
            residual.fragment.eq(engine.residual_fragment),
            engine.residual_fault.eq(residual.fault),
            engine.residual_fault_code.eq(residual.fault_code),
            post.residual_write.eq(residual.write),
            post.residual_write_valid.eq(residual.write_valid),
            post.residual_full.eq(residual.full),
            residual.taken.eq(post.residual_taken),
            residual.taken_half.eq(post.residual_taken_half),
            residual.read.eq(post.residual_read),
            residual.read_half.eq(post.residual_read_half),
        ]

    def _connect_bus(self, m, arbiter, writer):
        """Reads and writes share nothing but the port."""
        mem = self.mem
        for source in (arbiter.bus, writer.bus):
            for name, member in source.signature.members.items():
                mine, theirs = getattr(mem, name), getattr(source, name)
                m.d.comb += mine.eq(theirs) if member.flow == Out else theirs.eq(mine)

    def _observe(self, m, bus, engine, weights, residual, loader, arbiter, array, writer):
        """Counters and traces."""
        causes, counts = bus.causes, bus.increments
        working = engine.busy
        m.d.comb += [
            causes.array.eq(array.status.busy & ~array.status.vector),
            causes.vector.eq(array.status.busy & array.status.vector),
            causes.weights.eq(array.status.waiting_weights),
            causes.activations.eq(engine.announced & Cat(~b.loaded & ~b.waiting for b in (loader, residual)).any()),
            causes.dependency.eq(engine.announced & (loader.waiting | residual.waiting)),
            causes.output.eq(array.status.waiting_output | engine.blocked_output),
            causes.control.eq(working),
            counts.tiles.eq(engine.start),
            counts.revocations.eq(engine.revoked),
            counts.preemptions.eq(engine.preempted),
            counts.weight_beats.eq(weights.client.beat_valid),
            counts.stripe_beats.eq(loader.client.beat_valid),
            counts.residual_beats.eq(residual.client.beat_valid),
            counts.descriptor_beats.eq(engine.descriptor_client.beat_valid),
            counts.exit_beats.eq(engine.exit_client.beat_valid),
            counts.write_beats.eq(writer.beat),
            counts.read_bursts.eq(arbiter.burst),
            counts.write_bursts.eq(writer.burst),
            *(counts[f"exits_{e}"].eq(engine.exit_taken & (engine.exit_taken_number == e)) for e in range(16)),
        ]
        for port, event in ((self.trace_engine, engine.trace), (self.trace_array, array.trace)):
            m.d.comb += [getattr(port, name).eq(event[name]) for name, _ in Layouts(self.config).event]
