"""Runs to report on: written by hand event by event, or recorded from the engine model in its random world."""

import numpy as np
from fluidnpu.hw.isa import CAUSES, COMMANDS, COUNTERS, ArrayEvent, EngineEvent, Opcode, Status, encode
from fluidnpu.sched.request import Decision, Result
from fluidnpu.sim import engine_environment
from fluidnpu.sim.engine_model import EngineModel
from fluidnpu.sim.record import RunRecord
from fluidnpu.sim.rtl_shared import EVENT

OPERATIONS = ("conv0", "conv1", "jump0", "fc0", "exit0", "conv2", "fc1", "exit1")
HEADS = (-1, -1, -1, 0, 0, -1, -1, 1)
MACS = (4000, 4000, 0, 100, 0, 4000, 100, 0)


def make_record(events, results=(), decisions=(), policy="fluid", traffic="poisson", cycles=0, **more):
    """RunRecord of events as tuples (cycle, source, kind, slot, pc, line, data, data2)."""
    events = np.array([tuple(map(int, e)) for e in sorted(events, key=lambda e: e[0])], EVENT)
    cycles = cycles or (int(events["cycle"].max()) + 1 if len(events) else 1)
    counters = dict.fromkeys(COUNTERS, 0) | {"cycles_array": cycles // 2, "cycles_idle": cycles - cycles // 2}
    fields = {
        "config": "tiny", "network": "digits", "results": list(results), "decisions": list(decisions),
        "counters": counters, "labels": {r.id: r.top for r in results}, "operations": OPERATIONS, "macs": MACS,
        "heads": HEADS, "slots": 4, "peak_macs": 64, "first_read": 1, "last_write": cycles, "options": {"seed": 1},
    }  # fmt: skip
    assert sum(counters[f"cycles_{cause}"] for cause in CAUSES) == cycles
    return RunRecord(policy=policy, traffic=traffic, events=events, cycles=cycles, **(fields | more))


class Script:
    """Events of a run written by hand; every step goes on from the cycle where the last one ended."""

    def __init__(self, cycle=100):
        self.cycle, self.events, self.results, self.decisions, self.contexts = cycle, [], [], [], 0
        self.admitted = {}

    def engine(self, kind, slot=0, pc=0, line=0, data=0, data2=0):
        self.events.append((self.cycle, 0, kind, slot, pc, line, data, data2))

    def array(self, kind, line=0, data=0, cycle=None):
        self.events.append((self.cycle if cycle is None else cycle, 1, kind, 0, 0, line, data, 0))

    def command(self, opcode, code=0, **fields):
        self.cycle += 2
        self.engine(EngineEvent.COMMAND, line=code, data=opcode, data2=encode(COMMANDS[opcode], fields, 5, "test")[0])

    def admit(self, slot, id, priority=1, runnable=1):
        self.command(Opcode.ADMIT, slot=slot, priority=priority, runnable=runnable, ride=1)
        self.admitted[slot] = (id, self.cycle)
        self.decisions.append(Decision(self.cycle, "start", (slot,), (id,), 0))

    def deal(self, pc, members, candidates=None, leader=None):
        """``members``: slot -> (first line, last line)."""
        self.cycle += 1
        for slot, (first, last) in members.items():
            self.engine(EngineEvent.FRAGMENT, slot, pc, first, last - first + 1)
        slots = list(members) if candidates is None else candidates
        leader = next(iter(members)) if leader is None else leader
        self.engine(EngineEvent.DEAL, leader, pc, self.contexts, sum(1 << s for s in slots), len(members))

    def tile(self, pc, members, candidates=None, mode=(0, 0), length=50, rows=16, leader=None):
        """A tile that is dealt, started and executed; mode: (log2 kr, log2 kd)."""
        self.deal(pc, members, candidates, leader)
        self.cycle += 2
        self.engine(EngineEvent.START, line=self.contexts)
        self.cycle += 1
        self.array(ArrayEvent.TILE, self.contexts, rows | mode[0] << 16 | mode[1] << 20)
        self.cycle += length - 1
        self.array(ArrayEvent.END, self.contexts)
        self.contexts = (self.contexts + 1) % 4

    def exit(self, slot, exit, left, pc=4, top=3, spread=70000):
        self.cycle += 3
        self.engine(EngineEvent.EXIT_START, slot, pc)
        self.cycle += 5
        self.engine(EngineEvent.EXIT_RESULT, slot, pc, 0, top | left << 16 | exit << 20, spread)

    def release(self, slot, exit=0, status=Status.OK, top=3, deadline=None):
        id, admitted = self.admitted.pop(slot)
        stamp = self.cycle
        self.cycle += 4
        self.engine(EngineEvent.RELEASE, slot, data=status)
        self.results.append(
            Result(
                id,
                status.name.lower(),
                admitted - 40,
                deadline,
                stamp,
                self.cycle + 9,
                admitted - 10,
                slot,
                exit,
                top,
                7,
            )
        )

    def record(self, **options):
        return make_record(self.events, self.results, self.decisions, **options)


def merging_run(**options):
    """Request "a" is preempted by "b", which catches up; they merge; "a" leaves at exit 1, "b" at the last one."""
    s = Script()
    s.admit(0, "a")
    s.tile(0, {0: (0, 3)}, mode=(1, 0))
    s.tile(0, {0: (4, 7)}, mode=(1, 0))
    s.tile(1, {0: (0, 3)})
    s.admit(1, "b")
    s.tile(0, {1: (0, 7)}, length=90)  # preempts a
    s.tile(1, {1: (0, 3)})
    s.tile(1, {1: (4, 5), 0: (4, 5)}, mode=(0, 1))  # merge
    s.tile(1, {1: (6, 7), 0: (6, 7)})
    s.tile(3, {0: (0, 0), 1: (0, 0)}, length=10)
    s.exit(0, 0, True)
    s.exit(1, 0, False)
    s.release(0, 0, deadline=10_000)
    s.tile(5, {1: (0, 7)})
    s.tile(6, {1: (0, 0)}, length=10)
    s.exit(1, 1, True, pc=7)
    s.release(1, 1, deadline=500)
    return s.record(**options)


class Recorder(EngineModel):
    """An engine model that writes the events that story.py reads; ``clock``: function that tells the cycle."""

    clock = staticmethod(lambda: 0)

    def __init__(self, *arguments, **options):
        self.events, self.results, self.admits = [], [], {}
        super().__init__(*arguments, **options)

    def emit(self, kind, slot=0, pc=0, line=0, data=0, data2=0, source=0, cycle=None):
        self.events.append((self.clock() if cycle is None else cycle, source, kind, slot, pc, line, data, data2))

    def execute_command(self, opcode, stamp=0, **fields):
        completion = super().execute_command(opcode, stamp, **fields)
        word = encode(COMMANDS[opcode], fields, 5, "command")[0] if opcode in list(Opcode) else 0
        self.emit(EngineEvent.COMMAND, line=completion.code if completion else 0, data=opcode, data2=word)
        if opcode == Opcode.ADMIT and completion is None:
            self.admits[fields["slot"]] = (len(self.results) + len(self.admits), stamp)
        return completion

    def exit_start(self, s):
        super().exit_start(s)
        self.emit(EngineEvent.EXIT_START, s, self.slots[s].pc)

    def exit_result(self, s, top, spread, stamp=0):
        pc, exit = self.slots[s].pc, self.op(s).exit
        outcome = super().exit_result(s, top, spread, stamp)
        self.emit(EngineEvent.EXIT_RESULT, s, pc, 0, top | outcome.finished << 16 | exit << 20, spread)
        return outcome

    def release(self, s, stamp=0):
        c = super().release(s, stamp)
        self.emit(EngineEvent.RELEASE, s, data=c.status | c.code << 4)
        id, admitted = self.admits.pop(s)
        now = self.clock()
        self.results.append(
            Result(id, c.status.name.lower(), admitted, None, c.stamp, now, admitted, s, c.exit, c.top, c.spread)
        )
        return c

    def revoke(self):
        before = super().revoke()
        self.emit(EngineEvent.REVOKE)
        return before

    def deal(self):
        tile = super().deal()
        for n, subtile in enumerate(tile.subtiles):
            for f in subtile:
                self.emit(EngineEvent.FRAGMENT, f.slot, tile.pc, f.first, f.lines | n << 16)
        data = sum(1 << s for s in tile.candidates) | tile.variant << 16
        self.emit(EngineEvent.DEAL, tile.leader, tile.pc, tile.number % 4, data, len(tile.fragments))
        return tile

    def start(self, number=None):
        tile = super().start(number)
        self.emit(EngineEvent.START, line=tile.number % 4)
        data = 8 | (tile.kr.bit_length() - 1) << 16 | (tile.kd.bit_length() - 1) << 20
        self.emit(ArrayEvent.TILE, line=tile.number % 4, data=data, source=1)
        self.tiles = [*getattr(self, "tiles", []), tile]
        return tile


class RecordedWorld(engine_environment.World):
    """A random world whose array, too, leaves its events."""

    def after(self, delay, action, *arguments):
        if action is setattr and arguments[1] == "array_free":
            self.model.emit(ArrayEvent.END, source=1, cycle=self.now + delay - 1)
        super().after(delay, action, *arguments)


def world_run(monkeypatch, seed, **options):
    """(RunRecord, engine model) of a random world."""
    monkeypatch.setattr(engine_environment, "EngineModel", Recorder)
    world = RecordedWorld(seed, **options)
    world.model.clock = lambda: world.now
    world.run()
    model = world.model
    return make_record(model.events, model.results, slots=len(model.slots), cycles=world.now + 1), model
