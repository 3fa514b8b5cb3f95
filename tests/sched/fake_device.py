"""A device without RTL: registers and queues as isa.py says, the engine model behind them, and times that tests choose.

A network is a chain of layers of one line each, so a tile is one layer for the samples that stand there: what the fluid
engine does with them is real, how long it takes is a table.
"""

from collections import deque
from heapq import heappop, heappush

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.command.registers import constant_registers
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import REGISTER_FIELDS, Code, Opcode, Status
from fluidnpu.nn.program import FoldedInput, OpInfo, Program, ProgramExit, TensorPlace
from fluidnpu.sched.device import BusError, Device
from fluidnpu.sim.engine_layers import from_descriptor
from fluidnpu.sim.engine_model import EngineModel

__all__ = ["TINY", "FakeDevice", "chain", "image"]

TINY = get_config("tiny")
LIMIT = 2 << 16  # of every exit: confidence 1/2
WHERE = {isa.register_address(r.name, i): (r.name, i) for r in isa.REGISTERS for i in range(r.count)}
ACCESS = {r.name: r.access for r in isa.REGISTERS}


def chain(layers_per_exit, config=TINY, cycles=None, limit=LIMIT):
    """Program: per exit its trunk (``layers_per_exit`` layers), then EXIT; all but the last have a JUMP over it.

    ``cycles(op index, samples)``: estimates that the compiler would have left in OpInfo.variants.
    """
    ops, descriptors, exits, producer = [], [], [], isa.NO_PRODUCER
    last = len(layers_per_exit) - 1
    for e, layers in enumerate(layers_per_exit):
        for _ in range(layers):
            fields = {"op": isa.Op.CONV, "producer": producer, "in_h": 1, "lines": 1, "kh": 1, "sy": 1, "nseg": 1}
            fields |= {"producer_nseg": 1, "max_lines0": config.slots, "stripe_lines0": config.slots}
            producer = len(ops)
            known = [{"cycles": cycles(len(ops), n)} for n in range(1, config.slots + 1)] if cycles else []
            ops.append(OpInfo(f"layer{len(ops)}", "CONV", macs=1, variants=known))
            descriptors.append(fields)
        if e < last:
            descriptors.append({"op": isa.Op.JUMP, "exit": e, "target": len(ops) + 2})
            ops.append(OpInfo(f"jump{e}", "JUMP", exit=e))
        exits.append(ProgramExit(len(ops), "logits", 10, 0.1, 0, 1.0, limit))
        descriptors.append({"op": isa.Op.EXIT, "exit": e, "last": int(e == last)})
        ops.append(OpInfo(f"exit{e}", "EXIT", exit=e, head=e))
    words = [isa.encode(isa.DESCRIPTOR_FIELDS, d, isa.DESCRIPTOR_WORDS, "descriptor") for d in descriptors]
    return Program(
        name="chain",
        config_name=config.name,
        config_hash=config.hash,
        bus_bytes=config.bus_bytes,
        arena_bytes=64,
        input=FoldedInput(1, 1, 2),
        input_tensor="image",
        tensors={"image": TensorPlace("image", 8, 1, 1, 2, 1, 1)},
        exits=tuple(exits),
        outputs=("logits",),
        ops=tuple(ops),
        region=np.array(words, "<u4").tobytes(),
    )


def image(exit=0, top=0):
    """int8 [1, 1, 2]: the fake finds this sample confident from ``exit`` on, and its class is ``top``."""
    return np.array([[[exit, top]]], np.int8)


class FakeDevice(Device):
    """See the module. Parameters:

    tile_cycles : function (op index, samples) -> cycles of the tile
    exit_cycles, write_cycles, bus_cycles : of a decision, from a tile's end to its last write, of a register access
    failing : dict tag -> Code: the sample's first tile ends with this error
    stall_commands : the engine takes no command before this cycle
    """

    def __init__(
        self, tile_cycles=lambda op, n: 100, *, config=TINY, exit_cycles=0, write_cycles=0, bus_cycles=4, failing=None,
        stall_commands=0,
    ):  # fmt: skip
        self.config, self.tile_cycles = config, tile_cycles
        self.exit_cycles, self.write_cycles, self.bus_cycles = exit_cycles, write_cycles, bus_cycles
        self.failing, self.stall_commands = dict(failing or {}), stall_commands
        self.memory = np.zeros(1 << 20, np.uint8)
        self.registers = constant_registers(config)
        self.engine = EngineModel(config, {})
        self.now, self.events, self.sequence = 0, [], 0
        self.commands, self.done, self.reserved = deque(), deque(), 0
        self.array_free = True
        self.wakes, self.accesses, self.tiles = 0, 0, []
        self.executed = []  # (cycle, opcode, fields)

    # --- Device ---------------------------------------------------------------------------------------------

    async def cycle(self):
        return self.now

    async def busy(self, cycles):
        self._advance(self.now + cycles)

    async def submit(self, accesses):
        values = []
        self.wakes += 1
        for address, value in accesses:
            self.accesses += 1
            self._advance(self.now + self.bus_cycles)
            name, index = WHERE.get(address, (None, 0))
            if name is None or ("r" if value is None else "w") not in ACCESS[name]:
                raise BusError(address, value is not None)
            values.append(self._read(name, index) if value is None else self._write(name, index, value, address))
            self._sequencer()
        return values

    async def wait(self, until_cycle=None):
        self.wakes += 1
        while not self._irq():
            if until_cycle is not None and self.now >= until_cycle:
                return False
            if not self.events:
                assert until_cycle is not None, f"cycle {self.now}: nothing will ever happen again"
                self.now = until_cycle
            elif until_cycle is not None and self.events[0][0] > until_cycle:
                self.now = until_cycle
            else:
                self._step()
        return True

    def read_memory(self, address, count):
        return self.memory[address : address + count].copy()

    def write_memory(self, address, content):
        content = np.frombuffer(bytes(content), np.uint8)
        self.memory[address : address + len(content)] = content

    # --- registers ------------------------------------------------------------------------------------------

    def _irq(self):
        return bool(self.done) and bool(self.registers.get("CONTROL", 0) >> 2 & 1)

    def _free(self):
        unreserved = self.config.completion_entries - self.reserved - len(self.done)
        return min(self.config.command_entries - len(self.commands), unreserved)

    def _read(self, name, index):
        match name:
            case "COMMAND_FREE":
                return self._free()
            case "COMPLETION_LEVEL":
                return len(self.done)
            case "COMPLETION":
                return self._words(self.done[0])[index] if self.done else 0
            case "SLOT_ISSUED":
                slot = self.engine.slots[index]
                return slot.issued[0] << 16 | slot.issued[1] if slot else 0
            case "SLOT_SPREAD":
                slot = self.engine.slots[index]
                return slot.spread if slot else isa.SPREAD_NONE
            case "COUNTER_LOW":
                return 1000 + index
            case "COUNTER_HIGH":
                return index
            case "STATUS":
                return 0
        return self.registers.get(name if index == 0 else (name, index), 0)

    def _write(self, name, index, value, address):
        match name:
            case "DOORBELL":
                if not self._free():
                    raise BusError(address, True)
                self.commands.append((value, [self.registers.get(("ARGUMENT", i), 0) for i in range(5)]))
                self.reserved += 1
                self._after(max(1, self.stall_commands - self.now), lambda: None)
            case "COMPLETION_POP":
                if not self.done:
                    raise BusError(address, True)
                completion = self.done.popleft()
                if completion.status not in (Status.ERROR, Status.FENCE):
                    self.engine.pop(completion.slot)
            case "ARGUMENT":
                self.registers["ARGUMENT", index] = value
            case "SOFT_RESET":
                self.engine.reset()
                self.events.clear()
                self.commands.clear()
                self.done.clear()
                self.reserved, self.array_free = 0, True
            case "CONTROL":
                mode = isa.decode(REGISTER_FIELDS["CONTROL"], [value])
                self.engine.rigid, self.engine.unstacked = bool(mode["rigid"]), bool(mode["unstacked"])
                self.registers[name] = value
            case _:
                self.registers[name if index == 0 else (name, index)] = value
                if name == "PROGRAM_OPS":
                    self._program(index, value)
        return value

    def _program(self, index, ops):
        base = self.registers["PROGRAM_BASE" if index == 0 else ("PROGRAM_BASE", index)]
        words = self.memory[base : base + ops * isa.DESCRIPTOR_BYTES].view("<u4").reshape(ops, -1)
        self.engine.programs[index] = tuple(from_descriptor(isa.decode(isa.DESCRIPTOR_FIELDS, w)) for w in words)

    @staticmethod
    def _words(c):
        values = {name: int(getattr(c, name)) for name in ("status", "slot", "exit", "code", "top", "tag", "spread")}
        values |= {"stamp_low": c.stamp & 0xFFFFFFFF, "stamp_high": c.stamp >> 32}
        return isa.encode(isa.COMPLETION_FIELDS, values, isa.COMPLETION_WORDS, "completion")

    # --- time -----------------------------------------------------------------------------------------------

    def _after(self, delay, action):
        self.sequence += 1
        heappush(self.events, (self.now + delay, self.sequence, action))

    def _step(self):
        self.now, _, action = heappop(self.events)
        action()
        if not (self.events and self.events[0][0] == self.now):  # what happens in a cycle happens together
            self._sequencer()

    def _advance(self, until):
        while self.events and self.events[0][0] <= until:
            self._step()
        self.now = until

    # --- the NPU --------------------------------------------------------------------------------------------

    def _sequencer(self):
        while self._command() or self._act():
            pass

    def _command(self):
        if not self.commands or self.now < self.stall_commands:
            return False
        number, words = self.commands[0]
        if number == Opcode.FENCE and self.engine.fence_blocks():
            return False
        self.commands.popleft()
        opcode = Opcode(number) if number in tuple(Opcode) else number
        fields = isa.decode(isa.COMMANDS.get(opcode, ()), words)
        self.executed.append((self.now, opcode, fields))
        completion = self.engine.execute_command(opcode, self.now, **fields)
        if completion:
            self._post(completion)
        elif opcode != Opcode.ADMIT:
            self.reserved -= 1
        return True

    def _post(self, completion):
        self.reserved -= 1
        self.done.append(completion)

    def _act(self):
        e = self.engine
        for action, *slot in e.enabled_actions():
            match action:
                case "release":
                    self._post(e.release(slot[0], self.now))
                case "exit_start":
                    e.exit_start(slot[0])
                    if not self.exit_cycles:
                        self._decided(slot[0])
                        return True
                    self._after(self.exit_cycles, lambda s=slot[0]: self._decided(s))
                case "revoke":
                    e.revoke()
                    self._after(1, e.drained)
                case "start" if self.array_free:
                    self._start(e.start())
                case "start":
                    continue
                case _:
                    getattr(e, action)(*slot)
            return True
        return False

    def _start(self, tile):
        self.array_free = False
        cycles = self.tile_cycles(tile.pc & 0x3FFF, len(tile.members))
        self.tiles.append((self.now, tile.pc & 0x3FFF, tuple(self.engine.slots[s].tag for s in tile.members)))
        self._after(cycles, self._array_done)
        self._after(cycles + self.write_cycles, lambda: self._written(tile))

    def _array_done(self):
        self.array_free = True

    def _written(self, tile):
        for s in tile.members:
            self.engine.write_done(s)
            code = self.failing.pop(self.engine.slots[s].tag, Code.NONE)
            if code:
                self.engine.memory_error(code, [s])
        self.engine.tile_drained(tile.number)

    def _decided(self, s):
        slot = self.engine.slots[s]
        op = self.engine.op(s)
        confident, top = (int(v) for v in self.memory[slot.arena_base + 8 : slot.arena_base + 10])
        self.engine.exit_result(s, top, 1 << 16 if op.exit >= confident else 3 << 16, self.now)
