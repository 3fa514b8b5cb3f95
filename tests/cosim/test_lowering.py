"""What the compiler makes of layers that are no operation of their own, or do not fit as they are: every byte."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from fluidnpu.sim.npu_build import npu_build
from networks import compiled
from npu_checks import run_checked
from scenarios import samples_of, scenario

SEED = 99
QUANTISATION = {"scale": 0.2, "zero_point": 3}


class Net:
    """A writer with random constants."""

    def __init__(self, rng, *shape):
        self.rng, self.net = rng, TfliteWriter()
        self.x = self.net.input((1, *shape), scale=0.1, zero_point=int(rng.integers(-128, 128)))

    def constants(self, channels, *shape):
        weights = self.rng.integers(-127, 128, shape).astype(np.int8)
        return (
            weights,
            self.rng.integers(-500, 500, channels).astype(np.int32),
            0.3 / np.sqrt(weights.size / channels) / 9,
        )

    def conv(self, x, channels, kernel=(1, 1), **window):
        constants = self.constants(channels, channels, *kernel, x.shape[3])
        return self.net.conv_2d(x, *constants, **QUANTISATION, **window)

    def depthwise(self, x, multiplier, kernel=(3, 3), **window):
        channels = x.shape[3] * multiplier
        constants = self.constants(channels, 1, *kernel, channels)
        return self.net.depthwise_conv_2d(x, *constants, **QUANTISATION, **window)

    def read(self, *outputs):
        return parse_network(self.net.to_bytes(outputs), "lowered.tflite")


def wide_window(rng):
    """Three input lines do not fit a bank half of tiny."""
    net = Net(rng, 5, 30, 64)
    return net.read(net.conv(net.x, 8, (3, 3)), net.conv(net.x, 5, (3, 2), stride=(1, 2), padding="VALID"))


def depth_multiplier(rng):
    net = Net(rng, 7, 6, 3)
    return net.read(net.depthwise(net.x, 4, activation="RELU", stride=2), net.depthwise(net.conv(net.x, 5), 2, (2, 3)))


def borders(rng):
    """Of another value than the zero point, and in front of pools."""
    net = Net(rng, 6, 7, 5)
    x = net.conv(net.x, 9)
    rows = [(0, 0), (2, 1), (0, 3), (0, 0)]
    other = net.net.pad(x, rows, value=-77)
    pooled = net.net.average_pool_2d(net.net.pad(x, rows), 2)
    return net.read(net.conv(other, 4, (2, 2)), pooled, net.net.pad(net.x, [(0, 0), (1, 1), (0, 0), (2, 3)], value=9))


def aligned_parts(rng):
    """Nobody copies: parts of a word or two, one of them read by others, one the result of a concatenation."""
    net = Net(rng, 5, 6, 4)
    a, b = net.conv(net.x, 8, (3, 3)), net.conv(net.x, 16, activation="RELU")
    first = net.net.concatenation([a, b])
    second = net.net.concatenation([first, net.conv(first, 8, (3, 1)), net.conv(a, 3)])
    return net.read(net.conv(second, 5), net.conv(b, 7, (2, 2), stride=2), a, net.net.average_pool_2d(second, 2))


def unaligned_parts(rng):
    """Parts that begin inside a beat, the image itself, one part twice."""
    net = Net(rng, 4, 5, 3)
    a, b = net.conv(net.x, 5), net.conv(net.x, 12, (3, 3))
    first = net.net.concatenation([a, b, a])
    image = net.net.concatenation([net.x, net.x])
    wide = net.net.concatenation([net.conv(first, 8), net.conv(first, 9), net.conv(first, 3)])
    return net.read(net.conv(first, 4, (3, 3)), image, wide)


def parts_of_vectors(rng):
    net = Net(rng, 4, 4, 5)
    parts = [net.net.mean(net.net.relu(net.x)) for _ in range(2)]
    weights = net.constants(11, 11, 10)
    return net.read(net.net.fully_connected(net.net.concatenation(parts), *weights, **QUANTISATION))


def sums_of_parts(rng):
    """Operands and results of additions, fused and stand-alone, inside of joined tensors."""
    net = Net(rng, 5, 6, 4)
    a, b = net.conv(net.x, 16), net.conv(net.x, 16, (3, 3))
    joined = net.net.concatenation([a, b])
    alone = net.net.add(a, b, **QUANTISATION)
    fused = net.net.add(net.conv(joined, 16), a, **QUANTISATION, activation="RELU")
    return net.read(net.conv(net.net.concatenation([fused, alone, net.conv(alone, 5)]), 9), joined)


def large_pools(rng):
    """Windows of more than a bank half: a few channels at a time."""
    net = Net(rng, 9, 12, 70)
    return net.read(net.net.mean(net.x), net.conv(net.net.average_pool_2d(net.x, (8, 11), stride=1), 3))


NETWORKS = {
    "wide window": wide_window,
    "depth multiplier": depth_multiplier,
    "borders": borders,
    "aligned parts": aligned_parts,
    "unaligned parts": unaligned_parts,
    "parts of vectors": parts_of_vectors,
    "sums of parts": sums_of_parts,
    "large pools": large_pools,
}


@pytest.fixture(scope="module")
def outcomes(tiny):
    """Every network compiled and run, its samples one after the other and together."""
    config, build = tiny
    cases = []
    for n, draw in enumerate(NETWORKS.values()):
        rng = np.random.default_rng(SEED + n)
        programs = [compiled(draw(rng), config, rng, images=3, reuse_arena=bool(n % 2), fold="none")]
        samples = samples_of(programs, 4, rng)
        cases.append((programs, scenario(config, programs, SEED + n, samples=samples, together=True)))
    results = run_checked(config, build, cases)
    return {name: (case, result) for name, case, result in zip(NETWORKS, cases, results, strict=True)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_byte(outcomes, name):
    (programs, _), (_, outcome) = outcomes[name]
    assert len(outcome["admissions"]) == 4 and programs[0].program.outputs


def test_a_vector_too_long_for_a_pixel():
    """On tiny with larger banks: 9,000 values, a pixel has 8,184 at most."""
    config = replace(get_config("tiny"), name="tiny-deep", bank_bytes=16384)
    rng = np.random.default_rng(SEED)
    net = Net(rng, 1, 1, 9000)
    weights = net.constants(11, 11, 9000)
    network = net.read(net.net.fully_connected(net.net.flatten(net.x), *weights, **QUANTISATION))
    programs = [compiled(network, config, rng, images=2)]
    samples = samples_of(programs, 3, rng)
    case = programs, scenario(config, programs, SEED, samples=samples, together=True)
    ((_, outcome),) = run_checked(config, npu_build(config), [case])
    assert len(outcome["admissions"]) == 3
