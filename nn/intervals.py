"""95 % confidence intervals of measured shares and means; samples are taken as independent."""

import math

import numpy as np

__all__ = ["Z95", "mean_interval", "wilson_interval"]

Z95 = 1.96  # standard deviations on either side that hold 95 % of a normal distribution


def wilson_interval(right: int, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927), 95 % by default."""
    share = right / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - spread) / (1 + z * z / count), (centre + spread) / (1 + z * z / count)


def mean_interval(values: np.ndarray, z: float = Z95) -> tuple[float, float]:
    """Interval of the mean of values [n] from their own spread (normal approximation)."""
    values = np.asarray(values, np.float64)
    half = z * values.std(ddof=min(1, len(values) - 1)) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)
