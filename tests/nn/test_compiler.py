"""Programs: descriptors of a small network, field by field; the rules of docs/isa.md for random ones; clear errors."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS, get_config
from fluidnpu.nn.compiler import CompileError, CompileOptions, compile_network
from fluidnpu.nn.exits import exit_table
from fluidnpu.nn.graph import Conv, Exit, Mean, Network, Pool, Tensor
from fluidnpu.nn.program import FoldedInput

from ..cosim.networks import draw_network
from ..hw.engine.descriptors import broken_rule

TINY = get_config("tiny")


def conv(name, x, y, kernel, padding=(0, 0, 0, 0), stride=(1, 1), **fields):
    n, rng = y.channels, np.random.default_rng(len(name))
    return Conv(
        name, x, y, stride=stride, padding=padding,
        weights=rng.integers(-127, 128, (n, *kernel, x.channels)).astype(np.int8), bias=np.arange(n, dtype=np.int32),
        multiplier=np.full(n, 1 << 30, np.int32), shift=np.full(n, -8, np.int32), **fields,
    )  # fmt: skip


def network(width=6):
    """x - conv 3x3 (head: mean, fc) - pool - fc: two exits."""
    x = Tensor("x", 6, width, 9, 0.5, 5)
    y, p = Tensor("y", 6, width, 12, 0.25, -7), Tensor("p", 3, width // 2, 12, 0.25, -7)
    m, f, g = Tensor("m", 1, 1, 12, 0.25, 2), Tensor("f", 1, 1, 3, 0.1, 0), Tensor("g", 1, 1, 4, 0.2, 0)
    layers = (
        conv("conv", x, y, (3, 3), (1, 1, 1, 1), clamp=(-7, 100)),
        Mean("mean", y, m, 36 * 7, 1 << 30, -4),
        conv("fc0", m, f, (1, 1), rounding="single"),
        Pool("pool", y, p, window=(2, 2), stride=(2, 2)),
        conv("fc1", p, g, (3, width // 2)),
    )
    return Network("net", x, layers, (Exit(f), Exit(g, 0.5)))


def descriptors(program):
    words = np.frombuffer(program.region[: len(program.ops) * isa.DESCRIPTOR_BYTES], "<u4").reshape(
        -1, isa.DESCRIPTOR_WORDS
    )
    return [isa.decode(isa.DESCRIPTOR_FIELDS, w) for w in words]


def test_descriptors_of_a_small_network():
    net = network()
    program = compile_network(net, TINY, CompileOptions(fold="none", reuse_arena=False, limits=(7, isa.LIMIT_ALWAYS)))
    assert [(op.name, op.op, op.exit, op.head) for op in program.ops] == [
        ("conv", "CONV", -1, -1), ("jump0", "JUMP", 0, -1), ("mean", "POOL", -1, 0), ("fc0", "CONV", -1, 0),
        ("exit0", "EXIT", 0, 0), ("pool", "POOL", -1, -1), ("fc1", "CONV", -1, -1), ("exit1", "EXIT", 1, -1),
    ]  # fmt: skip
    assert [op.macs for op in program.ops] == [36 * 12 * 81, 0, 0, 36, 0, 0, 9 * 12 * 4, 0]
    assert (program.config_hash, program.bus_bytes, program.input) == (TINY.hash, 8, FoldedInput(6, 6, 9, zero=5))
    conv_, jump, mean, fc0, exit0, pool, fc1, exit1 = descriptors(program)
    offsets = {name: place.offset for name, place in program.tensors.items()}
    assert sorted(offsets.values()) == [0, 576, 1152, 1168, 1176, 1320]  # x, y: 36 pixels of 2 beats
    expected = {
        "op": isa.Op.CONV, "producer": isa.NO_PRODUCER, "producer_nseg": 1, "nseg": 1, "in_w": 6, "in_h": 6,
        "in_line_beats": 12, "in_pixel_beats": 2, "out_w": 6, "out_h": 6, "out_line_beats": 12, "out_pixel_beats": 2,
        "kh": 3, "kw": 3, "sy": 1, "sx": 1, "pad_top": 1, "pad_left": 1, "seg_w": 6, "lines": 6, "out_channels": 12,
        "in_zero": 5, "out_zero": -7, "clamp_min": -7, "clamp_max": 100, "chunk_beats": 2, "stripe_pixels": 6,
        "stripe_line_beats": 12, "single_rounding": 0, "average": 0, "padded_average": 0, "residual": 0,
        "in_offset": offsets["x"], "out_offset": offsets["y"],
    }  # fmt: skip
    assert {name: conv_[name] for name in expected} == expected
    assert (jump["op"], jump["exit"], jump["target"]) == (isa.Op.JUMP, 0, 5)
    expected = {
        "op": isa.Op.POOL, "producer": 0, "kh": 6, "kw": 6, "bias": 252, "multiplier": 1 << 30, "shift": -4,
        "average": 0, "out_zero": 2, "lines": 1, "seg_w": 1, "in_offset": offsets["y"], "out_offset": offsets["m"],
    }  # fmt: skip
    assert {name: mean[name] for name in expected} == expected
    assert fc0["single_rounding"] == 1 and fc0["producer"] == 2 and fc0["in_zero"] == 2
    expected = {"op": isa.Op.POOL, "average": 1, "padded_average": 0, "bias": 4, "producer": 0, "sy": 2, "kh": 2}
    assert {name: pool[name] for name in expected} == expected
    for total in range(-128 * 4, 127 * 4 + 1):  # the reciprocal divides exactly, half away from zero
        assert (abs(total) + 2) * pool["multiplier"] >> pool["shift"] == (abs(total) + 2) // 4
    assert fc1["producer"] == 5 and (fc1["kh"], fc1["kw"], fc1["in_w"]) == (3, 3, 3)
    assert [(e["exit"], e["last"], e["out_channels"]) for e in (exit0, exit1)] == [(0, 0, 3), (1, 1, 4)]
    for e, exit, classes in ((exit0, net.exits[0], 3), (exit1, net.exits[1], 4)):
        table = np.frombuffer(program.region[e["bias"] : e["bias"] + isa.EXIT_TABLE_BYTES], "<u4")
        assert e["out_channels"] == classes and table.tolist() == exit_table(exit.scale, exit.beta).tolist()
    assert [(e.op, e.logits, e.classes, e.limit) for e in program.exits] == [
        (4, "f", 3, 7), (7, "g", 4, isa.LIMIT_ALWAYS)
    ]  # fmt: skip


def test_the_zero_point_is_in_the_bias():
    """Parameters behind the first set of weights: bias - zero point * sum of the weights."""
    net = network()
    program = compile_network(net, TINY, CompileOptions(fold="none"))
    d = descriptors(program)[0]
    start = d["weights0"] + 8 * 8  # a set is 8 columns of one word
    first = np.frombuffer(program.region[start : start + 16 * 8], "<i4").reshape(8, 4)
    sums = net.layers[0].weights[:8].astype(int).sum((1, 2, 3))
    assert first[:, 0].tolist() == (np.arange(8) - 5 * sums).tolist()
    assert first[:, 1].tolist() == [1 << 30] * 8


def test_wide_rows_are_cut_into_segments():
    program = compile_network(network(width=40), TINY, CompileOptions(fold="none"))
    conv_, _, mean = descriptors(program)[:3]
    assert (conv_["nseg"], conv_["seg_w"], conv_["lines"]) == (2, 20, 12)
    assert (conv_["stripe_pixels"], conv_["stripe_line_beats"], conv_["max_lines0"]) == (22, 44, 1)
    assert mean["producer_nseg"] == 2 and mean["nseg"] == 1


def test_rows_whose_window_does_not_fit_the_banks_are_cut_into_segments():
    x, y = Tensor("x", 6, 30, 64, 0.5, 0), Tensor("y", 4, 28, 8, 0.5, 0)  # 3 lines of 1920 bytes, a bank half has 4096
    net = Network("n", x, (conv("c", x, y, (3, 3)),), (), outputs=(y,))
    d = descriptors(compile_network(net, TINY, CompileOptions(fold="none")))[0]
    assert (d["nseg"], d["seg_w"], d["stripe_pixels"], d["max_lines0"]) == (2, 14, 16, 1)
    assert broken_rule(TINY, d, 0, 2) is None


def test_split_layers():
    """Parts write neighbouring channels of one tensor; their reader waits for the last of them."""
    x, y, z = Tensor("x", 1, 1, 8, 0.5, 0), Tensor("y", 1, 1, 200, 0.5, 0), Tensor("z", 1, 1, 2, 0.5, 0)
    net = Network("wide", x, (conv("wide", x, y, (1, 1)), conv("f", y, z, (1, 1))), (Exit(z),))
    program = compile_network(net, TINY, CompileOptions(max_tile_cycles=383))
    parts = descriptors(program)
    base = program.tensors["y"].offset
    assert [op.name for op in program.ops] == ["wide.0", "wide.1", "wide.2", "wide.3", "f", "exit0"]
    assert [(d["out_offset"] - base, d["out_channels"]) for d in parts[:4]] == [(0, 64), (64, 64), (128, 64), (192, 8)]
    assert {d["producer"] for d in parts[:4]} == {isa.NO_PRODUCER} and parts[4]["producer"] == 3
    assert sum(op.macs for op in program.ops[:4]) == 1600


def within(program, d, what, place):
    """A layer's pixels of the tensor at ``place`` are its channels from one on, and lie in the arena."""
    low = d[f"{what}_offset"] - place.offset
    beats = (d[f"{what}_line_beats"], d[f"{what}_pixel_beats"])
    end = place.offset + program.bus_bytes * place.height * place.line_beats
    same = (d["out_h"], d["out_w"], *beats) == (place.height, place.width, place.line_beats, place.pixel_beats)
    return same and low >= 0 and low + d["out_channels"] <= place.channels and end <= program.arena_bytes


@pytest.mark.parametrize("name", CONFIGS)
def test_every_descriptor_obeys_the_rules(name):
    config, rng = CONFIGS[name], np.random.default_rng(11)
    compiled, count = 0, 48 // config.slots  # many slots take long to plan for
    for n in range(count):
        net = draw_network(rng, wide=n % 3 == 2, layers=3, channels=40)
        fold = ("auto", "none", "columns", "window")[n % 4]
        longest = None if n % 2 else int(rng.integers(1, 2000))
        try:
            program = compile_network(net, config, CompileOptions(fold=fold, max_tile_cycles=longest))
        except CompileError as error:
            assert f"does not fit {name}" in str(error)
            continue
        compiled += 1
        ops = descriptors(program)
        for index, d in enumerate(ops):
            assert broken_rule(config, d, index, len(ops)) is None, (n, program.ops[index], d)
            if d["op"] in (isa.Op.CONV, isa.Op.POOL):
                for v in range(isa.VARIANTS):
                    assert d[f"weights{v}"] + config.bus_bytes * d[f"weight_beats{v}"] <= len(program.region)
                target = program.tensors[program.ops[index].tensor]
                assert within(program, d, "out", target)
                if d["residual"]:
                    sources = [p for p in program.tensors.values() if within(program, d, "res", p)]
                    assert any(p.channels == target.channels for p in sources)
        assert sum(op.macs for op in program.ops) == net.macs()
    assert compiled >= 0.6 * count


def test_reuse_of_the_arena():
    net = network()
    small, large = (compile_network(net, TINY, CompileOptions(reuse_arena=r)).arena_bytes for r in (True, False))
    assert small < large == sum(p.height * p.line_beats * 8 for p in compile_network(
        net, TINY, CompileOptions(reuse_arena=False)).tensors.values())  # fmt: skip


def test_what_cannot_be_compiled():
    net = network()
    x, y = replace(net.input, width=200, channels=64), Tensor("y", 4, 198, 8, 0.5, 0)
    m, f = Tensor("m", 1, 1, 8, 0.5, 0), Tensor("f", 1, 1, 2, 0.5, 0)
    large = (conv("big", x, y, (3, 3)), Mean("mean", y, m, 0, 1 << 30, -4), conv("f", m, f, (1, 1)))
    deep, e = replace(x, width=9, channels=300), Tensor("e", 4, 1, 8, 0.5, 0)
    deep_layers = (conv("deep", deep, e, (3, 9)), conv("f", e, f, (4, 1)))
    wide = Tensor("w", 1, 5000, 1, 0.5, 0)
    strip = Tensor("s", 1, 4999, 1, 0.5, 0)
    long = (conv("strip", wide, strip, (1, 2)), Mean("mean", strip, replace(m, channels=1), 0, 1 << 30, -4))
    for bad, options, message in (
        (net, {"fold": "rows"}, "fold is 'rows', it must be auto, none, columns, window or pairs"),
        (net, {"limits": (1,)}, "net: 1 limits for 2 exits"),
        (Network("n", x, large, (Exit(f),)), {"fold": "none"},
         r"mean does not fit tiny: a window of 4 input lines takes 6336 bytes, a bank half holds 4096 .*; "
         "it fits ecp5, gemmini16, edge, hub"),
        (Network("n", deep, deep_layers, (Exit(f),)), {"fold": "none"},
         r"deep does not fit tiny: a window of 3 input lines takes 8208 bytes, a bank half holds 4096"),
        (Network("n", wide, long, (Exit(replace(m, channels=1)),)), {"fold": "none"},
         "strip: in_w is 5000, at most 4095"),
    ):  # fmt: skip
        with pytest.raises(CompileError, match=message):
            compile_network(bad, TINY, CompileOptions(**options))
