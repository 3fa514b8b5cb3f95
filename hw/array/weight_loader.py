"""Weight loader: takes the weight stream apart into shadow weights and parameters."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from ..tile import PARAMETER_BYTES, Layouts
from .controller import SWAP
from .pe import TAP_ADDRESS_BITS
from .stacking import Stacking, delayed, select

__all__ = ["WeightLoader"]


class WeightLoader(Component):
    """Loads one weight set ahead of the running step, also the first one of the announced tile.

    Word n of a set goes to column n / kd, depth n mod kd, in all kr stacks. After the first set of a CONV c-tile has
    become active its parameters are passed on, then the next set is taken: steps follow one another every
    max(rows, set beats + parameter beats) cycles. One beat per cycle.

    DEPTHWISE: what is loaded ahead are the weights of a block, for every tap a set of one column, and behind them its
    parameters, into one of two banks of their own; they wait until the block before the last one is drained. A POOL
    tile has nothing: while it runs the announced tile's first set is loaded.

    ``words`` and the selects belong to the beat taken ``latency`` cycles before, ``parameter_write`` to the one before.

    Parameters: config, latency (at least 2).

    Members
    -------
    next, announced, revoke, weights, parameter_write : as in the array's contract
    tile, swap : of the controller; start : it takes the announced tile
    block_drained : pulse, the parameters of the oldest block that had any are not needed any more
    set_ready : the next set is complete, at the latest with this cycle's beat
    half : the half of the lane PEs' weights that is loaded; the next swap makes it the active one
    address : of those weights, for ``words``
    parameters_left : parameters are missing after this cycle
    parameters_missing : per accumulator bank: parameters of its c-tile are not passed on yet
    words : the word of the beat for each class of PEs (see ``word_class``)
    pe_select, group_select : load that PE of those groups
    """

    def __init__(self, config, latency):
        self.config = config
        self.latency = latency
        self.stacking = Stacking(config)
        self.layouts = layouts = Layouts(config)
        # PEs whose words stand at the same place of a beat in every mode share a class
        self.places = sorted({self._places(g, p) for g in range(config.max_stack) for p in range(config.group_pes)})
        super().__init__(
            {
                "next": In(layouts.array_tile),
                "announced": In(1),
                "revoke": In(1),
                "start": In(1),
                "tile": In(layouts.array_tile),
                "swap": In(SWAP),
                "weights": In(stream.Signature(8 * config.bus_bytes)),
                "block_drained": In(1),
                "set_ready": Out(1),
                "half": Out(1),
                "address": Out(TAP_ADDRESS_BITS + 1),
                "parameters_left": Out(1),
                "parameters_missing": Out(2),
                "parameter_write": Out(layouts.parameter_write),
                "parameter_write_valid": Out(1),
                "words": Out(8 * config.lanes).array(len(self.places)),
                "pe_select": Out(config.group_pes),
                "group_select": Out(config.max_stack),
            }
        )

    def _places(self, group, pe):
        """Place within its beat of the word of a PE, for each mode of the stacking."""
        stacking = self.stacking
        places = []
        for a, b in stacking.modes:
            _, mid, d = stacking.fields(group, a, b)
            number = ((mid * stacking.group_pes + pe) << b) + d
            places.append(number % self.config.words_per_beat)
        return tuple(places)

    def word_class(self, group, pe):
        """Index of the PE's word in ``words``."""
        return self.places.index(self._places(group, pe))

    def elaborate(self, platform):
        m = Module()
        c, layouts, stacking = self.config, self.layouts, self.stacking
        wpb_bits = exact_log2(c.words_per_beat)

        # What is loaded: sets of the running tile, or (ahead) of the announced one
        ahead = Signal(init=1)
        left = Signal(16)  # output channels from the set's c-tile on
        channels = Signal(16)
        vector, twice = Signal(), Signal()
        kh, kw = Signal(TAP_ADDRESS_BITS), Signal(TAP_ADDRESS_BITS)
        log2_kr, log2_kd = Signal(layouts.log2_stack), Signal(layouts.log2_stack)
        cols, used = Signal(range(c.pes + 1)), Signal(range(c.pes + 1))
        last_beat = Signal(range(max(2, c.pes // c.words_per_beat)))
        beat = Signal.like(last_beat)
        sources = dict(vector=vector, twice=twice, kh=kh, kw=kw, log2_kr=log2_kr, log2_kd=log2_kd)
        m.d.comb += [signal.eq(Mux(ahead, self.next[name], self.tile[name])) for name, signal in sources.items()]
        m.d.comb += [
            channels.eq(Mux(ahead, self.next.out_channels, left)),
            cols.eq(stacking.cols(log2_kr, log2_kd)),
            used.eq(Mux(vector, 1, Mux(channels < cols, channels, cols))),
            last_beat.eq(((used << log2_kd) - 1)[: len(used)] >> wpb_bits),
        ]
        kx, ky, tap = (Signal(TAP_ADDRESS_BITS, name=n) for n in ("kx", "ky", "tap"))
        second = Signal()  # set of a tap

        # Parameters of a CONV c-tile
        parameter_beats = Signal(range(max(1, c.pes * PARAMETER_BYTES // c.bus_bytes) + 1))  # to come
        parameter_beat = Signal.like(self.parameter_write.beat)
        parameter_bank = Signal()
        passing = parameter_beats != 0

        # Parameters of a block: beats of the words d = 0 .. kd - 1 one behind the other
        word_beats = exact_log2(c.lanes * PARAMETER_BYTES // c.bus_bytes)
        gap = exact_log2(max(1, c.post_lanes // c.lanes))  # in the store, behind each word
        block_passing = Signal()
        block_beat = Signal(word_beats + exact_log2(c.max_stack))
        block_bank, has_bank = Signal(), Signal()  # has_bank: the block that is loaded, until it becomes active
        banks_used = Signal(range(3))
        last_block_beat = Signal.like(block_beat)
        m.d.comb += last_block_beat.eq((1 << word_beats << log2_kd) - 1)

        # This cycle's beat
        full, may_load = Signal(), Signal()
        takes_parameters, takes_set, takes_block, set_ends, parameters_end, block_ends = (
            Signal(name=n)
            for n in ("takes_parameters", "takes_set", "takes_block", "set_ends", "parameters_end", "block_ends")
        )
        taps_end, set_done, claims = Signal(), Signal(), Signal()
        m.d.comb += [
            may_load.eq(~full & (~ahead | (self.announced & ~self.revoke))),
            self.weights.ready.eq(passing | (may_load & (~block_passing | has_bank | ~banks_used[1]))),
            takes_parameters.eq(self.weights.valid & passing),
            takes_set.eq(self.weights.valid & self.weights.ready & ~passing & ~block_passing),
            takes_block.eq(self.weights.valid & self.weights.ready & ~passing & block_passing),
            set_ends.eq(takes_set & (beat == last_beat)),
            taps_end.eq(set_ends & (kx + 1 == kw) & (ky + 1 == kh) & (second | ~twice)),
            parameters_end.eq(takes_parameters & (parameter_beats == 1)),
            block_ends.eq(takes_block & (block_beat == last_block_beat)),
            claims.eq(takes_block & ~has_bank),
            set_done.eq((set_ends & ~vector) | block_ends),
            self.set_ready.eq(full | set_done),
            self.parameters_left.eq(passing & ~parameters_end),
        ]
        with m.If(takes_set):
            m.d.sync += beat.eq(beat + 1)
        with m.If(set_ends):
            m.d.sync += beat.eq(0)
        with m.If(set_ends & vector):
            m.d.sync += [tap.eq(tap + 1), second.eq(twice & ~second)]
            with m.If(second | ~twice):
                m.d.sync += kx.eq(kx + 1)
                with m.If(kx + 1 == kw):
                    m.d.sync += [kx.eq(0), ky.eq(ky + 1)]
            with m.If(taps_end):
                m.d.sync += [tap.eq(0), ky.eq(0), block_passing.eq(1)]
        with m.If(takes_block):
            m.d.sync += [block_beat.eq(block_beat + 1), has_bank.eq(1)]
        with m.If(block_ends):
            m.d.sync += [block_beat.eq(0), block_passing.eq(0)]
        with m.If(set_done):
            m.d.sync += full.eq(1)
        with m.If(takes_parameters):
            m.d.sync += [parameter_beats.eq(parameter_beats - 1), parameter_beat.eq(parameter_beat + 1)]
        withdraws = Signal()
        m.d.comb += withdraws.eq(self.revoke & ahead)
        with m.If(withdraws):
            m.d.sync += [
                signal.eq(0) for signal in (beat, full, tap, kx, ky, second, block_passing, block_beat, has_bank)
            ]
        m.d.sync += banks_used.eq(banks_used + claims - self.block_drained - (withdraws & has_bank))
        with m.If(self.start):
            m.d.sync += [ahead.eq(self.next.pool), left.eq(self.next.out_channels)]
        with m.If(self.swap.valid):
            m.d.sync += [full.eq(0), self.half.eq(~self.half), has_bank.eq(0), block_bank.eq(block_bank ^ has_bank)]
            with m.If(self.swap.ctile_ends):
                m.d.sync += left.eq(left - cols)
            with m.If(self.swap.tile_ends):
                m.d.sync += ahead.eq(1)
            with m.If(self.swap.parameters):
                bytes_ = used * PARAMETER_BYTES
                m.d.sync += [
                    parameter_beats.eq((bytes_ + c.bus_bytes - 1) >> exact_log2(c.bus_bytes)),
                    parameter_beat.eq(0),
                    parameter_bank.eq(self.swap.bank),
                ]
                m.d.sync += self.parameters_missing.bit_select(self.swap.bank, 1).eq(1)

        # Cycle 1: parameters leave, a set's word numbers are decoded
        payload = Signal(8 * c.bus_bytes, reset_less=True)
        loads = Signal()
        late_beat = Signal.like(beat, reset_less=True)
        late_kr, late_kd = Signal.like(log2_kr, reset_less=True), Signal.like(log2_kd, reset_less=True)
        late_address = Signal.like(self.address, reset_less=True)
        ends = Signal()
        m.d.sync += [
            payload.eq(self.weights.payload),
            loads.eq(takes_set),
            late_beat.eq(beat),
            late_kr.eq(log2_kr),
            late_kd.eq(log2_kd),
            late_address.eq(Cat(tap, self.half)),
            self.parameter_write_valid.eq(takes_parameters | takes_block),
            self.parameter_write.vector.eq(takes_block),
            self.parameter_write.bank.eq(Mux(takes_block, block_bank, parameter_bank)),
            self.parameter_write.beat.eq(
                Mux(
                    takes_block,
                    Cat(block_beat[:word_beats], Const(0, gap), block_beat[word_beats:]),
                    parameter_beat,
                )
            ),
            ends.eq(parameters_end),
        ]
        m.d.comb += self.parameter_write.data.eq(payload)
        with m.If(ends):
            m.d.sync += self.parameters_missing.bit_select(self.parameter_write.bank, 1).eq(0)

        # Cycle ``latency``: load
        pes, groups = self._decode(Cat(Const(0, wpb_bits), late_beat), late_kr, late_kd)
        ahead_of_load = self.latency - 1

        def at_load(value, name, reset_less=True):
            return delayed(m, value, ahead_of_load, name, reset_less)[ahead_of_load]

        later_payload = at_load(payload, "payload")
        later_mode = at_load(Cat(late_kd, late_kr), "mode")
        m.d.comb += [
            self.address.eq(at_load(late_address, "address")),
            self.pe_select.eq(at_load(Mux(loads, pes, 0), "pe_select", reset_less=False)),
            self.group_select.eq(at_load(groups, "group_select")),
        ]
        in_beat = [later_payload.word_select(i, 8 * c.lanes) for i in range(c.words_per_beat)]
        for word, places in zip(self.words, self.places, strict=True):
            choices = {
                b | a << len(late_kd): in_beat[place] for (a, b), place in zip(stacking.modes, places, strict=True)
            }
            m.d.comb += word.eq(select(later_mode, choices))
        return m

    def _decode(self, number, log2_kr, log2_kd):
        """(PEs of a group, groups) that a beat loads; ``number``: of its first word, in its set.

        The bits of a word's number are, from the bottom, d, the PE and mid; those within the beat do not matter.
        """
        stacking = self.stacking
        wpb_bits = exact_log2(self.config.words_per_beat)

        def matches(index, bits):
            """All bits of the constant ``index`` agree; ``bits``: pairs of value and "does not matter"."""
            return Cat((bit if index >> i & 1 else ~bit) | any_ for i, (bit, any_) in enumerate(bits)).all()

        pe_bits = []
        for i in range(stacking.pe_bits):
            bit = select(log2_kd, {b: number[b + i] for b in range(stacking.group_bits + 1)})
            pe_bits.append((bit, log2_kd < wpb_bits - i if wpb_bits > i else Const(0)))
        group_bits = []
        for i in range(stacking.group_bits):
            at_mid = stacking.pe_bits + i
            bit = Mux(log2_kd > i, number[i], number[at_mid])
            inside = Mux(log2_kd > i, i < wpb_bits, at_mid < wpb_bits)
            group_bits.append((bit, inside | (log2_kr >= stacking.group_bits - i)))
        return (
            Cat(matches(p, pe_bits) for p in range(stacking.group_pes)),
            Cat(matches(g, group_bits) for g in range(stacking.groups)),
        )
