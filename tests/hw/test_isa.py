"""The instruction set's tables: fields fit and do not overlap, encoding is exact, registers lie apart."""

import random

import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import IsaError

FORMATS = {
    **{opcode.name: (fields, isa.COMMAND_WORDS) for opcode, fields in isa.COMMANDS.items()},
    "completion": (isa.COMPLETION_FIELDS, isa.COMPLETION_WORDS),
    "descriptor": (isa.DESCRIPTOR_FIELDS, isa.DESCRIPTOR_WORDS),
}
every_format = pytest.mark.parametrize("fields, words", FORMATS.values(), ids=FORMATS.keys())


@every_format
def test_fields_fit_and_do_not_overlap(fields, words):
    used = [0] * words
    names = [f.name for f in fields]
    assert len(set(names)) == len(names)
    for f in fields:
        assert f.width > 0 and f.lsb >= 0 and f.lsb + f.width <= 32, f.name
        bits = ((1 << f.width) - 1) << f.lsb
        assert not used[f.word] & bits, f.name
        used[f.word] |= bits


@every_format
def test_encode_and_decode(fields, words):
    rng = random.Random(len(fields))
    extremes = ({f.name: f.low for f in fields}, {f.name: f.high for f in fields})
    randoms = ({f.name: rng.randint(f.low, f.high) for f in fields} for _ in range(50))
    for values in (*extremes, *randoms):
        packed = isa.encode(fields, values, words, "test")
        assert len(packed) == words and all(0 <= w < 1 << 32 for w in packed)
        assert isa.decode(fields, packed) == values
    assert isa.encode(fields, {}, words, "test") == [0] * words


@every_format
def test_one_field_touches_its_bits_only(fields, words):
    for f in fields:
        packed = isa.encode(fields, {f.name: -1 if f.signed else f.high}, words, "test")
        expected = [0] * words
        expected[f.word] = ((1 << f.width) - 1) << f.lsb
        assert packed == expected, f.name


@pytest.mark.parametrize(
    "values, message",
    [
        ({"slot": 16}, "ADMIT: slot = 16 is not within 0..15"),
        ({"priority": -1}, "ADMIT: priority = -1 is not within 0..255"),
        ({"tag": 1 << 32}, "ADMIT: tag = 4294967296 is not within 0..4294967295"),
        (
            {"slto": 1},
            "ADMIT: no field 'slto'; there are slot, runnable, ride, priority, pc, tag, arena_base, arena_bytes, exits",
        ),
    ],
)
def test_encode_errors(values, message):
    with pytest.raises(IsaError) as error:
        isa.encode(isa.COMMANDS[isa.Opcode.ADMIT], values, isa.COMMAND_WORDS, "ADMIT")
    assert str(error.value) == message


def test_signed_range():
    with pytest.raises(IsaError, match=r"layer 3: in_zero = 128 is not within -128\.\.127"):
        isa.encode(isa.DESCRIPTOR_FIELDS, {"in_zero": 128}, isa.DESCRIPTOR_WORDS, "layer 3")


def test_values_fit_their_fields():
    """What the hardware puts into a field has room in it."""
    completion = {f.name: f for f in isa.COMPLETION_FIELDS}
    assert max(isa.Status) <= completion["status"].high and max(isa.Code) <= completion["code"].high
    descriptor = {f.name: f for f in isa.DESCRIPTOR_FIELDS}
    assert max(isa.Op) <= descriptor["op"].high
    assert isa.VARIANTS - 1 <= 3 and descriptor["vsel"].width == 2 * 16
    assert isa.NO_PRODUCER == descriptor["producer"].high >= 1 << isa.PC_INDEX_BITS
    assert descriptor["out_channels"].high >= isa.MAX_CLASSES
    assert max(isa.EngineEvent) < 32 and max(isa.ArrayEvent) < 32  # event.kind
    admit = {f.name: f for f in isa.COMMANDS[isa.Opcode.ADMIT]}
    limit = {f.name: f for f in isa.COMMANDS[isa.Opcode.LIMIT]}
    for config in CONFIGS.values():
        assert config.slots - 1 <= min(admit["slot"].high, completion["slot"].high)
        assert config.slots <= isa.COMMANDS[isa.Opcode.BATCH][0].width
        assert config.exits <= admit["exits"].width
        assert config.exits - 1 <= min(limit["exit"].high, completion["exit"].high, descriptor["exit"].high)
        assert config.programs - 1 <= min(limit["program"].high, isa.make_pc(config.programs - 1, 0) >> 14)
        assert config.max_lines <= descriptor["max_lines0"].high
        assert config.max_stack <= 1 << descriptor["log2_kr0"].high


def test_pc():
    assert isa.make_pc(0, 5) == 5
    assert isa.make_pc(3, 1) == 0xC001


def test_registers_lie_apart():
    seen = {}
    for r in isa.REGISTERS:
        assert r.access in ("r", "w", "rw") and r.doc
        for i in range(r.count):
            address = isa.register_address(r.name, i)
            assert address % 4 == 0 and address < 1 << isa.REGISTER_ADDR_WIDTH
            assert address not in seen, (r.name, seen[address])
            seen[address] = r.name


def test_registers_have_room():
    count = {r.name: r.count for r in isa.REGISTERS}
    assert count["ARGUMENT"] == isa.COMMAND_WORDS and count["COMPLETION"] == isa.COMPLETION_WORDS
    assert count["COUNTER_LOW"] == count["COUNTER_HIGH"] >= len(isa.COUNTERS)
    for config in CONFIGS.values():
        assert count["PROGRAM_BASE"] >= config.programs and count["SLOT_STATE"] >= config.slots


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("ARGUMENT", 5), "ARGUMENT: index 5 is not within 0..4"),
        (("MAGIC", 1), "MAGIC: index 1 is not within 0..0"),
        (("SLOT_TAG", -1), "SLOT_TAG: index -1 is not within 0..15"),
        (("DOORBEL",), "no register 'DOORBEL'"),
    ],
)
def test_register_address_errors(arguments, message):
    with pytest.raises(IsaError) as error:
        isa.register_address(*arguments)
    assert str(error.value) == message


def test_causes_come_first_among_the_counters():
    assert isa.COUNTERS[: len(isa.CAUSES)] == tuple(f"cycles_{cause}" for cause in isa.CAUSES)
    assert isa.CAUSES[-1] == "idle" and len(set(isa.COUNTERS)) == len(isa.COUNTERS)
