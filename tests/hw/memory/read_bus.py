"""An AXI4 read memory for the Amaranth simulator, and small arithmetic that tests of reading blocks share."""

import random
from collections import deque

from fluidnpu.hw.axi import SLVERR
from fluidnpu.hw.isa import Client

__all__ = ["ReadMemory", "beat_value", "split"]

PAGE = 4096


def beat_value(config, addr):
    """Contents of the memory at a beat address: every beat is different and recognisable."""
    return random.Random(addr).getrandbits(8 * config.bus_bytes)


def split(config, addr, beats):
    """Bursts (addr, beats) of a request, from the AXI rules."""
    bursts = []
    while beats:
        n = min(beats, config.burst_beats, (PAGE - addr % PAGE) // config.bus_bytes)
        bursts.append((addr, n))
        addr += n * config.bus_bytes
        beats -= n
    return bursts


class ReadMemory:
    """Memory side of AR and R: answers bursts of one ID in order, different IDs in any order, bursts not mixed.

    Parameters
    ----------
    config, bus : the Axi4ReadSignature port of the manager
    latency : cycles from the acceptance of AR to the first beat (if nothing is in front)
    ready_rate, valid_rate : probability that AR is accepted or R is valid in a cycle
    bad : set of beat addresses that answer SLVERR
    value : function of a beat address; beat_value by default
    shuffle : different IDs may overtake each other

    Checks that AR is stable and legal. ``bursts`` lists (cycle, id, addr, beats), ``beats`` (cycle, id, addr).
    """

    def __init__(
        self, config, bus, *, latency=4, ready_rate=1.0, valid_rate=1.0, bad=(), value=None, shuffle=True, seed=0
    ):
        self.config = config
        self.bus = bus
        self.latency = latency
        self.ready_rate = ready_rate
        self.valid_rate = valid_rate
        self.bad = bad
        self.value = value or (lambda addr: beat_value(config, addr))
        self.shuffle = shuffle
        self.rng = random.Random(seed)
        self.bursts = []
        self.beats = []
        self.cycle = 0
        self._waiting = {client: deque() for client in Client}
        self._order = deque()
        self._serving = None

    @property
    def empty(self):
        """Nothing is under way."""
        return self._serving is None and not self._order

    async def serve(self, ctx):
        """Testbench; add with background=True, after the drivers."""
        bus, c, rng = self.bus, self.config, self.rng
        offered = None
        while True:
            ready = rng.random() < self.ready_rate
            ctx.set(bus.arready, ready)
            self._drive_beat(ctx)
            _, _, valid, ident, addr, length, size, kind, rready = await ctx.tick().sample(
                bus.arvalid, bus.arid, bus.araddr, bus.arlen, bus.arsize, bus.arburst, bus.rready
            )
            assert rready == 1
            ar = (ident, addr, length) if valid else None
            if offered is not None:
                assert ar == offered, "AR changed before it was accepted"
            offered = ar if valid and not ready else None
            if valid and ready:
                n = length + 1
                assert 1 << size == c.bus_bytes and kind == 1 and n <= c.burst_beats
                assert addr % c.bus_bytes == 0 and addr // PAGE == (addr + n * c.bus_bytes - 1) // PAGE
                self.bursts.append((self.cycle, ident, addr, n))
                self._waiting[Client(ident)].append((self.cycle + self.latency, addr, n))
                self._order.append(Client(ident))
            self.cycle += 1

    def _drive_beat(self, ctx):
        bus, c, rng = self.bus, self.config, self.rng
        if self._serving is None and self._order:
            ripe = [k for k in self._order if self._waiting[k][0][0] <= self.cycle]
            if not self.shuffle:
                ripe = [k for k in ripe[:1] if k == self._order[0]]
            if ripe:
                client = rng.choice(ripe)
                self._order.remove(client)
                _, addr, n = self._waiting[client].popleft()
                self._serving = [client, addr, n]
        valid = self._serving is not None and rng.random() < self.valid_rate
        ctx.set(bus.rvalid, valid)
        if not valid:
            ctx.set(bus.rdata, rng.getrandbits(8 * c.bus_bytes))
            ctx.set(bus.rid, rng.randrange(8))
            ctx.set(bus.rlast, rng.randrange(2))
            return
        client, addr, n = self._serving
        self.beats.append((self.cycle, int(client), addr))
        ctx.set(bus.rid, client)
        ctx.set(bus.rdata, self.value(addr))
        ctx.set(bus.rresp, SLVERR if addr in self.bad else 0)
        ctx.set(bus.rlast, n == 1)
        self._serving = [client, addr + c.bus_bytes, n - 1] if n > 1 else None
