"""Networks and images from elsewhere on the RTL: every byte of every sample's arena, logits included, as nn.reference.

FLUIDNPU_REAL names the folder that holds them (models/, images/); without it these tests are skipped.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import Op
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.npu_build import npu_build
from networks import compiled
from npu_checks import run_checked
from scenarios import every_image, scenario

pytestmark = pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")
PER_RUN = 50  # images of one scenario: all their arenas are kept until it is checked


def real(*parts):
    return Path(os.environ["FLUIDNPU_REAL"], *parts)


def play(config, build, network, images):
    """Run the images in portions, every byte checked; yields (Compiled, Story, outcome)."""
    for first in range(0, len(images), PER_RUN):
        rng = np.random.default_rng(first)
        case = compiled(network, config, rng, images[first : first + PER_RUN], reuse_arena=first > 0)
        samples, arena = every_image(case, rng), -(-case.program.arena_bytes // 4096) * 4096
        room = (1 << 20) + len(samples) * (arena + 4096)
        played = scenario(config, [case], first, samples=samples, weights={}, memory_bytes=room)
        ((story, outcome),) = run_checked(config, build, [([case], played)])
        assert {a.tag - 1 for a in outcome["admissions"]} == set(range(len(case.images)))
        yield case, story, outcome


@pytest.mark.parametrize("name, count, most", [("tiny", 2, 2), ("gemmini16", 2, 8), ("edge", 8, 200)])
def test_resnet8(name, count, most, times):
    """The MLPerf Tiny image classifier, residual additions in three layers; with FLUIDNPU_LONG ``most`` images."""
    config, build = get_config(name), npu_build(get_config(name))
    network = read_network(real("models", "resnet8_int8.tflite"))
    images = np.load(real("images", "cifar10_ic01_200.npz"))["x"][: most if times > 1 else count]
    images = (images.astype(np.int16) - 128).astype(np.int8)
    for case, story, outcome in play(config, build, network, images):
        added = [tile for tile in story.tiles if story.descriptor(tile)["residual"]]
        assert len({case.program.ops[tile.pc].tensor for tile in added}) == 3
        assert outcome["counters"]["residual_beats"] > 0


@pytest.mark.parametrize("name, count, most", [("tiny", 2, 2), ("gemmini16", 2, 8), ("edge", 4, 50)])
def test_dscnn(name, count, most, times):
    """MLPerf Tiny keyword spotting: depthwise convolutions, random inputs; tiny pools blocks of channels."""
    config, build = get_config(name), npu_build(get_config(name))
    network = read_network(real("models", "kws_dscnn_int8.tflite"))
    rng = np.random.default_rng(50)
    images = rng.integers(-128, 128, (most if times > 1 else count, *network.input.shape)).astype(np.int8)
    for case, story, _ in play(config, build, network, images):
        depthwise = {tile.pc for tile in story.tiles if story.descriptor(tile)["op"] == Op.DEPTHWISE}
        assert len(depthwise) == 4
        assert any("block" in op.name for op in case.program.ops) == (name == "tiny")
