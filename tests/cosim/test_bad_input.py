"""Wrong commands, full queues, soft resets: docs/isa.md says what happens, nobody else is disturbed, nothing hangs, and
the NPU serves the next sample correctly."""

import random

import numpy as np
import pytest
from bad_host import fill_completion_queue, fill_queues, play_resets, send_wrong_commands
from fault_checks import check_completion_order, check_good, check_nothing_else_written, replay_resets
from fluidnpu.hw import isa
from fluidnpu.hw.isa import Code, Opcode, Status
from fluidnpu.sim.memory import MemorySettings
from fluidnpu.sim.simulate import run_in_simulator
from networks import compiled, draw_network
from npu_checks import tell
from scenarios import WILD, random_memory, samples_of, scenario

from ..hw.engine.descriptors import LAST_INDEX


@pytest.fixture(scope="module")
def network(tiny):
    """A small network of two exits with images, for ``tiny``."""
    config, _ = tiny
    rng = np.random.default_rng(11)
    return compiled(draw_network(rng, exits=2, layers=2), config, rng)


# --- commands -------------------------------------------------------------------------------------------------------


def _admit(**fields):
    values = {"slot": 3, "tag": 7, "pc": 0, "arena_base": 0x1000, "arena_bytes": 64, "runnable": 1} | fields
    return Opcode.ADMIT, isa.encode(isa.COMMANDS[Opcode.ADMIT], values, isa.COMMAND_WORDS, "ADMIT")


def _wrong_commands(config, ops):
    """(doorbell, words, code): every documented error of a command."""
    bus, words = config.bus_bytes, [0x1234_5673, 77, 78, 79, 80]
    for doorbell in (0, 7, 99, 255, 256, 0x101, 0x8000_0001, 0xFFFF_FFFF):
        yield doorbell, words, Code.OPCODE
    for slot in range(config.slots, 16):
        yield *_admit(slot=slot, tag=slot), Code.SLOT
    for slot in (0, 1):  # live
        yield *_admit(slot=slot, tag=0xBAD), Code.OCCUPIED
        yield *_admit(slot=slot, tag=0xBAD, pc=0xFFFF, arena_bytes=0), Code.OCCUPIED
    for pc in (ops, ops + 1, LAST_INDEX, isa.make_pc(1, 0), isa.make_pc(3, 0), isa.make_pc(3, LAST_INDEX)):
        yield *_admit(pc=pc, tag=pc), Code.PC
    for base, size in (
        *((0x1000, 0), (0, 0)),
        *((0x1000 + n, 64) for n in (1, bus // 2, bus - 1)),
        *((-bus % 2**32, bus + 1), (0x1000, 0xFFFF_FFFF), (0x8000_0000, 0x8000_0001)),
    ):
        yield *_admit(arena_base=base, arena_bytes=size, tag=size), Code.ARENA


def test_wrong_commands(tiny, network):
    """Each is answered by one ERROR with its code, slot and tag, and changes nothing; the samples beside are right."""
    config, build = tiny
    wrong = list(_wrong_commands(config, len(network.program.ops)))
    random.Random(5).shuffle(wrong)
    case = scenario(config, [network], 5, samples=samples_of([network], 8, np.random.default_rng(5), 0xFFFF))
    outcome = run_in_simulator(
        build, send_wrong_commands, timeout=300, scenario=case, wrong=[(int(d), list(w)) for d, w, _ in wrong]
    )
    expected = []
    for doorbell, words, code in wrong:
        fields = isa.decode(isa.COMMANDS[Opcode.ADMIT], words) if doorbell == Opcode.ADMIT else {"slot": 0, "tag": 0}
        expected.append((Status.ERROR, code, fields["slot"], fields["tag"]))
    expected.append((Status.ERROR, Code.OCCUPIED, 0, 0xBAD))
    found = [(Status(a["status"]), Code(a["code"]), a["slot"], a["tag"]) for a in outcome["answers"]]
    assert found == expected
    _check_served(config, [network], case, outcome)


def _check_served(config, programs, case, outcome, ended=()):
    """Every sample but those with tags in ``ended`` is right; the trace replays; nothing else was written."""
    story = tell(config, programs, outcome)
    check_completion_order(story.played, outcome)
    for a in outcome["admissions"]:
        if a.tag not in ended:
            check_good(programs[a.program], a, case.samples[a.sample].image)
    check_nothing_else_written(case, outcome)


def test_full_command_queue(tiny, network):
    """Doorbells are refused with SLVERR and a sticky bit; what was accepted is executed in order, behind its FENCE."""
    config, build = tiny
    slow = MemorySettings(read_latency=4000)
    samples = samples_of([network], 2, np.random.default_rng(1), 0xFFFF)
    case = scenario(config, [network], 1, samples=samples, memory=slow)
    outcome = run_in_simulator(build, fill_queues, timeout=300, scenario=case)
    queued = config.command_entries - 1  # the FENCE is in the queue, too
    assert outcome["free"] == list(range(queued, -1, -1)), "COMMAND_FREE"
    assert len(outcome["tags"]) == queued and outcome["refused"] == [2, 2, 2]
    overflow = [w >> 3 & 1 for w in outcome["words"]]
    assert overflow == [0, 1, 1, 0], f"overflow bit {overflow}"
    assert outcome["pop"] == 2 and outcome["level"] == 0, "pop of an empty queue"
    answers = [(a["status"], a["tag"]) for a in outcome["answers"]]
    assert answers == [(Status.FENCE, 0xFE), *((Status.ERROR, t) for t in outcome["tags"])]
    cancelled = outcome["admissions"][0].completion
    fence = outcome["answers"][0]
    assert cancelled["status"] == Status.CANCELLED and cancelled["stamp_low"] < fence["stamp_low"], (
        "FENCE before CANCEL"
    )
    _check_served(config, [network], case, outcome, ended={1})


def test_full_completion_queue(tiny, network):
    """Nobody pops: commands are refused in time, samples still complete, nothing is lost."""
    config, build = tiny
    case = scenario(config, [network], 2, samples=samples_of([network], 4, np.random.default_rng(2), 0xFFFF))
    outcome = run_in_simulator(build, fill_completion_queue, timeout=300, scenario=case)
    entries = config.completion_entries
    assert len(outcome["tags"]) == entries - 2, "entries that are not reserved for the two samples"
    (free, _), *later = outcome["levels"]
    assert free == 0 and later == [[0, entries], [1, entries - 1]], (
        f"COMMAND_FREE, COMPLETION_LEVEL {outcome['levels']}"
    )
    assert outcome["refused"] == 2
    assert [a["tag"] for a in outcome["answers"]] == outcome["tags"]
    _check_served(config, [network], case, outcome)


# --- soft reset -----------------------------------------------------------------------------------------------------


def test_soft_reset(tiny, network, times):
    """In the middle of everything, at random moments: nothing from before remains, the next sample is right."""
    config, build = tiny
    for seed in range(times):
        rng = np.random.default_rng(seed)
        samples = samples_of([network], 40, rng, 0xFFFF)
        case = scenario(
            config, [network], seed, samples=samples, weights=WILD, memory=random_memory(rng),
            nap=int(rng.choice([30, 100, 300])),
        )  # fmt: skip
        outcome = run_in_simulator(build, play_resets, timeout=400, scenario=case, resets=20)
        for admission in outcome["survivors"]:
            check_good(network, admission, samples[0].image)
        run = replay_resets(config, [network], outcome, outcome["moments"])
        ended = [c.tag for c in run.completions if c.status == Status.OK]
        assert len(ended) >= len(outcome["survivors"]) == 20
