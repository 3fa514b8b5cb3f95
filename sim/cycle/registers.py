"""The register file of the cycle model (hw/command/registers.py): accesses performed in given cycles."""

from fluidnpu.hw import isa
from fluidnpu.hw.command.registers import constant_registers, register_instances
from fluidnpu.hw.isa import REGISTER_FIELDS

from .model import NotModelled

__all__ = ["RegisterFile"]

SLAVE_ERROR = 2
MOST_OPCODE = 255  # a larger doorbell value counts as this one, which is no opcode
_OF_MODEL = ("STATUS", "COMMAND_FREE", "COMPLETION_LEVEL")  # what a read has to run the model for


class RegisterFile:
    """Registers of a CycleModel. Accesses come in the order of their cycles.

    ``write`` and ``read`` say in which cycle the register file performs the access (for a read: takes its value) and
    return (response, value); response 0 or SLAVE_ERROR. SOFT_RESET raises NotModelled. ``latched``: the counters at
    the last COUNTER_LATCH.
    """

    def __init__(self, model):
        self.model = model
        self._constants = constant_registers(model.config)
        self._arguments = [0] * isa.COMMAND_WORDS
        self._control = 0
        self._overflow = False
        self._completion = None  # words of the oldest one
        self.latched = dict.fromkeys(isa.COUNTERS, 0)
        self._cycle_high = 0
        self._programs = {}
        self._places = {
            isa.register_address(r.name, i): (r, i)
            for r in isa.REGISTERS
            for i in range(register_instances(model.config, r))
        }

    @property
    def interrupt(self):
        """The interrupt is enabled."""
        return bool(self._control >> 2 & 1)

    def _place(self, address, access):
        register, index = self._places.get(address, (None, 0))
        return (register.name, index) if register is not None and access in register.access else (None, 0)

    def _holds(self, cycle, condition):
        """Whether ``condition()`` holds in a cycle; it is one that only the host can end."""
        if not condition():
            self.model.run(cycle)
        return bool(condition())

    def _waits(self):
        return self.model.state.c_level

    def write(self, cycle, address, value):
        name, i = self._place(address, "w")
        model = self.model
        if name == "ARGUMENT":  # nothing sees it before the doorbell
            self._arguments[i] = value
            return 0, value
        if (
            name is None
            or (name == "DOORBELL" and not self._holds(cycle, model.command_free))
            or (name == "COMPLETION_POP" and not self._holds(cycle, self._waits))
        ):
            self._overflow |= name == "DOORBELL"
            return SLAVE_ERROR, value
        if name == "COUNTER_LATCH":
            model.run(cycle)
            self.latched = model.counters()
        model.run(cycle + 1)
        if name == "CONTROL":
            self._control = value & 7
            model.write_control(value)
        elif name == "STATUS":
            self._overflow &= not value >> 3 & 1
        elif name == "DOORBELL":
            model.queue_command(min(value, MOST_OPCODE), self._arguments)
        elif name == "COMPLETION_POP":
            model.pop()
            self._completion = None
        elif name.startswith("PROGRAM_"):
            if name == "PROGRAM_BASE":
                value -= value % model.config.bus_bytes
            self._programs[name, i] = value
            model.write_program(i, name.removeprefix("PROGRAM_"), value)
        elif name == "SOFT_RESET":
            raise NotModelled("the cycle model has no soft reset")
        return 0, value

    def read(self, cycle, address):
        name, i = self._place(address, "r")
        model = self.model
        if name in isa.SLOT_WORDS:  # the slot table answers a cycle later
            model.run(cycle - 1)
            return 0, self._slot(name, i)
        if name is None:
            return SLAVE_ERROR, 0
        if name in _OF_MODEL or (name == "COMPLETION" and not self._waits()):
            model.run(cycle)
        return 0, self._value(name, i, cycle)

    def _value(self, name, i, cycle):
        m = self.model.state
        if name in self._constants:
            return self._constants[name]
        if name == "CONTROL":
            return self._control
        if name == "STATUS":
            bits = {"busy": int(m.v_live != 0), "overflow": int(self._overflow)}
            bits["interrupt"] = int(self.interrupt and m.c_level > 0)
            return isa.encode(REGISTER_FIELDS[name], bits, 1, name)[0]
        if name == "COMMAND_FREE":
            return self.model.command_free()
        if name == "CYCLE_LOW":
            self._cycle_high = cycle >> 32
            return cycle & 0xFFFFFFFF
        if name == "CYCLE_HIGH":
            return self._cycle_high
        if name == "ARGUMENT":
            return self._arguments[i]
        if name == "COMPLETION":
            if self._completion is None and self._waits():
                fields = self.model.completion()
                self._completion = isa.encode(isa.COMPLETION_FIELDS, fields, isa.COMPLETION_WORDS, name)
            return self._completion[i] if self._completion else 0
        if name == "COMPLETION_LEVEL":
            return int(m.c_level)
        if name in ("COUNTER_LOW", "COUNTER_HIGH"):
            count = self.latched[isa.COUNTERS[i]]
            return count & 0xFFFFFFFF if name == "COUNTER_LOW" else count >> 32
        return self._programs.get((name, i), 0)

    def _slot(self, name, s):
        m = self.model.state
        if name == "SLOT_TAG":
            return int(m.tag[s])
        if name == "SLOT_SPREAD":
            return int(m.head_spread[s])
        if name == "SLOT_ISSUED":
            return int(m.pc[s] << 16 | m.line[s])
        if name == "SLOT_DONE":
            return int(m.done_pc[s] << 16 | m.done_line[s])
        bits = 0
        for place, vector in enumerate((m.v_live, m.v_posted, 0, m.v_runnable, m.v_ride, m.v_leave, m.v_failed)):
            bits |= int(vector >> s & 1) << place
        return bits | int(m.v_cancelled >> s & 1) << 7 | int(m.priority[s]) << 8 | int(m.pc[s]) << 16
