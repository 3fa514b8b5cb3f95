"""Published networks with random weights: known MAC counts, sane activations, reference kernels, exits."""

import os
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fluidnpu.nn import reference
from fluidnpu.nn.graph import Add, Mean, Window
from fluidnpu.nn.tflite_reader import parse_network, read_network
from fluidnpu.nn.zoo import NETWORKS, make_network

# Multiply-accumulates as published or as other tools count them (torchvision, TensorFlow, MLPerf Tiny).
MACS = {
    "resnet50": 3_857_973_248,
    "resnet50-v1.5": 4_089_184_256,
    "resnet18": 1_814_073_344,
    "mobilenet-v1": 568_740_352,
    "ds-cnn": 2_656_768,
    "fc-2048-1000": 2_048_000,
}


@pytest.fixture(scope="module")
def networks():
    """Function name -> (bytes, Network), each made once."""
    made = {}

    def get(name):
        if name not in made:
            data = make_network(name)
            made[name] = data, parse_network(data, name)
        return made[name]

    return get


def random_images(network, count, seed=1):
    return np.random.default_rng(seed).integers(-128, 128, (count, *network.input.shape)).astype(np.int8)


@pytest.mark.parametrize("name", NETWORKS)
def test_macs(name, networks):
    data, network = networks(name)
    assert network.macs() == MACS[name]
    assert len(network.exits) == 1 and data[4:8] == b"TFL3"


@pytest.mark.parametrize("name", NETWORKS)
def test_activations_neither_saturate_nor_vanish(name, networks):
    """Every layer uses a good part of int8, and different images give different answers."""
    _, network = networks(name)
    tensors = reference.run(network, random_images(network, 2))
    for layer in network.layers:
        values = tensors[layer.output.name].astype(float)
        low, high = getattr(layer, "clamp", (-128, 127))
        assert values.std() > 8, layer.name
        assert (values >= high).mean() < 0.06, layer.name
        assert (values <= low).mean() < (0.75 if layer.output.zero_point == -128 else 0.1), layer.name  # RELU or not
    logits = tensors[network.exits[0].logits.name]
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize("name", ["ds-cnn", "fc-2048-1000", "mobilenet-v1"])
def test_reference_kernels(name, networks):
    data, network = networks(name)
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    image = random_images(network, 1)[0]
    entry = interpreter.get_input_details()[0]
    interpreter.set_tensor(entry["index"], image.reshape(entry["shape"]))
    interpreter.invoke()
    found = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    for tensor, values in reference.run(network, image).items():
        np.testing.assert_array_equal(interpreter.get_tensor(found[tensor]).reshape(values.shape), values, tensor)


def test_resnet50_shapes(networks):
    """Borders are folded into the windows; strides stand where the version says."""
    _, network = networks("resnet50")
    layers = {layer.output.name: layer for layer in network.layers}
    assert layers["conv1"].padding == (3, 3, 3, 3) and layers["conv1"].output.shape == (112, 112, 64)
    assert network.layers[1].padding == (1, 1, 1, 1) and network.layers[1].output.shape == (56, 56, 64)
    shapes = [layers[f"stage{s}/block1/sum"].output.shape for s in (1, 2, 3, 4)]
    assert shapes == [(56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)]
    assert layers["stage2/block1/a"].stride == (2, 2) and layers["stage2/block1/b"].stride == (1, 1)
    later = {layer.output.name: layer for layer in networks("resnet50-v1.5")[1].layers}
    assert later["stage2/block1/a"].stride == (1, 1) and later["stage2/block1/b"].stride == (2, 2)
    assert later["stage2/block1/b"].padding == (1, 1, 1, 1)
    assert sum(isinstance(layer, Add) for layer in network.layers) == 16
    assert isinstance(network.layers[-2], Mean)


@pytest.mark.parametrize(
    "name, exits, stages", [("resnet18", (1, 3), 3), ("ds-cnn", (2,), 3), ("mobilenet-v1", (4,), 4)]
)
def test_exits_after_stages(name, exits, stages):
    network = parse_network(make_network(name, exits=exits), name)
    sections = network.sections()
    assert len(network.exits) == len(exits) + 1 and all(section.head for section in sections[:-1])
    classes = network.exits[-1].classes
    heads = [network.layers[section.head[-1]].macs // classes for section in sections[:-1]]  # one per channel
    assert network.macs() == MACS[name] + classes * sum(heads)
    for wrong in (0, stages + 1):
        with pytest.raises(ValueError, match=rf"{name}: exits after stages {wrong}; it has stages 1\.\.{stages}"):
            make_network(name, exits=(wrong,))


def test_bad_names_and_seeds():
    with pytest.raises(ValueError, match="unknown network 'vgg'; there are resnet50, "):
        make_network("vgg")
    with pytest.raises(ValueError, match="fc-2048-1000: exits after stages 1; it has no stages"):
        make_network("fc-2048-1000", exits=(1,))
    assert make_network("ds-cnn") == make_network("ds-cnn") != make_network("ds-cnn", seed=1)


@pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")
def test_ds_cnn_has_the_windows_of_the_real_one(networks):
    actual = read_network(Path(os.environ["FLUIDNPU_REAL"], "models", "kws_dscnn_int8.tflite"))

    def windows(network):
        return [
            (type(layer), layer.input.shape, layer.output.shape, layer.kernel, layer.stride, layer.padding)
            for layer in network.layers
            if isinstance(layer, Window) and layer.input.shape[0] > 1 and layer.output.shape[0] > 1
        ]

    assert windows(networks("ds-cnn")[1]) == windows(actual)
