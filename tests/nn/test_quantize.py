"""Requantisation arithmetic against exact rational numbers."""

from fractions import Fraction

import numpy as np
import pytest
from fluidnpu.nn import quantize
from fluidnpu.nn.quantize import INT8_MAX, INT8_MIN, Rounding

SEED = 77


def half_up(x: Fraction) -> int:
    return (x + Fraction(1, 2)).__floor__()


def half_away(x: Fraction) -> int:
    return half_up(x) if x >= 0 else -half_up(-x)


def samples(rng):
    """(acc, multiplier, shift): random ones, and some that hit or nearly hit a tie."""
    for _ in range(3000):
        shift = int(rng.integers(-31, 8))
        multiplier = int(rng.integers(1 << 30, 1 << 31)) if rng.random() < 0.7 else 1 << 30
        room = (2**31 - 1) >> max(shift, 0)
        acc = int(rng.integers(-room, room + 1))
        if rng.random() < 0.5:
            tie = (2 * int(rng.integers(-128, 128)) + 1) << 30 >> max(shift, 0) << max(-shift, 0)
            acc = max(-room, min(room, tie // multiplier + int(rng.integers(-1, 2))))
        yield acc, multiplier, shift


def test_requantise_equals_exact_rounding():
    for acc, multiplier, shift in samples(np.random.default_rng(SEED)):
        exact = Fraction(acc * multiplier, 1 << 31) * Fraction(2) ** shift
        single = quantize.requantise(acc, multiplier, shift, Rounding.SINGLE)
        assert int(single) == half_away(exact)
        high = half_up(Fraction((acc << max(shift, 0)) * multiplier, 1 << 31))
        double = quantize.requantise(acc, multiplier, shift, "double")
        assert int(double) == half_away(Fraction(high, 1 << max(-shift, 0)))
        assert abs(int(single) - int(double)) <= 1


def test_requantise_broadcasts_over_channels():
    acc = np.arange(-6, 6).reshape(3, 4)
    multiplier, shift = np.full(4, 1 << 30), np.array([0, 1, -1, 2])
    y = quantize.requantise_and_clamp(acc, multiplier, shift, "double", 1, (-2, 3))
    assert y.dtype == np.int8 and y.shape == (3, 4)
    expected = [half_away(Fraction(half_up(Fraction(int(a) << max(s, 0), 2)), 1 << max(-s, 0))) + 1
                for a, s in zip(acc.ravel(), [0, 1, -1, 2] * 3, strict=True)]  # fmt: skip
    assert y.ravel().tolist() == [max(-2, min(3, e)) for e in expected]


@pytest.mark.parametrize("real", [0.0, 1e-12, 0.25, 0.5, 0.7, 1 - 2**-40, 1.0, 3.3, 2.0**-31, 2.0**-33, 200.0])
def test_quantize_multiplier(real):
    multiplier, shift = quantize.quantize_multiplier(real)
    if real < 2.0**-32:
        assert (multiplier, shift) == (0, 0)
        return
    assert 1 << 30 <= multiplier < 1 << 31
    assert multiplier * 2.0 ** (shift - 31) == pytest.approx(real, rel=2**-31)


@pytest.mark.parametrize("real", [-1.0, float("nan"), float("inf")])
def test_quantize_multiplier_refuses(real):
    with pytest.raises(ValueError, match="must be finite and not negative"):
        quantize.quantize_multiplier(real)


def test_average_rounds_half_away_from_zero():
    for count in range(1, 40):
        for total in range(-3 * count, 3 * count + 1):
            assert int(quantize.average(total, count)) == half_away(Fraction(total, count))


def test_activation_ranges():
    assert quantize.activation_range("NONE", 0.1, 5) == (INT8_MIN, INT8_MAX)
    assert quantize.activation_range("RELU", 0.1, 5) == (5, INT8_MAX)
    assert quantize.activation_range("RELU6", 0.1, 5) == (5, 65)
    assert quantize.activation_range("RELU6", 0.5, -3) == (-3, 9)
    assert quantize.activation_range("RELU6", 1e-45, 0) == (0, INT8_MAX)
    assert quantize.activation_range("RELU_N1_TO_1", 2.0, 1) == (0, 2)  # -0.5 and 0.5: away from zero
    with pytest.raises(KeyError):
        quantize.activation_range("TANH", 1.0, 0)


def test_mean_multiplier_folds_the_count_in():
    for count in (1, 2, 3, 16, 49, 64, 1000):
        multiplier, shift = quantize.mean_multiplier(0.8, count)
        assert 0 < multiplier < 1 << 31
        assert multiplier * 2.0 ** (shift - 31) == pytest.approx(0.8 / count, rel=2**-29)
