"""Who runs with whom changes when answers come, never what they are; merging."""

from dataclasses import replace

import numpy as np
from networks import draw_program
from npu_checks import run_checked, runs_per_layer
from scenarios import WILD, samples_of, scenario

SEED = 500


def test_modes_give_the_same_answers(tiny, times):
    """Rigid and unstacked, alone and both, quiet and with preemptions."""
    config, build = tiny
    for seed in range(SEED, SEED + 2 * times):
        rng = np.random.default_rng(seed)
        programs = [draw_program(rng, config, layers=3) for _ in range(2)]
        limits = [c.limits_between(rng) for c in programs]
        samples = samples_of(programs, 10, rng)
        calm = {k: w for k, w in WILD.items() if k in ("admit", "batch", "commit", "nap", "pop")}
        base = scenario(config, programs, seed, samples=samples, limits=limits)
        modes = [{"rigid": r, "unstacked": u} for r in (False, True) for u in (False, True)]
        cases = [(programs, replace(base, weights=w, **mode)) for mode in modes for w in ({}, calm)]
        answers = []
        for story, outcome in run_checked(config, build, cases):
            by_tag = {a.tag: a.completion for a in outcome["admissions"]}
            answers.append({t: [c[k] for k in ("status", "exit", "top", "spread")] for t, c in by_tag.items()})
            del story
        assert all(a == answers[0] for a in answers), (seed, answers)


def test_unstacked_uses_variant_0(tiny):
    config, build = tiny
    rng = np.random.default_rng(SEED)
    programs = [draw_program(rng, config, layers=3)]
    samples = samples_of(programs, 4, rng, exits=0)
    base = scenario(config, programs, SEED, samples=samples, together=True)
    (stacked, _), (flat, _) = run_checked(config, build, [(programs, base), (programs, replace(base, unstacked=True))])
    assert {tile.variant for tile in flat.tiles} == {0} and {tile.kr * tile.kd for tile in flat.tiles} == {1}
    assert any(tile.kr * tile.kd > 1 for tile in stacked.tiles)


def test_a_rigid_group_keeps_its_bubbles(tiny):
    """Samples that leave at the first exit hold their slots until the last one; the completion has the early stamp."""
    config, build = tiny
    rng = np.random.default_rng(SEED)
    programs = [draw_program(rng, config, exits=3)]
    always = [[0xFFFFFFFF] * 3]
    samples = samples_of(programs, 8, rng, exits=0xFFFF)
    base = scenario(config, programs, SEED, samples=samples, limits=always, together=True)
    (fluid, early), (rigid, late) = run_checked(
        config, build, [(programs, base), (programs, replace(base, rigid=True))]
    )
    for outcome in (early, late):
        assert {a.completion["exit"] for a in outcome["admissions"]} == {0}
    assert len(rigid.tiles) > len(fluid.tiles)
    first = late["admissions"][:4]
    assert max(a.completion["stamp_low"] for a in first) < rigid.starts[len(rigid.tiles) // 2 - 1]


def test_samples_that_arrive_together_stay_together(tiny, times):
    """Runs of a layer per layer visited, without exits: 1.00."""
    config, build = tiny
    cases = []
    for seed in range(SEED, SEED + 6 * times):
        rng = np.random.default_rng(seed)
        programs = [draw_program(rng, config, layers=4)]
        samples = samples_of(programs, config.slots, rng, exits=0)
        cases.append((programs, scenario(config, programs, seed, samples=samples, together=True)))
    for (_, played), (story, _) in zip(cases, run_checked(config, build, cases), strict=True):
        assert runs_per_layer(story.tiles) == 1.0, played.seed
