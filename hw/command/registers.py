"""The register file: what isa.REGISTERS promises to the host."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2
from fluidnpu.hw import isa
from fluidnpu.hw.isa import REGISTER_FIELDS

from .axi_lite_port import ReadAccess, WriteAccess
from .layouts import command_layout, completion_layout

__all__ = ["Registers", "SlotView", "constant_registers", "register_instances"]

_REGISTERS = {r.name: r for r in isa.REGISTERS}


def constant_registers(config):
    """Registers that never change: name -> value. IsaError if a size of ``config`` does not fit its field."""
    constants = {"MAGIC": isa.MAGIC, "ISA_VERSION": isa.ISA_VERSION, "CONFIG_HASH": config.hash}
    for name, fields in REGISTER_FIELDS.items():
        if name.startswith("CONFIG_"):
            sizes = {f.name: getattr(config, f.name) for f in fields}
            constants[name] = isa.encode(fields, sizes, 1, f"{config.name}: register {name}")[0]
    return constants


def register_instances(config, register):
    """How many of ``register`` a device of this configuration has; accesses to the others answer SLVERR."""
    if register.name.startswith("PROGRAM_"):
        return config.programs
    if register.name.startswith("SLOT_"):
        return config.slots
    if register.name in ("COUNTER_LOW", "COUNTER_HIGH"):
        return len(isa.COUNTERS)
    return register.count


def _layout(name):
    fields = {f.name: data.Field(f.width, f.lsb) for f in REGISTER_FIELDS[name]}
    return data.FlexibleLayout(32, fields)


def _index(address, register):
    """The index of ``register`` in a word address; its instances are aligned to their number times the stride."""
    low = ceil_log2(register.stride // 4)
    return address[low : low + ceil_log2(register.count)]


class SlotView(Signature):
    """Read port of the slot table for the host: ``data`` (isa.SLOT_WORDS) of slot ``index``, one cycle later."""

    def __init__(self, config):
        words = data.ArrayLayout(32, len(isa.SLOT_WORDS))
        super().__init__({"index": Out(ceil_log2(config.slots)), "data": In(words)})


class Registers(wiring.Component):
    """Registers behind an AxiLitePort. A refused access changes nothing.

    Refused: unknown addresses, a write to a read-only register and the other way round, a doorbell that the command
    queue does not take (this also sets STATUS.overflow), a pop of nothing. The lower bits of PROGRAM_BASE, below the
    bus width, are always zero. A doorbell value above 255 queues opcode 255.

    Members
    -------
    write, read : see axi_lite_port
    control, program_base, program_bytes, program_ops : the registers
    program_written : mask, high for one cycle after a write into a program's registers, beside their new values
    doorbell : stream of commands; ``ready`` is looked at only in a cycle with ``valid``
    command_free, completion_valid, completion, completion_level : what the host reads
    pop : removes the oldest completion
    soft_reset : a pulse
    busy, resetting, interrupt : STATUS
    cycle, counter_latch, counter_index, counter_value : see Counters
    slot_view : see SlotView
    """

    def __init__(self, config):
        self.config = config
        self.constants = constant_registers(config)
        programs = data.ArrayLayout(32, config.programs)
        super().__init__(
            {
                "write": In(WriteAccess(isa.REGISTER_ADDR_WIDTH)),
                "read": In(ReadAccess(isa.REGISTER_ADDR_WIDTH)),
                "control": Out(_layout("CONTROL")),
                "program_base": Out(programs),
                "program_bytes": Out(programs),
                "program_ops": Out(programs),
                "program_written": Out(config.programs),
                "doorbell": Out(stream.Signature(command_layout())),
                "command_free": In(32),
                "completion_valid": In(1),
                "completion": In(completion_layout()),
                "completion_level": In(32),
                "pop": Out(1),
                "soft_reset": Out(1),
                "busy": In(1),
                "resetting": In(1),
                "interrupt": In(1),
                "cycle": In(64),
                "counter_latch": Out(1),
                "counter_index": Out(range(len(isa.COUNTERS))),
                "counter_value": In(isa.COUNTER_BITS),
                "slot_view": Out(SlotView(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self.arguments = Signal(data.ArrayLayout(32, isa.COMMAND_WORDS))
        self.overflow = Signal()
        self.cycle_high = Signal(32)
        m.d.comb += [
            self.doorbell.payload.opcode.eq(Mux(self.write.data > 0xFF, 0xFF, self.write.data)),
            self.doorbell.payload.words.eq(self.arguments),
            self.counter_index.eq(_index(self.read.address, _REGISTERS["COUNTER_LOW"])),
            self.slot_view.index.eq(_index(self.read.address, _REGISTERS["SLOT_STATE"])),
        ]
        self._writes(m)
        self._reads(m)
        return m

    def _addresses(self, register):
        return [isa.register_address(register.name, i) // 4 for i in range(register_instances(self.config, register))]

    def _writes(self, m):
        write = self.write
        refused = {"DOORBELL": ~self.doorbell.ready, "COMPLETION_POP": ~self.completion_valid}
        m.d.sync += [self.soft_reset.eq(0), self.program_written.eq(0)]
        with m.Switch(write.address):
            for register in isa.REGISTERS:
                if "w" in register.access:
                    for i, address in enumerate(self._addresses(register)):
                        with m.Case(address):
                            m.d.comb += write.error.eq(refused.get(register.name, 0))
                            with m.If(write.valid):
                                self._store(m, register.name, i)
            with m.Default():
                m.d.comb += write.error.eq(1)

    def _store(self, m, name, i):
        """What a write of ``write.data`` to register ``name``, instance ``i``, does."""
        value = self.write.data
        match name:
            case "CONTROL":
                for f in REGISTER_FIELDS[name]:
                    m.d.sync += self.control[f.name].eq(value[f.lsb : f.lsb + f.width])
            case "STATUS":
                with m.If(data.View(_layout(name), value).overflow):
                    m.d.sync += self.overflow.eq(0)
            case "SOFT_RESET":
                m.d.sync += self.soft_reset.eq(1)
            case "COUNTER_LATCH":
                m.d.comb += self.counter_latch.eq(1)
            case "ARGUMENT":
                m.d.sync += self.arguments[i].eq(value)
            case "DOORBELL":
                m.d.comb += self.doorbell.valid.eq(1)
                with m.If(~self.doorbell.ready):
                    m.d.sync += self.overflow.eq(1)
            case "COMPLETION_POP":
                m.d.comb += self.pop.eq(self.completion_valid)
            case "PROGRAM_BASE" | "PROGRAM_BYTES" | "PROGRAM_OPS":
                if name == "PROGRAM_BASE":
                    low = ceil_log2(self.config.bus_bytes)
                    value = Cat(Const(0, low), value[low:])
                target = getattr(self, name.lower())
                m.d.sync += [target[i].eq(value), self.program_written[i].eq(1)]
            case _:
                raise NotImplementedError(f"register {name} is declared writable and has no write action")

    def _reads(self, m):
        read = self.read
        with m.Switch(read.address):
            for register in isa.REGISTERS:
                if "r" in register.access:
                    addresses = self._addresses(register)
                    if register.name.startswith(("COUNTER_", "SLOT_")):
                        with m.Case(*addresses):  # the index is on its way to the counters or the slot table
                            m.d.comb += read.data.eq(self._value(register.name, 0))
                    else:
                        for i, address in enumerate(addresses):
                            with m.Case(address):
                                m.d.comb += read.data.eq(self._value(register.name, i))
            with m.Default():
                m.d.comb += read.error.eq(1)
        with m.If(read.sample & (read.address == isa.register_address("CYCLE_LOW") // 4)):
            m.d.sync += self.cycle_high.eq(self.cycle[32:])

    def _value(self, name, i):
        """What a read of register ``name``, instance ``i``, shows."""
        if name in self.constants:
            return Const(self.constants[name], 32)
        match name:
            case "CONTROL":
                return self.control.as_value()
            case "STATUS":
                bits = {"busy": self.busy, "resetting": self.resetting, "interrupt": self.interrupt}
                bits["overflow"] = self.overflow
                return Cat(bits[f.name] for f in sorted(REGISTER_FIELDS[name], key=lambda f: f.lsb))
            case "COMMAND_FREE":
                return self.command_free
            case "CYCLE_LOW":
                return self.cycle[:32]
            case "CYCLE_HIGH":
                return self.cycle_high
            case "ARGUMENT":
                return self.arguments[i]
            case "COMPLETION":
                word = self.completion.as_value().word_select(i, 32)
                return Mux(self.completion_valid, word, 0)
            case "COMPLETION_LEVEL":
                return self.completion_level
            case "PROGRAM_BASE" | "PROGRAM_BYTES" | "PROGRAM_OPS":
                return getattr(self, name.lower())[i]
            case "COUNTER_LOW":
                return self.counter_value[:32]
            case "COUNTER_HIGH":
                return self.counter_value[32:]
            case _ if name in isa.SLOT_WORDS:
                return self.slot_view.data[isa.SLOT_WORDS.index(name)]
            case _:
                raise NotImplementedError(f"register {name} is declared readable and has no value")
