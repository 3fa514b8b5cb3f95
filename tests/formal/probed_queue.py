"""A Queue whose inside a proof can look at, and its invariant."""

from amaranth.hdl import Assert, Signal
from fluidnpu.hw.queue import Queue

__all__ = ["ProbedQueue", "Watch"]


class ProbedQueue(Queue):
    """Queue with its pointers and the entry at ``watch`` as signals."""

    def __init__(self, shape, depth):
        super().__init__(shape, depth)
        self.watch = Signal(range(depth))
        self.entry = Signal(shape)
        self.head = Signal(range(depth))
        self.tail = Signal(range(depth))

    def elaborate(self, platform):
        m = super().elaborate(platform)
        entries = m.submodules.entries
        probe = entries.read_port(domain="comb")
        m.d.comb += [
            self.head.eq(entries.read_ports[0].addr),
            self.tail.eq(entries.write_ports[0].addr),
            probe.addr.eq(self.watch),
            self.entry.eq(probe.data),
        ]
        return m


class Watch:
    """Follows one item, picked at will, through a queue: it must come out unchanged after exactly the items that were
    in front of it.

    Parameters: m (module), queue (ProbedQueue), pick (free bit), put, get (transfers of this cycle), item (what
    ``put`` takes), clear (drops all).
    """

    def __init__(self, m, name, queue, *, pick, put, get, item, clear):
        depth = queue.depth
        seen = Signal(name=f"{name}_seen")
        data = Signal(len(item), name=f"{name}_data")
        ahead = Signal(range(depth + 1), name=f"{name}_ahead")
        place = Signal(range(2 * depth), name=f"{name}_place")
        last = Signal(range(2 * depth), name=f"{name}_last")
        self.seen, self.ahead = seen, ahead
        with m.If(clear):
            m.d.sync += seen.eq(0)
        with m.Elif(seen):
            with m.If(get):
                m.d.sync += [ahead.eq(ahead - 1), seen.eq(ahead != 0)]
        with m.Elif(pick & put):
            m.d.sync += [seen.eq(1), data.eq(item), ahead.eq(queue.level - get)]
        m.d.comb += [
            place.eq(queue.head + ahead),
            queue.watch.eq(place - (place >= depth) * depth),
            last.eq(queue.head + queue.level),
        ]
        # The property
        m.d.comb += Assert(~(seen & (ahead == 0) & ~clear) | (queue.o.valid & (queue.o.payload == data)))
        m.d.comb += Assert(~seen | (ahead < queue.level))
        m.d.comb += Assert(queue.level <= depth)
        # What makes it inductive
        m.d.comb += Assert(queue.tail == last - (last >= depth) * depth)
        m.d.comb += Assert(queue.head < depth)
        m.d.comb += Assert(~seen | (queue.entry == data))
