"""Ways to fold a first layer: the same results, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn import reference
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.folding import FOLDS, folds_of
from fluidnpu.nn.graph import Exit, Mean, Network, Tensor
from fluidnpu.nn.program import Program, TensorPlace
from fluidnpu.nn.rewrite import rewrite
from small_layers import conv

TINY = get_config("tiny")


def tensor(name, height, width, channels):
    return Tensor(name, height, width, channels, 0.5, 3)


def folds(network, config=TINY):
    return folds_of(rewrite(network, config), config)


CASES = {
    "stride 2": (tensor("x", 7, 11, 3), tensor("y", 4, 6, 8), (1, 1, 1, 1), (3, 3), (2, 2)),
    "stride 1": (tensor("x", 5, 8, 1), tensor("y", 5, 8, 16), (1, 1, 1, 1), (3, 3), (1, 1)),
    "wide stride": (tensor("x", 9, 15, 1), tensor("y", 3, 4, 8), (0, 0, 0, 0), (2, 2), (3, 4)),
}
WIDTHS = {"stride 2": {"columns": 9, "window": 27, "pairs": 15}, "stride 1": {"columns": 3, "window": 9, "pairs": 4},
          "wide stride": {"columns": 2, "window": 4, "pairs": 6}}  # fmt: skip


@pytest.mark.parametrize("way", FOLDS[1:])
@pytest.mark.parametrize("case", CASES)
def test_folding_changes_no_result(case, way):
    rng = np.random.default_rng(7)
    x, y, padding, kernel, stride = CASES[case]
    z = tensor("z", 1, 1, y.channels)
    first = conv("c", x, y, padding=padding, kernel=kernel, stride=stride)
    net = Network("net", x, (first, Mean("m", y, z, 0, 1 << 30, -4)), (Exit(z),))
    found = folds(net)
    assert list(found) == list(FOLDS)
    fold = found[way]
    layer, t = fold.rewritten.network.layers[0], fold.rewritten.network.input
    assert t.channels == layer.weights.shape[3] == WIDTHS[case][way] and layer.macs == first.macs
    beats = -(-t.channels // 8)
    place = TensorPlace("x", 0, t.height, t.width, t.channels, beats, beats * t.width)
    program = Program("net", "tiny", 0, 8, 4096, fold.image, "x", {"x": place}, (), (), (), b"")
    for _ in range(3):
        picture = rng.integers(-128, 128, x.shape).astype(np.int8)
        packed = program.unpack("x", program.pack_input(picture))
        made = reference.run_layer(layer, packed[None])[0]
        np.testing.assert_array_equal(made.reshape(y.shape), reference.run(net, picture)["y"])


def test_pairs_keep_the_tensor():
    """The program says where the pixels are, not the pairs; whoever reads them sees pixels."""
    x, y, w, z = tensor("x", 7, 11, 3), tensor("y", 4, 6, 8), tensor("w", 4, 6, 8), tensor("z", 1, 1, 8)
    layers = (conv("c", x, y, (1, 1, 1, 1), (3, 3), (2, 2)), conv("d", y, w, (1, 1, 1, 1), (3, 3)))
    net = Network("net", x, (*layers, Mean("m", w, z, 0, 1 << 30, -4)), (Exit(z),))
    programs = [compile_network(net, TINY, CompileOptions(fold=way, reuse_arena=False)) for way in ("none", "pairs")]
    plain, paired = (replace(p.tensors["y"], offset=0) for p in programs)
    assert plain == paired and (plain.width, plain.pixel_beats, plain.line_beats) == (6, 1, 6)
    assert programs[1].tensors["x"].width == 3 and programs[1].tensors["x"].channels == 15


def test_what_is_not_folded():
    x, a, b, m = tensor("x", 6, 6, 3), tensor("a", 4, 4, 9), tensor("b", 5, 5, 9), tensor("m", 1, 1, 9)
    twice = Network(
        "twice", x, (conv("c", x, a), conv("d", x, b), conv("e", a, m), conv("g", b, replace(m, name="n"))),
        (Exit(m), Exit(replace(m, name="n"))),
    )  # fmt: skip
    assert list(folds(twice)) == ["none"]
    single = tensor("y", 6, 6, 9)
    point = Network("point", x, (conv("c", x, single), Mean("m", single, m, 0, 1 << 30, -5)), (Exit(m),))
    assert list(folds(point)) == ["none"]  # a single tap
    pooled = Network("pooled", x, (Mean("m", x, tensor("y", 1, 1, 3), 0, 1 << 30, -5),), (Exit(tensor("y", 1, 1, 3)),))
    assert list(folds(pooled)) == ["none"]


def test_what_makes_no_pairs():
    def ways(x, y, kernel):
        m = tensor("m", 1, 1, y.channels)
        net = Network("net", x, (conv("c", x, y, kernel=kernel), Mean("m", y, m, 0, 1 << 30, -5)), (Exit(m),))
        return list(folds(net))

    assert "pairs" in ways(tensor("x", 6, 6, 1), tensor("y", 4, 4, 8), (3, 3))
    assert "pairs" not in ways(tensor("x", 6, 6, 1), tensor("y", 4, 4, 9), (3, 3))  # pixels with a gap behind them
    assert "pairs" not in ways(tensor("x", 6, 7, 1), tensor("y", 4, 5, 8), (3, 3))  # an odd number of pixels
    wide = tensor("x", 6, 10, 4), tensor("y", 6, 2, 8)
    stride = conv("c", *wide, kernel=(1, 2), stride=(1, 8))
    m = tensor("m", 1, 1, 8)
    net = Network("net", wide[0], (stride, Mean("m", wide[1], m, 0, 1 << 30, -5)), (Exit(m),))
    assert list(folds(net)) == ["none", "columns", "window"]  # ten columns of four channels: more words than before
