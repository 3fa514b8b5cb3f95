"""Pools and quantised heads against TensorFlow Lite's kernels and against the float classifier."""

import numpy as np
import pytest
from fluidnpu.nn.exit_fitting import Fit
from fluidnpu.nn.exit_heads import Pooling, add_heads, quantise_head
from fluidnpu.nn.exit_places import AttachError, Backbone, find_places
from fluidnpu.nn.litert import run_litert
from fluidnpu.nn.tflite_file import TfliteFile

from .backbones import residual_backbone


def random_fit(rng, features, classes=4, images=50):
    weights = rng.normal(0, 0.02, (classes, features))
    bias = rng.normal(0, 1, classes)
    return Fit(weights, bias, rng.normal(0, 3, (images, classes)), "labels", 1.0, 1.0, 1.0)


def heads_of(backbone, wanted, size, seed=0, features=None):
    rng = np.random.default_rng(seed)
    heads = []
    for place in find_places(backbone, wanted):
        pool = Pooling(place, size)
        values = rng.integers(-128, 128, (50, pool.features)).astype(np.int8)
        fit = random_fit(rng, pool.features)
        held_out = values @ fit.weights.T + fit.bias
        fit = Fit(fit.weights, fit.bias, held_out, "labels", 1.0, 1.0, 1.0)
        heads.append(quantise_head(place, pool, fit, values, backbone.network.exits[0].beta))
    return heads


@pytest.mark.parametrize("shape, size", [*(((11, 6, 3), n) for n in (1, 2, 4, 5, 20)), ((75, 70, 3), 4)])
def test_pools_and_logits_are_the_operators(shape, size):
    """Features as AVERAGE_POOL_2D makes them, logits within a step of the float classifier's."""
    backbone = Backbone(residual_backbone(shape=shape), "residual")
    heads = heads_of(backbone, ["first", "sum"], size)
    data = add_heads(backbone, heads)
    file = TfliteFile(data, "with exits")
    names = {tensor.name: tensor.index for tensor in file.tensors}
    wanted = [
        i for n in (1, 2) for i in (heads[n - 1].place.index, names[f"exit{n}/flatten"], names[f"exit{n}/logits"])
    ]
    images = np.random.default_rng(1).integers(-128, 128, (20, *shape)).astype(np.int8)
    values = run_litert(data, images, wanted)
    for head, (maps, features, logits) in zip(heads, (values[:3], values[3:]), strict=True):
        h, w, c = head.pooling.shape
        assert max(h, w) <= max(size, 1) and head.pooling.features == h * w * c == features.shape[1]
        np.testing.assert_array_equal(head.pooling(maps), features)
        real = (logits.astype(float) - head.zero_point) * head.scale
        expected = (features @ head.fit.weights.T + head.fit.bias) / 0.5  # the softmax multiplies by its beta
        unclipped = np.abs(real - expected)[(logits > -128) & (logits < 127)]
        assert unclipped.mean() < head.scale
    assert ("exit1/pool" in names) == (size < 20)


def test_more_outputs_in_front_of_the_backbones_own():
    backbone = Backbone(residual_backbone(softmax=False), "residual")
    file = TfliteFile(add_heads(backbone, heads_of(backbone, ["first", "sum"], 4)), "with exits")
    assert [tensor.name for tensor in file.outputs] == ["exit1", "exit2", "logits"]  # without SOFTMAX, as it has none


def test_heads_that_cannot_be_quantised():
    backbone = Backbone(residual_backbone(), "residual")
    (place,) = find_places(backbone, ["sum"])
    pool, rng = Pooling(place, 4), np.random.default_rng(0)
    values = rng.integers(-128, 128, (50, pool.features)).astype(np.int8)
    good = random_fit(rng, pool.features)
    for weights, message in (
        (np.zeros_like(good.weights), "its weights are all zero or not finite"),
        (np.full_like(good.weights, np.nan), "its weights are all zero or not finite"),
        (1e-12 * good.weights, "accumulators up to"),
        (1e6 * good.weights, "above 2"),
    ):
        fit = Fit(weights, good.bias, good.held_out, "labels", 1.0, 1.0, 1.0)
        with pytest.raises(
            AttachError, match=f"exit head at tensor {place.index} 'sum' cannot be quantised: .*{message}"
        ):
            quantise_head(place, pool, fit, values, 1.0)
    with pytest.raises(AttachError, match="pooled size 0; it must be at least 1"):
        Pooling(place, 0)


@pytest.mark.parametrize(
    "shape, size, window, padding",
    [
        ((32, 32, 3), 4, (8, 8), "SAME"),
        ((11, 6, 3), 4, (3, 2), "SAME"),
        ((112, 112, 3), 4, (28, 28), "SAME"),  # nothing is padded
        ((75, 70, 3), 4, (18, 17), "VALID"),  # 19 x 18 taps, some of them padded, would be too many
        ((600, 7, 3), 4, (150, 2), "VALID"),
    ],
)
def test_windows(shape, size, window, padding):
    (place,) = find_places(Backbone(residual_backbone(shape=shape), "residual"), ["sum"])
    pool = Pooling(place, size)
    assert (pool.window, pool.padding) == (window, padding)
    assert max(pool.shape[:2]) <= size
