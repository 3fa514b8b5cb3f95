"""Prints docs/isa.md: ``python -m fluidnpu.hw.isa_doc > docs/isa.md``."""

import inspect
import re
from enum import IntEnum

from . import isa, isa_text
from .tile import VECTOR_TAPS

__all__ = ["document", "enum_comments", "table"]


def table(heads, rows):
    """A Markdown table; ``rows`` are tuples of as many cells as ``heads``."""
    rows = [tuple(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def enum_comments(enum):
    """Member name -> what it means: the comment behind it in isa.py, or isa_text.MORE_COMMENTS."""
    found = dict(re.findall(r"^    (\w+) = \d+\s+# (.*)$", inspect.getsource(enum), re.MULTILINE))
    return {**found, **isa_text.MORE_COMMENTS.get(enum.__name__, {})}


def _enum_table(enum: type[IntEnum], head="name"):
    comments = enum_comments(enum)
    return table(("value", head, "meaning"), [(int(e), e.name, comments.get(e.name, "")) for e in enum])


def _bits(field):
    high = field.lsb + field.width - 1
    return f"[{high}:{field.lsb}]" if field.width > 1 else f"[{field.lsb}]"


def _field_table(fields):
    rows = [
        (f.word, _bits(f), f.name, f"{f.low}..{f.high}" if f.width < 32 else ("signed" if f.signed else ""), f.doc)
        for f in fields
    ]
    return table(("word", "bits", "field", "range", "meaning"), rows)


def _format(fields):
    """One line per word: names of its fields, upper bits first."""
    lines = []
    for word in sorted({f.word for f in fields}):
        parts = sorted((f for f in fields if f.word == word), key=lambda f: -f.lsb)
        lines.append(f"word {word}: " + " ".join(f"{f.name}{_bits(f)}" for f in parts))
    return "\n".join(lines) or "no words"


def _registers():
    rows = []
    for r in isa.REGISTERS:
        address = f"0x{r.address:03X}"
        if r.count > 1:
            address += f" + {r.stride}i, i < {r.count}"
        rows.append((address, r.name, r.access, r.doc))
    return table(("address", "name", "access", "meaning"), rows)


def _command(opcode):
    fields = isa.COMMANDS[opcode]
    return (
        f"### {opcode.name} ({int(opcode)})\n\n"
        f"Format\n\n```\n{_format(fields)}\n```\n\n{_field_table(fields)}\n"
        f"Action\n\n```\n{isa_text.ACTIONS[opcode]}\n```\n\n"
        f"Notes\n\n{isa_text.NOTES[opcode]}\n"
    )


def _descriptor_tables():
    """Common fields, then the fields of one variant with the word as a formula."""
    variant = re.compile(r"^(\w*?[a-z_])(\d)$")
    names = {f.name for f in isa.DESCRIPTOR_FIELDS}
    common, first = [], []
    for f in isa.DESCRIPTOR_FIELDS:
        match = variant.match(f.name)
        repeated = match and all(f"{match[1]}{v}" in names for v in range(isa.VARIANTS))
        if not repeated:
            common.append(f)
        elif match[2] == "0":
            first.append((match[1], f))
    by_name = {f.name: f for f in isa.DESCRIPTOR_FIELDS}
    rows = []
    for name, f in first:
        step = by_name[f"{name}1"].word - f.word
        rows.append((f"{f.word} + {step}v", _bits(f), f"{name}*v*", f"0..{f.high}" if f.width < 32 else "", f.doc))
    heads = ("word", "bits", "field", "range", "meaning")
    return f"{_field_table(common)}\nVariant v = 0..{isa.VARIANTS - 1}:\n\n{table(heads, rows)}"


def _counters():
    rows = [(i, name, isa_text.COUNTER_TEXTS[name]) for i, name in enumerate(isa.COUNTERS)]
    return table(("index", "counter", "counts"), rows)


def document():
    """The whole of docs/isa.md."""
    text = isa_text.SECTIONS
    program = text["program"].format(
        descriptor=isa.DESCRIPTOR_BYTES, table=isa.EXIT_TABLE_BYTES, index=isa.PC_INDEX_BITS
    )
    rules = isa_text.DESCRIPTOR_RULES.format(
        reciprocal=isa.RECIPROCAL_MAX, taps=VECTOR_TAPS, classes=isa.MAX_CLASSES, index=isa.PC_INDEX_BITS
    )
    parts = (
        isa_text.INTRODUCTION,
        f"Version {isa.ISA_VERSION}, magic 0x{isa.MAGIC:08X}.\n",
        "## Registers\n",
        _registers(),
        text["access"],
        "## Commands\n",
        *(_command(opcode) for opcode in isa.Opcode),
        "## Ordering and room\n",
        text["ordering"],
        "## Completions\n",
        _field_table(isa.COMPLETION_FIELDS),
        "Status\n",
        _enum_table(isa.Status),
        "Code\n",
        _enum_table(isa.Code),
        "## Interrupt\n",
        text["interrupt"],
        "## Errors\n",
        text["errors"],
        "## Soft reset\n",
        text["reset"],
        "## Programs\n",
        program,
        "Operations\n",
        _enum_table(isa.Op),
        "## Descriptors\n",
        text["descriptor"].format(words=isa.DESCRIPTOR_WORDS),
        _descriptor_tables(),
        "### Rules\n",
        rules,
        "## Counters\n",
        text["counters"].format(bits=isa.COUNTER_BITS),
        _counters(),
        "## Memory clients\n\nRead IDs, highest priority first.\n",
        _enum_table(isa.Client),
        "## Events\n",
        text["trace"],
        "Engine\n",
        _enum_table(isa.EngineEvent, "event"),
        "Array\n",
        _enum_table(isa.ArrayEvent, "event"),
    )
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
