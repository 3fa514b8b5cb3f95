"""Weight streams, in the order in which the array takes them (docs/architecture.md)."""

import numpy as np
from fluidnpu.hw.tile import PARAMETER_BYTES

__all__ = ["MAX_WEIGHT", "conv_stream", "depthwise_stream", "split_weights"]

MAX_WEIGHT = 2 * 127  # that two visits of a word can make up


def _beats(raw, bus_bytes):
    """Pad bytes to whole beats."""
    return raw + bytes(-len(raw) % bus_bytes)


def split_weights(weights):
    """int8 addends [n, ...] whose sum int8 or int16 weights are: one or, where they do not fit int8, two."""
    if weights.dtype == np.int8:
        return weights[None]
    first = np.clip(weights, -128, 127)
    rest = weights - first
    if weights.max() > MAX_WEIGHT:
        raise ValueError(f"a weight of {weights.max()} is no sum of two int8 weights, at most {MAX_WEIGHT}")
    return np.stack([first, rest]).astype(np.int8)


def _parameters(bias, multiplier, shift):
    """[channels, PARAMETER_BYTES]."""
    parameters = np.zeros((len(bias), PARAMETER_BYTES), np.uint8)
    parameters[:, 0:4] = np.asarray(bias, np.int32).reshape(-1, 1).view(np.uint8)
    parameters[:, 4:8] = np.asarray(multiplier, np.int32).reshape(-1, 1).view(np.uint8)
    parameters[:, 8:9] = np.asarray(shift, np.int8).reshape(-1, 1).view(np.uint8)
    return parameters


def _word_index(words, kd, wpb):
    """[words, kd]: word u of stack d holds sub-word u % wpb of channel beat (u // wpb) * kd + d."""
    u, d = np.meshgrid(np.arange(words), np.arange(kd), indexing="ij")
    return ((u // wpb) * kd + d) * wpb + u % wpb


def conv_stream(config, weights, bias, multiplier, shift, log2_kr, log2_kd, words, pixel_beats):
    """Stream of a CONV layer for one stack mode, as bytes (whole beats).

    weights : int8 or int16 [out_channels, kh, kw, in_channels]; bias : int32, with -zero_point * sum(w) folded in
    words : words per tap and stack; pixel_beats : beats of an input pixel
    """
    lanes, bus, kd = config.lanes, config.bus_bytes, 1 << log2_kd
    wpb = config.words_per_beat
    cols = config.pes >> (log2_kr + log2_kd)
    out_channels, kh, kw, in_channels = weights.shape
    visits = split_weights(weights)
    padded = np.zeros((len(visits), out_channels, kh, kw, pixel_beats * bus), np.int8)
    padded[..., :in_channels] = visits
    by_word = padded.reshape(len(visits), out_channels, kh, kw, pixel_beats * wpb, lanes)
    steps = by_word[:, :, :, :, _word_index(words, kd, wpb)]  # [visits, out_channels, kh, kw, words, kd, lanes]
    steps = np.moveaxis(steps, 0, 4).reshape(out_channels, -1, kd, lanes)
    parameters = _parameters(bias, multiplier, shift)

    out = []
    for c in range(0, out_channels, cols):
        tile = steps[c : c + cols]
        for step in range(tile.shape[1]):
            out.append(_beats(tile[:, step].tobytes(), bus))  # column outside, depth inside
            if step == 0:
                out.append(_beats(parameters[c : c + cols].tobytes(), bus))
    return b"".join(out)


def depthwise_stream(config, weights, bias, multiplier, shift, log2_kd, words):
    """Stream of a DEPTHWISE layer for one stack mode, as bytes (whole beats).

    weights : int8 or int16 [channels, kh, kw]; bias : int32, with -zero_point * sum(w) folded in
    words : blocks
    """
    lanes, bus, wpb, kd = config.lanes, config.bus_bytes, config.words_per_beat, 1 << log2_kd
    channels, kh, kw = weights.shape
    index = _word_index(words, kd, wpb)
    visits = split_weights(weights)
    padded = np.zeros((index.max() + 1, lanes, kh * kw, len(visits)), np.int8)
    padded.reshape(-1, kh * kw, len(visits))[:channels] = np.moveaxis(visits, 0, -1).reshape(channels, kh * kw, -1)
    taps = padded[index].transpose(0, 3, 4, 1, 2)  # [words, taps, visits, kd, lanes]
    parameters = np.zeros((len(padded) * lanes, PARAMETER_BYTES), np.uint8)
    parameters[:channels] = _parameters(bias, multiplier, shift)
    parameters = parameters.reshape(len(padded), -1)[index]  # [words, kd, bytes]
    out = []
    for block in range(words):
        out += [_beats(tap.tobytes(), bus) for tap in taps[block].reshape(-1, kd * lanes)]
        out.append(_beats(parameters[block].tobytes(), bus))
    return b"".join(out)
