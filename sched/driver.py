"""The driver: programs, samples and commands on one side, registers and memory of a `Device` on the other."""

import functools
from collections import deque
from dataclasses import dataclass

from fluidnpu.hw import isa
from fluidnpu.hw.isa import REGISTER_FIELDS, Code, Opcode, Status

from .device import BusError

__all__ = ["Completion", "Driver", "DriverError", "Position", "SlotRecord"]

_address = functools.cache(isa.register_address)  # a search otherwise, at every access

ALIGNMENT = 4096  # of regions and arenas: bursts break at 4 KB, so a sample's time does not depend on its slot
_ADMIT_CODES = (Code.SLOT, Code.OCCUPIED, Code.PC, Code.ARENA)  # errors that only ADMIT has


class DriverError(RuntimeError):
    """The device is not what the driver expects, or was asked for something it cannot do."""


@dataclass(frozen=True)
class Completion:
    """An entry of the completion queue. ``stamp``: cycle of the exit decision (or of the release)."""

    status: Status
    slot: int
    exit: int
    code: Code
    top: int
    tag: int
    spread: int
    stamp: int

    @property
    def of_sample(self):
        """It ends a sample (else it answers a command)."""
        return self.status in (Status.OK, Status.CANCELLED, Status.FAILED)

    @property
    def of_admit(self):
        """It refuses an ADMIT: the sample never lived."""
        return self.status == Status.ERROR and self.code in _ADMIT_CODES


@dataclass(frozen=True)
class Position:
    """Where a sample stands: index of its operation, lines of it dealt so far; S of the last exit head that decided
    on it, None: none has, or nobody asked."""

    op: int
    line: int
    spread: int | None = None


@dataclass
class SlotRecord:
    """What the driver remembers of a slot: its arena, and the program and tag of its sample (tag None: free)."""

    base: int = 0
    size: int = 0
    program: int | None = None
    tag: int | None = None


class Driver:
    """Drives one device. Call `start` first.

    Parameters
    ----------
    device : Device
    memory_base, memory_bytes : the part of external memory that programs and arenas may use
    patience : most cycles to wait for a free command entry before DriverError

    Members after `start`
    ---------------------
    sizes : dict of every size in the CONFIG registers, names as in NpuConfig (slots, bus_bytes, ...)
    config_hash : the device's; rigid : mode bit as it was last set
    programs : dict index -> loaded Program
    """

    def __init__(self, device, memory_base=0, memory_bytes=64 << 20, patience=1_000_000):
        self.device, self.patience = device, patience
        self._top, self._end = memory_base, memory_base + memory_bytes
        self._regions = {}  # program index -> (base, bytes)
        self._arguments = {}  # staged command words that the device holds
        self._credit = 0  # command entries that are certainly free
        self._backlog = deque()  # completions popped while waiting for something else
        self.programs = {}
        self.sizes, self.rigid = {}, False

    # --- life -------------------------------------------------------------------------------------------------

    async def start(self, rigid=False, unstacked=False, interrupt_enable=True):
        """Check what the device is, read its sizes, set the mode bits. DriverError if this is no such NPU."""
        magic, version, self.config_hash = await self._read_all([("MAGIC", 0), ("ISA_VERSION", 0), ("CONFIG_HASH", 0)])
        if magic != isa.MAGIC:
            raise DriverError(f"no NPU: register MAGIC reads {magic:#010x}, it must be {isa.MAGIC:#010x}")
        if version != isa.ISA_VERSION:
            raise DriverError(f"the device has ISA version {version}, this driver speaks {isa.ISA_VERSION}")
        names = [name for name in REGISTER_FIELDS if name.startswith("CONFIG_")]
        for name, value in zip(names, await self._read_all([(name, 0) for name in names]), strict=True):
            self.sizes |= isa.decode(REGISTER_FIELDS[name], [value])
        self.slots = [SlotRecord() for _ in range(self.sizes["slots"])]
        await self.control(rigid, unstacked, interrupt_enable)

    async def control(self, rigid=False, unstacked=False, interrupt_enable=True):
        """Set the mode bits of the ablations and the interrupt enable."""
        self.rigid = bool(rigid)
        bits = {"rigid": int(rigid), "unstacked": int(unstacked), "interrupt_enable": int(interrupt_enable)}
        await self._write("CONTROL", isa.encode(REGISTER_FIELDS["CONTROL"], bits, 1, "CONTROL")[0])

    async def soft_reset(self):
        """Stop, drain and clear the NPU; every sample is gone without a completion, programs and limits stay."""
        await self._write("SOFT_RESET", 1)
        await self._poll("STATUS", lambda value: not self._field("STATUS", "resetting", value), "soft reset")
        self._backlog.clear()
        self._credit = 0
        for state in self.slots:
            state.tag = None
        for index in self.programs:
            await self._set_limits(index)

    # --- programs ---------------------------------------------------------------------------------------------

    async def load_program(self, program, index=None):
        """Write a program into memory and register it; returns its index (default: the first free one).

        DriverError if it was compiled for another configuration, memory is too small, or samples still run in a
        program that would be replaced.
        """
        if program.config_hash != self.config_hash:
            raise DriverError(
                f"program {program.name!r} is for configuration {program.config_name!r} "
                f"(hash {program.config_hash:#010x}), the device has hash {self.config_hash:#010x}"
            )
        count = self.sizes["programs"]
        if index is None:
            index = next((i for i in range(count) if i not in self.programs), count)
            if index == count:
                raise DriverError(f"program {program.name!r}: all {count} program regions are taken")
        if not 0 <= index < count:
            raise DriverError(f"program {program.name!r}: index {index} is not within 0..{count - 1}")
        if any(s.tag is not None and s.program == index for s in self.slots):
            raise DriverError(f"program {program.name!r}: samples still run in program {index}")
        base, size = self._regions.get(index, (0, 0))
        if size < len(program.region):
            base, size = self._allocate(len(program.region), f"program {program.name!r}"), len(program.region)
        self._regions[index] = base, size
        self.device.write_memory(base, program.region)
        values = {"PROGRAM_BASE": base, "PROGRAM_BYTES": len(program.region), "PROGRAM_OPS": len(program.ops)}
        await self.device.submit([(_address(name, index), value) for name, value in values.items()])
        self.programs[index] = program
        await self._set_limits(index)
        return index

    async def _set_limits(self, index):
        for e, exit in enumerate(self.programs[index].exits):
            await self.limit(index, e, exit.limit)

    def _allocate(self, size, what):
        base = self._top + -self._top % ALIGNMENT
        if base + size > self._end:
            raise DriverError(f"{what}: {size} bytes do not fit the {max(0, self._end - base)} left of external memory")
        self._top = base + size
        return base

    # --- commands ---------------------------------------------------------------------------------------------

    async def admit(self, slot, image, tag, *, program=0, priority=1, runnable=True, ride=True, exits=None):
        """A sample enters a free slot. ``exits``: mask of enabled exits (default: all).

        image : int8 [h, w, c], the bytes of the input tensor (Program.pack_input), or None, which leaves in the arena
            what is there (studies of time alone). DriverError if the slot is taken or the image has another size.
        """
        loaded = self._program(program)
        state = self._slot(slot)
        if state.tag is not None:
            raise DriverError(f"slot {slot} is taken by the sample with tag {state.tag}")
        place = loaded.tensors[loaded.input_tensor]
        expected = place.height * place.line_beats * loaded.bus_bytes
        if getattr(image, "ndim", 1) != 1:
            image = loaded.pack_input(image)
        if image is not None and len(image) != expected:
            raise DriverError(f"{loaded.name}: an image is {expected} bytes, this one has {len(image)}")
        if state.size < loaded.arena_bytes:
            state.base, state.size = self._allocate(loaded.arena_bytes, f"arena of slot {slot}"), loaded.arena_bytes
        if image is not None:
            self.device.write_memory(state.base + place.offset, image)
        fields = {
            "slot": slot,
            "runnable": int(runnable),
            "ride": int(ride),
            "priority": priority,
            "pc": isa.make_pc(program, 0),
            "tag": tag,
            "arena_base": state.base,
            "arena_bytes": loaded.arena_bytes,
            "exits": (1 << len(loaded.exits)) - 1 if exits is None else exits,
        }
        await self.command(Opcode.ADMIT, **fields)
        state.program, state.tag = program, tag

    async def batch(self, mask, priority=1, runnable=True, ride=True, commit=True):
        """Who runs, who rides, who outranks; takes effect with the next ``commit``."""
        switches = {"runnable": int(runnable), "ride": int(ride), "commit": int(commit)}
        await self.command(Opcode.BATCH, slot_mask=mask, priority=priority, **switches)

    async def leave(self, mask):
        """The masked samples leave at their next exit head."""
        await self.command(Opcode.LEAVE, slot_mask=mask)

    async def cancel(self, mask):
        """The masked samples are released as soon as nothing of them is outstanding."""
        await self.command(Opcode.CANCEL, slot_mask=mask)

    async def fence(self, tag=0):
        """Hold later commands back until every slot cancelled before is released; answers with a completion."""
        await self.command(Opcode.FENCE, tag=tag)

    async def limit(self, program, exit, limit):
        """Set the limit of an exit (nn.exits.limit_of of a threshold)."""
        await self.command(Opcode.LIMIT, program=program, exit=exit, limit=limit)

    async def command(self, opcode, **fields):
        """Queue any command (fields as isa.COMMANDS). Words that the device still holds are not written again."""
        layout = isa.COMMANDS[opcode]
        packed = isa.encode(layout, fields, isa.COMMAND_WORDS, Opcode(opcode).name)
        staged = {w: packed[w] for w in sorted({f.word for f in layout}) if self._arguments.get(w) != packed[w]}
        await self._reserve()
        writes = [(_address("ARGUMENT", w), value) for w, value in staged.items()]
        try:
            await self.device.submit([*writes, (_address("DOORBELL"), int(opcode))])
        except BusError as error:
            self._arguments, self._credit = {}, 0
            raise DriverError(f"command {Opcode(opcode).name} {fields} was not taken: {error}") from error
        self._arguments |= staged
        self._credit -= 1

    async def _reserve(self):
        """Make sure that a command entry is free; completions that stand in the way are kept for `completions`."""
        waited = 0
        while self._credit < 1:
            self._credit, level = await self._read_all([("COMMAND_FREE", 0), ("COMPLETION_LEVEL", 0)])
            if self._credit:
                return
            if level:
                await self._drain(level)
                continue
            if waited > self.patience:
                raise DriverError(f"the command queue stayed full for {waited} cycles")
            step = max(64, waited)  # nothing signals a free entry
            waited += step
            await self.device.wait(await self.device.cycle() + step)

    # --- what comes back --------------------------------------------------------------------------------------

    async def completions(self):
        """Every completion that is there, oldest first; their slots are free afterwards."""
        await self._drain((await self._read_all([("COMPLETION_LEVEL", 0)]))[0])
        found = list(self._backlog)
        self._backlog.clear()
        return found

    async def _drain(self, count):
        words = [(_address("COMPLETION", w), None) for w in range(isa.COMPLETION_WORDS)]
        values = await self.device.submit([*words, (_address("COMPLETION_POP"), 1)] * count)
        for n in range(count):
            first = n * (isa.COMPLETION_WORDS + 1)
            fields = isa.decode(isa.COMPLETION_FIELDS, values[first : first + isa.COMPLETION_WORDS])
            stamp = fields.pop("stamp_low") | fields.pop("stamp_high") << 32
            status, code = Status(fields.pop("status")), Code(fields.pop("code"))
            completion = Completion(status=status, code=code, stamp=stamp, **fields)
            self._backlog.append(completion)
            if completion.of_sample or (completion.of_admit and completion.code != Code.SLOT):
                state = self._slot(completion.slot)
                if state.tag == completion.tag:
                    state.tag = None

    async def positions(self, slots, spreads=False):
        """Position of each of these slots: dict slot -> Position. What a slot without a sample shows means nothing.

        spreads : S too, one more register per slot
        """
        slots, mask = list(slots), (1 << isa.PC_INDEX_BITS) - 1
        names = ("SLOT_ISSUED", "SLOT_SPREAD") if spreads else ("SLOT_ISSUED",)
        values = await self._read_all([(name, s) for s in slots for name in names])
        issued = values[:: len(names)]
        found = [None if s == isa.SPREAD_NONE else s for s in values[1::2]] if spreads else [None] * len(slots)
        return {
            s: Position(value >> 16 & mask, value & 0xFFFF, spread)
            for s, value, spread in zip(slots, issued, found, strict=True)
        }

    async def counters(self):
        """Every counter, all of the same cycle: dict name -> count since reset."""
        n = len(isa.COUNTERS)
        reads = [(_address(name, i), None) for i in range(n) for name in ("COUNTER_LOW", "COUNTER_HIGH")]
        values = await self.device.submit([(_address("COUNTER_LATCH"), 1), *reads])
        return {name: values[1 + 2 * i] | values[2 + 2 * i] << 32 for i, name in enumerate(isa.COUNTERS)}

    def tensor(self, slot, name):
        """Tensor ``name`` [h, w, c] int8 of the sample that is, or was last, in ``slot``."""
        state = self._slot(slot)
        if state.program is None:
            raise DriverError(f"slot {slot} never held a sample")
        program = self.programs[state.program]
        return program.unpack(name, self.device.read_memory(state.base, program.arena_bytes))

    def outputs(self, slot):
        """dict name -> int8 [h, w, c]: the outputs of the sample that was last in ``slot``, after its completion.

        A sample that left early made those of later exits not: what is read there means nothing.
        """
        if self._slot(slot).program is None:
            raise DriverError(f"slot {slot} never held a sample")
        return {name: self.tensor(slot, name) for name in self.programs[self.slots[slot].program].outputs}

    # --- registers --------------------------------------------------------------------------------------------

    def _slot(self, slot):
        if not 0 <= slot < len(self.slots):
            raise DriverError(f"slot {slot} is not within 0..{len(self.slots) - 1}")
        return self.slots[slot]

    def _program(self, index):
        if index not in self.programs:
            raise DriverError(f"no program is loaded at index {index}; there are {sorted(self.programs)}")
        return self.programs[index]

    async def _read_all(self, names):
        return await self.device.submit([(_address(name, index), None) for name, index in names])

    async def _write(self, name, value):
        await self.device.write(_address(name), value)

    @staticmethod
    def _field(register, field, value):
        return isa.decode(REGISTER_FIELDS[register], [value])[field]

    async def _poll(self, name, done, what):
        """Read a register, ever more rarely, until ``done(value)``."""
        waited = 0
        while not done((await self._read_all([(name, 0)]))[0]):
            if waited > self.patience:
                raise DriverError(f"{what} takes more than {waited} cycles")
            step = max(16, waited)
            waited += step
            await self.device.wait(await self.device.cycle() + step)
