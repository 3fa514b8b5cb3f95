"""DescriptorCheck: what the compiler makes passes, every broken rule is found, no bit pattern hangs it."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.engine.descriptor_check import DescriptorCheck
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, LAYERS, Op
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.engine_layers import Layer
from fluidnpu.sim.engine_oracle import random_program

from .descriptors import LAST_INDEX, breaches, broken_rule, exit_fields, jump_fields, layer_fields, stream_beats

DIGITS = Path(__file__).parents[3] / "models" / "digits.tflite"
INDEX, OPS = 40, 60  # place of the descriptors under test


def pack(fields):
    """The descriptor as one number."""
    words = isa.encode(DESCRIPTOR_FIELDS, fields, isa.DESCRIPTOR_WORDS, "descriptor")
    return sum(word << 32 * i for i, word in enumerate(words))


def judge(config, cases):
    """Verdict (bad?) of every (descriptor as a number, index, ops); each within CYCLES."""
    check = DescriptorCheck(config)
    verdicts = []

    async def bench(ctx):
        for number, index, ops in cases:
            ctx.set(check.descriptor.as_value(), number)
            ctx.set(check.index, index)
            ctx.set(check.ops, ops)
            ctx.set(check.go, 1)
            await ctx.tick()
            ctx.set(check.go, 0)
            cycles = 1
            while not ctx.get(check.done):
                await ctx.tick()
                cycles += 1
                assert cycles <= check.CYCLES, f"no verdict on {number:x} within {check.CYCLES} cycles"
            verdicts.append(bool(ctx.get(check.bad)))
            await ctx.tick()
            assert not ctx.get(check.done)

    sim = Simulator(check)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return verdicts


def random_layers(rng, config, count):
    """Legal descriptors of random layers."""
    layers = []
    while len(layers) < count:
        for op in random_program(rng):
            if isinstance(op, Layer):
                if op.producer != isa.NO_PRODUCER:
                    op = replace(op, producer=rng.randrange(INDEX))
                if op.residual is not None and op.residual[0] != isa.NO_PRODUCER:
                    op = replace(op, residual=(rng.randrange(INDEX), op.residual[1]))
                layers.append(layer_fields(rng, config, op, INDEX))
    return layers[:count]


@pytest.mark.parametrize("name", ["tiny", "edge"])
def test_compiled_network(name):
    config = CONFIGS[name]
    for options in (CompileOptions(), CompileOptions(max_tile_cycles=500, fold="none"))[: 2 if name == "tiny" else 1]:
        program = compile_network(read_network(DIGITS), config, options)
        count = len(program.ops)
        words = np.frombuffer(program.region[: count * isa.DESCRIPTOR_BYTES], "<u4").reshape(count, -1)
        cases = [(sum(int(w) << 32 * i for i, w in enumerate(d)), i, count) for i, d in enumerate(words)]
        for i, d in enumerate(words):
            rule = broken_rule(config, isa.decode(DESCRIPTOR_FIELDS, d), i, count)
            assert rule is None, f"{program.ops[i]} breaks {rule}"
        verdicts = judge(config, cases)
        assert not any(verdicts), [program.ops[i] for i, bad in enumerate(verdicts) if bad]


@pytest.mark.parametrize("name", ["tiny", "gemmini16", "hub"])
def test_random_legal(name):
    config = CONFIGS[name]
    rng = random.Random(f"legal {name}")
    layers = random_layers(rng, config, 60)
    verdicts = judge(config, [(pack(d), INDEX, OPS) for d in layers])
    bad = [d for d, verdict in zip(layers, verdicts, strict=True) if verdict]
    assert not bad, bad[0]


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_every_rule(name):
    config = CONFIGS[name]
    rng = random.Random(f"rules {name}")
    layers = random_layers(rng, config, 400)
    packed = [lambda d: d["in_packed"], lambda d: d["out_packed"] and d["residual"]]
    picked = [next(d for d in layers if test(d)) for test in (
        *(packed if config.words_per_beat > 1 else []),
        lambda d: d["op"] == Op.CONV and d["nseg"] == 1,
        lambda d: d["op"] == Op.CONV and d["nseg"] > 1,
        lambda d: d["op"] == Op.POOL and d["kh"] * d["kw"] <= 256,
        lambda d: d["op"] == Op.CONV and d["residual"],
        lambda d: d["op"] == Op.POOL and d["residual"],
        lambda d: d["op"] == Op.DEPTHWISE and not d["twice"],
        lambda d: d["op"] == Op.DEPTHWISE and d["residual"] and d["twice"],
    )]  # fmt: skip
    named = []
    for d in picked:
        for rule, change in breaches(config, d, INDEX):
            broken = d | change
            v = rule.rsplit(" ", 1)[-1]
            # The weight stream's length follows, so that the named rule is the only one broken.
            if v in "0123" and not rule.startswith(("weight_beats", "fewer", "a huge", "stack", "kd")):
                broken[f"weight_beats{v}"] = min(stream_beats(config, broken, int(v)), (1 << 22) - 1)
            assert broken_rule(config, broken, INDEX, OPS) is not None, rule
            named.append((rule, broken))
    verdicts = judge(config, [(pack(d), INDEX, OPS) for _, d in named])
    missed = [rule for (rule, _), bad in zip(named, verdicts, strict=True) if not bad]
    assert not missed, missed


def test_exit_and_jump():
    """Also what lies behind the last index that a pc can name."""
    config = replace(CONFIGS["tiny"], exits=4)
    rng = random.Random("exits")
    exit = exit_fields(rng, config, 3, True)
    cases = [(exit | {"out_channels": n}, OPS) for n in (0, 1, 1024, 1025, 65535)]
    cases += [(exit | {"in_offset": 4}, OPS), (exit | {"bias": 4}, OPS), (exit | {"bias": -8}, OPS)]
    cases += [(exit | {"exit": e}, OPS) for e in (3, 4, 15)]
    targets = (0, INDEX, INDEX + 1, OPS - 1, OPS, 0x3FFF, 0x4000, 65535)
    cases += [(jump_fields(2, target), ops) for target in targets for ops in (INDEX + 1, OPS, 65535)]
    cases = [(d, INDEX, ops) for d, ops in cases]
    layer = random_layers(rng, config, 1)[0]
    cases += [(d, index, 1 << isa.PC_INDEX_BITS) for d in (exit, layer) for index in (LAST_INDEX - 1, LAST_INDEX)]
    verdicts = judge(config, [(pack(d), index, ops) for d, index, ops in cases])
    for (d, index, ops), bad in zip(cases, verdicts, strict=True):
        assert bad == (broken_rule(config, d, index, ops) is not None), (d, index, ops)
    assert verdicts[-4:] == [False, True, False, True]


def mutate(rng, d, config):
    """One to three fields changed, often to values at the edge of what is legal."""
    d = dict(d)
    for field in rng.sample(DESCRIPTOR_FIELDS[1:], rng.choice([1, 1, 2, 3])):
        edges = (field.low, field.high, d[field.name] + 1, d[field.name] - 1, 2 * d[field.name], 1, config.bus_bytes)
        value = rng.choice([*edges, rng.randint(field.low, field.high)])
        d[field.name] = max(field.low, min(field.high, value))
    return d


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_random_against_rules(name):
    """Legal descriptors with a few fields changed: the hardware agrees with the rules, both ways."""
    config = CONFIGS[name]
    rng = random.Random(f"mutations {name}")
    layers = [{f.name: 0 for f in DESCRIPTOR_FIELDS} | d for d in random_layers(rng, config, 30)]
    mutants = [mutate(rng, rng.choice(layers), config) for _ in range(250)]
    for d in mutants:
        if rng.random() < 0.7:  # the length follows the change
            d |= {f"weight_beats{v}": min(stream_beats(config, d, v), (1 << 22) - 1) for v in range(4) if usable(d, v)}
    rules = [broken_rule(config, d, INDEX, OPS) for d in mutants]
    verdicts = judge(config, [(pack(d), INDEX, OPS) for d in mutants])
    wrong = [(rule, d) for rule, bad, d in zip(rules, verdicts, mutants, strict=True) if bad != (rule is not None)]
    assert not wrong, wrong[0]
    assert 40 < sum(rule is None for rule in rules) < 230


def usable(d, v):
    return d[f"log2_kr{v}"] + d[f"log2_kd{v}"] <= 3 and d["op"] in LAYERS


def test_long_stream_does_not_wrap():
    """A weight stream of 2^32 + n beats is not one of n beats."""
    config = CONFIGS["tiny"]
    rng = random.Random("wrap")
    d = next(d for d in random_layers(rng, config, 200) if d["op"] == Op.CONV and d["nseg"] == d["kh"] == 1)
    beats = config.bank_beats * config.max_stack  # a pixel fills the banks
    d |= {"in_w": 1, "in_pixel_beats": beats, "in_line_beats": beats, "stripe_pixels": 1, "stripe_line_beats": beats,
          "out_w": 1, "seg_w": 1, "out_pixel_beats": 8192, "out_line_beats": 8192, "chunk_beats": 1}  # fmt: skip
    pairs = 32767  # c-tiles of two columns
    d["out_channels"] = 2 * pairs
    kd = config.max_stack
    for v in range(isa.VARIANTS):
        d |= {f"log2_kr{v}": 0, f"log2_kd{v}": kd.bit_length() - 1, f"max_lines{v}": 1, f"stripe_lines{v}": 1}
    cases = []
    for kw in range(1, 256):
        for words in range(1, beats // kd + 1):
            length = pairs * (kw * words * 2 * kd + 4)
            if length >> 32 and length % (1 << 32) < 1 << 22:
                d |= {"kw": kw} | {f"words{v}": words for v in range(isa.VARIANTS)}
                assert stream_beats(config, d, 0) == length
                cases.append(d | {f"weight_beats{v}": length % (1 << 32) for v in range(isa.VARIANTS)})
    assert cases
    assert all(broken_rule(config, case, INDEX, OPS) == "weight_beats 0" for case in cases[:5])
    assert all(judge(config, [(pack(case), INDEX, OPS) for case in cases[:5]]))


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_garbage(name):
    """Any bits: a verdict within CYCLES, and the one of the rules."""
    config = CONFIGS[name]
    rng = random.Random(f"garbage {name}")
    bits = 32 * isa.DESCRIPTOR_WORDS
    numbers = [rng.getrandbits(bits) & rng.getrandbits(bits) & rng.getrandbits(bits) for _ in range(40)]
    numbers += [(1 << bits) - 1, 0] + [rng.getrandbits(bits) for _ in range(40)]
    numbers = [n >> 4 << 4 | rng.choice([1, 2, 3, 4, 9]) for n in numbers]
    verdicts = judge(config, [(n, INDEX, OPS) for n in numbers])
    for number, bad in zip(numbers, verdicts, strict=True):
        d = isa.decode(DESCRIPTOR_FIELDS, [number >> 32 * i & 0xFFFFFFFF for i in range(isa.DESCRIPTOR_WORDS)])
        assert bad == (broken_rule(config, d, INDEX, OPS) is not None), d
