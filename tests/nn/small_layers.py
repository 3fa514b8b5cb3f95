"""A convolution of random weights for tests that build networks layer by layer."""

import numpy as np
from fluidnpu.nn.graph import Conv

__all__ = ["conv"]


def conv(name, x, y, padding=(0, 0, 0, 0), kernel=None, stride=(1, 1), seed=0):
    """A convolution of x that makes y."""
    rng = np.random.default_rng(seed)
    kernel = kernel or (x.height - y.height + 1, x.width - y.width + 1)
    n = y.channels
    return Conv(
        name, x, y, stride=stride, padding=padding,
        weights=rng.integers(-127, 128, (n, *kernel, x.channels)).astype(np.int8),
        bias=rng.integers(-1000, 1000, n).astype(np.int32),
        multiplier=rng.integers(1 << 30, 1 << 31, n).astype(np.int32), shift=np.full(n, -8, np.int32),
    )  # fmt: skip
