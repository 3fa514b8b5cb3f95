"""Random small networks, as .tflite files, read and compiled like any other."""

from dataclasses import dataclass

import numpy as np
from fluidnpu.nn import folding, reference
from fluidnpu.nn.blocks import prepare
from fluidnpu.nn.compiler import CompileError, CompileOptions, compile_network
from fluidnpu.nn.exits import exit_table, top_and_spread
from fluidnpu.nn.graph import Network
from fluidnpu.nn.program import Program
from fluidnpu.nn.rewrite import View
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from fluidnpu.sim.replay import program_operations
from numpy.lib.stride_tricks import sliding_window_view

__all__ = ["Compiled", "compiled", "draw_network", "draw_program"]

FOLDS = ("auto", *folding.FOLDS)
ACTIVATIONS = ("NONE", "RELU", "RELU6")


@dataclass(frozen=True, eq=False)
class Compiled:
    """A network with its program, and images with every tensor that they lead to (``tensors`` [image][name])."""

    network: Network
    program: Program
    images: np.ndarray
    tensors: tuple

    def operations(self):
        """The engine model's operations of the program."""
        return program_operations(self.program.region, len(self.program.ops))

    def limits_between(self, rng):
        """Limits that about half of the images pass at each exit."""
        limits = []
        for e in self.network.ends:
            table = exit_table(e.scale, e.beta)
            spreads = [int(top_and_spread(t[e.logits.name][0, 0, : e.classes], table)[1]) for t in self.tensors]
            limits.append(int(rng.choice(spreads)) - int(rng.integers(0, 2)))
        return limits


class _Layers:
    """Adds random operators to a writer. A few images go along in floating point, so that scales and zero points can
    be chosen such that every tensor uses most of the int8 range."""

    def __init__(self, rng):
        self.rng, self.net = rng, TfliteWriter("random")
        self.values = {}  # tensor index -> float [n, ...], what the calibration images become there

    def _size(self, low, high):
        return int(self.rng.integers(low, high + 1))

    def input(self, shape):
        zero_point = int(self.rng.choice([-128, 0, 127, self.rng.integers(-128, 128)]))
        x = self.net.input((1, *shape), scale=float(self.rng.uniform(0.01, 0.1)), zero_point=zero_point)
        self.values[x.index] = (self.rng.integers(-128, 128, (4, *shape)) - zero_point) * x.scale
        return x

    def _linear(self, x, shape, windows):
        """weights, bias, weight scales, output quantisation; windows: float [..., taps] of the calibration images."""
        rng, channels = self.rng, shape[0]
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        scales = rng.uniform(0.5, 1.0, channels if rng.random() < 0.7 else 1)
        y = windows @ (weights.reshape(channels, -1) * scales[:, None]).T
        gain = float(rng.uniform(0.7, 3)) / (y.std() if y.std() > 0.01 else 1.0)
        scales *= gain
        bias = rng.normal(0, 0.5, channels) / (x.scale * scales)
        return weights, bias.round().astype(np.int32), scales, y * gain + bias.round() * (x.scale * scales)

    def _quantisation(self, y, activation):
        """Scale and zero point that cover the values, a little less or more at each end."""
        low = 0.0 if activation != "NONE" else float(y.min())
        high = min(6.0, float(y.max())) if activation == "RELU6" else float(y.max())
        low, high = low * self.rng.uniform(0.7, 1.1), high * self.rng.uniform(0.7, 1.1)
        scale = max(high - low, 0.1) / 255
        return {"scale": scale, "zero_point": int(np.clip(round(-128 - low / scale), -128, 127))}

    def _keep(self, tensor, y, activation="NONE"):
        low = -np.inf if activation == "NONE" else 0.0
        self.values[tensor.index] = np.clip(y, low, 6.0 if activation == "RELU6" else np.inf)
        return tensor

    def _window(self, x, largest, same_size=False):
        """Kernel, stride, padding, activation, and the windows [n, out_h, out_w, c, kh, kw] of the images."""
        rng, (h, w) = self.rng, x.shape[1:3]
        padding = "SAME" if same_size else str(rng.choice(["SAME", "VALID"]))
        kernel = [self._size(1, min(largest, n) if padding == "VALID" else largest) for n in (h, w)]
        stride = [int(rng.choice([1, 1, 2, 3])) if n > 4 and not same_size else 1 for n in (h, w)]
        values = self.values[x.index]
        if padding == "SAME":
            total = [max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip((h, w), stride, kernel, strict=True)]
            values = np.pad(values, ((0, 0), *((t // 2, t - t // 2) for t in total), (0, 0)))
        windows = sliding_window_view(values, kernel, axis=(1, 2))[:, :: stride[0], :: stride[1]]
        return kernel, {"stride": stride, "padding": padding, "activation": str(rng.choice(ACTIVATIONS))}, windows

    def conv(self, x, channels, same_size=False):
        kernel, options, windows = self._window(x, 5, same_size)
        taps = np.moveaxis(windows, 3, -1).reshape(*windows.shape[:3], -1)
        weights, bias, scales, y = self._linear(x, (channels, *kernel, x.shape[3]), taps)
        out = self._quantisation(y, options["activation"])
        return self._keep(self.net.conv_2d(x, weights, bias, scales, **out, **options), y, options["activation"])

    def pool(self, x, same_size=False):
        kernel, options, windows = self._window(x, 4, same_size)
        return self._keep(self.net.average_pool_2d(x, kernel, **options), windows.mean((-2, -1)), options["activation"])

    def add(self, a, b):
        activation = str(self.rng.choice(ACTIVATIONS))
        y = self.values[a.index] + self.values[b.index]
        out = self._quantisation(y, activation)
        return self._keep(self.net.add(a, b, **out, activation=activation), y, activation)

    def block(self, x, channels):
        """A sum of two of: x, a pool of it, convolutions of it; one of them perhaps read by both, or twice."""
        rng = self.rng
        kinds = ["conv", "conv"]
        if x.shape[3] == channels:
            kinds = [*kinds, "x", "x", "pool"]
        parts = []
        for kind in rng.choice(kinds, 2):
            part = {"conv": lambda: self.conv(x, channels, True), "pool": lambda: self.pool(x, True), "x": lambda: x}
            parts.append(part[str(kind)]())
        y = self.add(*parts)
        return self.add(y, parts[0]) if rng.random() < 0.2 else y

    def depthwise(self, x):
        kernel, options, windows = self._window(x, 5)
        channels = x.shape[3]
        weights = self.rng.integers(-127, 128, (1, *kernel, channels)).astype(np.int8)
        scales = self.rng.uniform(0.5, 1.0, channels if self.rng.random() < 0.7 else 1)
        y = np.einsum("nhwcyx,yxc->nhwc", windows, weights[0]) * scales
        gain = float(self.rng.uniform(0.7, 3)) / (y.std() if y.std() > 0.01 else 1.0)
        scales, y = scales * gain, y * gain
        bias = self.rng.integers(-300, 300, channels).astype(np.int32)
        out = self._quantisation(y, options["activation"])
        y = self.net.depthwise_conv_2d(x, weights, bias, scales, **out, **options), y + bias * (x.scale * scales)
        return self._keep(*y, options["activation"])

    def max_pool(self, x):
        kernel, options, windows = self._window(x, 4)
        return self._keep(self.net.max_pool_2d(x, kernel, **options), windows.max((-2, -1)), options["activation"])

    def trunk(self, x, channels):
        """A convolution, seldom a sum or something that works on each channel for itself."""
        choice = self.rng.random()
        if choice < 0.25:
            return self.block(x, int(self.rng.choice([channels, x.shape[3]])))
        if choice < 0.4:
            return self.depthwise(x)
        if choice < 0.55 and x.shape[1] * x.shape[2] > 1:
            return self.pool(x) if choice < 0.48 else self.max_pool(x)
        return self.conv(x, channels)

    def head(self, x, classes):
        """MEAN or, of small images, a flattening; then FULLY_CONNECTED, perhaps SOFTMAX."""
        values = self.values[x.index]
        if self.rng.random() < 0.5 and x.shape[1] * x.shape[2] * x.shape[3] <= 400:
            x = self._keep(self.net.flatten(x), values.reshape(len(values), -1))
        else:
            values = values.mean((1, 2))
            x = self._keep(self.net.mean(x, **self._quantisation(values, "NONE")), values)
        weights, bias, scales, y = self._linear(x, (classes, x.shape[1]), self.values[x.index])
        y = self.net.fully_connected(x, weights, bias, scales, **self._quantisation(y, "NONE"))
        return self.net.softmax(y, beta=float(self.rng.choice([0.5, 1.0]))) if self.rng.random() < 0.5 else y


def draw_network(rng, *, exits=None, wide=False, layers=2, channels=24):
    """A random nn.graph.Network.

    exits : default 1 to 3; wide : an image of more columns than a tile has rows; layers : most trunk layers per exit;
    channels : most of them
    """
    exits = exits or int(rng.integers(1, 4))
    layer = _Layers(rng)
    if wide:
        shape = (int(rng.integers(3, 7)), int(rng.integers(33, 80)), int(rng.integers(1, 5)))
    else:
        shape = (int(rng.integers(5, 15)), int(rng.integers(5, 15)), int(rng.choice([1, 2, 3, 7, 8, 9, 17])))
    x, outputs = layer.input(shape), []
    for _ in range(exits):
        for _ in range(int(rng.integers(1, layers + 1))):
            wide_pixel = rng.random() < 0.15 and x.shape[1] * x.shape[2] <= 60  # staging takes it in several chunks
            x = layer.trunk(x, int(rng.choice([72, 100, 130] if wide_pixel else [1, 5, 8, 12, 16, 20, channels])))
        outputs.append(layer.head(x, int(rng.integers(2, 13))))
    return parse_network(layer.net.to_bytes(outputs), "random.tflite")


def compiled(network, config, rng, images=4, reuse_arena=False, **options):
    """Compile a network, with images (int8 [n, h, w, c], or a number of random ones) and all their tensors."""
    program = compile_network(network, config, CompileOptions(reuse_arena=reuse_arena, **options))
    x = rng.integers(-128, 128, (images, *network.input.shape)).astype(np.int8) if isinstance(images, int) else images
    tensors = reference.run(network, x)
    for layer in prepare(network, config).network.layers:  # what the compiler puts between them
        if isinstance(layer, View):
            tensors[layer.output.name] = tensors[layer.input.name][..., layer.first :][..., : layer.output.channels]
        elif layer.output.name not in tensors:
            tensors[layer.output.name] = reference.run_layer(layer, *(tensors[t.name] for t in layer.inputs))
    return Compiled(network, program, x, tuple({k: v[i] for k, v in tensors.items()} for i in range(len(x))))


def draw_program(rng, config, *, images=4, attempts=20, **shape):
    """A random network, compiled with random options; draws again if one does not fit the configuration."""
    for _ in range(attempts):
        network = draw_network(rng, **shape)
        options = {"fold": str(rng.choice(FOLDS)), "reuse_arena": bool(rng.random() < 0.5)}
        if rng.random() < 0.5:
            options["max_tile_cycles"] = int(rng.choice([50, 150, 400]))
        try:
            return compiled(network, config, rng, images, **options)
        except CompileError as error:
            if "does not fit" not in str(error):
                raise
    raise AssertionError(f"none of {attempts} random networks fits {config.name}")
