"""Weight streams against their definition in docs/architecture.md, one word after the other."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.tile import PARAMETER_BYTES
from fluidnpu.nn.weights import conv_stream, depthwise_stream, split_weights

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


def parameters_of(channel, bias, multiplier, shift):
    if channel >= len(bias):
        return bytes(PARAMETER_BYTES)
    entry = b"".join(int(x[channel]).to_bytes(4, "little", signed=True) for x in (bias, multiplier))
    return (entry + int(shift[channel]).to_bytes(1, "little", signed=True)).ljust(PARAMETER_BYTES, b"\0")


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("wide", [False, True])
def test_depthwise_stream(name, wide):
    """For block, tap, addend, depth: a word; then the parameters of the block's channels."""
    config, rng = CONFIGS[name], np.random.default_rng(2)
    lanes, bus, wpb = config.lanes, config.bus_bytes, config.words_per_beat
    for channels, kh, kw in ((1, 1, 1), (bus * 4 - 3, 2, 3), (bus * 2, 1, 2), (lanes + 1, 3, 1)):
        weights = rng.integers(-255 if wide else -128, 255 if wide else 128, (channels, kh, kw))
        weights = weights.astype(np.int16 if wide else np.int8)
        addends = split_weights(weights)
        bias, multiplier = rng.integers(-(2**31), 2**31, (2, channels)).astype(np.int32)
        shift = rng.integers(-31, 31, channels).astype(np.int32)
        beats = -(-channels // bus)
        for kd in (1, 2, 4):
            if beats % kd:
                continue
            words = -(-channels // lanes) if kd == 1 else beats * wpb // kd
            expected = b""
            for u in range(words):
                firsts = [(((u // wpb) * kd + d) * wpb + u % wpb) * lanes for d in range(kd)]
                for ky in range(kh):
                    for kx in range(kw):
                        for addend in addends:
                            taps = b"".join(
                                addend[f : f + lanes, ky, kx].astype(np.int8).tobytes().ljust(lanes, b"\0")
                                for f in firsts
                            )
                            expected += pad(taps, bus)
                entries = [parameters_of(f + i, bias, multiplier, shift) for f in firsts for i in range(lanes)]
                expected += pad(b"".join(entries), bus)
            stream = depthwise_stream(config, weights, bias, multiplier, shift, kd.bit_length() - 1, words)
            assert stream == expected, (channels, kd)


def test_split_weights():
    whole = np.arange(-255, 255).astype(np.int16)
    parts = split_weights(whole)
    assert parts.dtype == np.int8 and (parts.astype(int).sum(0) == whole).all()
    small = np.arange(-128, 128).astype(np.int8)
    assert (split_weights(small) == small[None]).all()
    with pytest.raises(ValueError, match="a weight of 255 is no sum of two int8 weights, at most 254"):
        split_weights(np.array([255], np.int16))


def test_two_sets_per_word():
    """A CONV with int16 weights: every word's addends one behind the other."""
    rng = np.random.default_rng(5)
    weights = rng.integers(-255, 255, (3, 1, 2, 16)).astype(np.int16)
    zeros = np.zeros(3, np.int32)
    stream = np.frombuffer(conv_stream(TINY, weights, zeros, zeros, zeros, 0, 0, 2, 2), np.int8)
    sets = np.delete(stream.reshape(-1, 8), np.arange(3, 9), axis=0).reshape(2, 2, 2, 3, 8)  # without parameters
    assert (sets.astype(int).sum(2) == weights.reshape(3, 2, 2, 8).transpose(1, 2, 0, 3)).all()
