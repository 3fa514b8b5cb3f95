"""Queue of completions, with an entry reserved for each before its command is queued."""

from amaranth.hdl import Assert, Module, Mux, ResetInserter, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from fluidnpu.hw.queue import Queue

__all__ = ["CompletionQueue"]


class CompletionQueue(wiring.Component):
    """Never stalls: whoever posts holds a reservation.

    Every entry is free, reserved or filled. ``reserve`` takes a free one, ``release`` gives a reserved one back, a
    completion at ``i`` fills a reserved one, ``pop`` frees the oldest filled one. All four may come in one cycle; a
    reservation serves from the next cycle on. Members beside these:

    o_valid, o : the oldest completion, from the cycle after it was posted
    level : completions posted and not popped
    unreserved : free entries
    clear : drops completions and reservations; ``i``, ``release`` and ``pop`` are ignored meanwhile, and ``reserve``
        must be low
    """

    def __init__(self, shape, entries):
        self.shape, self.entries = shape, entries
        count = range(entries + 1)
        super().__init__(
            {
                "reserve": In(1),
                "release": In(1),
                "i": In(stream.Signature(shape, always_ready=True)),
                "pop": In(1),
                "o_valid": Out(1),
                "o": Out(shape),
                "level": Out(count),
                "unreserved": Out(count, init=entries),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queue = Queue(self.shape, self.entries)
        m.submodules.queue = ResetInserter(self.clear)(queue)

        post = Signal()
        release = Signal()
        pop = Signal()
        reserved = Signal(range(self.entries + 1))  # and not yet used
        m.d.comb += [
            post.eq(self.i.valid & ~self.clear),
            release.eq(self.release & ~self.clear),
            pop.eq(self.pop & self.o_valid),
            queue.i.valid.eq(post),
            queue.i.payload.eq(self.i.payload),
            queue.o.ready.eq(pop),
            self.o_valid.eq(queue.o.valid & ~self.clear),
            self.o.eq(queue.o.payload),
            self.level.eq(Mux(self.clear, 0, queue.level)),
            reserved.eq(self.entries - self.unreserved - queue.level),
        ]
        with m.If(self.clear):
            m.d.sync += self.unreserved.eq(self.entries)
        with m.Else():
            m.d.sync += self.unreserved.eq(self.unreserved - self.reserve + release + pop)
        with m.If(~ResetSignal()):
            m.d.sync += [
                Assert(~self.reserve | (self.unreserved != 0), "no completion entry left to reserve"),
                Assert(reserved >= (release + post), "a completion without a reservation"),
                Assert(~post | queue.i.ready, "completion queue overrun"),
            ]
        return m
