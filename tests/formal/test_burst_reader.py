"""The burst reader, for every request: its bursts are legal AXI bursts and cover the request exactly, in order."""

import pytest
from amaranth.hdl import Assert, Assume, Cover, Elaboratable, Module, Mux, Signal
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.memory import burst_reader as reader_module

from . import formal

CONFIG = CONFIGS["tiny"]
PAGE = 4096
BEATS_BITS = 6  # requests of up to 63 beats
ADDRESS_BITS = 13  # two pages are every case
DEPTH = 7


class Requests(Elaboratable):
    """Requests and the memory's answers are free; nothing is flushed."""

    def __init__(self, module=reader_module):
        self.reader = module.BurstReader(CONFIG, tag_shape=1, requests_depth=0, beats_bits=BEATS_BITS)

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = self.reader
        bus = CONFIG.bus_bytes
        request, burst, client = reader.request, reader.client.request, reader.client
        taken = burst.valid & burst.ready
        m.d.comb += Assume((request.p.beats != 0) & ~reader.flush)
        m.d.comb += Assume(request.p.addr[ADDRESS_BITS:] == 0)

        # What is left of the request under way, and one request more that may wait
        addr, left = Signal(32), Signal(BEATS_BITS)
        owner, arena = Signal(4), Signal()
        next_addr, next_left, next_owner, next_arena = Signal(32), Signal(BEATS_BITS), Signal(4), Signal()
        ends = taken & (burst.p.beats == left)
        free = (left == 0) | (ends & (next_left == 0))
        with m.If(taken):
            m.d.sync += [addr.eq(addr + burst.p.beats * bus), left.eq(left - burst.p.beats)]
            with m.If(ends):
                m.d.sync += [addr.eq(next_addr), left.eq(next_left), owner.eq(next_owner), arena.eq(next_arena)]
                m.d.sync += next_left.eq(0)
        with m.If(request.valid & request.ready):
            aligned = request.p.addr & ~(bus - 1)
            m.d.comb += Assert(free | (next_left == 0) | ends)
            with m.If(free):
                m.d.sync += [addr.eq(aligned), left.eq(request.p.beats)]
                m.d.sync += [owner.eq(request.p.owner), arena.eq(request.p.arena)]
            with m.Else():
                m.d.sync += [next_addr.eq(aligned), next_left.eq(request.p.beats)]
                m.d.sync += [next_owner.eq(request.p.owner), next_arena.eq(request.p.arena)]

        to_page = Signal(range(PAGE + 1))
        m.d.comb += to_page.eq((PAGE - addr[:12]) // bus)
        longest = Mux(to_page < CONFIG.burst_beats, to_page, CONFIG.burst_beats)
        m.d.comb += [
            Assert(~burst.valid | (burst.p.addr == addr)),
            Assert(~burst.valid | (burst.p.beats == Mux(left < longest, left, longest))),
            Assert(~burst.valid | ((burst.p.owner == owner) & (burst.p.arena == arena))),
            Assert(~burst.valid | (burst.p.beats != 0)),
        ]
        # At most so many bursts are under way; the memory answers only those that reached it.
        flying = Signal(range(2 * CONFIG.reads_in_flight))
        m.d.sync += flying.eq(flying + (taken & ~client.rejected) - (client.beat_valid & client.beat_last))
        m.d.comb += [
            Assume(~client.beat_valid | (flying != 0)),
            Assert(flying <= CONFIG.reads_in_flight),
            Assert(reader.beat_valid | ~client.beat_valid),
            Assert(~reader.rejected | ~client.beat_valid),
            Cover(
                taken & (burst.p.beats == CONFIG.burst_beats) & (burst.p.addr[:12] == PAGE - CONFIG.burst_beats * bus)
            ),
            Cover(taken & (to_page == 1) & (left == 9)),
            Cover(taken & (left == 1) & (next_left == 3)),
        ]
        return m


def prepare(workdir, module=reader_module):
    system = Requests(module)
    return formal.prepare(system, [system.reader], workdir)


def test_proof(tmp_path):
    """Every sequence of a few cycles, for every place in a page and length."""
    system = prepare(tmp_path)
    assert (verdict := formal.cover(system, 2 * DEPTH)).passed, verdict.failed_lines
    assert (verdict := formal.bounded(system, DEPTH, timeout=300)).passed, verdict.failed_lines


FAULTS = {
    "over the page": ("page_beats - rest.addr", "page_beats + 1 - rest.addr"),
    "too short": ("(rest.beats < c.burst_beats)", "(rest.beats < c.burst_beats - 1)"),
    "wrong step": ("(rest.addr + (length << beat_shift))", "(rest.addr + (c.burst_beats << beat_shift))"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault, tmp_path):
    module = formal.mutated(reader_module, *FAULTS[fault])
    assert not formal.bounded(prepare(tmp_path, module), DEPTH, timeout=300).passed
