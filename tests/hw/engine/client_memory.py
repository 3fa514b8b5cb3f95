"""External memory behind one ReadClient port, with random latencies, stalls, error beats and rejected bursts."""

import random
from collections import deque

__all__ = ["ClientMemory", "Pins"]

_PAGE_BYTES = 4096


class Pins:
    """Sets inputs only when they change: every set costs the simulator a settling."""

    def __init__(self):
        self.values = {}

    def set(self, ctx, signal, value):
        if self.values.get(id(signal)) != value:
            self.values[id(signal)] = value
            ctx.set(signal, value)


class ClientMemory:
    """Answers the bursts of ``client`` (a ReadClientSignature as its block shows it) in order.

    Parameters
    ----------
    read : function, byte address -> the bus_bytes bytes there
    legal : function, (address, bytes, arena, owner) -> the burst may reach the bus
    failing : function, byte address of a beat -> it comes with an error
    latency : most cycles from a request to its first beat (random, 1 at least)
    rate : chance per cycle that a request is taken, and that a beat comes

    Members
    -------
    bursts : (cycle, address, beats, arena, owner, rejected) of every request taken
    outstanding : beats to come
    slower : cycles, added to every latency
    """

    def __init__(self, config, client, read, *, legal=None, failing=None, latency=1, rate=1.0, seed=""):
        self.config, self.client, self.read = config, client, read
        self.legal = legal or (lambda *burst: True)
        self.failing = failing or (lambda address: False)
        self.latency, self.rate = latency, rate
        self.rng = random.Random(f"memory {seed}")
        self.bursts = []
        self.slower = 0
        self.pins = Pins()
        request = client.request
        # Taken once: looking a member up costs more than reading it.
        self.valid, self.ready, self.beat_valid = request.valid, request.ready, client.beat_valid
        self.cycle = 0
        self.pending = deque()  # (cycle from which on it comes, byte address, last)

    @property
    def outstanding(self):
        return len(self.pending)

    def chance(self):
        return self.rate == 1 or self.rng.random() < self.rate

    def drive(self, ctx):
        """Set the inputs of this cycle; returns the burst offered now if it is taken."""
        client, bus = self.client, self.config.bus_bytes
        ready = self.chance()
        burst = None
        self.pins.set(ctx, self.ready, ready)
        if ctx.get(self.valid) and ready:
            p = ctx.get(client.request.p)
            burst = (p.addr, p.beats, p.arena, p.owner, not self.legal(p.addr, p.beats * bus, p.arena, p.owner))
            ctx.set(client.rejected, burst[-1])
        beat = bool(self.pending) and self.pending[0][0] <= self.cycle and self.chance()
        self.pins.set(ctx, self.beat_valid, beat)
        if beat:
            _, address, last = self.pending.popleft()
            error = self.failing(address)
            data = self.rng.getrandbits(8 * bus) if error else int.from_bytes(self.read(address), "little")
            ctx.set(client.beat, {"data": data, "error": error})
            ctx.set(client.beat_last, last)
        return burst

    async def serve(self, ctx):
        """Testbench, to be added as a background one."""
        bus = self.config.bus_bytes
        while True:
            burst = self.drive(ctx)
            await ctx.tick()
            if burst is not None:
                address, beats, _, _, rejected = burst
                assert 1 <= beats <= self.config.burst_beats and address % bus == 0
                assert address // _PAGE_BYTES == (address + beats * bus - 1) // _PAGE_BYTES, "a page is crossed"
                self.bursts.append((self.cycle, *burst))
                due = self.cycle + self.slower + self.rng.randint(1, self.latency)
                if not rejected:
                    self.pending += [(due, address + k * bus, k == beats - 1) for k in range(beats)]
            self.cycle += 1
