"""What a group is in each stack mode, and the wiring helpers that follow from it.

In mode (kr, kd) the bits of a group's index g are, from the top: log2(kr) bits r (the sub-tile), the mid bits (which
part of the columns), log2(kd) bits d (the depth step). Physical bank g belongs to group g and has the same fields.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

__all__ = ["DepthSum", "Stacking", "delayed", "select"]


def delayed(m, value, cycles, name, reset_less=True):
    """``value`` (signal or view) after ``cycles`` registers; list of all stages, the value itself first."""
    stages = [value]
    for n in range(cycles):
        later = Signal.like(value, name=f"{name}_{n + 1}", reset_less=reset_less)
        m.d.sync += later.eq(stages[-1])
        stages.append(later)
    return stages


def select(index, choices):
    """Binary multiplexer: the value of ``choices`` (dict number -> value) at ``index``.

    Numbers that are not in ``choices`` must not occur: they cost nothing. Equal choices are the same object.
    """
    if len(choices) == 1:
        return next(iter(choices.values()))
    top = len(index) - 1
    low = {n: v for n, v in choices.items() if not n >> top & 1}
    high = {n & ((1 << top) - 1): v for n, v in choices.items() if n >> top & 1}
    if not low or not high or all(low[n] is high[n] for n in low.keys() & high.keys()):
        return select(index[:top], low | high)
    return Mux(index[top], select(index[:top], high), select(index[:top], low))


class Stacking:
    """Geometry of the groups of one configuration. With ``max_stack`` = 1 every method costs no logic.

    Members: groups, group_bits = log2(groups), group_pes, pe_bits = log2(group_pes), modes = list of legal
    (log2 kr, log2 kd).
    """

    def __init__(self, config):
        self.config = config
        self.groups = config.max_stack
        self.group_bits = exact_log2(config.max_stack)
        self.group_pes = config.group_pes
        self.pe_bits = exact_log2(config.group_pes)
        bits = self.group_bits
        self.modes = [(a, b) for a in range(bits + 1) for b in range(bits + 1 - a)]

    def fields(self, group, log2_kr, log2_kd):
        """(r, mid, d) of a group in a mode."""
        mid_bits = self.group_bits - log2_kr - log2_kd
        return (
            group >> (self.group_bits - log2_kr),
            group >> log2_kd & ((1 << mid_bits) - 1),
            group & ((1 << log2_kd) - 1),
        )

    def cols(self, log2_kr, log2_kd):
        """Columns of a stack, as a value."""
        if self.groups == 1:
            return Const(self.config.pes)
        return Const(self.config.pes) >> (log2_kr + log2_kd)

    def sub_tile(self, group, log2_kr, per_sub_tile):
        """Element of the list ``per_sub_tile`` that belongs to the sub-tile of ``group``."""
        choices = {a: per_sub_tile[group >> (self.group_bits - a)] for a in range(self.group_bits + 1)}
        return select(log2_kr, choices)


class DepthSum(Component):
    """Adds the partial sums of the groups of a depth stack into its first group (d = 0).

        out[g] = sum(sums[g + d] for d in range(kd))        for g a multiple of kd; the others are undefined

    A fixed tree: pairs, then quads, ... Rigid pipeline with a register after each level, latency ``latency`` =
    log2(max_stack), one row per cycle. (Without the registers synthesis fuses the levels into larger adders.) What a
    group lends to its neighbour is a register of its own, held at 0 if the stack is not that deep: its reset is free,
    a gate before the adder is not.

    Parameters: config, width (bits of a partial sum).
    Members: log2_kd of the row whose sums come in; sums, lent (of odd groups: the sums if kd > 1, else 0), out_0,
    out_1, ...: group_pes signed values per group, concatenated.
    """

    def __init__(self, config, width):
        self.config = config
        self.stacking = Stacking(config)
        self.width = width
        super().__init__(
            {
                "log2_kd": In(range(self.stacking.group_bits + 1)),
                "sums": In(config.group_pes * width).array(config.max_stack),
                "lent": In(config.group_pes * width).array(config.max_stack),
                **{f"out_{g}": Out(config.group_pes * self.out_width(g)) for g in range(config.max_stack)},
            }
        )

    def levels(self, group):
        """Levels of the tree that can end in ``group``: its trailing zeros."""
        bits = self.stacking.group_bits
        return next((i for i in range(bits) if group >> i & 1), bits)

    def out_width(self, group):
        """Bits of a sum that ``group`` delivers."""
        return self.width + self.levels(group)

    @property
    def latency(self):
        """Cycles from sums to out."""
        return self.stacking.group_bits

    def elaborate(self, platform):
        m = Module()
        bits, groups, pes = self.stacking.group_bits, self.stacking.groups, self.stacking.group_pes
        modes = delayed(m, self.log2_kd, max(0, bits - 1), "log2_kd")

        def split(ports, pe):
            return {g: port.word_select(pe, self.width).as_signed() for g, port in enumerate(ports)}

        level = [(split(self.sums, pe), split(self.lent, pe)) for pe in range(pes)]
        for i in range(bits):
            deeper = Signal(name=f"deeper_{i}")  # than this level
            m.d.comb += deeper.eq(modes[i] > i + 1)
            for pe, (sums, lent) in enumerate(level):
                following, following_lent = {}, {}
                for g, own in sums.items():
                    total = own + lent[g + (1 << i)] if self.levels(g) > i else own
                    following[g] = Signal.like(total, name=f"sum_{i}_{g}_{pe}", reset_less=True)
                    m.d.sync += following[g].eq(total)
                    if self.levels(g) == i + 1 < bits:
                        following_lent[g] = Signal.like(total, name=f"lent_{i}_{g}_{pe}", reset_less=True)
                        m.d.sync += following_lent[g].eq(Mux(deeper, total, 0))
                level[pe] = following, following_lent
        for g in range(groups):
            m.d.comb += getattr(self, f"out_{g}").eq(Cat(sums[g] for sums, _ in level))
        return m
