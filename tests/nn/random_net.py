"""Random networks of every operator that the writer knows."""

import numpy as np
from fluidnpu.nn.tflite_writer import TfliteWriter

__all__ = ["OPERATORS", "POINTWISE", "WINDOWS", "RandomNet"]

WINDOWS = ["conv", "depthwise", "pool", "max_pool"]
POINTWISE = ["pixels", "add", "relu", "concat", "pad", "quantize", "dilated", "grouped"]
OPERATORS = [*WINDOWS, *POINTWISE, "mean", "fully_connected"]


class RandomNet:
    """Adds random operators to a writer; scales so that outputs use most of the int8 (or uint8) range."""

    def __init__(self, rng: np.random.Generator, dtype: str = "int8"):
        self.rng = rng
        self.net = TfliteWriter("random", dtype)
        self.low = -128 if dtype == "int8" else 0

    def input(self, shape):
        return self.net.input((1, *shape), scale=self.scale(), zero_point=self.zero_point())

    def scale(self) -> float:
        # Powers of two among them: the rounding ties they cause never occur otherwise.
        return 2.0 ** self.rng.integers(-8, 1) if self.rng.random() < 0.3 else float(self.rng.uniform(0.002, 0.9))

    def zero_point(self) -> int:
        return self.low + int(self.rng.choice([0, 128, 255, self.rng.integers(256)]))

    def weights(self, x, shape, per_channel: bool):
        """weights, bias, weight scales, and an output scale that suits them."""
        rng = self.rng
        uint8 = self.net.dtype == "uint8"
        weights = (
            rng.integers(0, 256, shape).astype(np.uint8) if uint8 else rng.integers(-127, 128, shape).astype(np.int8)
        )
        scales = np.array([self.scale() / 64 for _ in range(shape[0] if per_channel and not uint8 else 1)])
        taps = int(np.prod(shape[1:]))
        bias = rng.integers(-200, 200, shape[0]) * int(1 + taps**0.5 * 40)
        spread = x.scale * scales.max() * 74 * 100 * taps**0.5
        scale = spread / 2.0 ** rng.integers(3, 9)
        if rng.random() < 0.3:
            scale = 2.0 ** np.round(np.log2(scale))
        out = dict(scale=scale, zero_point=self.zero_point())
        if uint8:
            out["weight_zero_point"] = int(rng.choice([128, rng.integers(256)]))
        return weights, bias.astype(np.int32), scales, out

    def activation(self) -> str:
        return str(self.rng.choice(["NONE", "RELU", "RELU6"]))

    def window(self, x, largest: int):
        rng = self.rng
        padding = str(rng.choice(["SAME", "VALID"]))
        h, w = x.shape[1:3]
        bound = (h, w) if padding == "VALID" else (largest, largest)
        kernel = tuple(int(rng.integers(1, min(largest, b) + 1)) for b in bound)
        return kernel, tuple(int(n) for n in rng.integers(1, 4, 2)), padding

    def conv(self, x, largest: int = 5):
        kernel, stride, padding = self.window(x, largest)
        shape = (int(self.rng.integers(1, 20)), *kernel, x.shape[3])
        weights, bias, scales, out = self.weights(x, shape, bool(self.rng.random() < 0.8))
        return self.net.conv_2d(
            x, weights, bias, scales, **out, stride=stride, padding=padding, activation=self.activation()
        )

    def pool(self, x, largest: int = 6):
        kernel, stride, padding = self.window(x, largest)
        return self.net.average_pool_2d(x, kernel, stride=stride, padding=padding, activation=self.activation())

    def max_pool(self, x, largest: int = 6):
        kernel, stride, padding = self.window(x, largest)
        return self.net.max_pool_2d(x, kernel, stride=stride, padding=padding, activation=self.activation())

    def depthwise(self, x, largest: int = 5):
        kernel, stride, padding = self.window(x, largest)
        channels = x.shape[3] * int(self.rng.integers(1, 4))
        weights, bias, scales, out = self.weights(x, (channels, *kernel), bool(self.rng.random() < 0.8))
        weights = weights.transpose(1, 2, 0)[None]
        return self.net.depthwise_conv_2d(
            x, weights, bias, scales, **out, stride=stride, padding=padding, activation=self.activation()
        )

    def quantisation(self, x):
        return dict(scale=x.scale * 2.0 ** self.rng.uniform(-2, 2), zero_point=self.zero_point())

    def add(self, x):
        other = self.net.relu(x, "RELU_N1_TO_1", **self.quantisation(x)) if self.rng.random() < 0.8 else x
        pair = [x, other] if self.rng.random() < 0.5 else [other, x]
        return self.net.add(*pair, **self.quantisation(x), activation=self.activation())

    def relu(self, x):
        out = self.quantisation(x) if self.rng.random() < 0.6 else {}
        return self.net.relu(x, str(self.rng.choice(["RELU", "RELU6", "RELU_N1_TO_1"])), **out)

    def quantize(self, x):
        return self.net.quantize(x, **self.quantisation(x))

    def dilated(self, x):
        """CONV_2D or DEPTHWISE_CONV_2D."""
        kernel, dilation = self.rng.integers(1, 4, 2), self.rng.integers(1, 4, 2)
        options = dict(stride=1, dilation=dilation.tolist(), padding="SAME", activation=self.activation())
        if self.rng.random() < 0.5:
            weights, bias, scales, out = self.weights(x, (x.shape[3], *kernel), True)
            weights = weights.transpose(1, 2, 0)[None]
            return self.net.depthwise_conv_2d(x, weights, bias, scales, **out, **options)
        weights, bias, scales, out = self.weights(x, (int(self.rng.integers(1, 9)), *kernel, x.shape[3]), True)
        return self.net.conv_2d(x, weights, bias, scales, **out, **options)

    def grouped(self, x):
        """CONV_2D of groups of channels."""
        groups = int(self.rng.choice([g for g in (1, 2, 3, 4, 5) if x.shape[3] % g == 0]))
        channels = groups * int(self.rng.integers(1, 5))
        weights, bias, scales, out = self.weights(x, (channels, 2, 3, x.shape[3] // groups), True)
        return self.net.conv_2d(x, weights, bias, scales, **out, groups=groups, activation=self.activation())

    def concat(self, x):
        parts = [x, self.net.relu(x), x][: int(self.rng.integers(1, 4))]
        if self.net.dtype == "int8":
            return self.net.concatenation(parts)
        parts[-1] = self.net.relu(x, **self.quantisation(x))
        return self.net.concatenation(parts, **self.quantisation(x))

    def pad(self, x):
        amounts = [(0, 0), *self.rng.integers(0, 4, (2, 2)), (0, 0)]
        if self.rng.random() < 0.3 and self.net.dtype == "int8":  # the uint8 kernel pads no channels
            amounts[3] = self.rng.integers(0, 5, 2)
        value = None if self.rng.random() < 0.5 else self.low + int(self.rng.integers(256))
        return self.net.pad(x, amounts, value=value)

    def pixels(self, x):
        """FULLY_CONNECTED of every pixel."""
        shape = (int(self.rng.integers(1, 9)), x.shape[3])
        weights, bias, scales, out = self.weights(x, shape, bool(self.rng.random() < 0.3))
        return self.net.fully_connected(x, weights, bias, scales, **out, activation=self.activation())

    def mean(self, x):
        keep = bool(self.rng.random() < 0.5)
        if self.rng.random() < 0.3:
            return self.net.mean(x, keep_dims=keep)
        scale = x.scale * 2.0 ** self.rng.uniform(-3, 2)
        return self.net.mean(x, scale=scale, zero_point=self.zero_point(), keep_dims=keep)

    def fully_connected(self, x, outputs: int | None = None):
        x = x if len(x.shape) == 2 else self.net.flatten(x)
        shape = (outputs or int(self.rng.integers(1, 30)), x.shape[1])
        weights, bias, scales, out = self.weights(x, shape, bool(self.rng.random() < 0.3))
        return self.net.fully_connected(x, weights, bias, scales, **out, activation=self.activation())

    def image_shape(self):
        return tuple(int(n) for n in (*self.rng.integers(1, 18, 2), self.rng.integers(1, 24)))
