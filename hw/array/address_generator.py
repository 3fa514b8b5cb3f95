"""Address generator of one bank: line table, address, image borders, masking."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from ..tile import DIMENSION_BITS, Layouts
from .stacking import Stacking, select

__all__ = ["POSITION", "AddressGenerator", "step_layout"]

POSITION = signed(DIMENSION_BITS + 2)  # of a tap in the image; it may lie outside


def step_layout(config):
    """What every generator needs of a row, one cycle after its issue.

    offset: words from the line's base to the tap of the pixel; x: pixel of the line; column: x * sx + kx; ky.
    """
    layouts = Layouts(config)
    return data.StructLayout(
        {"offset": layouts.word_address, "x": layouts.row_count, "column": DIMENSION_BITS + 2, "ky": 8}
    )


class AddressGenerator(Component):
    """Turns the shared row counters into the address of one bank, for the sub-tile that the bank's stack works on.

        address = line.base + offset  (mod 2**word_address)
        inside  = 0 <= line.y_top + ky < in_h  and  0 <= line.x_left + column < in_w
        accumulate = line index < lines of the sub-tile  and  x < line.width

    Rigid pipeline, one row per cycle. Cycle 0: half, line; cycle 1: ``step``; cycle 2: ``address`` comes, and in_w,
    in_h and the stack mode are read; cycle 3: ``inside``, ``accumulate`` and ``bank`` (which bank holds the word)
    come, beside the bank's word.

    Parameters: config, group (also the index of the bank).

    Members
    -------
    line_write, line_write_valid : line table write, seen by rows of later cycles
    half, line, sub_lines, log2_kr : of the row in cycle 0
    """

    ADDRESS_LATENCY = 2
    LATENCY = 3

    def __init__(self, config, group):
        self.config = config
        self.group = group
        self.stacking = Stacking(config)
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "line_write": In(layouts.line_write),
                "line_write_valid": In(1),
                "half": In(1),
                "line": In(ceil_log2(config.max_lines)),
                "sub_lines": In(data.ArrayLayout(layouts.line_count, config.max_stack)),
                "log2_kr": In(layouts.log2_stack),
                "step": In(step_layout(config)),
                "address": Out(layouts.word_address),
                "in_w": In(DIMENSION_BITS),
                "in_h": In(DIMENSION_BITS),
                "late_log2_kr": In(layouts.log2_stack),
                "late_log2_kd": In(layouts.log2_stack),
                "inside": Out(1),
                "accumulate": Out(1),
                "bank": Out(self.stacking.group_bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c, layouts, stacking = self.config, self.layouts, self.stacking
        m.submodules.table = table = memory.Memory(shape=layouts.line, depth=2 * c.max_lines, init=[])
        write, read = table.write_port(), table.read_port()

        # Cycle 0: look the line up
        wanted = Signal(reset_less=True)
        own_lines = stacking.sub_tile(self.group, self.log2_kr, [self.sub_lines[r] for r in range(c.max_stack)])
        m.d.comb += [
            write.addr.eq(Cat(self.line_write.index, self.line_write.half)),
            write.data.eq(self.line_write.line),
            write.en.eq(self.line_write_valid & self.line_write.banks[self.group]),
            read.addr.eq(Cat(self.line, self.half)),
        ]
        m.d.sync += wanted.eq(self.line < own_lines)

        # Cycle 1: add
        line = read.data
        x, y = Signal(POSITION, reset_less=True), Signal(POSITION, reset_less=True)
        accumulate = Signal(reset_less=True)
        m.d.sync += [
            self.address.eq(line.base + self.step.offset),
            y.eq(line.y_top + self.step.ky),
            x.eq(line.x_left + self.step.column),
            accumulate.eq(wanted & (self.step.x < line.width)),
        ]

        # Cycle 2: compare (a negative position is a large unsigned one); the bank is read
        m.d.sync += [
            self.inside.eq((y.as_unsigned() < self.in_h) & (x.as_unsigned() < self.in_w)),
            self.accumulate.eq(accumulate),
            self.bank.eq(self._bank(m)),
        ]
        return m

    def _bank(self, m):
        """The bank with the group's r and d whose mid bits are the upper bits of the address."""
        stacking = self.stacking
        upper = self.address[len(self.address) - stacking.group_bits :]
        bits = []
        for i in range(stacking.group_bits):
            own = self.group >> i & 1
            from_address = select(self.late_log2_kd, {b: upper[i - b] for b in range(i + 1)})
            is_mid = (self.late_log2_kd <= i) & (self.late_log2_kr < stacking.group_bits - i)
            bits.append(Mux(is_mid, from_address, own))
        return Cat(bits)
