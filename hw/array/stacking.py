"""What a group is in each stack mode, and the wiring helpers that follow from it.

In mode (kr, kd) the bits of a group's index g are, from the top: log2(kr) bits r (the sub-tile), the mid bits (which
part of the columns), log2(kd) bits d (the depth step). Physical bank g belongs to group g and has the same fields.
"""

from amaranth.hdl import Const, Module, Mux, Signal
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

    A fixed tree: pairs, then quads, ... Rigid pipeline, latency LATENCY, one row per cycle.

    Parameters: config, width (bits of a partial sum).
    Members: log2_kd; sums, out: group_pes signed values per group, concatenated.
    """

    LATENCY = 1

    def __init__(self, config, width):
        self.config = config
        self.stacking = Stacking(config)
        self.width = width
        super().__init__(
            {
                "log2_kd": In(range(self.stacking.group_bits + 1)),
                "sums": In(config.group_pes * width).array(config.max_stack),
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

    def elaborate(self, platform):
        m = Module()
        bits, groups, pes = self.stacking.group_bits, self.stacking.groups, self.stacking.group_pes
        deeper = [Signal(name=f"deeper_{i}") for i in range(bits)]
        m.d.comb += [signal.eq(self.log2_kd > i) for i, signal in enumerate(deeper)]
        for pe in range(pes):
            level = {g: self.sums[g].word_select(pe, self.width).as_signed() for g in range(groups)}
            ended = {}
            for i in range(bits + 1):
                ended |= {g: level[g] for g in level if self.levels(g) == i}
                if i == bits:
                    break
                following = {}
                for g in (g for g in level if self.levels(g) > i):
                    neighbour = level[g + (1 << i)]
                    following[g] = Signal.like(level[g] + neighbour, name=f"sum_{i}_{g}_{pe}")
                    m.d.comb += following[g].eq(level[g] + Mux(deeper[i], neighbour, 0))
                level = following
            for g in range(groups):
                out = getattr(self, f"out_{g}")
                m.d.sync += out.word_select(pe, self.out_width(g)).eq(ended[g])
        return m
