"""Replays the RTL engine's event trace (isa.EngineEvent) against the engine model, action for action."""

from fluidnpu.hw.isa import COMMANDS, Code, EngineEvent, Opcode, Status, decode

from .engine_model import ModelViolation

__all__ = ["EngineReplay"]


class EngineReplay:
    """Feeds every event to an EngineModel and compares what the hardware did with what the algorithm determines.

    Parameters
    ----------
    model : EngineModel with the programs that the hardware runs (not ``strict``: the hardware also waits for
        descriptors, which the model does not see)
    commands : iterable of (opcode, fields) in the order in which the hardware's queue accepted them

    The host's pops are not in the trace: a slot whose completion is posted counts as popped when the hardware admits
    into it. A soft reset is announced by ``model.begin_reset()``; ``commands`` must leave out what it discards.

    Members
    -------
    completions : Completion of every release, FENCE and command error so far, in the order of posting
    tiles : every Tile dealt so far
    """

    def __init__(self, model, commands):
        self.model = model
        self.commands = iter(commands)
        self.completions = []
        self.tiles = []
        self.events = 0
        self._fragments = []
        self._contexts = {}  # tile number -> context of the hardware

    def event(self, kind, slot=0, pc=0, line=0, data=0, data2=0, cycle=0):
        """Check one event; raises ModelViolation that names its number, kind and slot."""
        kind = EngineEvent(kind)
        try:
            getattr(self, f"_{kind.name.lower()}")(slot, pc, line, data, data2, cycle)
        except ModelViolation as violation:
            where = f"event {self.events} ({kind.name}, slot {slot}, cycle {cycle})"
            raise ModelViolation(f"{where}: {violation}") from None
        self.events += 1

    @staticmethod
    def _equal(what, hardware, model):
        if hardware != model:
            raise ModelViolation(f"{what} is {hardware} in the hardware, {model} in the model")

    def _command(self, slot, pc, line, data, data2, cycle):
        opcode, fields = next(self.commands, (None, {}))
        self._equal("opcode", data, opcode)
        if data in list(Opcode):
            used = [f for f in COMMANDS[Opcode(data)] if f.word == 0]  # the other bits keep what was staged before
            self._equal("command word 0", decode(used, [data2]), {f.name: fields.get(f.name, 0) for f in used})
        target = fields.get("slot", 0)
        if opcode == Opcode.ADMIT and line != Code.OCCUPIED and target < len(self.model.slots):
            entry = self.model.slots[target]
            if entry is not None and entry.posted:
                self.model.pop(target)
        completion = self.model.execute_command(opcode, cycle, **fields)
        self._equal("error code", line, completion.code if completion else Code.NONE)
        if completion is not None:
            self.completions.append(completion)

    def _done(self, slot, pc, line, data, data2, cycle):
        self._equal("done position", (pc, line), self.model.write_line(slot))

    def _failed(self, slot, pc, line, data, data2, cycle):
        self.model.memory_error(data, [slot])

    def _jump(self, slot, pc, line, data, data2, cycle):
        self._equal("target", pc, self.model.jump(slot))

    def _exit_start(self, slot, pc, line, data, data2, cycle):
        self.model.exit_start(slot)
        self._equal("pc", pc, self.model.slots[slot].pc)

    def _exit_result(self, slot, pc, line, data, data2, cycle):
        if self.model.exit_slot == slot:
            self._equal("exit", data >> 20 & 15, self.model.op(slot).exit)
        outcome = self.model.exit_result(slot, data & 0xFFFF, data2, cycle)
        self._equal("finished", bool(data >> 16 & 1), outcome.finished)

    def _release(self, slot, pc, line, data, data2, cycle):
        completion = self.model.release(slot, cycle)
        self._equal("status and code", (Status(data & 15).name, data >> 4), (completion.status.name, completion.code))
        self.completions.append(completion)

    def _revoke(self, slot, pc, line, data, data2, cycle):
        self.model.revoke()

    def _drained(self, slot, pc, line, data, data2, cycle):
        self.model.drained()

    def _fragment(self, slot, pc, line, data, data2, cycle):
        self._fragments.append((data >> 16, slot, pc, line, data & 0xFFFF))

    def _deal(self, slot, pc, line, data, data2, cycle):
        tile = self.model.deal()
        fragments, self._fragments = self._fragments, []
        self._equal("leader", slot, tile.leader)
        self._equal("pc", pc, tile.pc)
        self._equal("candidates", data & 0xFFFF, sum(1 << s for s in tile.candidates))
        self._equal("variant", data >> 16, tile.variant)
        expected = [(n, f.slot, tile.pc, f.first, f.lines) for n, sub in enumerate(tile.subtiles) for f in sub]
        self._equal("fragments (sub-tile, slot, pc, first line, lines)", fragments, expected)
        self._equal("number of fragments", data2, len(expected))
        self._contexts[tile.number] = line
        self.tiles.append(tile)

    def _start(self, slot, pc, line, data, data2, cycle):
        self._equal("tile", line, self._contexts[self.model.start().number])

    def _retire(self, slot, pc, line, data, data2, cycle):
        self._equal("tile", line, self._contexts.pop(self.model.tile_drained().number))

    def _reset(self, slot, pc, line, data, data2, cycle):
        self.model.reset()
        self._fragments = []
