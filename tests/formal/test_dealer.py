"""The dealer, for every small layer, position and candidate: every line at most once and in order, no bubble, no
sub-tile above its limits, no line before its inputs, and an end within the documented number of cycles.

Bounded in size (lines, window, image), not in values: every tile that fits the bounds is covered from go to done.
"""

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Cover, Elaboratable, Module, Mux, ResetSignal, Signal
from fluidnpu.hw import isa
from fluidnpu.hw.config import NpuConfig
from fluidnpu.hw.engine import dealer as dealer_module

from . import formal

CONFIG = NpuConfig("deal", 8, 8, 8, 2, 2, 8, 4, 4096, 2048, 4, 32, completion_entries=4, programs=1, exits=1)
LINES = 2  # most lines of the layer
N = CONFIG.slots
KR = CONFIG.max_stack
# count + lines dealt + 2 per candidate + 8, + 3 per line of a rider of lower priority (whose leader got one, too)
CYCLES = N + N * LINES + 2 * N + 8 + 3 * (N - 1) * LINES


class Deal(Elaboratable):
    """One deal, from ``go`` in the first cycle, under the rules of the descriptor check and of the slot table."""

    def __init__(self, segments, module=dealer_module):
        self.segments = segments
        self.dealer = module.Dealer(CONFIG)

    def elaborate(self, platform):
        m = Module()
        m.submodules.dealer = self.dealer
        running, over = Signal(), Signal()
        cycle = Signal(range(2 * CYCLES))
        m.d.sync += [running.eq(1), cycle.eq(cycle + 1), over.eq(over | self.dealer.done)]
        m.d.comb += [Assume(~ResetSignal()), self.dealer.go.eq(~running)]
        self._inputs(m)
        self._observe(m, running, over)
        m.d.comb += Assert(over | (cycle <= CYCLES))
        return m

    def _inputs(self, m):
        """Legal inputs."""
        d, layer = self.dealer, self.dealer.layer

        bounds = {
            **{"lines": (1, LINES), "nseg": (self.segments, self.segments), "seg_w": (1, 2), "out_w": (1, 4)},
            **{"kh": (1, 2), "sy": (1, 2), "pad_top": (0, 1), "in_h": (1, 3), "producer_nseg": (1, 2)},
        }
        m.d.comb += [Assume((layer[name] >= low) & (layer[name] <= high)) for name, (low, high) in bounds.items()]
        m.d.comb += [
            Assume((layer.nseg - 1) * layer.seg_w < layer.out_w),
            Assume(layer.nseg * layer.seg_w >= layer.out_w),
        ]
        for v in range(isa.VARIANTS):
            m.d.comb += [
                Assume(1 << layer[f"log2_kr{v}"] <= KR),
                Assume((layer[f"max_lines{v}"] >= 1) & (layer[f"max_lines{v}"] <= CONFIG.max_lines)),
                Assume((layer.nseg == 1) | (layer[f"max_lines{v}"] == 1)),
                Assume((layer[f"stripe_lines{v}"] >= layer.kh) & (layer[f"stripe_lines{v}"] <= 5)),
            ]
        # The slot table
        listed = Signal(N)
        m.d.comb += [
            listed.eq(Cat(((d.order[0] == s) & (d.count > 0)) | ((d.order[1] == s) & (d.count > 1)) for s in range(N))),
            Assume((d.count >= 1) & (d.count <= N)),
            Assume((d.count < 2) | (d.order[0] != d.order[1])),
            Assume((d.dealable & ~listed) == 0),
            Assume(d.dealable.bit_select(d.leader, 1)),
        ]
        for s in range(N):
            m.d.comb += [
                Assume(~d.dealable[s] | (d.pc[s] != Array(d.pc)[d.leader]) | (d.line[s] < layer.lines)),
                Assume((d.row[s] <= LINES) & (d.seg[s] < layer.nseg) & (d.row[s] * layer.nseg + d.seg[s] == d.line[s])),
            ]

    def _observe(self, m, running, over):
        """What the tile is, from the fragments and positions alone."""
        d, layer = self.dealer, self.dealer.layer
        fragment = d.fragment
        leader_pc = Array(d.pc)[d.leader]
        candidate, below = Signal(N), Signal(N)
        for s in range(N):
            rides = d.dealable[s] & d.ride[s] & (d.pc[s] == leader_pc)
            m.d.comb += candidate[s].eq((d.leader == s) | rides)
            m.d.comb += below[s].eq(d.priority[s] < Array(d.priority)[d.leader])
        candidates = Signal(range(N + 1))
        m.d.comb += candidates.eq(sum(candidate[s] for s in range(N)))

        # The variant and the number of lines of a sub-tile, from the rules
        variant, kr, most, stripes, total = Signal(2), Signal(4), Signal(8), Signal(16), Signal(8)
        m.d.comb += [
            variant.eq(Mux(d.unstacked, 0, Array(layer.vsel.word_select(n, 2) for n in range(N))[candidates - 1])),
            kr.eq(1 << Array(layer[f"log2_kr{v}"] for v in range(isa.VARIANTS))[variant]),
            stripes.eq(Array(layer[f"stripe_lines{v}"] for v in range(isa.VARIANTS))[variant]),
            total.eq(sum(Mux(candidate[s], layer.lines - d.line[s], 0)[:8] for s in range(N))),
        ]
        share = Mux(kr == 1, total, (total + 1) >> 1)
        limit = Array(layer[f"max_lines{v}"] for v in range(isa.VARIANTS))[variant]
        m.d.comb += most.eq(Mux(share < limit, share, limit))
        advance = Mux(layer.sy < layer.kh, layer.sy, layer.kh)

        # Tally
        dealt = Array(Signal(4, name=f"dealt{s}") for s in range(N))  # lines of a slot
        lines = Array(Signal(4, name=f"lines{r}") for r in range(KR))  # of a sub-tile
        rows = Array(Signal(8, name=f"rows{r}") for r in range(KR))
        stripe = Array(Signal(8, name=f"stripe{r}") for r in range(KR))
        seen, issued = Signal(N), Signal(N)
        issue = Array(Signal(16, name=f"issue{s}") for s in range(N))
        sub_before, slot_before, any_before = Signal(range(KR)), Signal(range(N)), Signal()
        count = Signal(range(CONFIG.fragments + 2))
        f_slot, f_sub = fragment.slot, fragment.sub_tile
        cost = layer.kh + (fragment.lines - 1) * advance
        shorter = (layer.nseg == 2) & (fragment.seg == 1)  # the last segment of a row
        width = Mux(shorter, layer.out_w - layer.seg_w, layer.seg_w)
        first_line = Array(d.line)[f_slot] + dealt[f_slot]
        last_line = first_line + fragment.lines - 1
        with m.If(d.fragment_valid):
            m.d.sync += [
                dealt[f_slot].eq(dealt[f_slot] + fragment.lines),
                lines[f_sub].eq(lines[f_sub] + fragment.lines),
                rows[f_sub].eq(rows[f_sub] + fragment.lines * width),
                stripe[f_sub].eq(stripe[f_sub] + cost),
                seen.bit_select(f_slot, 1).eq(1),
                count.eq(count + 1),
                any_before.eq(1),
                sub_before.eq(f_sub),
                slot_before.eq(f_slot),
            ]
            # Right slot, right lines, in order; a new sub-tile only when the one before is full.
            bubble = (lines[sub_before] < most) & (
                stripe[sub_before] + Mux(f_slot == slot_before, advance, layer.kh) <= stripes
            )
            m.d.comb += [
                Assert(running & ~over),
                Assert(candidate.bit_select(f_slot, 1)),
                Assert(fragment.lines != 0),
                Assert(fragment.line == first_line),
                Assert(fragment.row * layer.nseg + fragment.seg == fragment.line),
                Assert(last_line < layer.lines),
                Assert(f_sub < kr),
                Assert(d.fragment_index == count),
                Assert(lines[f_sub] + fragment.lines <= most),
                Assert(stripe[f_sub] + cost <= stripes),
                Assert(any_before | ((f_sub == 0) & ((f_slot == d.leader) | ~d.dealable.bit_select(d.leader, 1)))),
                Assert(~any_before | (f_sub == sub_before) | ((f_sub == sub_before + 1) & ~bubble)),
                # Candidates in order: the leader first.
                Assert(~any_before | (f_slot == slot_before) | (slot_before == d.leader)),
            ]
            # Inputs of a lower rider's last line
            top = Signal(8)
            reach = Signal(8)
            m.d.comb += [
                top.eq((fragment.row + Mux(layer.nseg == 1, fragment.lines - 1, 0)) * layer.sy + layer.kh),
                reach.eq(Mux(top - layer.pad_top > layer.in_h, layer.in_h, top - layer.pad_top)),
            ]
            there = (
                (layer.producer == isa.NO_PRODUCER)
                | (Array(d.done_pc)[f_slot] > Cat(layer.producer[: isa.PC_INDEX_BITS], d.program))
                | (
                    (Array(d.done_pc)[f_slot] == Cat(layer.producer[: isa.PC_INDEX_BITS], d.program))
                    & (reach * layer.producer_nseg <= Array(d.done_line)[f_slot])
                )
            )
            m.d.comb += Assert(~below.bit_select(f_slot, 1) | (top <= layer.pad_top) | there)
        with m.If(d.issue_valid):
            m.d.sync += [issued.bit_select(d.issue_slot, 1).eq(1), issue[d.issue_slot].eq(d.issue_line)]
            m.d.comb += [
                Assert(running & ~over),
                Assert(~issued.bit_select(d.issue_slot, 1)),
                Assert(d.issue_complete == (d.issue_line == layer.lines)),
                Assert(d.issue_complete | (d.issue_row * layer.nseg + d.issue_seg == d.issue_line)),
            ]
        with m.If(d.done):
            longest = Mux(lines[0] > lines[1], lines[0], lines[1])
            m.d.comb += [
                Assert(d.members == issued),
                Assert(d.members == Cat(dealt[s] != 0 for s in range(N))),
                Assert(d.candidates == candidate),
                Assert(d.variant == variant),
                Assert(d.members.bit_select(d.leader, 1)),
                Assert(seen == d.members),
                Assert(d.fragments == count),
                Assert(count <= CONFIG.fragments),
                Assert(d.longest == longest),
            ]
            for r in range(KR):
                m.d.comb += Assert((d.sub_lines[r] == lines[r]) & (d.sub_rows[r] == rows[r]))
            for s in range(N):
                m.d.comb += Assert(~issued[s] | (issue[s] == d.line[s] + dealt[s]))
                # Nobody who could have got lines is left out while there is a sub-tile without lines.
                left = candidate[s] & ~below[s] & (d.line[s] + dealt[s] < layer.lines)
                m.d.comb += Assert(~left | (Mux(kr == 1, lines[0], lines[1]) != 0))
            m.d.comb += [
                Cover((count == (CONFIG.fragments if self.segments == 1 else KR)) & (kr == KR)),
                Cover(below.any() & d.members.all()),
                Cover(d.candidates.all() & ~d.members.all()),
                Cover((lines[1] == 1) & d.members.all()),
            ]


def prepare(workdir, segments, module=dealer_module):
    system = Deal(segments, module)
    return formal.prepare(system, [], workdir, constant=[system.dealer], driven=["go"])


@pytest.mark.parametrize("segments", [1, 2])
def test_proof(segments, tmp_path):
    system = prepare(tmp_path, segments)
    assert (verdict := formal.cover(system, CYCLES, timeout=300)).passed, verdict.failed_lines
    assert (verdict := formal.bounded(system, CYCLES + 2, timeout=600)).passed, verdict.failed_lines


FAULTS = {
    "one line too many": ("(used >= target)", "(used > target)"),
    "stripe too long": ("(stripe + cost > stripe_lines)", "(stripe + advance > stripe_lines)"),
    "input not there": ("(needed < done_line)", "(needed <= done_line)"),
    "strangers ride": ("(Array(self.pc)[scanned] == Array(self.pc)[self.leader])", "(self.count != 0)"),
    "leader twice": ("& (scanned != self.leader)", "& (self.count != 0)"),
    "sub-tile too many": ("with m.If(sub + 1 == (1 << log2_kr)):", "with m.If(sub + 1 == (2 << log2_kr)):"),
    "rider forgotten": ("with m.If(index == chosen_count):", "with m.If(index == 1):"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault, tmp_path):
    module = formal.mutated(dealer_module, *FAULTS[fault])
    assert not formal.bounded(prepare(tmp_path, 1, module), CYCLES + 2, timeout=300).passed
