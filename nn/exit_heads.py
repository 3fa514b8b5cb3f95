"""Exit heads as operators: AVERAGE_POOL_2D, RESHAPE, FULLY_CONNECTED and, if the backbone has one, SOFTMAX.

Everything runs on the NPU; a head adds height * width * channels (pooled) * classes MACs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from fluidnpu.hw.isa import RECIPROCAL_MAX

from .exit_fitting import Fit
from .exit_places import AttachError, Backbone, Place
from .graph import Pool, Tensor
from .reference import run_layer
from .tflite_editor import TfliteEditor
from .tflite_writer import quantise_weights

__all__ = ["Head", "Pooling", "add_heads", "quantise_head"]

_INT32_MAX = 2**31 - 1
LOWEST_SHARE = 0.001  # of the held-out logits that may saturate at the low end, where they hardly matter


class Pooling:
    """The average pool of a head: ``window`` and equal stride, at most ``size`` x ``size`` pixels come out.

    ``shape`` (h, w, c) is what comes out; ``window`` is None where the map is small enough as it is. ``padding`` is
    SAME: padded taps do not count in an average, so that no border is lost; VALID where the NPU could not count so many
    taps (isa.RECIPROCAL_MAX), which loses a few lines of a large map.
    """

    def __init__(self, place: Place, size: int):
        if size < 1:
            raise AttachError(f"pooled size {size}; it must be at least 1")
        image = place.tensor
        sides = image.shape[:2]
        window = tuple(-(-n // size) for n in sides)
        self.padding = "SAME"
        if prod(window) > RECIPROCAL_MAX and any(n % w for n, w in zip(sides, window, strict=True)):
            self.padding = "VALID"
            smaller = [max(1, n // size) for n in sides]
            window = tuple(s if n // s <= size else w for n, s, w in zip(sides, smaller, window, strict=True))
        pixels = [-(-n // w) if self.padding == "SAME" else n // w for n, w in zip(sides, window, strict=True)]
        self.shape = (*pixels, image.channels)
        self.window = None if window == (1, 1) else window
        excess = [max(0, out * w - n) for out, w, n in zip(pixels, window, sides, strict=True)]
        before = [e // 2 for e in excess]
        after = [e - b for e, b in zip(excess, before, strict=True)]
        pooled = Tensor("pooled", *self.shape, image.scale, image.zero_point)
        self._layer = Pool("pool", image, pooled, window=window, stride=window, padding=(*before, *after))

    @property
    def features(self) -> int:
        """Number of inputs of the classifier."""
        return prod(self.shape)

    def __call__(self, maps: np.ndarray) -> np.ndarray:
        """Features int8 [n, features] of feature maps int8 [n, h, w, c], bit for bit what the operator makes."""
        return run_layer(self._layer, maps).reshape(len(maps), -1)


@dataclass(frozen=True, eq=False)
class Head:
    """A quantised head, in terms of int8 activations.

    weights int8 [classes, features], bias int32 [classes], weight_scale; logits = scale * (q - zero_point).
    held_out int8 [n, classes]: logits of the fitted images by classifiers that have not seen them.
    """

    place: Place
    pooling: Pooling
    fit: Fit
    weights: np.ndarray
    bias: np.ndarray
    weight_scale: float
    scale: float
    zero_point: int
    held_out: np.ndarray

    @property
    def macs(self) -> int:
        return self.weights.size


def quantise_head(place: Place, pooling: Pooling, fit: Fit, features: np.ndarray, beta: float) -> Head:
    """Head of a Fit on int8 features [n, f]; ``beta`` of the softmax that follows. Raises AttachError."""
    image, name = place.tensor, f"exit head at tensor {place.index} '{place.label}'"
    real, offset = fit.weights / beta, fit.bias / beta  # of the raw features
    held_out = fit.held_out / beta
    if not (np.isfinite(real).all() and np.isfinite(offset).all() and np.abs(real).max() > 0):
        raise AttachError(f"{name} cannot be quantised: its weights are all zero or not finite")
    weights, scales = quantise_weights(real / image.scale, None)
    weight_scale = float(scales[0])
    step = image.scale * weight_scale  # of the accumulator
    # The rounded weights shift every logit by what they make of the mean feature: the bias takes it back.
    mean = features.mean(0)
    offset = offset + real @ mean - step * (weights.astype(np.float64) @ (mean - image.zero_point))
    bias = np.rint(offset / step)
    farthest = max(127 - image.zero_point, image.zero_point + 128)
    largest = (np.abs(weights.astype(np.int64)).sum(1) * farthest + np.abs(bias)).max()
    scale, zero_point = _logit_range(held_out)
    if largest > _INT32_MAX or not 2.0**-31 < step / scale < 1:
        raise AttachError(
            f"{name} cannot be quantised: accumulators up to {largest:.3g} (at most {_INT32_MAX}), "
            f"logits {step / scale:.3g} of them (above 2**-31, below 1)"
        )
    quantised = np.clip(np.rint(held_out / scale) + zero_point, -128, 127).astype(np.int8)
    return Head(
        place, pooling, fit, weights, bias.astype(np.int32), weight_scale, scale, zero_point, quantised
    )  # fmt: skip


def _logit_range(logits: np.ndarray) -> tuple[float, int]:
    """(scale, zero point): from nearly the lowest to the highest, and 0, which int8 must be able to say."""
    low, high = min(float(np.quantile(logits, LOWEST_SHARE)), 0.0), max(float(logits.max()), 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / 255))
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))


def add_heads(backbone: Backbone, heads: Sequence[Head]) -> bytes:
    """The backbone's file with one more output per head, in front of its own; heads shallow to deep."""
    net = TfliteEditor(backbone.data)
    unsigned = backbone.unsigned
    outputs = []
    for number, head in enumerate(heads, start=1):
        name = net.unused_name(f"exit{number}")
        x = net.tensor(head.place.index)
        if head.pooling.window:
            x = net.average_pool_2d(x, head.pooling.window, padding=head.pooling.padding, name=f"{name}/pool")
        weights = (head.weights.astype(np.int16) + 128).astype(np.uint8) if unsigned else head.weights
        logits = net.fully_connected(
            net.flatten(x, name=f"{name}/flatten"),
            weights,
            head.bias,
            head.weight_scale,
            scale=head.scale,
            zero_point=head.zero_point + 128 * unsigned,
            weight_zero_point=128 * unsigned,
            name=name if backbone.beta is None else f"{name}/logits",
        )
        outputs.append(logits if backbone.beta is None else net.softmax(logits, beta=backbone.beta, name=name))
    return net.edited(outputs)
