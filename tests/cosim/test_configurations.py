"""Other configurations than tiny: wider words and arrays, more slots, deeper banks."""

import pytest
from test_random import random_cases, run_checked

SEED = 77


@pytest.mark.parametrize("name", ["gemmini16", "edge"])
def test_random_hosts(name, request, times):
    config, build = request.getfixturevalue(name)
    cases = random_cases(config, range(SEED, SEED + 4 * times), 16)
    results = run_checked(config, build, cases)
    assert any(len(tile.members) > 2 for story, _ in results for tile in story.tiles)
