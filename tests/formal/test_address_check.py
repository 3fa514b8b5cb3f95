"""The address check, for every address, length, owner and region: what passes has every byte inside of its owner's
memory, and what lies inside passes."""

from dataclasses import replace

import pytest
from amaranth.hdl import Assert, Cover, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.memory.address_check import AddressCheck

from . import formal

# Two program regions: most owners of one do not exist.
CONFIG = replace(CONFIGS["tiny"], programs=2)
LIMIT = 1 << 32


class Inside(wiring.Component):
    """``offset`` stands for every byte of the burst."""

    offset: In(8)

    def __init__(self, check=AddressCheck):
        super().__init__()
        self.check = check(CONFIG)

    def elaborate(self, platform):
        m = Module()
        m.submodules.check = c = self.check
        exists = Signal()
        base, end, last = Signal(34), Signal(34), Signal(34)  # whole numbers, no overflow
        m.d.comb += [
            exists.eq(c.owner < Mux(c.arena, CONFIG.slots, CONFIG.programs)),
            last.eq(c.addr + c.bytes - 1),
        ]
        for arena, bases, sizes in (
            (1, c.arena_base, c.arena_bytes),
            (0, c.program_base, c.program_bytes),
        ):
            for owner, (region, size) in enumerate(zip(bases, sizes, strict=True)):
                with m.If((c.owner == owner) & (c.arena == arena)):
                    m.d.comb += [base.eq(region), end.eq(region + size)]

        def owned(byte):
            return exists & (byte >= base) & (byte < end) & (byte < LIMIT)

        m.d.comb += [
            Assert(~c.inside | (c.bytes != 0)),
            Assert(~c.inside | (self.offset >= c.bytes) | owned(c.addr + self.offset)),
            Assert(c.inside == ((c.bytes != 0) & owned(c.addr) & owned(last))),
            Cover(c.inside & (last == LIMIT - 1)),
            Cover(c.inside & (c.bytes == 1) & (base == last) & (end == base + 1)),
            Cover(~c.inside & exists & (c.bytes != 0)),
        ]
        return m


def prepare(workdir, check=AddressCheck):
    system = Inside(check)
    return formal.prepare(system, [system, system.check], workdir)


def test_proof(tmp_path):
    """Combinational: one step is every case."""
    system = prepare(tmp_path)
    assert (verdict := formal.bounded(system, 2)).passed, verdict.failed_lines
    assert (verdict := formal.cover(system, 2)).passed, verdict.failed_lines


# --- seeded faults ------------------------------------------------------------------------------------------------


class FirstByteOnly(AddressCheck):
    """Does not look at the end of the burst."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        judge = AddressCheck(self.config)
        m.submodules.judge = judge
        for path, member, value in self.signature.flatten(self):
            if member.flow == In:
                m.d.comb += formal.member(judge, path).eq(1 if path == ("bytes",) else value)
        m.d.comb += self.inside.eq(judge.inside & (self.bytes != 0))
        return m


class WrapsAround(AddressCheck):
    """Lets a burst run over the end of the address space."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If((self.addr > LIMIT - 64) & (self.addr >= self.arena_base[0]) & self.arena & (self.owner == 0)):
            m.d.comb += self.inside.eq(self.bytes != 0)
        return m


class StrangerOwnsTheLast(AddressCheck):
    """An owner that does not exist gets the memory of the last one."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        with m.If(~self.arena & (self.owner == self.config.programs)):
            last = self.program_base[-1]
            m.d.comb += self.inside.eq(
                (self.bytes != 0)
                & (self.addr >= last)
                & (self.addr + self.bytes <= last + self.program_bytes[-1])
                & (self.addr + self.bytes <= LIMIT)
            )
        return m


@pytest.mark.parametrize("fault", [FirstByteOnly, WrapsAround, StrangerOwnsTheLast])
def test_fault_is_caught(fault, tmp_path):
    assert not formal.bounded(prepare(tmp_path, fault), 2).passed
