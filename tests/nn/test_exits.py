"""The exit decision: integer confidence against the softmax, and which exit samples take."""

import math

import numpy as np
import pytest
from fluidnpu.hw.isa import LIMIT_ALWAYS, LIMIT_NEVER
from fluidnpu.nn import exits
from fluidnpu.nn.graph import Conv, Exit, Network, Tensor

SEED = 5


def test_table():
    table = exits.exit_table(0.17, 1.0)
    assert table.dtype == np.uint32 and table.shape == (256,) and table[0] == 65536
    assert table.tolist() == [math.floor(65536 * math.exp(-0.17 * d) + 0.5) for d in range(256)]
    np.testing.assert_array_equal(exits.exit_table(0.34, 0.5), table)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="must be positive and finite"):
            exits.exit_table(scale)


@pytest.mark.parametrize("scale", [0.02, 0.17, 1.0])
def test_confidence_is_the_softmax_of_the_logits(scale):
    rng = np.random.default_rng(SEED)
    logits = rng.integers(-128, 128, (500, 10)).astype(np.int8)
    top, spread = exits.top_and_spread(logits, exits.exit_table(scale))
    e = np.exp(scale * (logits - logits.max(1, keepdims=True).astype(float)))
    np.testing.assert_allclose(exits.confidence(spread), (e / e.sum(1, keepdims=True)).max(1), rtol=1e-4)
    np.testing.assert_array_equal(top, logits.argmax(1))


def test_lowest_index_wins_a_tie_and_extremes_fit():
    table = exits.exit_table(0.1)
    top, spread = exits.top_and_spread(np.array([-128, 5, 5, 5], np.int8), table)
    assert (int(top), int(spread)) == (1, 3 * 65536 + int(table[133]))
    top, spread = exits.top_and_spread(np.array([-128, 127], np.int8), table)
    assert (int(top), int(spread)) == (1, 65536 + int(table[255]))
    for bad in (np.zeros(3, np.int32), np.zeros((2, 0), np.int8), np.int8(3)):
        with pytest.raises(ValueError, match="must be int8"):
            exits.top_and_spread(bad, table)


@pytest.mark.parametrize(
    ("threshold", "limit"),
    [(0.8, 81920), (1.0, 65536), (0.9, 72817), (0.5, 131072), (1.01, LIMIT_NEVER), (0.0, LIMIT_ALWAYS),
     (-1, LIMIT_ALWAYS), (1e-9, LIMIT_ALWAYS)],
)  # fmt: skip
def test_limits(threshold, limit):
    assert exits.limit_of(threshold) == limit


def test_never_and_always():
    assert not exits.is_confident(65536, LIMIT_NEVER)
    assert exits.is_confident(2**32 - 1, LIMIT_ALWAYS)
    with pytest.raises(ValueError, match="not a number"):
        exits.limit_of(float("nan"))


def network(count: int) -> Network:
    """`count` exits of 3 classes in a chain, their logits scaled by 0.1."""
    x = Tensor("x", 1, 1, 3, 0.1, 0)
    layers = []
    for e in range(count):
        y = Tensor(f"y{e}", 1, 1, 3, 0.1, 0)
        layers.append(
            Conv(f"fc{e}", x, y, stride=(1, 1), weights=np.zeros((3, 1, 1, 3), np.int8),
                 **{k: np.zeros(3, np.int32) for k in ("bias", "multiplier", "shift")})
        )  # fmt: skip
        x = y
    return Network("chain", Tensor("x", 1, 1, 3, 0.1, 0), tuple(layers), tuple(Exit(layer.output) for layer in layers))


def test_decide_against_one_sample_at_a_time():
    rng = np.random.default_rng(SEED)
    net = network(3)
    tensors = {f"y{e}": rng.integers(-128, 128, (200, 1, 1, 3)).astype(np.int8) for e in range(3)}
    for _ in range(30):
        limits = [int(rng.choice([0, LIMIT_ALWAYS, exits.limit_of(rng.uniform(0.4, 1))])) for _ in range(3)]
        enabled = int(rng.integers(8))
        decision = exits.decide(net, tensors, limits, enabled)
        for i in range(200):
            for e in range(3):
                q = tensors[f"y{e}"][i].ravel().astype(int).tolist()
                spread = sum(math.floor(65536 * math.exp(-net.exits[e].scale * (max(q) - v)) + 0.5) for v in q)
                if e == 2 or (enabled >> e & 1 and spread <= limits[e]):
                    break
            assert (decision.exit[i], decision.top[i], decision.spread[i]) == (e, q.index(max(q)), spread)
    one = exits.decide(net, {name: x[0] for name, x in tensors.items()}, [LIMIT_ALWAYS] * 3)
    assert one.exit.shape == () and int(one.exit) == 0


def test_decide_refuses_bad_limits():
    tensors = {f"y{e}": np.zeros((1, 1, 3), np.int8) for e in range(2)}
    with pytest.raises(ValueError, match="chain: 1 limits for 2 exits"):
        exits.decide(network(2), tensors, [0])
    with pytest.raises(ValueError, match=r"chain: limit of exit 1 is -1, allowed 0\.\.4294967295"):
        exits.decide(network(2), tensors, [0, -1])
