"""The network description: who needs which layer, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.nn.graph import Conv, Exit, Mean, Network, Pool, Section, Tensor


def image(name: str, size: int = 1, channels: int = 4) -> Tensor:
    return Tensor(name, size, size, channels, 0.5, 0)


def conv(name: str, x: Tensor, y: Tensor) -> Conv:
    """VALID convolution that makes y's size from x's, stride 1."""
    k = x.height - y.height + 1
    n = y.channels
    arrays = {key: np.zeros(n, np.int32) for key in ("bias", "multiplier", "shift")}
    return Conv(name, x, y, stride=(1, 1), weights=np.ones((n, k, k, x.channels), np.int8), **arrays)


def branchy() -> Network:
    """x - c0 - c1 - c3 with heads h0 (on c0), m - h1 and m - h2 (on c1, sharing the mean m), last f on c3."""
    x, a, b, c = image("x", 8), image("a", 6), image("b", 4), image("c", 2)
    m = image("m")
    layers = (
        conv("c0", x, a),
        conv("h0", a, image("l0")),
        conv("c1", a, b),
        Mean("m", b, m, 0, 1 << 30, -4),
        conv("h1", m, image("l1")),
        conv("h2", m, image("l2")),
        conv("c3", b, c),
        conv("f", c, image("l3")),
    )
    return Network("branchy", x, layers, tuple(Exit(image(f"l{e}")) for e in range(4)))


def test_trunk_and_heads():
    net = branchy()
    everyone = frozenset(range(4))
    assert net.needed_by() == (
        everyone, frozenset({0}), frozenset({1, 2, 3}), frozenset({1, 2}), frozenset({1}), frozenset({2}),
        frozenset({3}), frozenset({3}),
    )  # fmt: skip
    assert net.head_of() == (None, 0, None, None, 1, 2, None, None)
    assert net.sections() == (
        Section(0, (0,), (1,)),
        Section(1, (2, 3), (4,)),
        Section(2, (), (5,)),
        Section(3, (6, 7), ()),
    )


def test_macs():
    net = branchy()
    assert [layer.macs for layer in net.layers] == [6 * 6 * 4 * 36, 4 * 144, 16 * 4 * 36, 0, 16, 16, 4 * 4 * 36, 64]
    assert net.macs() == sum(layer.macs for layer in net.layers)
    assert net.macs(0) == 5184 + 576
    assert net.macs(3) == 5184 + 2304 + 576 + 64


def test_producers_and_tensors():
    net = branchy()
    assert list(net.tensors) == ["x", "a", "l0", "b", "m", "l1", "l2", "c", "l3"]
    assert net.producer("x") is None and net.producer("b") == 2
    with pytest.raises(KeyError):
        net.producer("none")


def test_a_network_without_exits_has_one_end():
    net = branchy()
    plain = replace(net, exits=(), outputs=(net.tensors["b"], net.tensors["c"], net.tensors["l0"]))
    assert plain.sections()[0].trunk == (0, 1, 2, 6) and plain.sections()[0].head == ()
    (end,) = plain.ends
    assert end.logits.name == "l0" and end.classes == 1
    assert net.ends is net.exits and net.outputs == tuple(e.logits for e in net.exits)


def test_networks_that_cannot_be():
    net = branchy()
    for change, message in (
        ({"layers": net.layers[1:]}, "layer h0 reads 'a' before it is made"),
        ({"layers": (*net.layers, net.layers[-1])}, "layer f or its output 'l3' exists twice"),
        ({"exits": (), "outputs": ()}, "needs at least one exit or output"),
        ({"exits": (), "outputs": (image("zz"),)}, "output 'zz' is made by no layer"),
        ({"exits": (Exit(image("b", 4)),)}, "logits 'b' of exit 0 are no 1 x 1 layer output"),
        ({"exits": (Exit(image("zz")),)}, "logits 'zz' of exit 0"),
    ):
        with pytest.raises(ValueError, match=f"^branchy: .*{message}"):
            replace(net, **change)


def test_layers_that_cannot_be():
    good = conv("c", image("x", 8), image("y", 6))
    for change, message in (
        ({"weights": good.weights.astype(np.int32)}, r"c: weights are int32 .* int8 or int16 \[4, kh, kw, 4\]"),
        ({"weights": good.weights.astype(np.int16) * 256}, "c: int16 weights must be within -255..255"),
        ({"bias": good.bias[:3]}, r"c: bias must be int32 \[4\]"),
        ({"stride": (2, 1)}, "c: output height 6 does not follow from input 8, padding 0, kernel 3, stride 2"),
        ({"padding": (0, 1, 0, 0)}, "c: output width 6 does not follow from input 8, padding 1"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(good, **change)
    with pytest.raises(ValueError, match="p: output height"):
        Pool("p", image("x", 2), image("y", 1), window=(3, 3), stride=(1, 1))
