"""Times of operations for the compiler, from the cycle model: a group of samples goes through a few operations."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import ArrayEvent, EngineEvent, Opcode

from .cycle.model import CycleModel
from .memory import IDEAL
from .replay import ENGINE_PORT

__all__ = ["operation_ends"]

ALIGNMENT = 4096  # of arenas, as the driver places them
SETTLED = 1000  # cycles after which all samples stand at the first operation and know it
FOREVER = 1 << 50
_INDEX_MASK = (1 << isa.PC_INDEX_BITS) - 1


def operation_ends(config, descriptors, arena_bytes, live, first, stop, exits=0, memory=IDEAL):
    """Cycle of the last MAC of every operation, of the last write (None): `nn.timed_tables.Timing`.

    Time is counted from the command that starts the samples. ``descriptors`` stays as it is.
    """
    words = descriptors.copy()
    end = {"op": isa.Op.EXIT, "last": 1, "out_channels": 1}
    words[stop] = isa.encode(isa.DESCRIPTOR_FIELDS, end, isa.DESCRIPTOR_WORDS, "end")
    model = CycleModel(config, memory, words.reshape(-1).view(np.uint8), _undecided)
    model.write_program(0, "BASE", 0)
    model.write_program(0, "OPS", len(words))
    arena = arena_bytes + -arena_bytes % ALIGNMENT
    for slot in range(live):
        sample = {"slot": slot, "ride": 1, "priority": 1, "pc": first, "exits": exits, "arena_bytes": arena_bytes}
        _command(model, Opcode.ADMIT, **sample, arena_base=words.nbytes + -words.nbytes % ALIGNMENT + slot * arena)
    model.run(SETTLED)
    _command(model, Opcode.BATCH, slot_mask=(1 << live) - 1, priority=1, runnable=1, ride=1, commit=1)
    model.run(FOREVER)
    events = model.new_events(0)
    engine = events[events["source"] == ENGINE_PORT]
    dealt = engine["pc"][engine["kind"] == EngineEvent.DEAL] & _INDEX_MASK
    ended = events["cycle"][(events["source"] != ENGINE_PORT) & (events["kind"] == ArrayEvent.END)] - SETTLED
    ends = dict(zip(dealt.tolist(), ended.tolist(), strict=True))  # of each operation the last tile stays
    return ends | {None: int(engine["cycle"][engine["kind"] == EngineEvent.DONE].max()) - SETTLED}


def _command(model, opcode, **fields):
    model.queue_command(opcode, isa.encode(isa.COMMANDS[opcode], fields, isa.COMMAND_WORDS, opcode.name))


def _undecided(slot, program, exit):
    """No exit is confident."""
    return 0, (1 << 32) - 1
