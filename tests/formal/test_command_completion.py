"""Command and completion queue, connected as in the command bus, under every behaviour of host and engine: nothing is
lost, changed or overtaken, nothing overflows, and every completion entry is accounted for."""

import pytest
from amaranth.hdl import Assert, Assume, Cover, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from fluidnpu.hw.command import command_queue, completion_queue
from fluidnpu.hw.command.command_queue import CommandQueue
from fluidnpu.hw.command.completion_queue import CompletionQueue

from . import formal
from .probed_queue import ProbedQueue, Watch

COMMANDS = 2
COMPLETIONS = 4
WIDTH = 2
DEPTH = 12


class Reservations(wiring.Component):
    """Host (doorbell, pop), engine (take, release, post) and soft reset are free, within the contract: the engine
    posts or releases only what an executed command has reserved."""

    doorbell: In(1)
    command: In(WIDTH)
    take: In(1)
    release: In(1)
    post: In(1)
    completion: In(WIDTH)
    pop: In(1)
    clear: In(1)
    pick_command: In(1)
    pick_completion: In(1)

    def __init__(self, monkeypatch, commands=CommandQueue, completions=CompletionQueue, queue=ProbedQueue):
        super().__init__()
        self.queues = [queue(WIDTH, COMMANDS), queue(WIDTH, COMPLETIONS)]
        for module, inner in zip((command_queue, completion_queue), self.queues, strict=True):
            monkeypatch.setattr(module, "Queue", lambda shape, depth, inner=inner: inner)
        self.commands = commands(WIDTH, COMMANDS, COMPLETIONS)
        self.completions = completions(WIDTH, COMPLETIONS)

    def elaborate(self, platform):
        m = Module()
        m.submodules.commands = commands = self.commands
        m.submodules.completions = completions = self.completions
        held = Signal(range(COMPLETIONS + 1))  # reservations of executed commands
        taken = commands.i.valid & commands.i.ready
        gone = commands.o.valid & commands.o.ready
        popped = completions.o_valid & self.pop
        m.d.comb += [
            commands.i.valid.eq(self.doorbell),
            commands.i.payload.eq(self.command),
            commands.o.ready.eq(self.take),
            commands.unreserved.eq(completions.unreserved),
            commands.clear.eq(self.clear),
            completions.reserve.eq(commands.reserve),
            completions.release.eq(self.release),
            completions.i.valid.eq(self.post),
            completions.i.payload.eq(self.completion),
            completions.pop.eq(self.pop),
            completions.clear.eq(self.clear),
            Assume(self.clear | (self.release + self.post <= held + gone)),
        ]
        with m.If(self.clear):
            m.d.sync += held.eq(0)
        with m.Else():
            m.d.sync += held.eq(held + gone - self.release - self.post)

        waiting, posted = (queue.level for queue in self.queues)
        Watch(m, "command", self.queues[0], pick=self.pick_command, put=taken, get=gone, item=self.command,
              clear=self.clear)  # fmt: skip
        Watch(m, "completion", self.queues[1], pick=self.pick_completion, put=self.post & ~self.clear, get=popped,
              item=self.completion, clear=self.clear)  # fmt: skip
        m.d.comb += [
            # Every entry is free, reserved for a waiting or an executed command, or filled.
            Assert(completions.unreserved + waiting + held + posted == COMPLETIONS),
            # Taken if and only if there is room for command and completion.
            Assert(commands.i.ready == ((waiting < COMMANDS) & (completions.unreserved != 0) & ~self.clear)),
            Assert(commands.reserve == taken),
            Assert(completions.o_valid == ((posted != 0) & ~self.clear)),
            Assert(commands.o.valid == ((waiting != 0) & ~self.clear)),
            Assert(~self.post | self.clear | (posted < COMPLETIONS)),
            Assert((commands.free != 0) == commands.i.ready),
            Cover(waiting == COMMANDS),
            Cover(held == COMPLETIONS),
            Cover(posted == COMPLETIONS),
            Cover((waiting == COMMANDS) & (held == 1) & (posted == 1)),
            Cover(self.clear & (waiting == 1) & (posted == 1) & (held == 1)),
        ]
        return m


def prepare(workdir, system):
    return formal.prepare(system, [system], workdir)


def test_proof(tmp_path, monkeypatch):
    system = prepare(tmp_path, Reservations(monkeypatch))
    assert (verdict := formal.bounded(system, 4)).passed, verdict.failed_lines
    assert (verdict := formal.induction(system, 3)).passed, verdict.failed_lines
    assert (verdict := formal.cover(system, DEPTH)).passed, verdict.failed_lines


# --- seeded faults: the same properties catch each of them --------------------------------------------------------


class IgnoresCompletions(CommandQueue):
    """Looks at its own room only."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.clear & (self.unreserved == 0)):
            m.d.comb += self.free.eq(1)
        return m


class IgnoresItsOwnRoom(CommandQueue):
    """Looks at the completion entries only."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.clear):
            m.d.comb += self.free.eq(self.unreserved)
        return m


class LosesARelease(CompletionQueue):
    """Forgets a release in the cycle of a pop."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.pop & self.o_valid & self.release & ~self.reserve & ~self.clear):
            m.d.sync += self.unreserved.eq(self.unreserved + 1)
        return m


class KeepsReservations(CompletionQueue):
    """Soft reset does not clear the reservations."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.clear):
            m.d.sync += self.unreserved.eq(self.unreserved)
        return m


class Overtakes(ProbedQueue):
    """Offers the second of two items first."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        second = m.submodules.entries.read_port(domain="comb")
        m.d.comb += second.addr.eq(self.head + 1)
        with m.If(self.level == 2):
            m.d.comb += self.o.payload.eq(second.data)
        return m


class Corrupts(ProbedQueue):
    """Changes an item that is taken while another one leaves."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        (write,) = m.submodules.entries.write_ports
        with m.If(self.o.valid & self.o.ready):
            m.d.comb += write.data.eq(self.i.payload ^ 1)
        return m


FAULTS = [
    {"commands": IgnoresCompletions},
    {"commands": IgnoresItsOwnRoom},
    {"completions": LosesARelease},
    {"completions": KeepsReservations},
    {"queue": Overtakes},
    {"queue": Corrupts},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: next(iter(fault.values())).__name__)
def test_fault_is_caught(fault, tmp_path, monkeypatch):
    system = prepare(tmp_path, Reservations(monkeypatch, **fault))
    verdict = formal.bounded(system, DEPTH)
    assert not verdict.passed
    print(verdict.failed_lines)
