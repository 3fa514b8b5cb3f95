"""Networks of given shapes with random int8 weights, whose activations neither saturate nor vanish.

Every layer's weight scale is chosen so that what comes before the activation has deviation 1 (1.5 before RELU6): for
weights drawn with mean 0 the deviation of a sum of n products is sqrt(n * mean square of weights * mean square of
inputs), however the inputs depend on one another (He et al. 2015, arXiv 1502.01852).
int8 then spans 4 deviations: 0..4 behind RELU, 0..6 behind RELU6, -4..4 without activation.
"""

from dataclasses import dataclass

import numpy as np

from .tflite_writer import Tensor, TfliteWriter

__all__ = ["Activation", "RandomNetwork"]

DEVIATIONS = 4.0  # that int8 spans
WEIGHT_DEVIATION = 40.0  # of int8 weights, in steps
BIAS_DEVIATION = 0.1  # of real biases
RELU_SQUARE = 0.5  # mean square of what RELU leaves of a normal number of deviation 1
SUM_SQUARE = 0.8  # the same of a sum of which one part is positive already
MAX_GAIN = 3.0  # what a 3x3 MAX_POOL_2D makes of that mean square, about: neighbours are alike
INPUT_DEVIATION = 74.0  # of int8 numbers that are all equally likely, in steps


@dataclass(frozen=True)
class Activation:
    """A tensor, the mean square of its real values, and whether they come out of RELU or RELU6."""

    tensor: Tensor
    square: float
    positive: bool = False

    @property
    def channels(self) -> int:
        return self.tensor.shape[-1]


class RandomNetwork:
    """Adds layers with random weights to a TfliteWriter; every method returns the Activation that it makes.

    ``rng`` draws the weights; ``outputs`` collects softmaxes, shallow to deep.
    """

    def __init__(self, description: str, rng: np.random.Generator):
        self.net, self.rng = TfliteWriter(description), rng
        self.outputs: list[Tensor] = []

    def input(self, *shape: int) -> Activation:
        """An input whose int8 values may be anything."""
        return Activation(self.net.input((1, *shape), scale=1 / INPUT_DEVIATION, zero_point=0), 1.0)

    def _parameters(self, x: Activation, shape, axis, activation, per_channel=True):
        """(arguments of the writer's operator, mean square of its output)."""
        weights = np.rint(self.rng.normal(0, WEIGHT_DEVIATION, shape)).clip(-127, 127).astype(np.int8)
        channels, taps = shape[axis], weights.size // shape[axis]
        deviation = 1.5 if activation == "RELU6" else 1.0
        scale = deviation / (WEIGHT_DEVIATION * np.sqrt(taps * x.square))
        scales = scale * (self.rng.uniform(0.8, 1.2, channels) if per_channel else np.ones(1))
        bias = np.rint(self.rng.normal(0, BIAS_DEVIATION, channels) / (x.tensor.scale * scales)).astype(np.int32)
        quantisation, square = _quantisation(deviation**2, activation)
        return (weights, bias, scales), {**quantisation, "activation": activation}, square

    def conv(self, x: Activation, channels: int, kernel=1, stride=1, activation="RELU", border=None, name=None):
        """CONV_2D. ``border``: zeros on every side by a PAD in front; None: SAME padding."""
        kernel = (kernel, kernel) if np.isscalar(kernel) else kernel
        x, padding = self._bordered(x, border)
        parameters, options, square = self._parameters(x, (channels, *kernel, x.channels), 0, activation)
        y = self.net.conv_2d(x.tensor, *parameters, **options, stride=stride, padding=padding, name=name)
        return Activation(y, square, activation != "NONE")

    def depthwise(self, x: Activation, kernel=3, stride=1, activation="RELU", name=None):
        """DEPTHWISE_CONV_2D of multiplier 1, SAME padding."""
        parameters, options, square = self._parameters(x, (1, kernel, kernel, x.channels), 3, activation)
        y = self.net.depthwise_conv_2d(x.tensor, *parameters, **options, stride=stride, name=name)
        return Activation(y, square, activation != "NONE")

    def max_pool(self, x: Activation, window: int, stride: int, border=None) -> Activation:
        x, padding = self._bordered(x, border)
        pooled = self.net.max_pool_2d(x.tensor, window, stride=stride, padding=padding)
        return Activation(pooled, MAX_GAIN * x.square, x.positive)

    def _bordered(self, x: Activation, border: int | None) -> tuple[Activation, str]:
        if not border:
            return x, "SAME"
        amounts = ((0, 0), (border, border), (border, border), (0, 0))
        return Activation(self.net.pad(x.tensor, amounts), x.square, x.positive), "VALID"

    def add(self, a: Activation, b: Activation, name=None) -> Activation:
        """ADD with RELU."""
        square = a.square + b.square
        quantisation, left = _quantisation(square, "RELU")
        left = SUM_SQUARE * square if a.positive or b.positive else left
        return Activation(self.net.add(a.tensor, b.tensor, **quantisation, activation="RELU", name=name), left, True)

    def classify(self, x: Activation, classes: int, name: str) -> None:
        """An output: MEAN over the image, FULLY_CONNECTED, SOFTMAX."""
        if len(x.tensor.shape) == 4:
            x = Activation(self.net.mean(x.tensor, name=f"{name}/mean"), x.square)  # pixels are much alike
        parameters, options, _ = self._parameters(x, (classes, x.channels), 0, "NONE", per_channel=False)
        logits = self.net.fully_connected(x.tensor, *parameters, **options, name=f"{name}/logits")
        self.outputs.append(self.net.softmax(logits, name=name))

    def to_bytes(self) -> bytes:
        """The .tflite file."""
        return self.net.to_bytes(self.outputs)


def _quantisation(square: float, activation: str) -> tuple[dict, float]:
    """(scale and zero point, mean square) behind an activation of numbers with this mean square."""
    span = DEVIATIONS * float(np.sqrt(square))
    if activation == "NONE":
        return {"scale": span / 127.5, "zero_point": 0}, square
    return {"scale": span / 255, "zero_point": -128}, RELU_SQUARE * square
