"""Queue of commands that the host rang the doorbell for."""

from amaranth.hdl import Assert, Module, Mux, ResetInserter, ResetSignal, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from fluidnpu.hw.queue import Queue

__all__ = ["CommandQueue"]


class CommandQueue(wiring.Component):
    """Takes a command only if there is room for it and for the completion that it may cause.

    One command per cycle on both sides; a command is offered one cycle after it was taken.

    Parameters
    ----------
    shape : of a command
    entries : most queued commands
    completion_entries : most completions, range of ``unreserved``

    Members
    -------
    i : commands; a transfer is final, no transfer leaves no trace
    o : commands in order; an invalid ``o`` in a cycle with ``clear`` may follow a valid one without a transfer
    unreserved : completion entries that nobody has a claim to
    reserve : high in the cycle of a transfer at ``i``: claims a completion entry
    free : commands that would be taken now, one after the other
    clear : drops every command; nothing is taken meanwhile
    """

    def __init__(self, shape, entries, completion_entries):
        self.shape, self.entries, self.completion_entries = shape, entries, completion_entries
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
                "unreserved": In(range(completion_entries + 1)),
                "reserve": Out(1),
                "free": Out(range(min(entries, completion_entries) + 1)),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        queue = Queue(self.shape, self.entries)
        m.submodules.queue = ResetInserter(self.clear)(queue)

        room = Signal(range(self.entries + 1))
        taken = self.i.valid & self.i.ready
        m.d.comb += room.eq(self.entries - queue.level)
        with m.If(~self.clear):
            m.d.comb += self.free.eq(Mux(room < self.unreserved, room, self.unreserved))
        m.d.comb += [
            self.i.ready.eq(self.free != 0),
            self.reserve.eq(taken),
            queue.i.valid.eq(taken),
            queue.i.payload.eq(self.i.payload),
            self.o.valid.eq(queue.o.valid & ~self.clear),
            self.o.payload.eq(queue.o.payload),
            queue.o.ready.eq(self.o.ready),
        ]
        with m.If(~ResetSignal()):
            m.d.sync += Assert(~taken | queue.i.ready, "command queue overrun")
        return m
