"""Figures of layers from the cycle model: nothing is lost, nothing counted twice."""

from math import ceil

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.random_network import RandomNetwork
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.zoo import make_network
from fluidnpu.sim.bench.formula import CLIENTS, descriptor_of
from fluidnpu.sim.bench.measure import measure, whole_layers
from fluidnpu.sim.memory import IDEAL, limited


@pytest.fixture(scope="module")
def keywords():
    """DS-CNN with an exit: convolutions, depthwise, pool, fully connected."""
    network = parse_network(make_network("ds-cnn", exits=(2,)), "keywords")
    config = get_config("gemmini16")
    return network, config, compile_network(network, config, CompileOptions())


def sixteen_channels(width):
    """Sixteen channels on hub, whose beats hold two such pixels; a residual addition."""
    net = RandomNetwork("narrow", np.random.default_rng(3))
    x = net.conv(net.input(12, width, 3), 16, 3, name="first")
    x = net.add(x, net.conv(x, 16, 3, activation="NONE", name="second"), name="sum")
    net.classify(net.conv(x, 24, 3, 3, name="third"), 5, "exit1")
    network = parse_network(net.to_bytes(), "narrow")
    config = get_config("hub")
    return network, config, compile_network(network, config, CompileOptions())


@pytest.fixture(scope="module")
def segments():
    """Rows longer than a tile."""
    network, config, program = sixteen_channels(600)
    assert descriptor_of(program, 0)["nseg"] > 1
    return network, config, program


@pytest.fixture(scope="module")
def packed():
    """Two pixels to a beat."""
    network, config, program = sixteen_channels(32)
    assert descriptor_of(program, 1)["in_packed"] and descriptor_of(program, 1)["residual"]
    return network, config, program


@pytest.mark.parametrize("live, memory, unstacked", [(1, IDEAL, False), (3, limited(), False), (8, IDEAL, True)])
@pytest.mark.parametrize("name", ["keywords", "segments", "packed"])
def test_parts_add_up(name, live, memory, unstacked, request):
    network, config, program = request.getfixturevalue(name)
    m = measure(config, program, live, exits=3, memory=memory, unstacked=unstacked)
    assert sum(layer.cycles for layer in m.layers) == sum(m.causes.values()) == m.cycles
    assert all(sum(layer.causes.values()) == layer.cycles for layer in m.layers)
    assert m.macs == live * network.macs() and m.utilisation == m.macs / (config.peak_macs * m.cycles)
    own = {client: sum(layer.bytes[client] for layer in m.layers) for client in CLIENTS}
    assert own == {client: m.bytes[client] for client in CLIENTS}  # every beat on the bus belongs to a layer
    for way in ("read", "write"):
        assert sum(layer.bursts[way] for layer in m.layers) == m.bursts[way]
        assert 1 <= m.burst_beats[way] <= config.burst_beats
    if unstacked:
        assert {mode for layer in m.layers for mode in layer.modes} == {"1x1"}


def test_heads_that_are_jumped_over_cost_nothing(keywords):
    _, config, program = keywords
    with_heads, without = (measure(config, program, 2, exits=e) for e in (3, 0))
    assert without.cycles < with_heads.cycles and without.macs < with_heads.macs
    assert {layer.name for layer in without.layers} < {layer.name for layer in with_heads.layers}


def test_outputs_and_weights_of_a_layer(keywords):
    network, config, program = keywords
    m = measure(config, program, 1)
    first, shape = m.layers[0], network.layers[0].output.shape
    assert first.bytes["write"] == shape[0] * shape[1] * ceil(shape[2] / config.bus_bytes) * config.bus_bytes
    assert first.bytes["weight"] >= network.layers[0].weights.size * first.tiles / 4  # at most 4 stacks share weights
    assert first.intensity == first.macs / max(first.bytes["write"], first.bytes["weight"] + first.bytes["stripe"])


def test_parts_of_split_layers_are_added_up():
    config = get_config("tiny")
    network = parse_network(make_network("fc-2048-1000"), "fc")
    m = measure(config, compile_network(network, config, CompileOptions()), 1)
    (whole,) = (layer for layer in whole_layers(m) if layer.macs)
    parts = [layer for layer in m.layers if layer.macs]
    assert len(parts) > 1 and whole.name == parts[0].name.partition(".")[0]
    assert whole.cycles == sum(p.cycles for p in parts) and whole.macs == 2048 * 1000
    assert whole.causes == {c: sum(p.causes[c] for p in parts) for c in whole.causes}
    assert np.isclose(whole.utilisation, whole.macs / whole.cycles / config.peak_macs)


def test_as_many_samples_as_slots():
    config = get_config("tiny")
    network = parse_network(make_network("fc-2048-1000"), "fc")
    with pytest.raises(ValueError, match=r"5 samples at a time: tiny has slots for 1\.\.4"):
        measure(config, compile_network(network, config, CompileOptions()), 5)
