"""The rules that a descriptor must keep; docs/isa.md lists them. What passes cannot hang or mislead the NPU."""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .. import isa
from ..tile import DIMENSION_BITS, PARAMETER_BYTES, VECTOR_TAPS, descriptor_layout

__all__ = ["DescriptorCheck"]

_LARGEST = (1 << 24) - 1  # of a product that is multiplied again


class DescriptorCheck(wiring.Component):
    """Judges ``descriptor`` (stable from ``go`` to ``done``): ``bad`` is valid with ``done``.

    One multiply, add and compare per cycle on one multiplier. Latency: at most CYCLES from ``go`` to ``done``.

    Members
    -------
    index, ops : place of the descriptor in its program and the program's number of operations
    """

    LAYER_STEPS = 8
    VARIANT_STEPS = 9
    CYCLES = LAYER_STEPS + isa.VARIANTS * VARIANT_STEPS + 2

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "go": In(1),
                "descriptor": In(descriptor_layout()),
                "index": In(isa.PC_INDEX_BITS),
                "ops": In(16),
                "done": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        d = self.descriptor
        simple_bad = Signal()
        m.d.comb += simple_bad.eq(self._breaks_simple_rule())

        # The variant under check
        v = Signal(range(isa.VARIANTS))
        var = {
            name: Signal(len(d[f"{name}0"]), name=name)
            for name in ("log2_kr", "log2_kd", "max_lines", "stripe_lines", "words", "weights", "weight_beats")
        }
        with m.Switch(v):
            for i in range(isa.VARIANTS):
                with m.Case(i):
                    m.d.comb += [signal.eq(d[f"{name}{i}"]) for name, signal in var.items()]

        # One step: result = a * b + addend; ``less``, ``above``: outcomes that are allowed beside equality
        a, b, addend, bound = Signal(24), Signal(24), Signal(32), Signal(32)
        less, above = Signal(), Signal()
        result = Signal(49)
        kept, saved, subtotal = Signal(32), Signal(32), Signal(32)
        holds = Signal()
        m.d.comb += [
            result.eq(a * b + addend),
            holds.eq((result == bound) | Mux(result < bound, less, above)),
        ]
        variant_bad = Signal()
        rules = self._variant_rules(m, var, kept, saved, subtotal)
        m.d.comb += variant_bad.eq(rules.bad)

        def drive(steps, step):
            with m.Switch(step):
                for i, (x, y, z, allowed, limit) in enumerate(steps):
                    with m.Case(i):
                        m.d.comb += [
                            a.eq(x),
                            b.eq(y),
                            addend.eq(z),
                            bound.eq(limit),
                            less.eq(allowed in ("<=", "any")),
                            above.eq(allowed in (">=", "any")),
                        ]

        broken = Signal()
        step = Signal(range(max(self.LAYER_STEPS, self.VARIANT_STEPS)))
        with m.FSM(init="Idle"):
            with m.State("Idle"), m.If(self.go):
                # Behind the last index a pc would go on in the next program.
                m.d.sync += [broken.eq(self.index.all()), step.eq(0), v.eq(0)]
                with m.Switch(d.op):
                    with m.Case(*isa.LAYERS):
                        m.next = "Layer"
                    with m.Case(isa.Op.EXIT):
                        m.d.sync += broken.eq(
                            (d.out_channels == 0)
                            | (d.out_channels > isa.MAX_CLASSES)
                            | (d.exit >= self.config.exits)
                            | d.in_offset[: exact_log2(self.config.bus_bytes)].any()
                            | d.bias[: exact_log2(self.config.bus_bytes)].any()
                            | self.index.all()
                        )
                        m.next = "Done"
                    with m.Case(isa.Op.JUMP):
                        m.d.sync += broken.eq(
                            (d.target <= self.index) | (d.target >= self.ops) | d.target[isa.PC_INDEX_BITS :].any()
                        )
                        m.next = "Done"
                    with m.Default():
                        m.d.sync += broken.eq(1)
                        m.next = "Done"
            with m.State("Layer"):
                drive(self._layer_steps(), step)
                m.d.sync += [step.eq(step + 1), broken.eq(broken | ~holds | simple_bad)]
                with m.If(step == self.LAYER_STEPS - 1):
                    m.d.sync += step.eq(0)
                    m.next = "Variant"
            with m.State("Variant"):
                drive(rules.steps, step)
                m.d.sync += [kept.eq(result), step.eq(step + 1), broken.eq(broken | ~holds | variant_bad)]
                with m.If(step == rules.SAVE):
                    m.d.sync += saved.eq(result)
                with m.If(step == rules.SUBTOTAL):
                    m.d.sync += subtotal.eq(result)
                with m.If(step == self.VARIANT_STEPS - 1):
                    m.d.sync += [step.eq(0), v.eq(v + 1)]
                    with m.If(v == isa.VARIANTS - 1):
                        m.next = "Done"
            with m.State("Done"):
                m.d.comb += [self.done.eq(1), self.bad.eq(broken)]
                m.next = "Idle"
        return m

    def _breaks_simple_rule(self):
        """Rules of a layer without products."""
        c, d = self.config, self.descriptor
        bus = exact_log2(c.bus_bytes)
        positive = (
            "in_w in_h out_w out_h lines out_channels kh kw sy sx nseg seg_w in_pixel_beats out_pixel_beats chunk_beats"
        )
        dimensions = ("in_w", "in_h", "out_w", "out_h")
        pixel_bits = 10 - ceil_log2(c.words_per_beat)  # words of a pixel fit array_tile.pixel_words
        reads_image = d.producer == isa.NO_PRODUCER
        pools = d.op == isa.Op.POOL
        return (
            Cat(*(d[name] == 0 for name in positive.split())).any()
            | Cat(*(d[name][DIMENSION_BITS:].any() for name in dimensions)).any()
            | (d.residual & self._breaks_residual_rule())
            | self._breaks_packing_rule()
            | d.in_offset[:bus].any()
            | d.out_offset[:bus].any()
            | (d.seg_w > c.rows)
            | ((d.nseg == 1) & (d.seg_w != d.out_w))
            | d.in_pixel_beats[pixel_bits:].any()
            | (~reads_image & ((d.producer >= self.index) | (d.producer_nseg == 0)))
            | (d.out_channels > (d.out_pixel_beats << bus))
            | (d.clamp_min > d.clamp_max)
            | (d.padded_average & (~pools | ~d.average | (d.kh * d.kw > isa.RECIPROCAL_MAX)))
            | (d.maximum & (~pools | d.average))
            | (d.half_up & ~d.average)
            | (d.twice & pools)
        )

    def _breaks_packing_rule(self):
        """Rules of in_packed and out_packed without products."""
        c, d = self.config, self.descriptor
        packs = c.words_per_beat > 1
        pixel = C(c.words_per_beat - 1, 16)
        return ((d.in_packed | d.out_packed) & ((d.op != isa.Op.CONV) | (d.nseg != 1) | (not packs))) | (
            (d.in_packed & (d.in_pixel_beats != 1))
            | (d.out_packed & ((d.out_pixel_beats != 1) | (d.out_channels > c.lanes) | (d.out_w & pixel).any()))
            | (d.out_packed & d.residual & (d.res_pixel_beats != 1))
        )

    def _breaks_residual_rule(self):
        """Rules of a residual addition without products."""
        d = self.descriptor
        bus = exact_log2(self.config.bus_bytes)
        reads_image = d.res_producer == isa.NO_PRODUCER
        shifts = (d.add_left_shift, d.add_right_shift, d.add_shift)
        return (
            d.res_offset[:bus].any()
            | (d.res_pixel_beats == 0)
            | (d.out_channels > (d.res_pixel_beats << bus))
            | (~reads_image & ((d.res_producer >= self.index) | (d.res_producer_nseg == 0)))
            | Cat((shift > 0) | (shift < -31) for shift in shifts).any()
            | (d.add_clamp_min > d.add_clamp_max)
        )

    def _layer_steps(self):
        """(a, b, addend, relation, bound): a * b + addend <relation> bound."""
        d = self.descriptor
        whole = d.nseg == 1
        wpb = exact_log2(self.config.words_per_beat)

        def in_beats(pixels):
            return Mux(d.in_packed, (pixels + (1 << wpb) - 1) >> wpb, pixels)

        out_w = Mux(d.out_packed, d.out_w >> wpb, d.out_w)
        return (
            (d.out_h, d.nseg, 0, "=", d.lines),
            (d.nseg - 1, d.seg_w, 1, "<=", d.out_w),
            (d.nseg, d.seg_w, 0, ">=", d.out_w),
            (in_beats(d.in_w), d.in_pixel_beats, 0, "<=", d.in_line_beats),
            (out_w, d.out_pixel_beats, 0, "<=", d.out_line_beats),
            (out_w, Mux(d.residual, d.res_pixel_beats, 0), 0, "<=", d.res_line_beats),
            (in_beats(d.stripe_pixels), d.in_pixel_beats, 0, "<=", d.stripe_line_beats),
            # a stripe line holds the whole row, or the window of a segment
            (Mux(whole, d.in_w, d.seg_w - 1), Mux(whole, 1, d.sx), Mux(whole, 0, d.kw), "<=", d.stripe_pixels),
        )

    def _variant_rules(self, m, var, kept, saved, subtotal):
        """Rules and steps of a variant; ``kept`` is the product of the step before."""
        c, d = self.config, self.descriptor
        bus, wpb = exact_log2(c.bus_bytes), exact_log2(c.words_per_beat)
        stack = exact_log2(c.max_stack)
        kr, kd = var["log2_kr"], var["log2_kd"]
        is_conv, is_pool, is_depthwise = (d.op == op for op in isa.LAYERS)

        too_deep = Signal()
        log2_cols, cols = Signal(range(exact_log2(c.pes) + 1)), Signal(range(c.pes + 1))
        full, part = Signal(16), Signal(range(c.pes))  # whole c-tiles, channels of a last narrower one
        m.d.comb += [
            too_deep.eq(kr + kd > stack),
            log2_cols.eq(Mux(too_deep, 0, exact_log2(c.pes) - kr - kd)),
            cols.eq(1 << log2_cols),
            full.eq(d.out_channels >> log2_cols),
            part.eq(d.out_channels & (cols - 1)),
        ]
        shift = Signal(range(stack + 1))  # kd, where it makes sense
        kd_mask = Signal(max(1, stack))
        pixel_words = Signal(16)
        m.d.comb += [
            shift.eq(Mux(too_deep, 0, kd)),
            kd_mask.eq((1 << shift) - 1),
            pixel_words.eq(Mux(d.in_packed, 1, (d.in_pixel_beats << wpb) >> shift)),
        ]
        # Beats of a weight set and of the parameters, for whole and for the last c-tile. DEPTHWISE: a tap of a block is
        # a set of one column, its blocks are whole c-tiles; POOL has neither.
        set_full, set_part, par_full, par_part = (
            Signal(16, name=n) for n in ("set_full", "set_part", "par_full", "par_part")
        )

        def beats(words):
            return (words + c.words_per_beat - 1) >> wpb

        def parameter_beats(columns):
            return (columns * PARAMETER_BYTES + c.bus_bytes - 1) >> bus

        columns = Mux(is_conv, cols, 1)
        blocks_beats = Signal(16)  # of a pixel, that the blocks of all stacks cover
        out_beats = (d.out_channels + c.bus_bytes - 1) >> bus
        m.d.comb += [
            set_full.eq(Mux(is_pool, 0, beats(columns << shift))),
            set_part.eq(Mux(is_conv, beats(part << shift), 0)),
            par_full.eq(Mux(is_pool, 0, parameter_beats(Mux(is_conv, cols, c.lanes << shift)))),
            par_part.eq(Mux(is_conv, parameter_beats(part), 0)),
            blocks_beats.eq(beats(var["words"]) << shift),
        ]
        positions = var["words"] << d.twice
        staged = Mux(d.out_packed, kept >> wpb, kept)  # beats of a pixel column in front of the chunk's, of a sub-tile
        chunk = Mux(d.chunk_beats < d.out_pixel_beats, d.chunk_beats, d.out_pixel_beats)

        class Rules:
            SAVE, SUBTOTAL = 4, 6
            steps = (
                (d.seg_w, var["max_lines"], 0, "<=", C(c.rows)),
                ((staged << shift_of(kr, stack))[:24], chunk, 0, "<=", C(c.stage_beats)),
                (var["stripe_lines"], d.stripe_line_beats, 0, "<=", C(c.bank_beats * c.max_stack) >> kr),
                (d.kh, d.kw, 0, "any", 0),
                (kept, Mux(is_conv, positions, 1 << d.twice), 0, "<=", Mux(is_depthwise, VECTOR_TAPS, C(_LARGEST))),
                (kept, set_full, par_full, "<=", C(_LARGEST)),
                (kept, Mux(is_conv, full, var["words"]), 0, "<=", var["weight_beats"]),
                (saved, set_part, par_part, "<=", var["weight_beats"]),
                (kept, 1, subtotal, "=", var["weight_beats"]),
            )
            bad = (
                too_deep
                | (var["max_lines"] == 0)
                | (var["max_lines"] > c.max_lines)
                | ((d.nseg != 1) & (var["max_lines"] != 1))
                | (var["stripe_lines"] < d.kh)
                | var["weights"][:bus].any()
                | (d.in_pixel_beats & kd_mask).any()
                | (d.stripe_line_beats & kd_mask).any()
                | (var["words"] == 0)
                | (var["words"] > pixel_words)
                | (~is_conv & (blocks_beats != out_beats))
                | (
                    (d.chunk_beats < d.out_pixel_beats)
                    & Mux(is_conv, (d.chunk_beats << bus) & (cols - 1), d.chunk_beats & kd_mask).any()
                )
            )

        assert len(Rules.steps) == self.VARIANT_STEPS
        return Rules


def shift_of(log2_kr, stack_bits):
    """log2(kr), in as few bits as a legal value needs: wider shifters are wasted on values that are refused."""
    return log2_kr[: max(1, stack_bits.bit_length())]
