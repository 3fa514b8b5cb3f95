"""Replays the engine's event trace of an RTL run against the model: every action legal, every tile line for line."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import EngineEvent, Opcode

from .engine_layers import from_descriptor
from .engine_model import EngineModel, ModelViolation

__all__ = ["program_operations", "replay"]


def program_operations(region, count):
    """The model's operations of the first ``count`` descriptors of a program region (bytes)."""
    words = np.frombuffer(region[: count * isa.DESCRIPTOR_BYTES], "<u4").reshape(count, -1)
    return tuple(from_descriptor(isa.decode(isa.DESCRIPTOR_FIELDS, descriptor)) for descriptor in words)


def replay(config, programs, commands, events, *, rigid=False, unstacked=False):
    """Run the events through an EngineModel; returns the list of tiles in the order in which they were dealt.

    programs : dict program number -> sequence of operations (see program_operations)
    commands : queued commands in order, (opcode, list of words)
    events : numpy array of events (sim.rtl_shared.EVENT); those of the engine are taken
    Raises ModelViolation, with the cycle, at the first action that the model does not allow or decides otherwise.
    """
    model = EngineModel(config, programs, rigid=rigid, unstacked=unstacked)
    run = _Replay(model, list(commands))
    for event in events:
        if event["port"] != 0:
            continue
        try:
            run.take(event)
        except ModelViolation as problem:
            raise ModelViolation(f"cycle {event['cycle']}, {EngineEvent(int(event['kind'])).name}: {problem}") from None
    return run.tiles


class _Replay:
    def __init__(self, model, commands):
        self.model, self.commands = model, commands
        self.tiles, self.fragments = [], []

    def take(self, event):
        kind = EngineEvent(int(event["kind"]))
        values = {name: int(event[name]) for name in ("slot", "pc", "line", "data", "data2")}
        getattr(self, f"_{kind.name.lower()}")(**values)

    def _same(self, what, hardware, model):
        if hardware != model:
            raise ModelViolation(f"{what}: the hardware says {hardware}, the model {model}")

    def _command(self, slot, pc, line, data, data2):
        if not self.commands:
            raise ModelViolation(f"command {data} executed, but none is queued")
        opcode, words = self.commands.pop(0)
        self._same("opcode", data, opcode)
        self._same("command word 0", data2, words[0])
        if opcode not in tuple(Opcode):
            self._same("error code", line, int(isa.Code.OPCODE))
            return
        opcode = Opcode(opcode)
        fields = isa.decode(isa.COMMANDS[opcode], words)
        if opcode == Opcode.ADMIT and line == 0:  # admitted: the host has popped the slot's last completion
            before = self.model.slots[fields["slot"]] if fields["slot"] < self.model.config.slots else None
            if before is not None and before.posted:
                self.model.pop(fields["slot"])
        answer = self.model.execute_command(opcode, **fields)
        error = answer is not None and answer.status == isa.Status.ERROR
        self._same("error code", line, int(answer.code) if error else 0)

    def _done(self, slot, pc, line, data, data2):
        self._same(f"done position of slot {slot}", (pc, line), self.model.write_done(slot))

    def _failed(self, slot, pc, line, data, data2):
        self.model.memory_error(isa.Code(data), [slot])

    def _jump(self, slot, pc, line, data, data2):
        self._same(f"jump of slot {slot}", pc, self.model.jump(slot))

    def _exit_start(self, slot, pc, line, data, data2):
        self.model.exit_start(slot)

    def _exit_result(self, slot, pc, line, data, data2):
        outcome = self.model.exit_result(slot, data & 0xFFFF, data2)
        self._same(f"slot {slot} finishes", bool(data >> 16 & 1), outcome.finished)

    def _release(self, slot, pc, line, data, data2):
        completion = self.model.release(slot)
        self._same(f"completion of slot {slot}", (data & 15, data >> 4), (int(completion.status), int(completion.code)))

    def _revoke(self, slot, pc, line, data, data2):
        self.model.revoke()

    def _drained(self, slot, pc, line, data, data2):
        self.model.drained()

    def _fragment(self, slot, pc, line, data, data2):
        self.fragments.append((slot, line, data & 0xFFFF, data >> 16))

    def _deal(self, slot, pc, line, data, data2):
        fragments, self.fragments = self.fragments, []
        tile = self.model.deal()
        self._same("leader", (slot, pc), (tile.leader, tile.pc))
        self._same("candidates", data & 0xFFFF, sum(1 << s for s in tile.candidates))
        self._same("variant", data >> 16 & 3, tile.variant)
        dealt = [(f.slot, f.first, f.lines, r) for r, sub in enumerate(tile.subtiles) for f in sub]
        self._same("fragments (slot, line, lines, sub-tile)", fragments, dealt)
        self._same("number of fragments", data2, len(dealt))
        self.tiles.append(tile)

    def _start(self, slot, pc, line, data, data2):
        self.model.start()

    def _retire(self, slot, pc, line, data, data2):
        self.model.tile_drained()

    def _reset(self, slot, pc, line, data, data2):
        self.model.reset()
