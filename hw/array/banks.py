"""Activation banks: one per group, two halves, one beat wide."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from ..tile import Layouts
from .stacking import select

__all__ = ["Banks"]


class Banks(Component):
    """``max_stack`` memories of 2 * bank_beats beats, read word by word.

    ``words[b]`` is the word at ``addresses[b]`` (of half ``half``), LATENCY cycles later; one word per bank and
    cycle. A fill writes one beat into every bank of its mask; it is seen by reads of later cycles.

    Members: fill, fill_valid; half, addresses (words within a half of a bank), words.
    """

    LATENCY = 1

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        self.word_bits = ceil_log2(config.words_per_beat)
        self.address_bits = layouts.bank_address + self.word_bits
        super().__init__(
            {
                "fill": In(layouts.fill),
                "fill_valid": In(1),
                "half": In(1),
                "addresses": In(self.address_bits).array(config.max_stack),
                "words": Out(8 * config.lanes).array(config.max_stack),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        for b in range(c.max_stack):
            m.submodules[f"bank_{b}"] = bank = memory.Memory(shape=8 * c.bus_bytes, depth=2 * c.bank_beats, init=[])
            write, read = bank.write_port(), bank.read_port()
            place = Signal(self.word_bits, name=f"place_{b}")
            m.d.comb += [
                write.addr.eq(Cat(self.fill.address, self.fill.half)),
                write.data.eq(self.fill.data),
                write.en.eq(self.fill_valid & self.fill.banks[b]),
                read.addr.eq(Cat(self.addresses[b][self.word_bits :], self.half)),
                self.words[b].eq(
                    select(place, {i: read.data.word_select(i, 8 * c.lanes) for i in range(c.words_per_beat)})
                ),
            ]
            m.d.sync += place.eq(self.addresses[b][: self.word_bits])
        return m
