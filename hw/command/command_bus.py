"""The command bus: everything between the host and the engine."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from fluidnpu.hw import isa
from fluidnpu.hw.axi import AxiLiteSignature

from .axi_lite_port import AxiLitePort
from .command_queue import CommandQueue
from .completion_queue import CompletionQueue
from .counters import EVENTS, INCREMENT_BITS, RAW_CAUSES, Counters
from .layouts import command_layout, completion_layout
from .registers import Registers, SlotView

__all__ = ["CommandBus"]


class CommandBus(wiring.Component):
    """AXI4-Lite registers (docs/isa.md), command queue, completion queue, counters.

    No access ever waits for the engine. A command is offered to the engine one cycle after its doorbell write is
    performed; a completion is visible to the host from the cycle after it was posted.

    Members
    -------
    axil, irq : to the host; irq is high while the completion queue is not empty and the interrupt is enabled
    command : commands in order, see layouts.command_layout
    release_reservation : pulse: an executed command that posts nothing gives its completion entry back. An ADMIT that
        succeeds keeps it for the sample
    completion : never stalled; takes the entry of the command or of the ADMIT it belongs to (asserted)
    popped : ``valid`` for one cycle after the host popped a completion with this status and slot. A slot whose sample
        completed (OK, CANCELLED, FAILED) is free from then on
    control : the ablations' mode bits
    program_base, program_bytes, program_ops : of each program region
    program_written : mask, for one cycle: registers of these programs have new values
    slot_view : the host's look into the slot table; data one cycle after index
    soft_reset : pulse. The engine raises ``resetting`` in the next cycle at the latest and until it is clear; in all
        these cycles the queues are empty, doorbells are refused, ``completion`` and ``release_reservation`` ignored
    busy : shown in STATUS
    causes, increments, cycle : see Counters
    """

    def __init__(self, config):
        self.config = config
        programs = data.ArrayLayout(32, config.programs)
        statuses = {f.name: f.width for f in isa.COMPLETION_FIELDS if f.name in ("status", "slot")}
        super().__init__(
            {
                "axil": In(AxiLiteSignature(isa.REGISTER_ADDR_WIDTH)),
                "irq": Out(1),
                "command": Out(stream.Signature(command_layout())),
                "release_reservation": In(1),
                "completion": In(stream.Signature(completion_layout(), always_ready=True)),
                "popped": Out(data.StructLayout({"valid": 1, **statuses})),
                "control": Out(data.StructLayout({"rigid": 1, "unstacked": 1})),
                "program_base": Out(programs),
                "program_bytes": Out(programs),
                "program_ops": Out(programs),
                "program_written": Out(config.programs),
                "slot_view": Out(SlotView(config)),
                "soft_reset": Out(1),
                "resetting": In(1),
                "busy": In(1),
                "causes": In(data.StructLayout({name: 1 for name in RAW_CAUSES})),
                "increments": In(data.StructLayout({name: INCREMENT_BITS for name in EVENTS})),
                "cycle": Out(64),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.port = port = AxiLitePort(isa.REGISTER_ADDR_WIDTH)
        m.submodules.registers = registers = Registers(c)
        m.submodules.commands = commands = CommandQueue(command_layout(), c.command_entries, c.completion_entries)
        m.submodules.completions = completions = CompletionQueue(completion_layout(), c.completion_entries)
        m.submodules.counters = counters = Counters()

        clear = Signal()
        connect(m, flipped(self.axil), port.axil)
        connect(m, port.write, registers.write)
        connect(m, port.read, registers.read)
        connect(m, registers.doorbell, commands.i)
        connect(m, commands.o, flipped(self.command))
        connect(m, flipped(self.completion), completions.i)
        connect(m, registers.slot_view, flipped(self.slot_view))
        m.d.comb += [
            clear.eq(self.soft_reset | self.resetting),
            commands.clear.eq(clear),
            commands.unreserved.eq(completions.unreserved),
            completions.clear.eq(clear),
            completions.reserve.eq(commands.reserve),
            completions.release.eq(self.release_reservation),
            completions.pop.eq(registers.pop),
            registers.command_free.eq(commands.free),
            registers.completion_valid.eq(completions.o_valid),
            registers.completion.eq(completions.o),
            registers.completion_level.eq(completions.level),
            registers.busy.eq(self.busy),
            registers.resetting.eq(clear),
            registers.interrupt.eq(self.irq),
            registers.cycle.eq(counters.cycle),
            registers.counter_value.eq(counters.value),
            counters.latch.eq(registers.counter_latch),
            counters.index.eq(registers.counter_index),
            counters.causes.eq(self.causes),
            counters.increments.eq(self.increments),
            self.irq.eq(completions.o_valid & registers.control.interrupt_enable),
            self.control.rigid.eq(registers.control.rigid),
            self.control.unstacked.eq(registers.control.unstacked),
            self.program_base.eq(registers.program_base),
            self.program_bytes.eq(registers.program_bytes),
            self.program_ops.eq(registers.program_ops),
            self.program_written.eq(registers.program_written),
            self.soft_reset.eq(registers.soft_reset),
            self.cycle.eq(counters.cycle),
        ]
        m.d.sync += [
            self.popped.valid.eq(registers.pop),
            self.popped.status.eq(completions.o.status),
            self.popped.slot.eq(completions.o.slot),
        ]
        return m
