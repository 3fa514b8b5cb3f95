"""Commands and completions as hardware structs, derived from isa.py."""

from amaranth.lib import data
from fluidnpu.hw import isa

__all__ = ["command_layout", "completion_layout"]


def command_layout():
    """A queued command: the doorbell's opcode and the argument words (fields: isa.COMMANDS[opcode])."""
    return data.StructLayout({"opcode": 8, "words": data.ArrayLayout(32, isa.COMMAND_WORDS)})


def completion_layout():
    """A completion, COMPLETION_WORDS words whose members are isa.COMPLETION_FIELDS."""
    fields = {f.name: data.Field(f.width, 32 * f.word + f.lsb) for f in isa.COMPLETION_FIELDS}
    return data.FlexibleLayout(32 * isa.COMPLETION_WORDS, fields)
