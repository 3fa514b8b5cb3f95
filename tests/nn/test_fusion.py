"""Which additions are fused into which convolution, and what becomes of the others."""

from dataclasses import replace

import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn.fusion import Addition, fused_additions, identity_of
from fluidnpu.nn.graph import Add, Exit, Network, Pool
from fluidnpu.nn.lowering import lower

from .test_lowering import conv, tensor

TINY = get_config("tiny")
SAME = (1, 1, 1, 1)
LEFT, RIGHT, RESULT = (1 << 30, 0), (3 << 29, -1), (5 << 28, -19)


def conv3(name, x, y):
    return conv(name, x, y, SAME, (3, 3))


def add(name, a, b, y):
    return Add(name, a, y, other=b, left=LEFT, right=RIGHT, result=RESULT)


def images(names):
    return (tensor(name, 6, 6, 4) for name in names.split())


def network(layers, x, last):
    """Layers from the image x, and an exit behind the tensor ``last``."""
    logits = tensor("logits", 1, 1, 3)
    return Network("sums", x, (*layers, conv("fc", last, logits)), (Exit(logits),))


def names(net):
    return [(step.name, step.op.name, step.output.name) for step in lower(net, TINY, 1 << 30)[:-1]]


@pytest.mark.parametrize("swapped", [False, True])
def test_identity_block(swapped):
    """x + conv(conv(x)), in either order of the operands: the second convolution adds."""
    x, a, b, c, y = images("x a b c y")
    operands = (c, a) if swapped else (a, c)
    net = network((conv("c0", x, a), conv3("c1", a, b), conv3("c2", b, c), add("add", *operands, y)), x, y)
    assert fused_additions(net) == {3: 2}
    assert names(net) == [("c0", "CONV", "a"), ("c1", "CONV", "b"), ("c2", "CONV", "y"), ("fc", "CONV", "logits")]
    step = lower(net, TINY, 1 << 30)[2]
    assert step.inputs == (b, a)
    expected = (LEFT, RIGHT) if swapped else (RIGHT, LEFT)  # the convolution's own factor first
    assert (step.addition.left, step.addition.right, step.addition.own) == (*expected, c)


def test_of_two_convolutions_the_larger_one_adds_and_runs_last():
    """A shortcut 1x1 convolution behind the main path: it runs first, the long one hides the reading of its output."""
    x, a, b, y = images("x a b y")
    net = network((conv3("main", x, a), conv("short", x, b), add("add", a, b, y)), x, y)
    assert fused_additions(net) == {2: 0}
    assert [name for name, *_ in names(net)] == ["short", "main", "fc"]


def test_stand_alone():
    """Not fused: operands that others read too or that leave the network, x + x, and what no convolution made."""
    x, a, b, y, z, w = images("x a b y z w")
    pool = Pool("pool", x, replace(b, scale=x.scale), window=(3, 3), stride=(1, 1), padding=SAME)
    net = network((conv("c", x, a), pool, add("s0", a, pool.output, y), add("s1", a, y, z), add("s2", z, z, w)), x, w)
    assert fused_additions(net) == {}
    assert names(net) == [
        ("c", "CONV", "a"), ("pool", "POOL", "b"), ("s0", "POOL", "y"), ("s1", "POOL", "z"), ("s2", "POOL", "w"),
        ("fc", "CONV", "logits"),
    ]  # fmt: skip
    assert lower(net, TINY, 1 << 30)[4].inputs == (z, z)
    kept = replace(network((conv("c", x, a), add("s", a, x, y)), x, y), exits=(), outputs=(a, y))
    assert fused_additions(kept) == {}


def test_identity():
    x, y, z = images("x y z")
    sum_ = add("s", x, y, z)
    layer, addition = identity_of(sum_), Addition.of(sum_, x)
    assert (layer.input, layer.output, layer.kernel) == (x, x, (1, 1))
    assert (addition.residual, addition.left, addition.right) == (y, LEFT, RIGHT)
