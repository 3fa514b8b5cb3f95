"""The whole Engine in random worlds, action for action against the model."""

import pytest

from .engine_bench import EngineBench


@pytest.mark.parametrize("seed", range(6))
def test_random_world(seed):
    EngineBench(seed).run()
