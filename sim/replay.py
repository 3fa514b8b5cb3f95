"""Replays the trace of an RTL run: programs from their descriptors, commands from the words that were queued."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import COMMANDS, Opcode

from .engine_layers import from_descriptor
from .engine_model import EngineModel
from .engine_replay import EngineReplay

__all__ = ["ENGINE_PORT", "program_operations", "replay"]

ENGINE_PORT = 0  # ``source`` of an event of trace_engine; 1: trace_array


def program_operations(region, count):
    """The model's operations of the first ``count`` descriptors of a program region (bytes)."""
    words = np.frombuffer(region[: count * isa.DESCRIPTOR_BYTES], "<u4").reshape(count, -1)
    return tuple(from_descriptor(isa.decode(isa.DESCRIPTOR_FIELDS, descriptor)) for descriptor in words)


def replay(config, programs, commands, events, *, rigid=False, unstacked=False):
    """Check every engine event of a run against the model; returns the EngineReplay (tiles, completions).

    programs : dict program number -> operations (program_operations)
    commands : accepted commands in order, (opcode, list of words)
    events : numpy array of events (sim.rtl_shared.EVENT), oldest first
    Raises ModelViolation at the first action that the model does not allow or decides otherwise.
    """
    decoded = ((op, isa.decode(COMMANDS[Opcode(op)], words) if op in tuple(Opcode) else {}) for op, words in commands)
    run = EngineReplay(EngineModel(config, programs, rigid=rigid, unstacked=unstacked), decoded)
    fields = ("kind", "slot", "pc", "line", "data", "data2", "cycle")
    for event in events[events["source"] == ENGINE_PORT]:
        run.event(*(int(event[name]) for name in fields))
    return run
