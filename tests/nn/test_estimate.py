"""The estimate: how lines are dealt, and which variants are chosen by it."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.config import CONFIGS, get_config
from fluidnpu.nn import estimate, mapping
from fluidnpu.nn.estimate import choose_variants
from fluidnpu.nn.mapping import Geometry, MappingError, Variant

TINY = get_config("tiny")
# 3x3, 16 -> 20 channels, 8x8, stride 1, on tiny: words of 8 bytes, beats of one word
CONV = Geometry("conv", False, 3, 3, 1, 1, 8, 2, 2, 8, 8, 20, 3)


def test_dealing():
    assert estimate.deal(Variant(1, 0, 5), (8, 8)) == (((5,), (3, 2)), (6,))
    assert estimate.deal(Variant(1, 0, 5), (6,)) == (((3,), (3,)), ())  # ceil(6 / 2) lines each
    assert estimate.deal(Variant(2, 0, 4), (2,)) == (((1,), (1,)), ())


def test_chosen_variants():
    rng = np.random.default_rng(4)
    for config in CONFIGS.values():
        for _ in range(12):
            k, size, depth = (int(rng.integers(low, high)) for low, high in ((1, 4), (4, 40), (1, 70)))
            channels = int(rng.integers(1, 90))
            beats, out_beats = -(-depth // config.bus_bytes), -(-channels // config.bus_bytes)
            words = -(-depth // config.lanes)
            geometry = Geometry("c", False, k, k, 1, 1, size, beats, words, size, size, channels, out_beats)
            try:
                variants, selection = choose_variants(config, geometry, 1 << 30)
            except MappingError:
                continue
            assert 1 <= len(variants) <= isa.VARIANTS and len(set(variants)) == len(variants)
            assert len(selection) == config.slots and set(selection) <= set(range(len(variants)))
            assert variants[0].log2_kr == variants[0].log2_kd == 0
            assert all(mapping.fits(config, geometry, v) is None for v in variants)
            table = [variants[i] for i in selection]
            flat = [variants[0]] * config.slots

            def cost(table, config=config, geometry=geometry):
                return sum(estimate.layer_cycles(config, geometry, table, n) / n for n in range(1, config.slots + 1))

            assert cost(table) <= cost(flat), (config.name, geometry)


def test_short_tiles_are_kept():
    """Variants whose longest tile is too long are left out if there are others."""
    for limit in (150, 400, 900):
        variants, _ = choose_variants(TINY, CONV, limit)
        if limit >= 448:  # one line, unstacked
            assert all(
                mapping.tile_cycles(TINY, CONV, v, v.max_lines, v.max_lines << v.log2_kr) <= limit for v in variants
            )
    assert choose_variants(TINY, CONV, 1)[0][0] == Variant(0, 0, 1)  # nothing is short enough: the shortest


def test_array_cycles():
    """The tiles' cycles by the contract, dealt out: kr = 2, five lines each, then the three that are left in one."""
    two, one = Variant(1, 0, 5), Variant(0, 0, 8)
    assert estimate.deal(two, (8, 5)) == (((5,), (3, 2)), (3,))
    expected = mapping.tile_cycles(TINY, CONV, two, 5, 10) + mapping.tile_cycles(TINY, CONV, one, 6, 6)
    assert estimate.array_cycles(TINY, CONV, (one, two), 2) == expected  # 8 + 8 lines: ten of them, then six
