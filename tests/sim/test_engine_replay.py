"""Replaying traces: what a recording model did passes, a trace with one wrong field does not."""

import pytest
from fluidnpu.hw.isa import COMMANDS, EngineEvent, Opcode, encode
from fluidnpu.sim import engine_environment
from fluidnpu.sim.engine_environment import World
from fluidnpu.sim.engine_model import EngineModel, ModelViolation
from fluidnpu.sim.engine_replay import EngineReplay

CONTEXTS = 4


class Recorder(EngineModel):
    """An engine model that writes the events that the hardware would emit, and the commands it executed."""

    def __init__(self, *arguments, **options):
        self.events, self.commands, self.posted = [], [], []
        super().__init__(*arguments, **options)

    def emit(self, kind, slot=0, pc=0, line=0, data=0, data2=0, cycle=0):
        values = {"kind": kind, "slot": slot, "pc": pc, "line": line, "data": data, "data2": data2, "cycle": cycle}
        self.events.append(values)

    def execute_command(self, opcode, stamp=0, **fields):
        self.commands.append((opcode, fields))
        completion = super().execute_command(opcode, stamp, **fields)
        word = encode(COMMANDS[opcode], fields, 5, "command")[0] if opcode in list(Opcode) else 0
        code = completion.code if completion else 0
        self.emit(EngineEvent.COMMAND, line=code, data=opcode, data2=word, cycle=stamp)
        self.posted += [completion] if completion else []
        return completion

    def write_line(self, s):
        place = super().write_line(s)
        self.emit(EngineEvent.DONE, s, *place)
        return place

    def tile_drained(self, number=None):
        tile = super().tile_drained(number)
        self.emit(EngineEvent.RETIRE, line=tile.number % CONTEXTS)
        return tile

    def memory_error(self, code, slots):
        newly = super().memory_error(code, slots)
        for s in newly:
            self.emit(EngineEvent.FAILED, s, data=code)
        return newly

    def drained(self):
        super().drained()
        self.emit(EngineEvent.DRAINED)

    def jump(self, s):
        pc = super().jump(s)
        self.emit(EngineEvent.JUMP, s, pc)
        return pc

    def exit_start(self, s):
        super().exit_start(s)
        self.emit(EngineEvent.EXIT_START, s, self.slots[s].pc)

    def exit_result(self, s, top, spread, stamp=0):
        pc, exit = self.slots[s].pc, self.op(s).exit
        outcome = super().exit_result(s, top, spread, stamp)
        self.emit(EngineEvent.EXIT_RESULT, s, pc, 0, top | outcome.finished << 16 | exit << 20, spread, stamp)
        return outcome

    def release(self, s, stamp=0):
        completion = super().release(s, stamp)
        self.emit(EngineEvent.RELEASE, s, data=completion.status | completion.code << 4, cycle=stamp)
        self.posted.append(completion)
        return completion

    def revoke(self):
        before = super().revoke()
        self.emit(EngineEvent.REVOKE)
        return before

    def deal(self):
        tile = super().deal()
        for n, subtile in enumerate(tile.subtiles):
            for f in subtile:
                self.emit(EngineEvent.FRAGMENT, f.slot, tile.pc, f.first, f.lines | n << 16)
        candidates = sum(1 << s for s in tile.candidates)
        context = tile.number % CONTEXTS
        data = candidates | tile.variant << 16
        self.emit(EngineEvent.DEAL, tile.leader, tile.pc, context, data, len(tile.fragments))
        return tile

    def start(self, number=None):
        tile = super().start(number)
        self.emit(EngineEvent.START, line=tile.number % CONTEXTS)
        return tile


@pytest.fixture
def record(monkeypatch):
    monkeypatch.setattr(engine_environment, "EngineModel", Recorder)

    def run(seed, **options):
        world = World(seed, **options)
        world.run()
        return world.model

    return run


def fresh(recorder):
    model = EngineModel(recorder.config, recorder.programs, rigid=recorder.rigid, unstacked=recorder.unstacked)
    return EngineReplay(model, recorder.commands)


def replay(recorder, events):
    checker = fresh(recorder)
    for event in events:
        checker.event(**event)
    return checker


@pytest.mark.parametrize("seed", range(15))
def test_replay_of_what_a_model_did(record, seed):
    recorder = record(seed)
    checker = replay(recorder, recorder.events)
    assert checker.completions == recorder.posted
    assert len(checker.tiles) == recorder.dealt and checker.events == len(recorder.events)


FIELDS = {
    EngineEvent.DONE: ("slot", "pc", "line"),
    EngineEvent.JUMP: ("pc",),
    EngineEvent.EXIT_RESULT: ("slot", "data"),
    EngineEvent.RELEASE: ("slot", "data"),
    EngineEvent.DEAL: ("slot", "pc", "data", "data2"),
    EngineEvent.FRAGMENT: ("slot", "line", "data"),
    EngineEvent.START: ("line",),
    EngineEvent.RETIRE: ("line",),
    EngineEvent.COMMAND: ("line", "data", "data2"),
}


@pytest.mark.parametrize("kind, field", [(kind, field) for kind, names in FIELDS.items() for field in names])
def test_one_wrong_field_is_caught(record, kind, field):
    recorder = record(2, errors=0, rigid=False)
    places = [i for i, e in enumerate(recorder.events) if e["kind"] == kind]
    if kind == EngineEvent.COMMAND:  # the words of an unknown opcode mean nothing
        places = [i for i in places if recorder.events[i]["data"] in list(Opcode)]
    place = places[len(places) // 2]
    flip = 1 << 16 if (kind, field) == (EngineEvent.EXIT_RESULT, "data") else 1
    wrong = {**recorder.events[place], field: recorder.events[place][field] ^ flip}
    with pytest.raises(ModelViolation, match=r"event \d+ \([A-Z_]+, slot \d+, cycle \d+\)"):
        replay(recorder, [*recorder.events[:place], wrong, *recorder.events[place + 1 :]])


@pytest.mark.parametrize("kind", [EngineEvent.DONE, EngineEvent.START, EngineEvent.RETIRE, EngineEvent.FRAGMENT])
def test_a_lost_or_doubled_event_is_caught(record, kind):
    recorder = record(2, errors=0, rigid=False)
    place = next(i for i, e in enumerate(recorder.events) if e["kind"] == kind)
    before, after = recorder.events[:place], recorder.events[place + 1 :]
    for events in ([*before, *after], [*before, recorder.events[place], recorder.events[place], *after]):
        with pytest.raises(ModelViolation):
            replay(recorder, events)


def test_soft_reset_in_a_trace(record):
    recorder = record(1, errors=0)
    checker = fresh(recorder)
    for event in recorder.events:
        checker.event(**event)
        if checker.model.next is not None:
            break
    checker.model.begin_reset()
    checker.event(EngineEvent.REVOKE)
    checker.event(EngineEvent.DRAINED)
    checker.event(EngineEvent.RESET)
    assert checker.model.live() == []
