"""Weight streams, in the order in which the array takes them (docs/architecture.md)."""

import numpy as np
from fluidnpu.hw.tile import PARAMETER_BYTES

__all__ = ["conv_stream", "pool_stream"]


def _beats(raw, bus_bytes):
    """Pad bytes to whole beats."""
    return raw + bytes(-len(raw) % bus_bytes)


def conv_stream(config, weights, bias, multiplier, shift, log2_kr, log2_kd, words, pixel_beats):
    """Stream of a CONV layer for one stack mode, as bytes (whole beats).

    weights : int8 [out_channels, kh, kw, in_channels]; bias : int32, with -zero_point * sum(w) folded in
    words : words per tap and stack; pixel_beats : beats of an input pixel
    """
    lanes, bus, kd = config.lanes, config.bus_bytes, 1 << log2_kd
    wpb = config.words_per_beat
    cols = config.pes >> (log2_kr + log2_kd)
    out_channels, kh, kw, in_channels = weights.shape
    padded = np.zeros((out_channels, kh, kw, pixel_beats * bus), np.int8)
    padded[..., :in_channels] = weights
    # word u of stack d holds sub-word u % wpb of channel beat (u // wpb) * kd + d
    by_word = padded.reshape(out_channels, kh, kw, pixel_beats * wpb, lanes)
    u, d = np.meshgrid(np.arange(words), np.arange(kd), indexing="ij")
    index = ((u // wpb) * kd + d) * wpb + u % wpb  # [words, kd]
    steps = by_word[:, :, :, index].reshape(out_channels, kh * kw * words, kd, lanes)

    parameters = np.zeros((out_channels, PARAMETER_BYTES), np.uint8)
    parameters[:, 0:4] = np.asarray(bias, np.int32).reshape(-1, 1).view(np.uint8)
    parameters[:, 4:8] = np.asarray(multiplier, np.int32).reshape(-1, 1).view(np.uint8)
    parameters[:, 8:9] = np.asarray(shift, np.int8).reshape(-1, 1).view(np.uint8)

    out = []
    for c in range(0, out_channels, cols):
        tile = steps[c : c + cols]
        for step in range(tile.shape[1]):
            out.append(_beats(tile[:, step].tobytes(), bus))  # column outside, depth inside
            if step == 0:
                out.append(_beats(parameters[c : c + cols].tobytes(), bus))
    return b"".join(out)


def pool_stream(config, channels, log2_kr):
    """Stream of a POOL layer: per c-tile and channel word one set with a 1 where column and lane meet."""
    lanes, bus = config.lanes, config.bus_bytes
    cols = config.pes >> log2_kr
    out = []
    for c in range(0, channels, cols):
        used = np.arange(c, min(c + cols, channels))
        for word in range(c // lanes, used[-1] // lanes + 1):
            ones = np.zeros((len(used), lanes), np.int8)
            here = used // lanes == word
            ones[here, used[here] % lanes] = 1
            out.append(_beats(ones.tobytes(), bus))
    return b"".join(out)
