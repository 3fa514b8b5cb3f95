"""docs/isa.md is what the generator prints, and the generator leaves nothing out."""

from pathlib import Path

import pytest
from fluidnpu.hw import isa, isa_doc, isa_text

DOCUMENT = Path(__file__).parents[2] / "docs" / "isa.md"


def test_committed_file_is_current():
    assert DOCUMENT.read_text() == isa_doc.document(), (
        "docs/isa.md is stale: python -m fluidnpu.hw.isa_doc > docs/isa.md"
    )


def test_everything_is_there():
    text = isa_doc.document()
    for r in isa.REGISTERS:
        assert f"| 0x{r.address:03X}" in text and f" | {r.name} | {r.access} | " in text, r.name
    for fields in (*isa.COMMANDS.values(), isa.COMPLETION_FIELDS):
        for f in fields:
            assert f" | {f.name} | " in text, f.name
    for f in isa.DESCRIPTOR_FIELDS:
        assert f" | {f.name} | " in text or f" | {f.name[:-1]}*v* | " in text, f.name
    for enum in (isa.Status, isa.Code, isa.Op, isa.Client, isa.EngineEvent, isa.ArrayEvent):
        for member in enum:
            assert f"| {int(member)} | {member.name} | " in text, member
    for i, name in enumerate(isa.COUNTERS):
        assert f"| {i} | {name} | " in text, name


def test_hand_written_texts_fit_the_instruction_set():
    assert set(isa_text.ACTIONS) == set(isa_text.NOTES) == set(isa.Opcode) == set(isa.COMMANDS)
    assert list(isa_text.COUNTER_TEXTS) == list(isa.COUNTERS)
    for name, comments in isa_text.MORE_COMMENTS.items():
        assert set(comments) <= set(getattr(isa, name).__members__), name


@pytest.mark.parametrize("enum", [isa.Status, isa.Code, isa.Op, isa.Client, isa.EngineEvent, isa.ArrayEvent])
def test_every_member_is_explained(enum):
    comments = isa_doc.enum_comments(enum)
    assert [m.name for m in enum if not comments.get(m.name)] == []


def test_table_escapes_bars():
    assert isa_doc.table(("a", "b"), [(1, "x | y")]) == "| a | b |\n| --- | --- |\n| 1 | x \\| y |\n"
