"""Tables that a timing chooses: of a timing whose wishes are known, and what of it the compiler must keep."""

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.random_network import RandomNetwork
from fluidnpu.nn.tflite_reader import parse_network

TINY = get_config("tiny")


def network(exits=1):
    net = RandomNetwork("two layers", np.random.default_rng(1))
    x = net.input(6, 6, 3)
    for e in range(1, exits + 1):
        x = net.conv(x, 24, 3)
        x = net.conv(x, 8)
        net.classify(x, 10, f"exit{e}")
    return parse_network(net.to_bytes(), "two")


def rows_of(program):
    raw = np.frombuffer(program.region, "<u4")[: len(program.ops) * isa.DESCRIPTOR_WORDS]
    return [isa.decode(isa.DESCRIPTOR_FIELDS, row) for row in raw.reshape(len(program.ops), -1)]


def variant(d, candidates):
    """(kr, kd) of a decoded layer for a number of candidates."""
    v = d["vsel"] >> 2 * (candidates - 1) & 3
    return 1 << d[f"log2_kr{v}"], 1 << d[f"log2_kd{v}"]


class Wishes:
    """A timing that is fast where a layer's mode is the wished one for so many live samples."""

    def __init__(self, wish):
        self.wish, self.windows = wish, []

    def __call__(self, config, descriptors, arena_bytes, live, first, stop, exits):
        self.windows.append((live, first, stop, exits))
        at, ends = 0, {}
        for i in range(first, stop):
            d = isa.decode(isa.DESCRIPTOR_FIELDS, descriptors[i])
            if d["op"] in isa.LAYERS:
                at += live * (1_000_000 if variant(d, live) == self.wish(live) else 1_060_000)
                ends[i] = at
        return ends | {None: at + 100}


def test_wishes_are_met():
    """Every convolution gets the stack mode that is fastest for each number of samples; the same every time."""
    wish = {1: (4, 1), 2: (1, 1), 3: (2, 1), 4: (4, 1)}
    programs = [
        compile_network(network(), TINY, CompileOptions(fold="none", timing=Wishes(wish.get))) for _ in range(2)
    ]
    assert programs[0].to_bytes() == programs[1].to_bytes()
    for d in rows_of(programs[0])[:2]:
        assert {n: variant(d, n) for n in wish} == wish
        assert d["log2_kr0"] == d["log2_kd0"] == 0  # unstacked, whatever the wishes
        assert variant(d, 16) == wish[4]  # more candidates than there are slots


def test_unstacked_stays_where_nobody_wants_it():
    program = compile_network(network(), TINY, CompileOptions(timing=Wishes(lambda live: (2, 1))))
    for d, op in zip(rows_of(program), program.ops, strict=True):
        if op.op == "CONV" and op.name.startswith("conv"):
            assert (d["log2_kr0"], d["log2_kd0"]) == (0, 0) and {variant(d, n) for n in range(1, 5)} == {(2, 1)}


def test_windows():
    """The layer before and the one behind, on the way that samples take: over heads, or into the head that is timed."""
    timing = Wishes(lambda live: (1, 1))
    net = network(exits=2)
    program = compile_network(net, TINY, CompileOptions(fold="none", timing=timing))
    names = [op.name for op in program.ops]
    assert names[2] == "jump0" and program.ops[3].head == 0
    behind = names.index("exit0") + 1
    windows = {(first, stop, exits) for _, first, stop, exits in timing.windows}
    assert {(0, 2, 0), (0, behind + 1, 0), (1, behind + 2, 0)} < windows  # first, second and third convolution
    assert (1, 5, 1) in windows  # the head's first layer: the convolution before, its second layer
    assert {live for live, *_ in timing.windows} == {1, 2, 3, 4}
    assert all(exits == 0 for first, stop, exits in windows if first >= behind)


@pytest.mark.parametrize("best", ["none", "columns", "window"])
def test_fold_is_timed(best):
    """The way to fold is the one in which the first layer and the next end earliest."""
    taps = {"none": (3, 3), "columns": (3, 1), "window": (1, 1)}[best]

    class Folds(Wishes):
        def __call__(self, config, descriptors, *window):
            d = isa.decode(isa.DESCRIPTOR_FIELDS, descriptors[0])
            slow = 1 if (d["kh"], d["kw"]) == taps else 2
            return {k: slow * end for k, end in super().__call__(config, descriptors, *window).items()}

    program = compile_network(network(), TINY, CompileOptions(timing=Folds(lambda live: (1, 1))))
    d = rows_of(program)[0]
    assert (d["kh"], d["kw"]) == taps


def test_status():
    said = []
    compile_network(network(), TINY, CompileOptions(timing=Wishes(lambda live: (1, 1)), status=said.append))
    assert any("timing conv0, layer 1 of" in text for text in said)
