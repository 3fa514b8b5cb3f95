"""Depthwise convolutions and pools of every kind on the whole NPU: every byte, alone and together, in every mode."""

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.nn.graph import Conv, Depthwise, MaxPool, Mean, Network, Pad, Pool, Tensor
from networks import compiled
from npu_checks import run_checked
from scenarios import samples_of, scenario

SEED = 4_100


class Net:
    """Layers in a row, with random constants."""

    def __init__(self, rng, *shape):
        self.rng = rng
        self.input = Tensor("image", *shape, 0.1, int(rng.integers(-128, 128)))
        self.layers = []

    @property
    def last(self):
        return self.layers[-1].output if self.layers else self.input

    def _window(self, kernel, stride, padding):
        x = self.last
        size = [(n + a + b - k) // s + 1 for n, a, b, k, s in
                zip(x.shape[:2], padding[:2], padding[2:], kernel, stride, strict=True)]  # fmt: skip
        return size, {"stride": stride, "padding": padding}

    def _add(self, kind, size, channels, zero_point, **fields):
        n = len(self.layers)
        made = Tensor(f"t{n}", *size, channels, 0.1, zero_point)
        self.layers.append(kind(f"{kind.__name__.lower()}{n}", self.last, made, **fields))
        return self

    def _linear(self, shape, wide):
        rng, channels = self.rng, shape[0]
        low, high = (-255, 255) if wide else (-128, 128)
        weights = rng.integers(low, high, shape).astype(np.int16 if wide else np.int8)
        spread = 70 * np.sqrt(weights[0].size) * (2 if wide else 1) / 40
        factors = rng.uniform(0.5, 1, channels) / spread
        mantissa, exponent = np.frexp(factors)
        return {
            "weights": weights,
            "bias": rng.integers(-3000, 3000, channels).astype(np.int32),
            "multiplier": np.minimum(np.round(mantissa * (1 << 31)), (1 << 31) - 1).astype(np.int32),
            "shift": exponent.astype(np.int32),
        }

    def conv(self, channels, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0), wide=False):
        size, window = self._window(kernel, stride, padding)
        linear = self._linear((channels, *kernel, self.last.channels), wide)
        return self._add(Conv, size, channels, int(self.rng.integers(-20, 20)), **window, **linear)

    def depthwise(self, kernel, stride=(1, 1), padding=(0, 0, 0, 0), wide=False):
        size, window = self._window(kernel, stride, padding)
        channels = self.last.channels
        linear = self._linear((channels, *kernel), wide)
        return self._add(Depthwise, size, channels, int(self.rng.integers(-20, 20)), **window, **linear)

    def pool(self, kind, kernel, stride=(1, 1), padding=(0, 0, 0, 0), **fields):
        size, window = self._window(kernel, stride, padding)
        return self._add(kind, size, self.last.channels, self.last.zero_point, window=kernel, **window, **fields)

    def pad(self, *padding):
        size, window = self._window((1, 1), (1, 1), padding)
        value = int(self.rng.integers(-128, 128))
        return self._add(Pad, size, self.last.channels, self.last.zero_point, value=value, **window)

    def mean(self):
        x = self.last
        bias = -x.zero_point * x.height * x.width
        mantissa, exponent = np.frexp(2.5 / (x.height * x.width))
        return self._add(
            Mean, (1, 1), x.channels, 7, bias=bias, multiplier=int(mantissa * (1 << 31)), shift=int(exponent)
        )

    def network(self):
        return Network("vector", self.input, tuple(self.layers), (), outputs=(self.last,))


def small_words(rng):
    """Few channels: rows are what is stacked."""
    net = Net(rng, 9, 11, 5).depthwise((3, 3), padding=(1, 1, 1, 1)).conv(8, (2, 2)).depthwise((3, 2), (2, 1))
    return net.pool(MaxPool, (2, 2), (1, 2)).pool(Pool, (3, 3), padding=(1, 1, 1, 1)).network()


def deep_words(rng):
    """Channels of all stacks, the last word in part; staging in chunks."""
    net = Net(rng, 6, 5, 25).depthwise((3, 3), padding=(1, 1, 1, 1)).conv(93).depthwise((2, 3), padding=(1, 0, 0, 2))
    return net.pool(MaxPool, (3, 2), padding=(1, 1, 1, 0)).conv(64).depthwise((1, 1)).mean().conv(10).network()


def two_sets(rng):
    """int16 weights, in both kinds of convolution."""
    net = Net(rng, 6, 7, 9).conv(12, (3, 3), padding=(1, 1, 1, 1), wide=True).depthwise((3, 3), wide=True)
    return net.depthwise((2, 2), (1, 2), wide=True).conv(9, wide=True).network()


def averages(rng):
    """Halves away from zero or upwards, constant and varying divisors, the whole image."""
    net = Net(rng, 8, 8, 20).pool(Pool, (2, 2), half_up=True).pool(Pool, (4, 2), padding=(2, 0, 1, 1), half_up=True)
    return net.pool(Pool, (2, 3), (2, 1), padding=(0, 1, 1, 1)).pool(Pool, (3, 4)).pool(Pool, (1, 1)).network()


def borders(rng):
    net = Net(rng, 4, 5, 17).pad(1, 2, 0, 3).pool(MaxPool, (5, 5), padding=(2, 2, 2, 2)).pad(0, 0, 1, 0)
    return net.depthwise((5, 3), (3, 2)).network()


def wide_rows(rng):
    """Segments."""
    net = Net(rng, 4, 75, 3).depthwise((3, 5), padding=(1, 2, 1, 2)).pool(MaxPool, (2, 2), padding=(0, 0, 1, 1))
    return net.pool(Pool, (3, 3), padding=(1, 1, 1, 1)).depthwise((1, 3), (1, 2)).network()


NETWORKS = {
    "small words": small_words,
    "deep words": deep_words,
    "two sets": two_sets,
    "averages": averages,
    "borders": borders,
    "wide rows": wide_rows,
}


@pytest.fixture(scope="module")
def outcomes(tiny):
    config, build = tiny
    cases = []
    for n, draw in enumerate(NETWORKS.values()):
        rng = np.random.default_rng(SEED + n)
        programs = [compiled(draw(rng), config, rng, images=4, fold="none")]
        samples = samples_of(programs, 5, rng)
        cases.append((programs, scenario(config, programs, SEED + n, samples=samples, together=True)))
    results = run_checked(config, build, cases)
    return {name: (case, result) for name, case, result in zip(NETWORKS, cases, results, strict=True)}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_byte(outcomes, name):
    (programs, _), (_, outcome) = outcomes[name]
    assert len(outcome["admissions"]) == 5 and programs[0].program.outputs


def test_modes(outcomes):
    """The networks use every stack mode of the vector path."""
    modes = set()
    for _, (story, _) in outcomes.values():
        for tile in story.tiles:
            d = story.descriptor(tile)
            if d["op"] != isa.Op.CONV:
                modes.add((d[f"log2_kr{tile.variant}"], d[f"log2_kd{tile.variant}"]))
    assert modes >= {(2, 0), (1, 1), (0, 2)}, modes
