"""The integer reference executor against the reference kernels of ai-edge-litert, on every tensor."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.nn.graph import Add, Concat, Conv, Depthwise, MaxPool, Mean, Pad, Pool, Tensor
from fluidnpu.nn.quantize import Rounding
from fluidnpu.nn.reference import run, run_layer
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from random_net import OPERATORS, POINTWISE, WINDOWS, RandomNet
from reference_kernels import check, compare, interpreter_of, kernels_of

SEED = 20240613
MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_single_layers_of_random_geometry(operator, dtype):
    rng = np.random.default_rng(SEED)
    for _ in range(120):
        random = RandomNet(rng, dtype)
        out = getattr(random, operator)(random.input(random.image_shape()))
        check(random.net.to_bytes([out]), rng)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_random_chains_of_operators(dtype):
    """Whatever the reader folds, every tensor that is left is the file's."""
    rng = np.random.default_rng(SEED)
    kinds = set()
    for _ in range(100):
        random = RandomNet(rng, dtype)
        x = random.input((*rng.integers(4, 12, 2), rng.integers(1, 9)))
        for operator in rng.choice(WINDOWS + POINTWISE, 5):
            if min(x.shape[1:3]) < 3 and operator in WINDOWS:
                continue
            largest = (3,) if operator in WINDOWS else ()
            x = getattr(random, operator)(x, *largest)
        data = random.net.to_bytes([x])
        check(data, rng)
        kinds |= {type(layer) for layer in parse_network(data, "n").layers}
    assert kinds == {Conv, Depthwise, Pool, MaxPool, Add, Concat, Pad}


@pytest.mark.parametrize("exits", [1, 2, 3, 4])
def test_random_networks_with_exits(exits):
    rng = np.random.default_rng(SEED + exits)
    for _ in range(12):
        random = RandomNet(rng)
        x, outputs = random.input((*rng.integers(6, 17, 2), rng.integers(1, 5))), []
        for _ in range(exits):
            x = random.conv(x, 4)
            head = random.mean(x) if rng.random() < 0.5 else random.pool(x, 3)
            head = random.fully_connected(head, 10)
            outputs.append(random.net.softmax(head) if rng.random() < 0.5 else head)
        data = random.net.to_bytes(outputs)
        check(data, rng)
        assert len(parse_network(data, "n").exits) == exits


def test_ties_of_fully_connected_round_away_from_zero():
    net = TfliteWriter()
    x = net.input((1, 1), scale=1.0, zero_point=0)
    bias = np.arange(-21, 22, dtype=np.int32)
    zeros = np.zeros((len(bias), 1), np.int8)
    data = net.to_bytes([net.fully_connected(x, zeros, bias, 0.5, scale=1.0, zero_point=0)])
    check(data, np.random.default_rng(SEED))
    (fc,) = parse_network(data, "ties").layers
    assert fc.rounding is Rounding.SINGLE
    image = np.zeros((1, 1, 1, 1), np.int8)
    expected = np.trunc(bias / 2 + np.copysign(0.5, bias)).astype(np.int8)
    np.testing.assert_array_equal(run_layer(fc, image).ravel(), expected)
    (micro,) = parse_network(data, "ties", rounding="micro").layers
    assert micro.rounding is Rounding.DOUBLE
    assert (run_layer(micro, image).ravel() != expected).any()


def naive(layer, x: np.ndarray) -> np.ndarray:
    """A layer in Python integers, one output value at a time; owes nothing to NumPy's windows or to the executor."""
    y = np.empty(layer.output.shape, np.int8)
    for oy, ox, oc in np.ndindex(*y.shape):
        taps = [(ky, kx) for ky in range(layer.kernel[0]) for kx in range(layer.kernel[1])]
        places = [
            (oy * layer.stride[0] - layer.padding[0] + ky, ox * layer.stride[1] - layer.padding[1] + kx, ky, kx)
            for ky, kx in taps
        ]
        inside = [p for p in places if 0 <= p[0] < x.shape[0] and 0 <= p[1] < x.shape[1]]
        if isinstance(layer, Pool):
            total, count = sum(int(x[iy, ix, oc]) for iy, ix, _, _ in inside), len(inside)
            value = (abs(total) + count // 2) // count * (1 if total >= 0 else -1)
        else:
            acc = int(layer.bias[oc]) + sum(
                (int(x[iy, ix, c]) - layer.input.zero_point) * int(layer.weights[oc, ky, kx, c])
                for iy, ix, ky, kx in inside
                for c in range(x.shape[2])
            )
            multiplier, shift = int(layer.multiplier[oc]), int(layer.shift[oc])
            high = ((acc << max(shift, 0)) * multiplier + 2**30) >> 31
            half = 1 << max(-shift, 0) >> 1
            value = (abs(high) + half) >> max(-shift, 0)
            value = (value if high >= 0 else -value) + layer.output.zero_point
        y[oy, ox, oc] = min(max(value, layer.clamp[0]), layer.clamp[1])
    return y


def test_against_plain_python():
    rng = np.random.default_rng(SEED)
    for _ in range(10):
        random = RandomNet(rng)
        x = random.conv(random.input((*rng.integers(2, 8, 2), 3)), 3)
        out = random.fully_connected(random.pool(x, 3))
        network = parse_network(random.net.to_bytes([out]), "n")
        image = rng.integers(-128, 128, network.input.shape).astype(np.int8)
        tensors = run(network, image)
        for layer in network.layers[:2]:
            np.testing.assert_array_equal(tensors[layer.output.name], naive(layer, tensors[layer.input.name]))


def test_batch_equals_single_images_and_bad_images_are_refused():
    rng = np.random.default_rng(SEED)
    random = RandomNet(rng)
    data = random.net.to_bytes([random.fully_connected(random.conv(random.input((7, 5, 3))))])
    network = parse_network(data, "small.tflite")
    batch = rng.integers(-128, 128, (5, 7, 5, 3)).astype(np.int8)
    tensors = run(network, batch)
    for i in range(len(batch)):
        for name, x in run(network, batch[i]).items():
            assert x.shape == network.tensors[name].shape
            np.testing.assert_array_equal(x, tensors[name][i])
    assert all(len(x) == 0 for x in run(network, batch[:0]).values())
    for bad in (batch.astype(np.uint8), batch[0, :6], batch[None]):
        with pytest.raises(ValueError, match=r"small: image is .* must be int8 \[7, 5, 3\]"):
            run(network, bad)


def test_200_images_of_2_5_million_macs_take_seconds():
    rng = np.random.default_rng(SEED)
    a, b = Tensor("a", 32, 32, 16, 0.1, 3), Tensor("b", 32, 32, 17, 0.1, -5)
    conv = Conv(
        "conv0",
        a,
        b,
        weights=rng.integers(-127, 128, (17, 3, 3, 16)).astype(np.int8),
        bias=np.zeros(17, np.int32),
        multiplier=np.full(17, 1 << 30, np.int32),
        shift=np.full(17, -8, np.int32),
        stride=(1, 1),
        padding=(1, 1, 1, 1),
    )
    assert conv.macs > 2_500_000
    started = time.perf_counter()
    run_layer(conv, rng.integers(-128, 128, (200, 32, 32, 16)).astype(np.int8))
    assert time.perf_counter() - started < 30  # about 3 s on one busy core


def test_mean_is_a_sum_with_bias():
    random = RandomNet(np.random.default_rng(SEED))
    x = random.net.input((1, 4, 3, 2), scale=0.5, zero_point=-7)
    (mean,) = parse_network(random.net.to_bytes([random.net.mean(x, scale=0.25, zero_point=5)]), "n").layers
    assert isinstance(mean, Mean)
    assert (mean.bias, mean.kernel, mean.output.shape) == (7 * 12, (4, 3), (1, 1, 2))
    factor = mean.multiplier * 2.0 ** (mean.shift - 31)
    assert factor == pytest.approx(2 / 12)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.tflite")), ids=lambda path: path.stem)
def test_networks_of_the_project(path):
    assert check(path.read_bytes(), np.random.default_rng(SEED), images=20) > 0


needs_real = pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")


def real(*parts: str) -> Path:
    return Path(os.environ["FLUIDNPU_REAL"], *parts)


@needs_real
def test_resnet8_on_real_images():
    """Every tensor of 20 images, and the answers that came with all 200 images."""
    data = real("models", "resnet8_int8.tflite").read_bytes()
    network = parse_network(data, "resnet8")
    assert network.macs() == 12_501_632
    stored = np.load(real("images", "cifar10_ic01_200.npz"))
    images = (stored["x"].astype(np.int16) - 128).astype(np.int8)
    ours = run(network, images)
    interpreter = interpreter_of(data)
    for i in range(20):
        compare(network, ours, kernels_of(interpreter, images[i]), i)
    odds = np.exp(ours[network.exits[0].logits.name][:, 0, 0].astype(np.float64) * network.exits[0].scale)
    answers = np.rint(256 * odds / odds.sum(1, keepdims=True)).clip(0, 255) - 128  # what int8 SOFTMAX makes of them
    np.testing.assert_array_equal(answers, stored["resnet8_ref_out"].reshape(200, 10))


@needs_real
def test_dscnn_on_random_inputs():
    data = real("models", "kws_dscnn_int8.tflite").read_bytes()
    network = parse_network(data, "dscnn")
    assert network.macs() == 2_656_768
    rng = np.random.default_rng(SEED)
    images = rng.integers(-128, 128, (50, *network.input.shape)).astype(np.int8)
    ours = run(network, images)
    interpreter = interpreter_of(data)
    for i in range(50):
        compare(network, ours, kernels_of(interpreter, images[i]), i)
