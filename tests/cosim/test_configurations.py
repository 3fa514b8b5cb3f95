"""Other configurations than tiny: the larger named ones, and the corners of what a configuration may be."""

from dataclasses import replace

import pytest
from fluidnpu.hw.config import NpuConfig, get_config
from fluidnpu.sim.npu_build import npu_build
from npu_checks import run_checked
from test_random import features, random_cases

SEED = 77
CONFIGURATIONS = {
    "gemmini16": get_config("gemmini16"),
    "edge": get_config("edge"),
    # like hub: two words of 16 lanes per beat, more post lanes than lanes
    "hublet": NpuConfig("hublet", 64, 16, 64, 4, 4, 32, 32, 16384, 8192, 16),
    # four words per beat, eight stacks, eight slots
    "wide": NpuConfig("wide", 16, 4, 32, 8, 8, 16, 8, 8192, 4096, 8),
    # the least of everything: no stacking, one tracker, short queues
    "least": replace(
        get_config("tiny"), name="least", max_stack=1, slots=2, trackers=1, programs=1, exits=4, max_lines=4,
        command_entries=4, completion_entries=4, reads_in_flight=4, weight_fifo_beats=32,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_random_hosts(name, times):
    """As on tiny: every byte, every answer, every action, every counter."""
    if name == "wide" and times == 1:
        pytest.skip("a simulator of its own, and hublet has a wide bus too: FLUIDNPU_LONG=1")
    config = CONFIGURATIONS[name]
    cases = random_cases(config, range(SEED, SEED + (16 if times > 1 else 4)), 2 * config.slots)
    results = run_checked(config, npu_build(config), cases)
    assert any(len(tile.members) > 1 for story, _ in results for tile in story.tiles)
    found = set()
    for (programs, _), (story, _) in zip(cases, results, strict=True):
        found |= features(config, programs, story)
    packed = {"in_packed", "out_packed"}
    assert found & packed == (packed if config.words_per_beat > 1 else set())
