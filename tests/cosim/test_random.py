"""Random networks under random hosts: every byte of memory, every answer, every action of the engine, every counter."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import SPREAD_NONE, EngineEvent, register_address
from networks import draw_program
from npu_checks import run_checked
from scenarios import WILD, random_scenario

SEED = 20_300
PER_PROCESS = 40


def random_cases(config, seeds, count, **options):
    """Scenarios of ``count`` samples of one to four networks."""
    cases = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        networks = int(rng.integers(1, config.programs + 1))
        programs = [draw_program(rng, config, wide=bool(rng.random() < 0.3), layers=3) for _ in range(networks)]
        modes = {"rigid": bool(rng.random() < 0.2), "unstacked": bool(rng.random() < 0.15)}
        cases.append((programs, random_scenario(config, programs, seed, count, **modes, **options)))
    return cases


def run_all(config, build, seeds, count, **options):
    """Cases in portions of one simulator each; yields (programs, scenario, story, outcome)."""
    for first in range(0, len(seeds), PER_PROCESS):
        cases = random_cases(config, seeds[first : first + PER_PROCESS], count, **options)
        for case, result in zip(cases, run_checked(config, build, cases), strict=True):
            yield *case, *result


def features(config, programs, story):
    """What of the hardware the tiles of a run used."""
    found = set()
    for compiled in programs:
        program = compiled.program
        found.add(("folded", program.input.fold_h > 1, program.input.fold_w > 1))
        found |= {"split" for op in program.ops if "." in op.name}
    for tile in story.tiles:
        d = story.descriptor(tile)
        found |= {("mode", d[f"log2_kr{tile.variant}"], d[f"log2_kd{tile.variant}"]), ("op", int(d["op"]))}
        found |= {name for name in ("padded_average", "average", "single_rounding") if d[name]}
        if d["nseg"] > 1:
            found.add("segments")
        if len(tile.members) > 1:
            found.add("riders")
        if d["sy"] > d["kh"]:
            found.add("rows left out")
        if d["chunk_beats"] < d["out_pixel_beats"]:
            found.add("chunks")
        found |= {name for name in ("in_packed", "out_packed") if d[name]}
        if d["residual"]:
            found |= {("residual", int(d["op"])), ("residual of the image", d["res_producer"] == isa.NO_PRODUCER)}
        if d["kh"] != d["kw"]:
            found.add("window not square")
        if d["out_channels"] % config.lanes:
            found.add("channels no multiple of the word")
    return found


def test_random_hosts(tiny, times):
    """Arrivals, BATCH with and without commit, priorities, LEAVE, CANCEL, FENCE, LIMIT, wrong commands, memories."""
    config, build = tiny
    found, revocations, statuses, answers = set(), 0, set(), set()
    for programs, _, story, outcome in run_all(config, build, range(SEED, SEED + 26 * times), 14):
        found |= features(config, programs, story)
        revocations += story.revocations
        statuses |= {isa.Status(a.completion["status"]) for a in outcome["admissions"]}
        answers |= {isa.Code(a["code"]).name for a in outcome["answers"]}
    # The cases are worth their time only if they reach everything.
    assert found >= {
        ("mode", 0, 0), ("mode", 1, 0), ("mode", 2, 0), ("mode", 0, 1), ("op", isa.Op.CONV), ("op", isa.Op.POOL),
        ("folded", False, False), ("folded", False, True), ("folded", True, True), "split", "padded_average",
        "average", "single_rounding", "segments", "riders", "rows left out", "window not square",
        "channels no multiple of the word", "chunks", ("residual", isa.Op.CONV), ("residual", isa.Op.POOL),
        ("residual of the image", True),
    }, sorted(map(str, found))  # fmt: skip
    assert revocations > 50
    assert statuses == {isa.Status.OK, isa.Status.CANCELLED}
    assert answers >= {"NONE", "OPCODE", "OCCUPIED", "PC", "ARENA"}  # NONE: of FENCE


def test_one_after_the_other(tiny, times):
    """Nobody interferes: samples enter as slots become free; answers are those of nn.exits.decide."""
    config, build = tiny
    for _, _, story, _ in run_all(config, build, range(SEED + 5000, SEED + 5000 + 6 * times), 8, weights={}):
        assert story.revocations == 0  # equal priorities


SAMPLED_LATER = 1  # cycles from the handshake of a read of the slot table to the one that it shows


def test_slots_show_the_spread_of_the_last_head(tiny, times):
    """SLOT_SPREAD is S of the last exit that decided on the slot's sample, taken or not, and no head's before that."""
    config, build = tiny
    places = {register_address("SLOT_SPREAD", s): s for s in range(config.slots)}
    passed = fresh = 0
    seeds = range(SEED + 8000, SEED + 8000 + 5 * times)
    for _, case, _, outcome in run_all(config, build, seeds, 12, weights=WILD | {"look": 4}):
        events = outcome["events"][outcome["events"]["source"] == 0]
        for read in outcome["transactions"]:
            slot = places.get(int(read["address"]))
            if slot is None or read["write"]:
                continue
            shown = events[(events["cycle"] < int(read["accepted"]) + SAMPLED_LATER) & (events["slot"] == slot)]
            admits = (shown["kind"] == EngineEvent.COMMAND) & (shown["data"] == isa.Opcode.ADMIT) & (shown["line"] == 0)
            if not admits.any():
                continue
            stay = shown[np.flatnonzero(admits)[-1] :]
            decided = stay[stay["kind"] == EngineEvent.EXIT_RESULT]
            wanted = int(decided["data2"][-1]) if len(decided) else SPREAD_NONE
            assert int(read["data"]) == wanted, f"seed {case.seed}, slot {slot}, cycle {read['accepted']}"
            goes_on = len(decided) and not decided["data"][-1] >> 16 & 1
            passed, fresh = passed + bool(goes_on), fresh + (not len(decided))
    assert passed > 5 and fresh > 5, (passed, fresh)
