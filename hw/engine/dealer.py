"""The dealer: packs lines of the candidates into the sub-tiles of one tile."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from .. import isa
from ..tile import DIMENSION_BITS, Layouts, descriptor_layout

__all__ = ["Dealer"]


class Dealer(wiring.Component):
    """Deals one tile: from ``go`` to ``done``; everything it reads must stay stable in between.

    Candidates are the leader, then the dealable slots at its pc with ``ride`` set, by age. The number of candidates
    picks the variant. Each of its kr sub-tiles takes lines of the candidates in order, up to
    ``t = min(max_lines, ceil(N / kr))`` lines and the variant's stripe lines: the first line of a fragment costs its
    whole window (kh), each further one min(sy, kh). A rider of lower priority than the leader gets only lines whose
    inputs are in memory.

    Latency from ``go`` to ``done``: at most count + lines dealt + 2 per candidate + kr + 4 cycles, + 2 per rider of
    lower priority and per line that it gets (+ 4 with a residual addition).

    Members (beside those of the slots)
    -----------------------------------
    layer : the leader's descriptor
    fragment_valid, fragment_index, fragment : write into the tile's fragment list
    issue_valid, issue_* : the new position of a slot that got lines (``issue_complete``: layer complete)
    members, candidates, variant, fragments, sub_lines, sub_rows, longest : the tile, valid from ``done`` on
    """

    def __init__(self, config):
        self.config = config
        self.layouts = lay = Layouts(config)
        n = config.slots
        slot = ceil_log2(n)
        super().__init__(
            {
                "go": In(1),
                "leader": In(slot),
                "dealable": In(n),
                "unstacked": In(1),
                "program": In(2),
                "layer": In(descriptor_layout()),
                "order": In(data.ArrayLayout(slot, n)),
                "count": In(range(n + 1)),
                "ride": In(n),
                "priority": In(8).array(n),
                "pc": In(16).array(n),
                "line": In(16).array(n),
                "row": In(DIMENSION_BITS).array(n),
                "seg": In(8).array(n),
                "done_pc": In(16).array(n),
                "done_line": In(16).array(n),
                "fragment_valid": Out(1),
                "fragment_index": Out(lay.fragment_index),
                "fragment": Out(lay.fragment),
                "issue_valid": Out(1),
                "issue_slot": Out(slot),
                "issue_line": Out(16),
                "issue_row": Out(DIMENSION_BITS),
                "issue_seg": Out(8),
                "issue_complete": Out(1),
                "done": Out(1),
                "members": Out(n),
                "candidates": Out(n),
                "variant": Out(2),
                "fragments": Out(bits_for(config.fragments)),
                "sub_lines": Out(data.ArrayLayout(lay.line_count, config.max_stack)),
                "sub_rows": Out(data.ArrayLayout(lay.row_count, config.max_stack)),
                "longest": Out(lay.line_count),
                "log2_kr": Out(lay.log2_stack),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, lay, layer = self.config, self.layouts, self.layer
        n = config.slots
        slot_bits = ceil_log2(n)

        # Candidates
        chosen = Array(Signal(slot_bits, name=f"chosen_{i}") for i in range(n))
        chosen_count = Signal(range(n + 1))
        scan = Signal(range(n))
        scanned = Signal(slot_bits)
        total = Signal(20)  # N, lines left over all candidates
        m.d.comb += scanned.eq(self.order[scan])

        # Variant
        log2_kr, max_lines, stripe_lines = Signal(4), Signal(8), Signal(16)
        choice = Signal(2)
        m.d.comb += choice.eq(Mux(self.unstacked, 0, layer.vsel.word_select((chosen_count - 1)[:4], 2)))
        target = Signal(8)  # t

        # Dealing
        index = Signal(range(n + 1))
        slot = Signal(slot_bits)
        line, row, seg = Signal(16), Signal(DIMENSION_BITS), Signal(8)
        sub = Signal(range(config.max_stack + 1))
        used = Signal(8)
        stripe = Signal(17)
        got = Signal()  # lines for this candidate in this tile
        fresh = Signal()  # the next line begins a fragment
        cost = Signal(8)
        advance = Signal(8)
        adv_rows = Mux(layer.sy < layer.kh, layer.sy, layer.kh)
        m.d.comb += [advance.eq(adv_rows), cost.eq(Mux(fresh, layer.kh, advance))]
        full = Signal()  # this sub-tile takes no further line
        m.d.comb += full.eq((used >= target) | (stripe + cost > stripe_lines))
        below = Signal()  # a rider of lower priority than the leader
        m.d.comb += below.eq(Array(self.priority)[slot] < Array(self.priority)[self.leader])

        last_seg = Signal()
        width = Signal(lay.row_count)
        remainder = Signal(lay.row_count)  # width of a row's last segment
        m.d.comb += [
            last_seg.eq(seg == layer.nseg - 1),
            width.eq(Mux((layer.nseg != 1) & last_seg, remainder, layer.seg_w)),
        ]

        # Input of line ``line``: rows up to row * sy - pad_top + kh - 1, inside the image; of a second operand: row
        operand = Signal()  # 0: the layer's input, 1: the second operand of its addition
        reach = Signal(signed(24))
        clipped = Signal(signed(24))
        needed = Signal(signed(24))  # last producer line that must be there
        m.d.comb += clipped.eq(Mux((reach > layer.in_h) & ~operand, layer.in_h, reach))
        producer = Mux(operand, layer.res_producer, layer.producer)
        producer_pc = Signal(16)
        there = Signal()
        done_pc, done_line = Array(self.done_pc)[slot], Array(self.done_line)[slot]
        m.d.comb += [
            producer_pc.eq(Cat(producer[: isa.PC_INDEX_BITS], self.program)),
            there.eq(
                (producer == isa.NO_PRODUCER)
                | (producer_pc < done_pc)
                | ((producer_pc == done_pc) & (needed < done_line))
            ),
        ]

        # A fragment is written when the next one begins or the tile ends: only then are its lines known.
        held = Signal(lay.fragment)
        holding = Signal()

        def close_candidate():
            """The slot gets no further line in this tile."""
            m.d.comb += [
                self.issue_valid.eq(got),
                self.issue_complete.eq(line == layer.lines),
            ]

        m.d.comb += [
            self.issue_slot.eq(slot),
            self.issue_line.eq(line),
            self.issue_row.eq(row),
            self.issue_seg.eq(seg),
            self.fragment.eq(held),
            self.fragment_index.eq(self.fragments),
            self.log2_kr.eq(log2_kr),
        ]

        with m.FSM(init="Idle"):
            with m.State("Idle"), m.If(self.go):
                m.d.sync += [
                    chosen[0].eq(self.leader),
                    chosen_count.eq(1),
                    self.candidates.eq(1 << self.leader),
                    self.members.eq(0),
                    self.fragments.eq(0),
                    self.longest.eq(0),
                    total.eq(layer.lines - Array(self.line)[self.leader]),
                    scan.eq(0),
                    holding.eq(0),
                ]
                m.d.sync += [self.sub_lines.as_value().eq(0), self.sub_rows.as_value().eq(0)]
                m.next = "Candidates"

            with m.State("Candidates"):
                rides = (
                    self.dealable.bit_select(scanned, 1)
                    & self.ride.bit_select(scanned, 1)
                    & (Array(self.pc)[scanned] == Array(self.pc)[self.leader])
                    & (scanned != self.leader)
                )
                with m.If(rides):
                    m.d.sync += [
                        chosen[chosen_count].eq(scanned),
                        chosen_count.eq(chosen_count + 1),
                        self.candidates.bit_select(scanned, 1).eq(1),
                        total.eq(total + layer.lines - Array(self.line)[scanned]),
                    ]
                m.d.sync += scan.eq(scan + 1)
                with m.If(scan == self.count - 1):
                    m.next = "Variant"

            with m.State("Variant"):
                m.d.sync += [self.variant.eq(choice), remainder.eq(layer.out_w - (layer.nseg - 1) * layer.seg_w)]
                with m.Switch(choice):
                    for v in range(isa.VARIANTS):
                        with m.Case(v):
                            m.d.sync += [
                                log2_kr.eq(layer[f"log2_kr{v}"]),
                                max_lines.eq(layer[f"max_lines{v}"]),
                                stripe_lines.eq(layer[f"stripe_lines{v}"]),
                            ]
                m.next = "Target"

            with m.State("Target"):
                share = Signal(20)
                m.d.comb += share.eq((total + (1 << log2_kr) - 1) >> log2_kr)
                m.d.sync += [
                    target.eq(Mux(share < max_lines, share, max_lines)),
                    index.eq(0),
                    sub.eq(0),
                    used.eq(0),
                    stripe.eq(0),
                ]
                m.next = "Take"

            with m.State("Take"):
                taken = chosen[index]
                with m.If(index == chosen_count):
                    m.next = "Flush"
                with m.Else():
                    m.d.sync += [
                        slot.eq(taken),
                        line.eq(Array(self.line)[taken]),
                        row.eq(Array(self.row)[taken]),
                        seg.eq(Array(self.seg)[taken]),
                        got.eq(0),
                        fresh.eq(1),
                    ]
                    m.next = "Line"

            with m.State("Line"):
                with m.If(line == layer.lines):
                    close_candidate()
                    m.d.sync += index.eq(index + 1)
                    m.next = "Take"
                with m.Elif(full):
                    m.d.sync += [sub.eq(sub + 1), used.eq(0), stripe.eq(0), fresh.eq(1)]
                    with m.If(sub + 1 == (1 << log2_kr)):
                        close_candidate()
                        m.next = "Flush"
                with m.Elif(below):
                    m.d.sync += [reach.eq(row * layer.sy - layer.pad_top + layer.kh), operand.eq(0)]
                    m.next = "Reach"
                with m.Else():
                    m.next = "Line"
                    self._take_line(
                        m, fresh, held, holding, slot, sub, line, row, seg, used, stripe, cost, got, width, last_seg
                    )

            with m.State("Reach"):
                m.d.sync += needed.eq(clipped * Mux(operand, layer.res_producer_nseg, layer.producer_nseg) - 1)
                m.next = "There"

            with m.State("There"):
                with m.If(there & layer.residual & ~operand):
                    m.d.sync += [reach.eq(row + 1), operand.eq(1)]
                    m.next = "Reach"
                with m.Elif(there):
                    m.next = "Line"
                    self._take_line(
                        m, fresh, held, holding, slot, sub, line, row, seg, used, stripe, cost, got, width, last_seg
                    )
                with m.Else():
                    close_candidate()
                    m.d.sync += index.eq(index + 1)
                    m.next = "Take"

            with m.State("Flush"):
                m.d.comb += self.fragment_valid.eq(holding)
                m.d.sync += [holding.eq(0), self.fragments.eq(self.fragments + holding)]
                m.next = "Done"

            with m.State("Done"):
                m.d.comb += self.done.eq(1)
                m.next = "Idle"
        return m

    def _take_line(self, m, fresh, held, holding, slot, sub, line, row, seg, used, stripe, cost, got, width, last_seg):
        """One line goes to sub-tile ``sub``; a fresh one opens a fragment and writes the held one."""
        with m.If(fresh):
            m.d.comb += self.fragment_valid.eq(holding)
            m.d.sync += [
                self.fragments.eq(self.fragments + holding),
                holding.eq(1),
                held.slot.eq(slot),
                held.sub_tile.eq(sub),
                held.line.eq(line),
                held.row.eq(row),
                held.seg.eq(seg),
                held.lines.eq(1),
            ]
        with m.Else():
            m.d.sync += held.lines.eq(held.lines + 1)
        m.d.sync += [
            fresh.eq(0),
            got.eq(1),
            self.members.bit_select(slot, 1).eq(1),
            line.eq(line + 1),
            seg.eq(Mux(last_seg, 0, seg + 1)),
            row.eq(row + last_seg),
            used.eq(used + 1),
            stripe.eq(stripe + cost),
        ]
        with m.Switch(sub):
            for r in range(self.config.max_stack):
                with m.Case(r):
                    m.d.sync += [
                        self.sub_lines[r].eq(used + 1),
                        self.sub_rows[r].eq(self.sub_rows[r] + width),
                    ]
        with m.If(used + 1 > self.longest):
            m.d.sync += self.longest.eq(used + 1)
