"""Integer arithmetic of TensorFlow Lite's int8 kernels, in NumPy.

Sources: TensorFlow Lite `quantization_util.cc` (QuantizeMultiplier), `common.h` (MultiplyByQuantizedMultiplier),
`reduce.h` (QuantizedMeanOrSum), `pooling.h` (AveragePool), `kernel_util.cc` (activation ranges), `add.cc` and
`reference/integer_ops/add.h` (ADD).

A real factor is multiplier * 2 ** (shift - 31), multiplier in 2**30 .. 2**31 - 1, shift > 0 to the left. Two ways
to apply it to an int32 accumulator:

* double: left shift, saturating rounding doubling high multiply (half up), then a rounding right shift, ties away
  from zero. CONV_2D and MEAN everywhere, FULLY_CONNECTED in TensorFlow Lite Micro.
* single: the exact product rounded once, ties away from zero. FULLY_CONNECTED in ai-edge-litert 2.3, whose kernel
  multiplies by the real factor in float64: it differs from ours only where accumulator * factor lies within about
  2**-32 of itself of a tie that it does not hit.
"""

import math
from enum import StrEnum

import numpy as np

__all__ = [
    "ADD_SHIFT",
    "INT8_MAX",
    "INT8_MIN",
    "Kernels",
    "Rounding",
    "activation_range",
    "add_factors",
    "average",
    "mean_multiplier",
    "quantize_multiplier",
    "requantise",
    "requantise_and_clamp",
    "rounding_divide_by_pot",
    "saturating_rounding_doubling_high_mul",
]

INT8_MIN, INT8_MAX = -128, 127
ADD_SHIFT = 20  # to the left, of both inputs of an ADD


class Rounding(StrEnum):
    """How often requantisation rounds; see the module."""

    DOUBLE = "double"
    SINGLE = "single"


class Kernels(StrEnum):
    """Whose reference kernels a network is to equal: ai-edge-litert's or TensorFlow Lite Micro's."""

    LITERT = "litert"
    MICRO = "micro"

    @property
    def fully_connected(self) -> Rounding:
        """How FULLY_CONNECTED rounds."""
        return Rounding.DOUBLE if self is Kernels.MICRO else Rounding.SINGLE


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(multiplier, shift) of a factor >= 0; (0, 0) for one below 2**-32. Raises ValueError if negative or infinite."""
    if not (real >= 0 and math.isfinite(real)):
        raise ValueError(f"factor of a requantisation is {real}, it must be finite and not negative")
    fraction, shift = math.frexp(real)
    multiplier = math.floor(fraction * 2**31 + 0.5)
    if multiplier == 2**31:
        multiplier, shift = 2**30, shift + 1
    if shift < -31:
        return 0, 0
    return multiplier, shift


def mean_multiplier(real: float, count: int) -> tuple[int, int]:
    """(multiplier, shift) of ``real / count`` as MEAN computes it: 1/count is folded in by an integer division.

    Equals neither quantize_multiplier(real / count) nor a normalised multiplier: it keeps 31 bits at most.
    """
    multiplier, shift = quantize_multiplier(real)
    fold = min(count.bit_length() - 1, 32, 31 + shift)
    return (multiplier << fold) // count, shift - fold


def add_factors(left: float, right: float, result: float) -> tuple[tuple[int, int], ...]:
    """((multiplier, shift) of each input, of the result) of an ADD from the three scales; shifts are <= 0.

    Raises ValueError if the result's scale is so small that its factor is 1 or more.
    """
    twice = 2.0 * max(left, right)
    factors = left / twice, right / twice, twice / ((1 << ADD_SHIFT) * result)
    if factors[2] >= 1:
        raise ValueError(f"a sum of scale {result} of scales {left} and {right}")
    return tuple(quantize_multiplier(f) for f in factors)


def saturating_rounding_doubling_high_mul(a: np.ndarray, multiplier: np.ndarray | int) -> np.ndarray:
    """round(a * multiplier / 2**31), ties upwards; int64 in and out, |a| < 2**32, 0 <= multiplier < 2**31.

    gemmlowp writes it as a truncating division with a nudge that depends on the sign: the same value.
    """
    return (np.asarray(a, np.int64) * multiplier + (1 << 30)) >> 31


def rounding_divide_by_pot(x: np.ndarray, exponent: np.ndarray | int) -> np.ndarray:
    """round(x / 2**exponent), ties away from zero; int64, exponent 0..62."""
    x, exponent = np.asarray(x, np.int64), np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    return np.where(exponent == 0, x, (x + half - (x < 0)) >> exponent)


def requantise(acc: np.ndarray, multiplier, shift, rounding: Rounding | str = Rounding.DOUBLE) -> np.ndarray:
    """``acc`` (int32 range) times multiplier * 2**(shift - 31), as int64; no zero point, no clamp.

    ``multiplier`` and ``shift`` are scalars or arrays that broadcast against ``acc`` (last axis: channels).
    acc << shift must fit in int32 (the reader refuses networks where it may not).
    """
    acc, shift = np.asarray(acc, np.int64), np.asarray(shift, np.int64)
    multiplier = np.asarray(multiplier, np.int64)
    if Rounding(rounding) is Rounding.SINGLE:
        return rounding_divide_by_pot(acc * multiplier, 31 - shift)
    high = saturating_rounding_doubling_high_mul(acc << np.maximum(shift, 0), multiplier)
    return rounding_divide_by_pot(high, np.maximum(-shift, 0))


def requantise_and_clamp(acc, multiplier, shift, rounding, zero_point: int, clamp: tuple[int, int]) -> np.ndarray:
    """The whole epilogue: requantise, add the output zero point, clamp; int8."""
    return np.clip(requantise(acc, multiplier, shift, rounding) + zero_point, *clamp).astype(np.int8)


def average(total: np.ndarray, count: np.ndarray | int, half_up: bool = False) -> np.ndarray:
    """total / count rounded half away from zero (AVERAGE_POOL_2D), or half upwards (that of uint8); int64."""
    total, count = np.asarray(total, np.int64), np.asarray(count, np.int64)
    if half_up:
        return (total + count // 2) // count
    return np.sign(total) * ((np.abs(total) + count // 2) // count)


# Real bounds of the fused activations, by their name in the schema.
_ACTIVATIONS = {
    "NONE": (None, None),
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
}


def activation_range(activation: str, scale: float, zero_point: int) -> tuple[int, int]:
    """(min, max) int8 that a fused activation leaves; float32 division, half away from zero, as TensorFlow Lite.

    Raises KeyError for an activation other than NONE, RELU, RELU6, RELU_N1_TO_1.
    """
    low, high = _ACTIVATIONS[activation]

    def quantized(real: float) -> int:
        with np.errstate(over="ignore"):
            ratio = float(np.clip(np.float32(real) / np.float32(scale), -(2.0**31), 2.0**31))
        return zero_point + int(math.copysign(math.floor(abs(ratio) + 0.5), ratio))

    return (
        INT8_MIN if low is None else max(INT8_MIN, quantized(low)),
        INT8_MAX if high is None else min(INT8_MAX, quantized(high)),
    )
