"""One AXI4 read port for all clients that read external memory."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import bits_for, exact_log2

from ..axi import Axi4Signature
from ..isa import Client
from .address_check import AddressCheck
from .read_client import ReadClientSignature

__all__ = ["Axi4ReadSignature", "ReadArbiter"]

_INCREMENTING = 1


class Axi4ReadSignature(Signature):
    """The channels AR and R of Axi4Signature, seen from the manager."""

    def __init__(self, data_bytes, id_width=3):
        members = Axi4Signature(data_bytes, id_width).members
        super().__init__({name: member for name, member in members.items() if name.startswith(("ar", "r"))})


class ReadArbiter(Component):
    """Fixed-priority arbiter: the client with the lowest isa.Client value goes first; its value is the AXI ID.

    A request is taken when the AR register is free or being emptied. It is checked before it is issued: a burst
    outside of its region is taken with ``rejected`` and goes no further. The register keeps AR stable until it is
    accepted. R beats go to the client of their ID combinationally; ``rready`` is constantly 1 because clients reserve
    the space first.

    Latency 1 cycle from a request to AR, 0 from R to the client. Throughput one burst per cycle.

    Parameters: config.
    Members
    -------
    clients : ReadClientSignature of each isa.Client, indexed by its value
    bus : channels AR and R, manager
    arena_base, arena_bytes (per slot), program_base, program_bytes (per region) : bytes, levels
    hold : level, take no further request (soft reset; an AR that is already valid stays)
    idle : level, no burst waits in the register or is under way
    burst : pulse, a burst was accepted by the memory
    """

    LATENCY = 1

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "clients": In(ReadClientSignature(config)).array(len(Client)),
                "bus": Out(Axi4ReadSignature(config.bus_bytes)),
                "arena_base": In(32).array(config.slots),
                "arena_bytes": In(32).array(config.slots),
                "program_base": In(32).array(config.programs),
                "program_bytes": In(32).array(config.programs),
                "hold": In(1),
                "idle": Out(1, init=1),
                "burst": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.check = check = AddressCheck(c)
        for member in ("arena_base", "arena_bytes", "program_base", "program_bytes"):
            for source, sink in zip(getattr(self, member), getattr(check, member), strict=True):
                m.d.comb += sink.eq(source)

        # Choose: the first client that asks.
        chosen = Signal(range(len(Client)))
        asking = Signal()
        requests = [client.request for client in self.clients]
        for n in reversed(range(len(Client))):
            with m.If(requests[n].valid):
                m.d.comb += [chosen.eq(n), asking.eq(1)]
        burst = Signal(requests[0].p.shape())
        m.d.comb += burst.eq(Array(request.p.as_value() for request in requests)[chosen])

        # Check, then issue.
        free = Signal()
        taken = Signal()
        m.d.comb += [
            free.eq(~self.hold & (~self.bus.arvalid | self.bus.arready)),
            taken.eq(asking & free & check.inside),
            check.addr.eq(burst.addr),
            check.bytes.eq(burst.beats << exact_log2(c.bus_bytes)),
            check.arena.eq(burst.arena),
            check.owner.eq(burst.owner),
        ]
        for n, client in enumerate(self.clients):
            m.d.comb += [
                client.request.ready.eq(free & asking & (chosen == n)),
                client.rejected.eq(~check.inside),
            ]
        with m.If(self.bus.arready):
            m.d.sync += self.bus.arvalid.eq(0)
        with m.If(taken):
            m.d.sync += [
                self.bus.arvalid.eq(1),
                self.bus.arid.eq(chosen),
                self.bus.araddr.eq(burst.addr),
                self.bus.arlen.eq(burst.beats - 1),
            ]
        m.d.comb += [
            self.bus.arsize.eq(exact_log2(c.bus_bytes)),
            self.bus.arburst.eq(_INCREMENTING),
            self.burst.eq(self.bus.arvalid & self.bus.arready),
        ]

        # Give back.
        m.d.comb += self.bus.rready.eq(1)
        for n, client in enumerate(self.clients):
            m.d.comb += [
                client.beat_valid.eq(self.bus.rvalid & (self.bus.rid == n)),
                client.beat.data.eq(self.bus.rdata),
                client.beat.error.eq(self.bus.rresp[1]),
                client.beat_last.eq(self.bus.rlast),
            ]
        under_way = Signal(bits_for(len(Client) * c.reads_in_flight))
        left = Signal.like(under_way)
        ended = self.bus.rvalid & self.bus.rlast
        m.d.comb += left.eq(under_way + taken - ended)
        m.d.sync += [under_way.eq(left), self.idle.eq(Mux(taken, 0, left == 0))]
        return m
