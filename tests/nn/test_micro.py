"""The rounding option "micro" against the kernels of TensorFlow Lite Micro, where its package is installed."""

import numpy as np
import pytest
from fluidnpu.nn.reference import run
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from random_net import OPERATORS, RandomNet

runtime = pytest.importorskip("tflite_micro", reason="tflite-micro is not installed").runtime

SEED = 20240614


def outputs_of(data: bytes, image: np.ndarray) -> list[np.ndarray] | None:
    """What TensorFlow Lite Micro answers; None for a network that it does not take."""
    try:
        interpreter = runtime.Interpreter.from_bytes(data)
    except RuntimeError:
        return None
    interpreter.set_input(image.reshape(interpreter.get_input_details(0)["shape"]), 0)
    interpreter.invoke()
    return [interpreter.get_output(i) for i in range(len(parse_network(data, "n").outputs))]


def check(data: bytes, rng, rounding="micro") -> tuple[int, int]:
    """(values compared, values that differ) of one random image."""
    network = parse_network(data, "n", rounding=rounding)
    image = rng.integers(-128, 128, network.input.shape).astype(np.int8)
    theirs, ours = outputs_of(data, image), run(network, image)
    pairs = zip(network.outputs, theirs, strict=True) if theirs else ()
    different = [(ours[t.name].ravel() != y.ravel()) for t, y in pairs]
    return sum(d.size for d in different), sum(int(d.sum()) for d in different)


@pytest.mark.parametrize("operator", OPERATORS)
def test_single_layers_of_random_geometry(operator):
    rng, compared = np.random.default_rng(SEED), 0
    for _ in range(60):
        random = RandomNet(rng)
        out = getattr(random, operator)(random.input(random.image_shape()))
        count, different = check(random.net.to_bytes([out]), rng)
        assert not different
        compared += count
    assert compared > 500


def test_fully_connected_rounds_twice():
    rng = np.random.default_rng(SEED)
    random = RandomNet(rng)
    net = random.net
    x = net.input((1, 40), scale=0.5, zero_point=-3)
    weights, bias, scales, out = random.weights(x, (4000, 40), True)
    data = net.to_bytes([net.fully_connected(x, weights, bias, scales, **out)])
    assert check(data, rng) == (4000, 0)
    assert check(data, rng, "litert")[1] > 0


@pytest.mark.parametrize("activation", ["RELU", "RELU6"])
def test_relu_between_scales(activation):
    """RELU6 of TensorFlow Lite Micro does not look at the output's scale."""
    net = TfliteWriter()
    x = net.input((1, 1, 1, 256), scale=0.07, zero_point=-9)
    data = net.to_bytes([net.relu(x, activation, scale=0.11, zero_point=20)])
    assert check(data, np.random.default_rng(SEED)) == (256, 0)
