"""What the reader makes of single operators: layers, what is folded away, what is refused; values: test_reference."""

import numpy as np
import pytest
from fluidnpu.nn.graph import Add, Concat, Conv, Depthwise, MaxPool, Pad, Pool, UnsupportedNetwork
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter

SAME = {"scale": 0.5, "zero_point": -3}
OTHER = {"scale": 0.25, "zero_point": 7}


def conv(net, x, *, channels=4, kernel=3, **window):
    weights = np.ones((channels, kernel, kernel, x.shape[3]), np.int8)
    return net.conv_2d(x, weights, np.zeros(channels, np.int32), 0.01, **SAME, **window)


def depthwise(net, x, *, kernel=3, **window):
    weights = np.ones((1, kernel, kernel, 2 * x.shape[3]), np.int8)
    return net.depthwise_conv_2d(x, weights, np.zeros(2 * x.shape[3], np.int32), 0.01, **SAME, **window)


def read(*builds, shape=(6, 6, 4), outputs=1):
    """Network of a chain of ``builds`` (functions of writer and tensor); ``outputs``: how many of the last tensors."""
    net = TfliteWriter()
    chain = [net.input((1, *shape), **SAME, name="image")]
    for build in builds:
        chain.append(build(net, chain[-1]))
    return parse_network(net.to_bytes(chain[-outputs:]), "n")


def kinds(network):
    return [type(layer) for layer in network.layers]


def test_outputs_that_are_no_vectors_make_a_network_without_exits():
    network = read(conv, lambda net, x: net.max_pool_2d(x, 2), outputs=2)
    assert network.exits == () and [t.shape for t in network.outputs] == [(6, 6, 4), (3, 3, 4)]
    assert kinds(network) == [Conv, MaxPool]
    assert network.sections()[0].trunk == (0, 1) and len(network.sections()) == 1
    network = read(conv, lambda net, x: net.mean(x))
    assert len(network.exits) == 1 and network.outputs == (network.exits[0].logits,)


def test_an_output_of_more_classes_than_an_exit_has_is_an_output():
    network = read(lambda net, x: conv(net, x, channels=1025, kernel=6, padding="VALID"))
    assert not network.exits and network.outputs[0].shape == (1, 1, 1025)


def test_depth_multiplier():
    (layer,) = read(depthwise).layers
    assert isinstance(layer, Depthwise) and layer.depth_multiplier == 2 and layer.weights.shape == (8, 3, 3)
    assert layer.macs == 36 * 8 * 9


@pytest.mark.parametrize("producer", [conv, depthwise, lambda net, x: net.add(x, x, **SAME)])
def test_activations_move_into_the_layer_before(producer):
    network = read(producer, lambda net, x: net.relu(x, "RELU6"), lambda net, x: net.relu(x, "RELU"))
    (layer,) = network.layers
    assert layer.clamp == (-3, 9) and layer.output.name == "relu_2"


def test_activations_that_stay():
    network = read(conv, lambda net, x: net.relu(x), outputs=2)  # what comes before them is an output
    assert kinds(network) == [Conv, Pool] and network.layers[1].clamp == (-3, 127)
    network = read(conv, lambda net, x: net.add(x, net.relu(x), **SAME))  # somebody else reads it
    assert kinds(network) == [Conv, Pool, Add]
    network = read(conv, lambda net, x: net.relu(x, **OTHER))  # another scale
    assert kinds(network) == [Conv, Depthwise] and network.layers[1].clamp == (7, 127)


ROWS = [(0, 0), (1, 2), (3, 0), (0, 0)]


@pytest.mark.parametrize("reader", [conv, depthwise])
def test_borders_move_into_the_windows_behind(reader):
    (layer,) = read(lambda net, x: net.pad(x, ROWS), lambda net, x: reader(net, x, padding="VALID")).layers
    assert layer.padding == (1, 3, 2, 0) and layer.input.name == "image"
    (layer,) = read(lambda net, x: net.pad(x, ROWS, value=-3), lambda net, x: reader(net, x, padding="SAME")).layers
    assert layer.padding == (2, 4, 3, 1)


def test_two_borders_move_together():
    layers = read(lambda net, x: net.pad(x, ROWS), lambda net, x: net.pad(x, ROWS), conv).layers
    assert [layer.padding for layer in layers] == [(3, 7, 5, 1)]


def test_borders_that_stay():
    def pad(**value):
        return lambda net, x: net.pad(x, ROWS, **value)

    network = read(pad(value=5), conv)
    assert kinds(network) == [Pad, Conv] and network.layers[0].value == 5
    assert kinds(read(pad(), conv, outputs=2)) == [Pad, Conv]
    assert kinds(read(pad(), lambda net, x: net.average_pool_2d(x, 2))) == [Pad, Pool]
    assert kinds(read(pad(), lambda net, x: net.max_pool_2d(x, 4))) == [Pad, MaxPool]
    assert kinds(read(pad(value=-128), lambda net, x: net.max_pool_2d(x, 2))) == [Pad, MaxPool]  # all of it border


def test_border_of_a_max_pool():
    (layer,) = read(lambda net, x: net.pad(x, ROWS, value=-128), lambda net, x: net.max_pool_2d(x, 4)).layers
    assert isinstance(layer, MaxPool) and layer.padding == (1, 3, 2, 0)


def test_padded_channels():
    network = read(lambda net, x: net.pad(x, [(0, 0), (0, 0), (0, 0), (1, 2)]))
    assert kinds(network) == [Conv] and network.outputs[0].shape == (6, 6, 7)
    assert kinds(read(lambda net, x: net.pad(x, [(0, 0), (1, 0), (0, 0), (1, 2)], value=9))) == [Pad, Conv]


def test_sum_of_flattened_images():
    network = read(lambda net, x: net.add(net.flatten(x), net.reshape(net.relu(x), (1, 144)), **SAME))
    assert network.layers[-1].output.shape == (6, 6, 4)


def test_concatenation():
    network = read(lambda net, x: net.concatenation([x, net.relu(x), x]))
    layer = network.layers[-1]
    assert isinstance(layer, Concat) and layer.offsets == (0, 4, 8) and layer.output.channels == 12
    assert layer.inputs == (network.input, network.layers[0].output, network.input)


def test_fully_connected_of_an_image_and_of_pixels():
    def whole(net, x):
        x = net.flatten(x)
        return net.fully_connected(x, np.ones((2, x.shape[1]), np.int8), np.zeros(2, np.int32), 0.01, **SAME)

    def pixels(net, x):
        return net.fully_connected(x, np.ones((2, 4), np.int8), np.zeros(2, np.int32), 0.01, **SAME)

    assert read(whole).layers[0].kernel == (6, 6)
    layer = read(pixels).layers[0]
    assert layer.kernel == (1, 1) and layer.output.shape == (6, 6, 2)


def test_reshaped_input():
    network = read(lambda net, x: net.reshape(x, (1, 6, 6, 4)), conv, shape=(144,))
    assert network.input.shape == (6, 6, 4) and network.aliases["reshape_0"] == "image"


REFUSED = {
    "add of images": (
        lambda net, x: net.add(net.reshape(net.max_pool_2d(x, (2, 1)), (1, 72)),
                               net.reshape(net.max_pool_2d(x, (1, 2)), (1, 72)), **SAME),
        r"4 ADD, .*: images \[3, 6, 4\] and \[6, 3, 4\]; supported: two images of one shape",
    ),
    "add scale": (
        lambda net, x: net.add(x, x, scale=1e-9, zero_point=0, name="y"),
        "operator 0 ADD, tensor 1 'y': a sum of scale .* of scales 0.5 and 0.5; supported: output scales",
    ),
    "concat scale": (
        lambda net, x: net.concatenation([x, net.relu(x, **OTHER)]),
        r"operator 1 CONCATENATION, tensor 1 'relu_0': scale and zero point \(0.25, 7\), the output has \(0.5, -3\)",
    ),
    "concat flattened": (
        lambda net, x: net.concatenation([net.flatten(x), net.flatten(x)]),
        r"CONCATENATION, .*: part \[1, 144\] of \[1, 288\]; supported: parts that differ in channels only",
    ),
    "pad batch": (
        lambda net, x: net.pad(x, [(1, 0), (0, 0), (0, 0), (0, 0)]),
        r"operator 0 PAD, .*: padding \[\[1, 0\], .* supported: padding of at least 0 of height, width and channels",
    ),
    "pad vector": (
        lambda net, x: net.pad(net.mean(x), [(0, 0), (0, 1)]),
        r"operator 1 PAD, tensor .*: shape \[1, 4\] reshaped from \[1, 1, 1, 4\]",
    ),
    "relu scale": (
        lambda net, x: net.relu(x, scale=1e-9, zero_point=0),
        "operator 0 RELU, .*: scale 0.5 becomes .*; supported: scales of about the same size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case):
    build, message = REFUSED[case]
    with pytest.raises(UnsupportedNetwork, match=f"^n, .*{message}"):
        read(build)
