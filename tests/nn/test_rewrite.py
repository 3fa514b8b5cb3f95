"""What becomes of layers that are no operation: the same values, parts at the right places."""

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS, get_config
from fluidnpu.nn.arena import lay_out
from fluidnpu.nn.blocks import prepare
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.graph import Concat, Conv, Depthwise, Network, Tensor
from fluidnpu.nn.lowering import lower
from fluidnpu.nn.reference import run, run_layer
from fluidnpu.nn.rewrite import Joined, View, rewrite
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from random_net import RandomNet

TINY = get_config("tiny")
SEED = 31


def values_of(network, config, images):
    """All tensors, by the rewritten layers; what a Joined joins is taken from where its parts lie."""
    rewritten = prepare(network, config)
    tensors = {network.input.name: images}
    for layer in rewritten.network.layers:
        if isinstance(layer, View):
            tensors[layer.output.name] = tensors[layer.input.name][..., layer.first :][..., : layer.output.channels]
            continue
        if not isinstance(layer, Joined):
            tensors[layer.output.name] = run_layer(layer, *(tensors[t.name] for t in layer.inputs))
            continue
        whole = np.zeros((len(images), *layer.output.shape), np.int8)
        for part in reversed(layer.parts):  # copies run from the last to the first
            assert rewritten.inside[part.name][0] == layer.output.name
            first = rewritten.inside[part.name][1]
            assert first % config.bus_bytes == 0
            whole[..., first : first + part.channels] = tensors[part.name]
        tensors[layer.output.name] = whole
    return tensors


@pytest.mark.parametrize("operator", ["conv", "depthwise", "depth multiplier", "fully connected"])
def test_weights_that_are_no_sum_of_two(operator):
    """uint8 weights 255 with zero point 0; what is left for the array are sums of two int8 weights."""
    rng = np.random.default_rng(SEED)
    for _ in range(10):
        net = TfliteWriter(dtype="uint8")
        x = net.input((1, 5, 4, int(rng.integers(1, 12))), scale=0.5, zero_point=int(rng.integers(256)))
        channels = x.shape[3]
        q = dict(scale=2000.0, zero_point=128, weight_zero_point=0)
        made = channels * 2 if operator == "depth multiplier" else channels if operator == "depthwise" else 7
        shapes = {"conv": (made, 3, 2, channels), "fully connected": (made, 20 * channels)}
        shape = shapes.get(operator, (1, 3, 2, made))
        weights = rng.choice([0, 3, 128, 254, 255], shape).astype(np.uint8)
        weights.flat[0] = 255
        bias = rng.integers(-9999, 9999, made).astype(np.int32)
        if operator == "fully connected":
            y = net.fully_connected(net.flatten(x), weights, bias, 0.1, **q)
        else:
            y = getattr(net, "conv_2d" if operator == "conv" else "depthwise_conv_2d")(x, weights, bias, 0.1, **q)
        network = parse_network(net.to_bytes([y]), "n")
        images = rng.integers(-128, 128, (3, *network.input.shape)).astype(np.int8)
        wanted = run(network, images)[network.layers[-1].output.name]
        assert network.layers[-1].weights.max() == 255 and len(np.unique(wanted)) > 3
        rewritten = rewrite(network, TINY).network
        assert all(layer.weights.max() < 255 for layer in rewritten.layers)
        assert sum(layer.macs for layer in rewritten.layers) == network.macs()
        np.testing.assert_array_equal(values_of(network, TINY, images)[network.layers[-1].output.name], wanted)
        compile_network(network, TINY)


@pytest.mark.parametrize("operator", ["depthwise", "pool", "concat"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_every_tensor_stays_as_it_is(operator, dtype):
    rng = np.random.default_rng(SEED)
    for _ in range(60):
        random = RandomNet(rng, dtype)
        out = getattr(random, operator)(random.input(random.image_shape()))
        network = parse_network(random.net.to_bytes([out]), "n")
        images = rng.integers(-128, 128, (3, *network.input.shape)).astype(np.int8)
        config = get_config(str(rng.choice(list(CONFIGS))))
        ours, wanted = values_of(network, config, images), run(network, images)
        rewritten = rewrite(network, config).network
        assert not any(isinstance(layer, Concat) for layer in rewritten.layers)
        assert all(layer.depth_multiplier == 1 for layer in rewritten.layers if isinstance(layer, Depthwise))
        assert sum(layer.macs for layer in rewritten.layers) >= network.macs()
        for name, x in wanted.items():
            np.testing.assert_array_equal(ours[name], x)


def test_more_taps_than_the_vector_path_holds():
    for dtype, size in ((np.int8, 12), (np.int16, 8)):
        x, y = Tensor("x", size, size, 20, 0.5, 0), Tensor("y", 1, 1, 20, 0.5, 0)
        weights = np.arange(20 * size * size).reshape(20, size, size) % 200 - (72 if dtype == np.int8 else 0)
        n = np.ones(20, np.int32)
        layer = Depthwise(
            "d", x, y, stride=(1, 1), weights=weights.astype(dtype), bias=n, multiplier=n << 30, shift=n - 14
        )
        (conv,) = rewrite(Network("n", x, (layer,), (), outputs=(y,)), TINY).network.layers
        assert isinstance(conv, Conv) and conv.macs == layer.macs
        image = np.random.default_rng(SEED).integers(-128, 128, (3, *x.shape)).astype(np.int8)
        np.testing.assert_array_equal(run_layer(conv, image), run_layer(layer, image))


@pytest.mark.parametrize("operator", ["pool", "max_pool", "mean", "depthwise"])
def test_windows_larger_than_the_banks_are_cut_into_blocks_of_channels(operator):
    rng, cut = np.random.default_rng(SEED), 0
    for _ in range(12):
        random = RandomNet(rng)
        x = random.input((*rng.integers(10, 20, 2), rng.integers(60, 130)))
        largest = () if operator == "mean" else (int(rng.integers(9, 14)),)
        network = parse_network(random.net.to_bytes([getattr(random, operator)(x, *largest)]), "n")
        images = rng.integers(-128, 128, (2, *network.input.shape)).astype(np.int8)
        ours, wanted = values_of(network, TINY, images), run(network, images)
        for name, values in wanted.items():
            np.testing.assert_array_equal(ours[name], values)
        prepared = prepare(network, TINY).network
        assert prepared.macs() == rewrite(network, TINY).network.macs()
        cut += any(isinstance(layer, View) for layer in prepared.layers)
    assert cut


def conv(name, x, channels):
    y = Tensor(f"{name}.out", x.height, x.width, channels, 0.5, 0)
    n = np.zeros(channels, np.int32)
    weights = np.ones((channels, 1, 1, x.channels), np.int8)
    return Conv(name, x, y, stride=(1, 1), weights=weights, bias=n, multiplier=n, shift=n)


def test_parts_lie_inside_the_joined_tensor():
    x = Tensor("x", 3, 4, 8, 0.5, 0)
    a, b = conv("a", x, 16), conv("b", x, 5)
    inner = Concat("c", a.output, Tensor("inner", 3, 4, 21, 0.5, 0), parts=(a.output, b.output))
    d = conv("d", inner.output, 8)
    outer = Concat("e", d.output, Tensor("outer", 3, 4, 29, 0.5, 0), parts=(d.output, inner.output))
    network = Network("n", x, (a, b, inner, d, outer), (), outputs=(outer.output,))
    rewritten = rewrite(network, TINY)
    assert rewritten.inside == {
        "a.out": ("inner", 0),
        "b.out": ("inner", 16),
        "inner": ("outer", 8),
        "d.out": ("outer", 0),
    }
    assert rewritten.place_of("b.out") == ("outer", 24)
    steps = lower(rewritten.network, TINY, 1 << 30)
    assert [s.name for s in steps] == ["a", "b", "d", "exit0"]
    places, size, producer = lay_out(rewritten, steps, TINY)
    outer = places["outer"]
    assert {name: places[name].offset - outer.offset for name in ("a.out", "b.out", "inner", "d.out")} == {
        "a.out": 8, "b.out": 24, "inner": 8, "d.out": 0,
    }  # fmt: skip
    assert {p.pixel_beats for name, p in places.items() if name != "x"} == {9}  # a chunk (8 beats) is no whole pixel
    assert producer == {"a.out": 0, "b.out": 1, "inner": 1, "d.out": 2, "outer": 2}
    assert size >= outer.offset + 3 * 4 * 9 * 8 + 24  # what lies inside is read with the pitch of the whole


def test_a_vector_too_long_for_a_pixel_is_read_as_a_row_of_pixels():
    edge = get_config("edge")
    x = Tensor("x", 1, 1, 40_001, 0.5, 0)
    layer = conv("fc", x, 3)
    network = Network("n", x, (layer,), (), outputs=(layer.output,))
    program = compile_network(network, edge, CompileOptions())
    d = isa.decode(isa.DESCRIPTOR_FIELDS, np.frombuffer(program.region, "<u4", isa.DESCRIPTOR_WORDS))
    assert (d["in_w"], d["in_h"], d["kw"], d["kh"], d["in_pixel_beats"]) == (3, 1, 3, 1, 834)
    assert program.arena_bytes >= program.tensors["x"].offset + 3 * 834 * 16
    assert program.ops[0].macs == 3 * 40_001
    (step, _) = lower(network, edge, 1 << 30)
    rng = np.random.default_rng(SEED)
    image = rng.integers(-128, 128, (1, 1, 1, 40_001)).astype(np.int8)
    seen = np.zeros((1, 1, 3, 834 * 16), np.int8)
    seen.reshape(-1)[:40_001] = image.reshape(-1)
    np.testing.assert_array_equal(run_layer(step.layer, seen), run_layer(layer, image))
