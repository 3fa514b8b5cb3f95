"""The whole Engine in random worlds: every action, tile and completion against the model (engine_bench.py).

FLUIDNPU_LONG=1 adds hundreds of worlds.
"""

import os
from collections import Counter
from dataclasses import replace

import pytest
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import LIMIT_ALWAYS, Opcode

from .engine_bench import EngineBench


@pytest.mark.parametrize("seed", range(2, 5))
def test_random_world(seed):
    EngineBench(f"world {seed}", samples=5, latency=5).run()


def test_slots_show_the_last_head():
    """The slot view has S of heads that a sample passed: of rigid samples also of those behind their decision."""
    seen = sum(EngineBench(f"heads {s}", samples=6, latency=5, errors=0).run().stats["passed heads"] for s in (0, 1))
    assert seen > 5, seen


def test_errors():
    """Memory errors of every kind and descriptors that break rules: each sample fails alone, nothing hangs."""
    seen = Counter()
    for seed in (0, 2):
        seen += EngineBench(f"errors {seed}", samples=8, errors=0.02, bad=0.05, latency=5).run().stats
    assert seen["completion FAILED"] > 5 and seen["REVOKE"] > 0, seen


def test_soft_reset():
    """A reset in the middle of everything waits for what is under way; afterwards the engine starts from nothing."""
    seen = Counter()
    for seed in range(1, 5):
        seen += EngineBench(f"reset {seed}", samples=6, resets=2, latency=5).run().stats
    assert seen["RESET"] > 3, seen


@pytest.mark.parametrize("mode, seed", [("rigid", 1), ("unstacked", 0)])
def test_ablations(mode, seed):
    """Rigid groups also with samples that decide early and go on as bubbles: the first decision counts."""
    config = replace(CONFIGS["tiny"], slots=4, max_stack=4)
    bench = EngineBench(f"{mode} {seed}", most_lines=9, samples=6, config=config, latency=5, errors=0, **{mode: True})
    for program in bench.programs.fields:
        bench.host.push(Opcode.LIMIT, program=program, exit=0, limit=LIMIT_ALWAYS)
    bench.host.chatter = 0.1
    assert bench.run().stats["completion OK"] > 1, bench.stats


def test_preemption():
    """Tiles of several samples are revoked again and again, and all of them go on where they stood."""
    config = replace(CONFIGS["tiny"], slots=4, max_stack=4)
    bench = EngineBench(
        "preemption 3", most_lines=6, samples=8, errors=0, rigid=False, unstacked=False, latency=5, config=config
    )
    bench.host.ranks, bench.host.gaps, bench.host.chatter, bench.host.always = (1, 1, 1, 2), (0, 20), 0, True
    bench.host.pausing, bench.array.longest = 0.02, 100
    stats = bench.run().stats
    assert stats["shared tiles revoked"] > 1, stats


def test_occupied_slots():
    """An ADMIT is refused while a sample is live or its completion was not popped."""
    config = replace(CONFIGS["tiny"], slots=2)
    bench = EngineBench("occupied", most_lines=3, samples=40, errors=0, rigid=False, latency=1, config=config)
    bench.host.careful, bench.host.chatter, bench.host.gaps, bench.host.always = 0, 0, (0, 200), True
    bench.host.pop_delays = (0, 1000)
    stats = bench.run().stats
    assert stats["completion ERROR"] > 8 and stats["completion OK"] > 4, stats


def test_merging():
    """Equal priorities: samples that come one after the other soon go through the layers together."""
    config = replace(CONFIGS["tiny"], slots=4, max_stack=4)
    runs = []
    for seed in range(2):
        bench = EngineBench(
            f"merging {seed}", most_lines=16, samples=4, errors=0, rigid=False, config=config, latency=5
        )
        bench.host.ranks, bench.host.chatter, bench.host.gaps, bench.host.always = (1,), 0, (0, 50), True
        runs.append(bench.run().merging)
    assert min(runs) == 1 and max(runs) <= 2, runs  # runs of a layer per layer visited


@pytest.mark.parametrize("seed", range(300 if os.environ.get("FLUIDNPU_LONG") else 2))
def test_many_worlds(seed):
    EngineBench(f"long {seed}", samples=12, resets=int(seed % 4 == 0)).run()
