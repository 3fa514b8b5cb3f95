"""Keeps every burst inside of its owner's memory."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for

__all__ = ["AddressCheck"]


class AddressCheck(Component):
    """Whether the first and the last byte of a burst lie in a program region or in an arena. Combinational.

        inside = base <= addr and addr + bytes <= base + size and addr + bytes <= 2**32,  bytes > 0

    Base and size are those of arena ``owner`` (a slot) if ``arena``, else of program region ``owner``. An owner
    that does not exist has no memory: nothing is inside.

    Parameters: config (slots, programs, longest burst).
    Members: addr (byte address), bytes, arena, owner; arena_base, arena_bytes (per slot), program_base,
    program_bytes (per program region); inside (out).
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "addr": In(32),
                "bytes": In(bits_for(config.burst_beats * config.bus_bytes)),
                "arena": In(1),
                "owner": In(4),
                "arena_base": In(32).array(config.slots),
                "arena_bytes": In(32).array(config.slots),
                "program_base": In(32).array(config.programs),
                "program_bytes": In(32).array(config.programs),
                "inside": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        base = Signal(32)
        size = Signal(32)
        known = Signal()
        end = Signal(33)
        m.d.comb += [
            base.eq(Mux(self.arena, Array(self.arena_base)[self.owner], Array(self.program_base)[self.owner])),
            size.eq(Mux(self.arena, Array(self.arena_bytes)[self.owner], Array(self.program_bytes)[self.owner])),
            known.eq(self.owner < Mux(self.arena, self.config.slots, self.config.programs)),
            end.eq(self.addr + self.bytes),
            self.inside.eq(
                known
                & (self.bytes != 0)
                & (self.addr >= base)
                & (end <= base + size)
                # The last byte is at end - 1; an end of exactly 2**32 is legal.
                & (~end[32] | (end[:32] == 0))
            ),
        ]
        return m
