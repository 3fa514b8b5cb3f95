"""The read arbiter, for every behaviour of clients and memory: priorities, progress, a stable and truthful AR, no
burst outside of its region, every beat to its client."""

from dataclasses import replace

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import Client
from fluidnpu.hw.memory.read_arbiter import ReadArbiter

from . import formal

CONFIG = replace(CONFIGS["tiny"], slots=2, programs=1)
PATIENCE = 3  # cycles until the memory takes an AR


class Reads(wiring.Component):
    """Clients ask for anything and keep asking; the memory takes an AR within PATIENCE cycles and answers at will, for
    bursts that it took. ``byte`` stands for every byte of a burst. Regions stay while a burst waits."""

    byte: In(8)

    def __init__(self, arbiter=ReadArbiter, count_bursts=True):
        super().__init__()
        self.arbiter = arbiter(CONFIG)
        self.count_bursts = count_bursts

    def elaborate(self, platform):
        m = Module()
        m.submodules.arbiter = a = self.arbiter
        bus = a.bus
        requests = [client.request for client in a.clients]
        shape = requests[0].p.shape()
        given = Signal(len(Client))  # transfers of this cycle
        asking = Signal(len(Client))
        m.d.comb += [
            asking.eq(Cat(r.valid for r in requests)),
            given.eq(Cat(r.valid & r.ready for r in requests)),
        ]

        # Clients: one legal burst, kept until it is taken.
        for n, r in enumerate(requests):
            waited, before = Signal(name=f"waited{n}"), Signal(shape, name=f"before{n}")
            m.d.sync += [waited.eq(r.valid & ~r.ready), before.eq(r.p)]
            m.d.comb += Assume((r.p.beats >= 1) & (r.p.beats <= CONFIG.burst_beats))
            m.d.comb += Assume(~waited | (r.valid & (r.p.as_value() == before.as_value())))

        # Memory: takes every AR soon.
        patience = Signal(range(PATIENCE + 1))
        m.d.sync += patience.eq(Mux(bus.arvalid & ~bus.arready, patience + 1, 0))
        m.d.comb += Assume((patience < PATIENCE) | bus.arready)

        # Priority, and progress: whoever is first is served in every cycle in which AR can take something.
        first = Signal(len(Client))
        m.d.comb += [
            first.eq(asking & (~asking + 1)),  # lowest bit
            Assert((given == 0) | (given == first)),
            Assert((given != 0) == ((asking != 0) & ~a.hold & (~bus.arvalid | bus.arready))),
        ]
        # No deadlock: the first client waits no longer than the memory and hold make it wait.
        stuck = Signal(range(PATIENCE + 3))
        m.d.sync += stuck.eq(Mux((asking != 0) & (given == 0) & ~a.hold, stuck + 1, 0))
        m.d.comb += Assert(stuck <= PATIENCE)
        # What makes it inductive
        m.d.comb += Assert((patience == 0) | bus.arvalid)
        m.d.comb += Assert((stuck <= patience) | (patience == 0) & (stuck == 0))

        # AR shows exactly the accepted bursts.
        number, chosen, rejected = Signal(range(len(Client))), Signal(shape), Signal()
        for n, r in enumerate(requests):
            with m.If(given[n]):
                m.d.comb += [number.eq(n), chosen.eq(r.p), rejected.eq(a.clients[n].rejected)]
        ar_valid, ar_number, ar = Signal(), Signal(range(len(Client))), Signal(shape)
        with m.If(bus.arready):
            m.d.sync += ar_valid.eq(0)
        with m.If((given != 0) & ~rejected):
            m.d.sync += [ar_valid.eq(1), ar_number.eq(number), ar.eq(chosen)]
        m.d.comb += [
            Assert(bus.arvalid == ar_valid),
            Assert(
                ~ar_valid
                | ((bus.arid == ar_number) & (bus.araddr == ar.addr) & (bus.arlen + 1 == ar.beats) & (bus.arburst == 1))
            ),
            Assert((1 << bus.arsize) == CONFIG.bus_bytes),
        ]

        # No byte of an accepted burst lies outside of its owner's memory.
        address = Signal(34)
        count = Mux(chosen.arena, CONFIG.slots, CONFIG.programs)
        base = Mux(chosen.arena, Array(a.arena_base)[chosen.owner], Array(a.program_base)[chosen.owner])
        size = Mux(chosen.arena, Array(a.arena_bytes)[chosen.owner], Array(a.program_bytes)[chosen.owner])
        m.d.comb += address.eq(chosen.addr + self.byte)
        m.d.comb += Assert(
            (given == 0)
            | rejected
            | (self.byte >= chosen.beats * CONFIG.bus_bytes)
            | ((chosen.owner < count) & (address >= base) & (address < base + size) & (address < 1 << 32))
        )

        # Beats go to the client of their ID at once, and to nobody else.
        m.d.comb += Assert(bus.rready)
        for n, client in enumerate(a.clients):
            m.d.comb += Assert(client.beat_valid == (bus.rvalid & (bus.rid == n)))
            m.d.comb += Assert(
                ~client.beat_valid
                | (
                    (client.beat.data == bus.rdata)
                    & (client.beat_last == bus.rlast)
                    & (client.beat.error == bus.rresp[1])
                )
            )
        m.d.comb += [
            Cover(asking.all() & given[0]),
            Cover(given[len(Client) - 1] & ~rejected),
            Cover(rejected),
            Cover(stuck == PATIENCE),
        ]
        self._idle(m, given, rejected)
        return m

    def _idle(self, m, given, rejected):
        """``idle`` is exact: nothing waits and nothing is under way."""
        bus = self.arbiter.bus
        at_memory = Signal(3)  # bursts
        taken, ended = bus.arvalid & bus.arready, bus.rvalid & bus.rlast
        m.d.sync += at_memory.eq(at_memory + taken - ended)
        m.d.comb += [Assume(~ended | (at_memory != 0)), Assume(~taken | (at_memory != 7))]
        if self.count_bursts:
            m.d.comb += Assert(self.arbiter.idle == (~bus.arvalid & (at_memory == 0)))


def prepare(workdir, *arguments):
    system = Reads(*arguments)
    return formal.prepare(system, [system, system.arbiter], workdir)


def test_proof(tmp_path):
    """Everything but ``idle``, for ever."""
    system = prepare(tmp_path, ReadArbiter, False)
    assert (verdict := formal.bounded(system, 3)).passed, verdict.failed_lines
    assert (verdict := formal.induction(system, 2)).passed, verdict.failed_lines
    assert (verdict := formal.cover(system, 8)).passed, verdict.failed_lines


def test_idle(tmp_path):
    """``idle`` counts bursts: every sequence of a few cycles."""
    system = prepare(tmp_path, ReadArbiter, True)
    assert (verdict := formal.bounded(system, 7)).passed, verdict.failed_lines


# --- seeded faults ------------------------------------------------------------------------------------------------


class GivesWayToTheLast(ReadArbiter):
    """Serves the last client, too, when the first one is served."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.clients[0].request.ready & self.clients[0].request.valid):
            m.d.comb += self.clients[-1].request.ready.eq(1)
        return m


class Deadlocks(ReadArbiter):
    """Two certain clients wait for each other."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.clients[1].request.valid & self.clients[3].request.valid):
            m.d.comb += [client.request.ready.eq(0) for client in self.clients]
        return m


class ChangesAr(ReadArbiter):
    """AR changes while it waits, if a more important client asks."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.bus.arvalid & ~self.bus.arready & self.clients[0].request.valid):
            m.d.sync += self.bus.araddr.eq(self.clients[0].request.p.addr)
        return m


class LetsRejectedOut(ReadArbiter):
    """A rejected burst reaches the bus."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.clients[2].request.ready & self.clients[2].request.valid):
            m.d.sync += self.bus.arvalid.eq(1)
        return m


class RejectsNothing(ReadArbiter):
    """Says so, and does so."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.clients[2].request.ready & self.clients[2].request.valid):
            m.d.comb += self.clients[2].rejected.eq(0)
            m.d.sync += self.bus.arvalid.eq(1)
        return m


class MixesUpBeats(ReadArbiter):
    """Beats of one client also go to the next one."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.bus.rvalid & (self.bus.rid == 1)):
            m.d.comb += self.clients[2].beat_valid.eq(1)
        return m


@pytest.mark.parametrize(
    "fault", [GivesWayToTheLast, Deadlocks, ChangesAr, LetsRejectedOut, RejectsNothing, MixesUpBeats]
)
def test_fault_is_caught(fault, tmp_path):
    assert not formal.bounded(prepare(tmp_path, fault, False), 6).passed


class ForgetsABurst(ReadArbiter):
    """Calls itself idle while the memory still owes beats."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(self.bus.rvalid & self.bus.rlast):
            m.d.sync += self.idle.eq(~self.bus.arvalid)
        return m


def test_idle_fault_is_caught(tmp_path):
    assert not formal.bounded(prepare(tmp_path, ForgetsABurst, True), 7).passed
