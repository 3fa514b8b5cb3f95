"""uint8 networks: what their reference kernels do otherwise than those of int8. Geometries: test_reference."""

import numpy as np
import pytest
from fluidnpu.nn.graph import Conv, Depthwise, Pool
from fluidnpu.nn.quantize import quantize_multiplier, requantise
from fluidnpu.nn.reference import run
from fluidnpu.nn.tflite_reader import UnsupportedNetwork, parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from reference_kernels import interpreter_of, kernels_of

SEED = 8
EVERY_VALUE = np.arange(-128, 128).astype(np.int8).reshape(1, 1, 256)


def differs(data: bytes, image: np.ndarray) -> int:
    """Values of the output in which the reference executor and the kernels disagree."""
    network = parse_network(data, "n")
    name = network.outputs[0].name
    return int((run(network, image)[name].ravel() != kernels_of(interpreter_of(data), image)[name].ravel()).sum())


def test_everything_is_128_less():
    net = TfliteWriter(dtype="uint8")
    x = net.input((1, 4, 4, 2), scale=0.5, zero_point=3, name="image")
    weights = np.array([[0, 255], [128, 7]], np.uint8).reshape(2, 1, 1, 2)
    y = net.conv_2d(x, weights, np.zeros(2, np.int32), 0.1, scale=0.5, zero_point=255, weight_zero_point=128)
    (conv,) = parse_network(net.to_bytes([y]), "n").layers
    assert (conv.input.zero_point, conv.output.zero_point) == (-125, 127)
    assert conv.weights.dtype == np.int8 and conv.weights.ravel().tolist() == [-128, 127, 0, -121]


@pytest.mark.parametrize(("zero_point", "dtype"), [(128, np.int8), (0, np.int16), (255, np.int16), (100, np.int16)])
def test_weights_that_do_not_fit_int8_are_int16(zero_point, dtype):
    net = TfliteWriter(dtype="uint8")
    x = net.input((1, 1, 1, 256), scale=0.5, zero_point=3)
    weights = np.arange(256).astype(np.uint8)
    q = dict(scale=40.0, zero_point=128, weight_zero_point=zero_point)
    bias, one = np.zeros(256, np.int32), np.zeros(1, np.int32)
    outputs = [
        net.conv_2d(x, weights.reshape(1, 1, 1, 256), one, 0.1, **q),
        net.depthwise_conv_2d(x, weights.reshape(1, 1, 1, 256), bias, 0.1, **q),
        net.fully_connected(net.flatten(x), weights.reshape(1, 256), one, 0.1, **q),
    ]
    for y in outputs:
        data = net.to_bytes([y])
        (layer,) = parse_network(data, "n").layers
        assert layer.weights.dtype == dtype
        np.testing.assert_array_equal(layer.weights.ravel(), np.arange(256) - zero_point)
        assert differs(data, EVERY_VALUE) == 0


def near_ties(factor, other):
    """Sums that two real factors requantise differently, and how."""
    sums = np.arange(1, int(120 / factor))
    a, b = (requantise(sums, *quantize_multiplier(f)) for f in (factor, other))
    return sums[a != b][:40].astype(np.int32), a[a != b][:40]


@pytest.mark.parametrize("operator", ["conv", "depthwise"])
def test_convolutions_multiply_their_scales_in_float32(operator):
    rng, found = np.random.default_rng(SEED), 0
    while found < 10:
        x_scale, w_scale = np.float32(rng.uniform(0.01, 1)), np.float32(rng.uniform(0.001, 0.01))
        scale = np.float32(x_scale * w_scale * rng.uniform(3000, 6000))
        single, double = float(x_scale * w_scale), float(x_scale) * float(w_scale)
        bias, wanted = near_ties(single / float(scale), double / float(scale))
        if not len(bias):
            continue
        found += len(bias)
        net = TfliteWriter(dtype="uint8")
        x = net.input((1, 1, 1, 1 if operator == "conv" else len(bias)), scale=float(x_scale), zero_point=128)
        q = dict(scale=float(scale), zero_point=128, weight_zero_point=0)
        shape = (len(bias), 1, 1, 1) if operator == "conv" else (1, 1, 1, len(bias))
        method = net.conv_2d if operator == "conv" else net.depthwise_conv_2d
        data = net.to_bytes([method(x, np.zeros(shape, np.uint8), bias, float(w_scale), **q)])
        network = parse_network(data, "n")
        assert isinstance(network.layers[0], Conv if operator == "conv" else Depthwise)
        image = np.zeros(network.input.shape, np.int8)
        np.testing.assert_array_equal(run(network, image)[network.outputs[0].name].ravel(), wanted)
        assert differs(data, image) == 0


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_relu_divides_its_scales_in_float32(dtype):
    rng, found = np.random.default_rng(SEED), 0
    values = np.arange(1, 128)
    while found < 5:
        a = np.float32(rng.uniform(0.01, 1))
        b = np.float32(a * rng.uniform(0.6, 1.4))
        single, double = float(a / b), float(a) / float(b)
        if (requantise(values, *quantize_multiplier(single)) == requantise(values, *quantize_multiplier(double))).all():
            continue
        found += 1
        net, zero = TfliteWriter(dtype=dtype), 0 if dtype == "int8" else 128
        x = net.input((1, 1, 1, 256), scale=float(a), zero_point=zero)
        assert differs(net.to_bytes([net.relu(x, scale=float(b), zero_point=zero)]), EVERY_VALUE) == 0


def test_average_pools_round_half_up():
    net = TfliteWriter(dtype="uint8")
    x = net.input((1, 1, 512, 1), scale=0.5, zero_point=128)
    data = net.to_bytes([net.average_pool_2d(x, (1, 2))])
    (pool,) = parse_network(data, "n").layers
    assert isinstance(pool, Pool) and pool.half_up
    image = np.stack([EVERY_VALUE.ravel(), np.zeros(256, np.int8)], 1).reshape(1, 512, 1)
    assert differs(data, image) == 0
    np.testing.assert_array_equal(
        run(parse_network(data, "n"), image)[pool.output.name].ravel(), np.arange(-127, 129) // 2
    )


def test_concatenation_of_other_scales():
    """float32 in the kernel; the reader finds integers that give the same for all 256 values."""
    rng = np.random.default_rng(SEED)
    for case in range(100):
        net = TfliteWriter(dtype="uint8")
        low, high = (-3, 1) if case % 3 else (-5, 1)
        scales = 2.0 ** (rng.uniform(low, high, 2) if case % 3 else rng.integers(low, high, 2))
        zeros = rng.integers(0, 256, 2)
        x = net.input((1, 1, 1, 256), scale=scales[0], zero_point=int(zeros[0]))
        y = net.concatenation([x, x], scale=scales[1], zero_point=int(zeros[1]))
        assert differs(net.to_bytes([y]), EVERY_VALUE) == 0


def test_types_are_not_mixed():
    net = TfliteWriter(dtype="uint8")
    x = net.input((1, 1, 1, 4), scale=0.5, zero_point=128)
    net.dtype = "int8"
    y = net.relu(x, scale=0.5, zero_point=0)
    with pytest.raises(UnsupportedNetwork, match=r"0 RELU, .*: input UINT8, output INT8; supported: operators of one"):
        parse_network(net.to_bytes([y]), "n")
