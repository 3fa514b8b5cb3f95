"""Weight streams against their definition in docs/architecture.md, one word after the other."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.tile import PARAMETER_BYTES
from fluidnpu.nn.weights import conv_stream, pool_stream

TINY = get_config("tiny")
CONFIGS = {"tiny": TINY, "wide beats": replace(TINY, bus_bytes=16), "edge": get_config("edge")}


def pad(raw, bus):
    return raw + bytes(-len(raw) % bus)


def word(config, weights, column, ky, kx, beat, sub):
    """Word ``sub`` of channel beat ``beat`` of a tap; zeros where there is no channel."""
    first = (beat * config.words_per_beat + sub) * config.lanes
    values = weights[column, ky, kx, first : first + config.lanes].tolist()
    return np.array(values + [0] * (config.lanes - len(values)), np.int8).tobytes()


def plain_conv(config, weights, bias, multiplier, shift, kr, kd, words):
    """For c-tile, tap, word of a stack: one word per column and depth; parameters behind the first set."""
    cols = config.pes // (kr * kd)
    out, (channels, kh, kw, _) = b"", weights.shape
    for low in range(0, channels, cols):
        columns = range(low, min(low + cols, channels))
        steps = [(ky, kx, u) for ky in range(kh) for kx in range(kw) for u in range(words)]
        for n, (ky, kx, u) in enumerate(steps):
            beat, sub = divmod(u, config.words_per_beat)
            out += pad(
                b"".join(word(config, weights, c, ky, kx, beat * kd + d, sub) for c in columns for d in range(kd)),
                config.bus_bytes,
            )
            if n == 0:
                parameters = b""
                for c in columns:
                    entry = b"".join(int(x[c]).to_bytes(4, "little", signed=True) for x in (bias, multiplier))
                    entry += int(shift[c]).to_bytes(1, "little", signed=True)
                    parameters += entry.ljust(PARAMETER_BYTES, b"\0")
                out += pad(parameters, config.bus_bytes)
    return out


@pytest.mark.parametrize("name", CONFIGS)
def test_conv_stream(name):
    config, rng = CONFIGS[name], np.random.default_rng(1)
    for channels, kh, kw, depth in ((1, 1, 1, 1), (5, 2, 3, 9), (config.pes + 3, 1, 2, 4 * config.bus_bytes - 1)):
        weights = rng.integers(-128, 128, (channels, kh, kw, depth)).astype(np.int8)
        bias, multiplier = rng.integers(-(2**31), 2**31, (2, channels)).astype(np.int32)
        shift = rng.integers(-31, 31, channels).astype(np.int32)
        beats = -(-depth // config.bus_bytes)
        for kr, kd in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4)):
            if beats % kd:
                continue
            words = -(-depth // config.lanes) if kd == 1 else beats * config.words_per_beat // kd
            stream = conv_stream(
                config, weights, bias, multiplier, shift, kr.bit_length() - 1, kd.bit_length() - 1, words, beats
            )
            assert stream == plain_conv(config, weights, bias, multiplier, shift, kr, kd, words), (channels, kr, kd)


@pytest.mark.parametrize("name", CONFIGS)
def test_pool_stream(name):
    config = CONFIGS[name]
    for channels in (1, config.lanes, config.lanes + 3, 2 * config.pes + 1):
        for log2_kr in (0, 1, 2):
            cols, expected = config.pes >> log2_kr, b""
            for low in range(0, channels, cols):
                high = min(low + cols, channels)
                for w in range(low // config.lanes, (high - 1) // config.lanes + 1):
                    ones = [
                        [int(c == w * config.lanes + lane) for lane in range(config.lanes)] for c in range(low, high)
                    ]
                    expected += pad(np.array(ones, np.int8).tobytes(), config.bus_bytes)
            assert pool_stream(config, channels, log2_kr) == expected, (channels, log2_kr)
