"""What fits, and what tiles cost by the array's contract."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import CONFIGS, get_config
from fluidnpu.nn import mapping
from fluidnpu.nn.mapping import Geometry, MappingError, Variant, check_fits
from fluidnpu.nn.weights import conv_stream, depthwise_stream

TINY = get_config("tiny")
# 3x3, 16 -> 20 channels, 8x8, stride 1, on tiny: words of 8 bytes, beats of one word
CONV = Geometry("conv", False, 3, 3, 1, 1, 8, 2, 2, 8, 8, 20, 3)
POOL = Geometry("pool", True, 2, 2, 2, 2, 8, 4, 4, 4, 4, 32, 4)
DEPTHWISE = replace(POOL, name="depthwise", pool=False, depthwise=True, kh=3, kw=3)


def test_geometry():
    assert CONV.segments(TINY) == (1, 8) and CONV.lines(TINY) == 8 and CONV.stripe_pixels(TINY) == 8
    wide = replace(CONV, in_w=70, out_w=70)
    assert wide.segments(TINY) == (3, 24)  # 70 pixels, at most 32 rows: 24 + 24 + 22
    assert wide.lines(TINY) == 24 and wide.stripe_pixels(TINY) == 24 + 2
    assert replace(wide, sx=2, out_w=35).stripe_pixels(TINY) == 17 * 2 + 3


def test_cycles_of_a_tile():
    """docs/architecture.md: max(sum of steps, drain, output beats) per c-tile."""
    # unstacked, 2 lines: 16 rows; 2 c-tiles of 8 channels, one of 4; 18 steps of max(16 rows, 8 or 4 weight beats)
    assert mapping.tile_cycles(TINY, CONV, Variant(0, 0, 2), 2, 2) == 3 * 18 * 16
    # 1 line of 8 rows: weights take as long as rows; with parameters (16 beats) longer
    assert mapping.tile_cycles(TINY, CONV, Variant(0, 0, 1), 1, 1) == 2 * (18 * 8 + 16) + 18 * 8
    # two sub-tiles of 2 lines share the weights of 4 columns: 5 c-tiles
    assert mapping.tile_cycles(TINY, CONV, Variant(1, 0, 2), 2, 4) == 5 * 18 * 16
    # depth stacking halves the steps, columns are 4
    assert mapping.tile_cycles(TINY, CONV, Variant(0, 1, 2), 2, 2) == 5 * 9 * 16
    # 1x1 with one word: the drain (16 rows * 2 quads of 4 lanes) and not the steps decide
    short = replace(CONV, kh=1, kw=1, in_pixel_beats=1, in_words=1)
    assert mapping.tile_cycles(TINY, short, Variant(0, 0, 2), 2, 2) == 32 + 32 + 16
    # every word twice
    assert mapping.tile_cycles(TINY, replace(CONV, twice=True), Variant(0, 1, 2), 2, 2) == 5 * 18 * 16


def test_cycles_of_a_vector_tile():
    """docs/architecture.md: per block rows * max(taps, drain), or the next block's weights, or output beats."""
    # 4 blocks of one word, 16 rows of 4 taps; a word is drained in two cycles
    assert mapping.tile_cycles(TINY, POOL, Variant(0, 0, 4), 4, 4) == 4 * 16 * 4
    # one block of four words: 8 drain cycles are more than 4 taps, as with four sub-tiles of a word
    assert mapping.tile_cycles(TINY, POOL, Variant(0, 2, 4), 4, 4) == 16 * 8
    assert mapping.tile_cycles(TINY, POOL, Variant(2, 0, 2), 2, 8) == 4 * 8 * 8
    assert mapping.tile_cycles(TINY, POOL, Variant(2, 0, 2), 2, 4) == 4 * 8 * 4  # two of them are empty
    assert mapping.tile_cycles(TINY, DEPTHWISE, Variant(1, 1, 4), 4, 8) == 2 * 16 * 9
    # short tiles take as long as the weights: 9 taps of 4 words, 4 * 8 * 16 bytes of parameters
    assert mapping.tile_cycles(TINY, DEPTHWISE, Variant(0, 2, 1), 1, 1) == 9 * 4 + 64
    assert mapping.tile_cycles(TINY, replace(DEPTHWISE, twice=True), Variant(0, 0, 4), 4, 4) == 4 * 16 * 18


def test_weight_beats_are_the_length_of_the_stream():
    rng = np.random.default_rng(3)
    for config in CONFIGS.values():
        for _ in range(20):
            channels, depth = int(rng.integers(1, 3 * config.pes)), int(rng.integers(1, 5 * config.bus_bytes))
            kh, kw = (int(n) for n in rng.integers(1, 4, 2))
            beats, out_beats = -(-depth // config.bus_bytes), -(-channels // config.bus_bytes)
            words = -(-depth // config.lanes)
            conv = Geometry("c", False, kh, kw, 1, 1, 9, beats, words, 9, 9, channels, out_beats)
            weights = np.zeros((channels, kh, kw, depth), np.int8)
            zeros = np.zeros(channels, np.int32)
            for v in (Variant(0, 0, 1), Variant(1, 0, 1), Variant(0, 1, 1)):
                if beats % (1 << v.log2_kd):
                    continue
                per_tap = mapping.words_per_tap(config, conv, v.log2_kd)
                stream = conv_stream(config, weights, zeros, zeros, zeros, v.log2_kr, v.log2_kd, per_tap, beats)
                assert mapping.weight_beats(config, conv, v) * config.bus_bytes == len(stream), (config.name, v)
            depthwise = replace(conv, depthwise=True, in_pixel_beats=out_beats)
            for v in (Variant(1, 0, 1), Variant(0, 1, 1), Variant(0, 2, 1)):
                if out_beats % (1 << v.log2_kd):
                    continue
                blocks = mapping.words_per_tap(config, depthwise, v.log2_kd)
                weights = np.zeros((channels, kh, kw), np.int8)
                stream = depthwise_stream(config, weights, zeros, zeros, zeros, v.log2_kd, blocks)
                assert mapping.weight_beats(config, depthwise, v) * config.bus_bytes == len(stream), (config.name, v)
                assert mapping.weight_beats(config, replace(depthwise, pool=True), v) == 0


def test_what_does_not_fit():
    for geometry, variant, message in (
        (CONV, Variant(2, 1, 1), "kr * kd = 8 is more than max_stack = 4"),
        (replace(CONV, in_pixel_beats=1024), Variant(0, 0, 1), "a pixel of its input takes 8192 bytes, at most 8184"),
        (replace(CONV, in_pixel_beats=3, in_w=7), Variant(0, 1, 1), "cannot be dealt to kd = 2 stacks"),
        (replace(POOL, out_channels=20), Variant(0, 1, 1), "cannot be dealt"),
        (replace(DEPTHWISE, kw=43), Variant(0, 0, 1), "a depthwise window takes 129 weights per channel, at most 127"),
        (replace(CONV, in_w=50, in_pixel_beats=4, kw=43), Variant(0, 0, 1),
         "a window of 3 input lines takes 4128 bytes, a bank half holds 4096"),
        (replace(CONV, out_pixel_beats=9, out_channels=72), Variant(0, 0, 8),
         "a tile's output takes 512 beats of staging, there are 256"),
    ):  # fmt: skip
        assert message in mapping.fits(TINY, geometry, variant)
    assert mapping.fits(TINY, CONV, Variant(1, 1, 4)) is None
    edge = get_config("edge")  # chunks of 64 channels, c-tiles of 32: whole; a chunk that is the whole pixel: any
    assert mapping.fits(edge, replace(CONV, out_channels=100, out_pixel_beats=7), Variant(0, 0, 1)) is None
    with pytest.raises(MappingError, match="conv does not fit tiny: a window of 3 input lines takes 4128 bytes"):
        check_fits(TINY, replace(CONV, in_w=50, in_pixel_beats=4, kw=43, out_w=8))
    with pytest.raises(
        MappingError, match="conv does not fit tiny: a row of 9000 pixels is more than 255 segments of 32"
    ):
        check_fits(TINY, replace(CONV, in_w=9000, out_w=9000))


def test_segments_as_the_banks_want_them():
    wide = replace(CONV, in_w=50, out_w=48, in_pixel_beats=4)
    assert wide.segments(TINY) == (2, 24) and wide.stripe_pixels(TINY) == 26  # 3 lines of 32 pixels fit 4096 bytes
    deeper = replace(wide, in_pixel_beats=12)
    assert deeper.segments(TINY) == (4, 12) and mapping.fits(TINY, deeper, Variant(0, 0, 1)) is None
    assert replace(wide, out_w=10, in_w=12, in_pixel_beats=20).segments(TINY) == (2, 5)  # no segment is empty
