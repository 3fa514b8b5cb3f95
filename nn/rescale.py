"""Layers that change nothing but scale and zero point: a 1 x 1 depthwise convolution, or nothing but a clamp."""

import itertools

import numpy as np

from .layers import Depthwise, Pool, Tensor
from .quantize import INT8_MAX, INT8_MIN, Rounding, quantize_multiplier, requantise_and_clamp

__all__ = ["IDENTITY", "float_rescaled", "kept", "rescaled"]

IDENTITY = (1 << 30, 1)  # multiplier and shift of the factor 1
_MAX_LEFT = 22  # of a shift: 255 << 22 is within int32
_VALUES = np.arange(INT8_MIN, INT8_MAX + 1)


def rescaled(
    name: str, image: Tensor, made: Tensor, clamp: tuple[int, int], factor: float | None = None
) -> Pool | Depthwise | None:
    """The layer that gives every value of ``image`` the scale and zero point of ``made`` and clamps it.

    ``factor``: between the scales; by default as the RELU kernels divide them, in float32. Rounds twice. None if the
    factor is too large.
    """
    if made.quantisation == image.quantisation:
        return Pool(name, image, made, window=(1, 1), stride=(1, 1), clamp=clamp)
    if factor is None:
        factor = float(np.float32(image.scale) / np.float32(made.scale))
    multiplier, shift = quantize_multiplier(factor)
    if shift > _MAX_LEFT:
        return None
    return _depthwise(name, image, made, 1, 0, multiplier, shift, Rounding.DOUBLE, clamp)


def kept(name: str, image: Tensor, made: Tensor, clamp: tuple[int, int]) -> Depthwise:
    """The layer that keeps every value, whatever scale and zero point it is given, and clamps it."""
    return _depthwise(name, image, made, 1, image.zero_point - made.zero_point, *IDENTITY, Rounding.DOUBLE, clamp)


def float_rescaled(name: str, image: Tensor, made: Tensor) -> Depthwise | None:
    """The layer that gives every value of ``image`` the scale and zero point of ``made``, as the uint8 CONCATENATION.

    That kernel (`reference/concatenation.h`) computes round(q * scale + bias) in float32. The integers that give the
    same for all 256 values are searched for; None if there are none.
    """
    one = np.float32(1)
    scale = np.float32(image.scale) * (one / np.float32(made.scale))
    offset = 128  # the kernel sees uint8
    bias = np.float32(-(image.zero_point + offset)) * scale
    real = (_VALUES + offset).astype(np.float32) * scale + bias
    rounded = np.sign(real) * np.floor(np.abs(real) + np.float32(0.5))
    wanted = np.clip(rounded.astype(np.int64) + made.zero_point, INT8_MIN, INT8_MAX)
    for weight, add, step in itertools.product((1, 64), (0, 1, -1), (0, 1, -1, 2, -2)):
        if weight == 1 and add:
            continue  # a whole step: never
        multiplier, shift = quantize_multiplier(float(scale) / weight)
        if shift > _MAX_LEFT or not 0 <= multiplier + step < 1 << 31:
            continue
        acc = (_VALUES - image.zero_point) * weight + add
        for rounding in (Rounding.SINGLE, Rounding.DOUBLE):
            clamp = (INT8_MIN, INT8_MAX)
            if (requantise_and_clamp(acc, multiplier + step, shift, rounding, made.zero_point, clamp) == wanted).all():
                return _depthwise(name, image, made, weight, add, multiplier + step, shift, rounding, clamp)
    return None


def _depthwise(name, image, made, weight, bias, multiplier, shift, rounding, clamp) -> Depthwise:
    n = image.channels
    return Depthwise(
        name,
        image,
        made,
        stride=(1, 1),
        weights=np.full((n, 1, 1), weight, np.int8),
        bias=np.full(n, bias, np.int32),
        multiplier=np.full(n, multiplier, np.int32),
        shift=np.full(n, shift, np.int32),
        rounding=rounding,
        clamp=clamp,
    )
