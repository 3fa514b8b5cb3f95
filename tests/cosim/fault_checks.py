"""Checks of runs in which some samples fail: exactly those that must, and nobody else notices."""

from dataclasses import replace

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import COMMANDS, EngineEvent, Opcode, Status
from fluidnpu.nn.exits import exit_table, top_and_spread
from fluidnpu.sim.engine_model import EngineModel
from fluidnpu.sim.engine_replay import EngineReplay
from fluidnpu.sim.replay import ENGINE_PORT, program_operations
from fluidnpu.sim.rtl_device import accepted_commands
from npu_checks import tell

__all__ = [
    "check_completion_order",
    "check_faults",
    "check_good",
    "check_nothing_else_written",
    "descriptor",
    "failure_bursts",
    "mutated",
    "replay_changing",
    "replay_resets",
]


def descriptor(compiled, op):
    """Decoded descriptor of operation ``op``."""
    words = np.frombuffer(compiled.program.region, "<u4")
    return isa.decode(isa.DESCRIPTOR_FIELDS, words[op * isa.DESCRIPTOR_WORDS :][: isa.DESCRIPTOR_WORDS])


def mutated(compiled, op, words=None, **fields):
    """The same network with some fields of operation ``op``'s descriptor changed, or all of its ``words`` replaced."""
    if words is None:
        changed = descriptor(compiled, op) | fields
        words = isa.encode(isa.DESCRIPTOR_FIELDS, changed, isa.DESCRIPTOR_WORDS, f"operation {op}")
    region = bytearray(compiled.program.region)
    at = op * isa.DESCRIPTOR_BYTES
    region[at : at + isa.DESCRIPTOR_BYTES] = np.array(words, "<u4").tobytes()
    return replace(compiled, program=replace(compiled.program, region=bytes(region)))


def check_good(compiled, admission, image):
    """A sample that nobody stopped: it took the last exit, and its arena holds every tensor and nothing else new.

    All exits are enabled and none is confident (limit 0).
    """
    tensors, program = compiled.tensors[image], compiled.program
    where = f"sample {admission.tag} in slot {admission.slot}, arena {admission.base:#x}"
    completion, last = admission.completion, len(program.exits) - 1
    assert completion is not None, f"{where}: no completion"
    exit = compiled.network.ends[last]
    top, spread = top_and_spread(tensors[exit.logits.name][0, 0, : exit.classes], exit_table(exit.scale, exit.beta))
    expected = {"status": Status.OK, "code": 0, "exit": last, "top": int(top), "spread": int(spread)}
    assert {k: completion[k] for k in expected} == expected, f"{where}: {completion}, expected {expected}"
    assert completion["tag"] == admission.tag, f"{where}: {completion}"
    arena = admission.before.copy()
    for name, place in program.tensors.items():
        if name != program.input_tensor:
            real = program.pack(name, np.ones((place.height, place.width, place.channels), np.int8)) != 0
            span = slice(place.offset, place.offset + real.size)
            arena[span] = np.where(real, program.pack(name, tensors[name]), arena[span])
    wrong = np.flatnonzero(arena != admission.after)
    assert not wrong.size, f"{where}: {wrong.size} bytes are wrong, first at offset {wrong[:1]}"


def check_completion_order(played, outcome):
    """What the host popped is what the engine model posted, in its order."""
    fields = ("status", "slot", "tag", "code")
    samples = [c for c in played.completions if c.status not in (Status.ERROR, Status.FENCE)]
    answers = [c for c in played.completions if c.status in (Status.ERROR, Status.FENCE)]
    popped = sorted(outcome["admissions"], key=lambda a: a.popped)
    for seen, posted in (([a.completion for a in popped], samples), (outcome["answers"], answers)):
        assert [[c[f] for f in fields] for c in seen] == [[getattr(c, f) for f in fields] for c in posted]


def check_faults(config, programs, scenario, outcome, failing):
    """One run: the trace replays, who fails does so for the right reason, all others are right, no byte is touched that
    lies outside of the arenas.

    programs : list of Compiled, as they were in the device
    failing : dict tag -> Code, or a collection of codes one of which is right; None: however it ends. Nobody asks how a
        sample ends that a CANCEL or LEAVE reached
    Returns the Story.
    """
    story = tell(config, programs, outcome)
    for admission in outcome["admissions"]:
        image, where = scenario.samples[admission.sample].image, f"sample {admission.tag}"
        course = story.courses[admission.tag]
        if course.cancelled or course.left:
            continue
        if admission.tag not in failing:
            check_good(programs[admission.program], admission, image)
            continue
        completion, code = admission.completion, failing[admission.tag]
        assert completion is not None and completion["tag"] == admission.tag, f"{where}: {completion}"
        if code is not None:
            codes = (code,) if isinstance(code, int) else tuple(code)
            seen = Status(completion["status"]), completion["code"]
            assert seen[0] == Status.FAILED and seen[1] in codes, f"{where}: {seen}, it must fail with one of {codes}"
    check_completion_order(story.played, outcome)
    sizes = getattr(scenario, "sizes", None) or {}
    for a in outcome["admissions"]:
        told = sizes.get(a.sample, a.size)
        assert (a.after[told:] == a.before[told:]).all(), f"sample {a.tag}: bytes behind its arena changed"
    check_nothing_else_written(scenario, outcome)
    total = sum(outcome["counters"][f"cycles_{cause}"] for cause in isa.CAUSES)
    assert total == outcome["latched"] + 1, f"cycles add up to {total}, latched at {outcome['latched']}"
    assert outcome["status"] & 3 == 0, f"STATUS is {outcome['status']:#x} after the end"
    return story


def check_nothing_else_written(case, outcome, regions=()):
    """Only arenas, and the given (base, bytes), changed; no burst went beyond the end of memory."""
    own = np.zeros(case.memory_bytes, bool)
    for a in outcome["admissions"]:
        own[a.base : a.base + a.size] = True
    for base, size in regions:
        own[base : base + size] = True
    outside = outcome["changed"][~own[outcome["changed"]]]
    assert not outside.size, f"{outside.size} bytes outside of all arenas changed, first at {outside[:1]}"
    assert not outcome["statistics"].beyond_bursts, "bursts beyond the end of memory"


def failure_bursts(outcome):
    """FAILED events of one cause: list of (code, slots), events with nothing of another kind between them together."""
    bursts, before = [], False
    events = outcome["events"]
    for event in events[events["source"] == ENGINE_PORT]:
        failed = event["kind"] == EngineEvent.FAILED
        if failed and before and bursts[-1][0] == event["data"]:
            bursts[-1][1].append(int(event["slot"]))
        elif failed:
            bursts.append((int(event["data"]), [int(event["slot"])]))
        before = failed
    return bursts


_FIELDS = ("kind", "slot", "pc", "line", "data", "data2", "cycle")


def _decoded(commands):
    return [(op, isa.decode(COMMANDS[Opcode(op)], words) if op in tuple(Opcode) else {}) for op, words in commands]


def replay_changing(config, programs, outcome, marks):
    """Replay a run in which programs change. ``marks``: (events before it, program, region, operations), in order.

    Returns the EngineReplay.
    """
    operations = {i: program_operations(c.program.region, len(c.program.ops)) for i, c in enumerate(programs)}
    model = EngineModel(config, operations)
    run = EngineReplay(model, _decoded(accepted_commands(outcome["transactions"])))
    marks = list(marks)
    for number, event in enumerate(outcome["events"]):
        while marks and marks[0][0] <= number:
            _, program, region, count = marks.pop(0)
            model.programs[program] = program_operations(region, count)
        if event["source"] == ENGINE_PORT:
            run.event(*(int(event[name]) for name in _FIELDS))
    return run


def replay_resets(config, programs, outcome, moments):
    """Replay a run with soft resets. ``moments``: cycle at which each was asked for.

    What a reset finds in the queue is lost: of the commands accepted before it only those count whose execution is in
    the trace. Returns the EngineReplay.
    """
    events = outcome["events"][outcome["events"]["source"] == ENGINE_PORT]
    transactions = outcome["transactions"]
    ends = [*events["cycle"][events["kind"] == EngineEvent.RESET].tolist(), np.inf]
    asked = [*moments, np.inf]
    assert len(ends) == len(asked), f"{len(ends) - 1} resets done, {len(moments)} asked for"
    executed = []
    begin = begin_asked = -1
    for end, moment in zip(ends, asked, strict=True):
        taken = accepted_commands(transactions[transactions["accepted"] <= moment])
        before = accepted_commands(transactions[transactions["accepted"] <= begin_asked])
        done = (events["kind"] == EngineEvent.COMMAND) & (events["cycle"] > begin) & (events["cycle"] <= end)
        mine = taken[len(before) :]
        assert done.sum() <= len(mine), "a command from nowhere"
        assert moment < np.inf or done.sum() == len(mine), "a command was lost without a reset"
        executed += mine[: done.sum()]
        begin, begin_asked = end, moment
    operations = {i: program_operations(c.program.region, len(c.program.ops)) for i, c in enumerate(programs)}
    run = EngineReplay(EngineModel(config, operations), _decoded(executed))
    for event in events:
        while asked[0] < event["cycle"]:
            run.model.begin_reset()
            asked.pop(0)
        run.event(*(int(event[name]) for name in _FIELDS))
    return run
