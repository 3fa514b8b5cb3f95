"""AXI4-Lite master for the Amaranth simulator, with independent stalls on all five channels."""

from dataclasses import dataclass, field

__all__ = ["AxiLiteMaster", "Read", "Write"]


@dataclass
class Write:
    """A write to do, and what came of it. Delays are cycles before the channel's valid; accept: before bready."""

    address: int
    data: int
    strobes: int = 0xF
    aw_delay: int = 0
    w_delay: int = 0
    accept: int = 0
    response: int = None
    cycle: int = None  # of the transfer of B


@dataclass
class Read:
    """A read to do, and what came of it."""

    address: int
    delay: int = 0
    accept: int = 0
    data: int = None
    response: int = None
    cycle: int = None


@dataclass
class _Channel:
    """One master-driven channel: raises valid after its delay, drops it after the transfer."""

    waiting: int = 0
    active: bool = False
    done: bool = False


@dataclass
class AxiLiteMaster:
    """Works off the lists ``writes`` and ``reads`` at the same time; either may grow while it runs.

    Call `drive` before every clock edge and `observe` with it. Checks that valid, once high, stays high with the
    same content until the transfer.
    """

    bus: object
    writes: list = field(default_factory=list)
    reads: list = field(default_factory=list)
    cycle: int = 0

    def __post_init__(self):
        self.write_index = self.read_index = 0
        self.aw, self.w, self.b = _Channel(), _Channel(), _Channel()
        self.ar, self.r = _Channel(), _Channel()
        self.held = {}

    def idle(self):
        """All transactions done."""
        return self.write_index == len(self.writes) and self.read_index == len(self.reads)

    def drive(self, ctx):
        bus = self.bus
        write = self.writes[self.write_index] if self.write_index < len(self.writes) else None
        read = self.reads[self.read_index] if self.read_index < len(self.reads) else None
        self._valid(ctx, self.aw, bus.awvalid, write, "aw_delay")
        self._valid(ctx, self.w, bus.wvalid, write, "w_delay")
        self._valid(ctx, self.ar, bus.arvalid, read, "delay")
        if write is not None:
            # Without valid the content must not matter.
            ctx.set(bus.awaddr, write.address if self.aw.active else ~write.address & 0xFFF)
            ctx.set(bus.wdata, write.data if self.w.active else ~write.data & 0xFFFFFFFF)
            ctx.set(bus.wstrb, write.strobes if self.w.active else 0)
        if read is not None:
            ctx.set(bus.araddr, read.address if self.ar.active else ~read.address & 0xFFF)
        self._ready(ctx, self.b, bus.bvalid, bus.bready, write)
        self._ready(ctx, self.r, bus.rvalid, bus.rready, read)

    def _valid(self, ctx, channel, valid, access, delay):
        if access is not None and not channel.active and not channel.done:
            channel.active = channel.waiting >= getattr(access, delay)
            channel.waiting += 1
        ctx.set(valid, channel.active)

    def _ready(self, ctx, channel, valid, ready, access):
        wait = access.accept if access is not None else 0
        ctx.set(ready, channel.waiting >= wait)
        if ctx.get(valid):
            channel.waiting += 1

    def observe(self, ctx):
        """Look at the transfers that the coming edge makes."""
        bus = self.bus
        for channel, valid, ready in ((self.aw, bus.awvalid, bus.awready), (self.w, bus.wvalid, bus.wready),
                                      (self.ar, bus.arvalid, bus.arready)):  # fmt: skip
            if ctx.get(valid) and ctx.get(ready):
                channel.active, channel.done = False, True
        self._stable("b", ctx.get(bus.bvalid), ctx.get(bus.bready), ctx.get(bus.bresp))
        self._stable("r", ctx.get(bus.rvalid), ctx.get(bus.rready), (ctx.get(bus.rresp), ctx.get(bus.rdata)))
        if ctx.get(bus.bvalid) and ctx.get(bus.bready):
            assert self.aw.done and self.w.done, "a response before its write"
            write = self.writes[self.write_index]
            write.response, write.cycle = ctx.get(bus.bresp), self.cycle
            self.write_index += 1
            self.aw, self.w, self.b = _Channel(), _Channel(), _Channel()
        if ctx.get(bus.rvalid) and ctx.get(bus.rready):
            assert self.ar.done, "data before its read"
            read = self.reads[self.read_index]
            read.response, read.data, read.cycle = ctx.get(bus.rresp), ctx.get(bus.rdata), self.cycle
            self.read_index += 1
            self.ar, self.r = _Channel(), _Channel()
        self.cycle += 1

    def _stable(self, name, valid, ready, content):
        if name in self.held:
            assert valid and content == self.held[name], f"channel {name} changed while it waited"
        self.held.pop(name, None)
        if valid and not ready:
            self.held[name] = content
