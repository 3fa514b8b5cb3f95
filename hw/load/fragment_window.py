"""Where a fragment's input rows lie: in the image, in the arena and in the stripe."""

from amaranth.hdl import Array, Module, Mux, Signal, signed
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from ..tile import DIMENSION_BITS, Layouts, descriptor_layout

__all__ = ["FragmentWindow", "stack_beat_bits", "window_layout"]

_FACTOR = signed(17)  # two of them and their product fit one 18 x 18 multiplier


def stack_beat_bits(config):
    """Width of a beat address in the stripe of a stack that owns every bank."""
    return ceil_log2(config.bank_beats * config.max_stack)


def window_layout(config):
    """A fragment as the stripe loader walks it; positions are those of its first input row, inside the image or not.

    x_left, width : of its lines, see Layouts.line
    addr : byte address of the first beat that is loaded of the row
    row_beats : beats that are loaded of a row (0: the window lies beside the image)
    need : line of the producer that completes the row
    place : beats, in a stack's stripe line, in front of the first one loaded
    """
    layouts = Layouts(config)
    return data.StructLayout(
        {
            "slot": layouts.slot,
            "sub_tile": layouts.sub_tile,
            "lines": layouts.line_count,
            "y_top": signed(DIMENSION_BITS + 2),
            "x_left": signed(DIMENSION_BITS + 2),
            "width": layouts.row_count,
            "addr": 32,
            "row_beats": 16,
            "need": 16,
            "place": stack_beat_bits(config),
        }
    )


class FragmentWindow(Component):
    """Multiplies out the window of one fragment after the other.

        y_top  = row * sy - pad_top
        x_left = seg * seg_w * sx - pad_left
        whole rows (nseg = 1): pixels 0 .. in_w - 1;  segments: max(0, x_left) .. min(in_w, x_left + stripe_pixels) - 1
        addr   = arena_base + in_offset + (y_top * in_line_beats + first pixel * in_pixel_beats) * bus_bytes
        need   = (y_top + 1) * producer_nseg - 1
        place  = max(0, -x_left) * in_pixel_beats / kd (segments), 0 (whole rows)

    With in_packed (nseg = 1) a row is ceil(in_w / words_per_beat) beats. Two multipliers: one for the fragment, one for
    what all rows of the tile share. Values that no legal descriptor reaches wrap around.

    Latency: a window is offered 5 cycles after ``begin`` or after the window before it was taken, 11 with segments.

    Parameters: config.

    Members
    -------
    begin : pulse. layer, log2_kd, fragments (count), fragment_index -> fragment (combinational) and arena_base (per
        slot) are stable from the next cycle on
    window : out stream of window_layout
    finished : level, every window was taken
    pad_words : words in front of pixel 0 that its window reaches (0 with segments)
    skip_addr, skip_need : bytes and producer lines of the rows between two windows; valid from the cycle after the
        first window was offered
    """

    LATENCY = 5
    SEGMENT_LATENCY = 11

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        super().__init__(
            {
                "begin": In(1),
                "layer": In(descriptor_layout()),
                "log2_kd": In(layouts.log2_stack),
                "fragments": In(bits_for(config.fragments)),
                "fragment_index": Out(layouts.fragment_index),
                "fragment": In(layouts.fragment),
                "arena_base": In(32).array(config.slots),
                "window": Out(stream.Signature(window_layout(config))),
                "finished": Out(1),
                "pad_words": Out(layouts.word_address),
                "skip_addr": Out(32),
                "skip_need": Out(16),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layer, fragment, window = self.layer, self.fragment, self.window.p
        beat_shift, wpb = exact_log2(c.bus_bytes), exact_log2(c.words_per_beat)

        a, b, tile_a, tile_b = (Signal(_FACTOR, name=name) for name in ("a", "b", "tile_a", "tile_b"))
        product, tile_product = Signal(signed(34)), Signal(signed(34))
        m.d.sync += [product.eq(a * b), tile_product.eq(tile_a * tile_b)]

        def multiply(x, y):
            m.d.comb += [a.eq(x), b.eq(y)]

        def tile_multiply(x, y):
            m.d.comb += [tile_a.eq(x), tile_b.eq(y)]

        segmented = layer.nseg > 1
        skip = Signal(8)
        m.d.comb += skip.eq(Mux(layer.sy > layer.kh, layer.sy - layer.kh, 0))
        y_top = Signal(signed(DIMENSION_BITS + 2))
        first_pixel = Signal(16)
        window_end = Signal(signed(18))
        end_pixel = Signal(signed(18))
        m.d.comb += [
            y_top.eq(product - layer.pad_top),
            first_pixel.eq(Mux(window.x_left < 0, 0, window.x_left)),
            window_end.eq(window.x_left + layer.stripe_pixels),
            end_pixel.eq(Mux(window_end < layer.in_w, window_end, layer.in_w)),
        ]

        with m.FSM(init="Idle"):
            with m.State("Idle"):
                with m.If(self.begin):
                    m.d.sync += [self.fragment_index.eq(0), self.finished.eq(0)]
                    m.next = "Row"
            with m.State("Row"):
                multiply(fragment.row, layer.sy)
                tile_multiply(
                    Mux(layer.in_packed, (layer.in_w + c.words_per_beat - 1) >> wpb, layer.in_w), layer.in_pixel_beats
                )
                m.next = "Address"
            with m.State("Address"):
                multiply(y_top, layer.in_line_beats)
                pixel_words = Mux(layer.in_packed & (wpb > 0), 1, (layer.in_pixel_beats << wpb) >> self.log2_kd)
                tile_multiply(layer.pad_left, pixel_words)
                m.d.sync += [
                    window.slot.eq(fragment.slot),
                    window.sub_tile.eq(fragment.sub_tile),
                    window.lines.eq(fragment.lines),
                    window.y_top.eq(y_top),
                    window.x_left.eq(-layer.pad_left),
                    window.width.eq(layer.seg_w),
                    window.addr.eq(Array(self.arena_base)[fragment.slot] + layer.in_offset),
                    window.row_beats.eq(tile_product),
                    window.place.eq(0),
                ]
                m.next = "Need"
            with m.State("Need"):
                multiply(window.y_top, layer.producer_nseg)
                tile_multiply(skip, layer.in_line_beats)
                m.d.sync += [
                    window.addr.eq(window.addr + (product << beat_shift)),
                    self.pad_words.eq(Mux(segmented, 0, tile_product)),
                ]
                m.next = "Width"
            with m.State("Width"):
                multiply(fragment.seg, layer.seg_w)
                tile_multiply(skip, layer.producer_nseg)
                m.d.sync += [
                    window.need.eq(product + layer.producer_nseg - 1),
                    self.skip_addr.eq(tile_product << beat_shift),
                ]
                m.next = "Offer"
                with m.If(segmented):
                    m.next = "Segment"

            # Segments only.
            with m.State("Segment"):
                multiply(product, layer.sx)
                with m.If(layer.out_w - product < layer.seg_w):
                    m.d.sync += window.width.eq(layer.out_w - product)
                m.next = "Left"
            with m.State("Left"):
                m.d.sync += window.x_left.eq(product - layer.pad_left)
                m.next = "First pixel"
            with m.State("First pixel"):
                multiply(first_pixel, layer.in_pixel_beats)
                m.next = "Pixels"
            with m.State("Pixels"):
                multiply(Mux(end_pixel > first_pixel, end_pixel - first_pixel, 0), layer.in_pixel_beats)
                m.d.sync += window.addr.eq(window.addr + (product << beat_shift))
                m.next = "Place"
            with m.State("Place"):
                multiply(Mux(window.x_left < 0, -window.x_left, 0), layer.in_pixel_beats)
                m.d.sync += window.row_beats.eq(product)
                m.next = "Placed"
            with m.State("Placed"):
                m.d.sync += window.place.eq(product >> self.log2_kd)
                m.next = "Offer"

            with m.State("Offer"):
                tile_multiply(skip, layer.producer_nseg)
                m.d.sync += self.skip_need.eq(tile_product)
                m.d.comb += self.window.valid.eq(1)
                with m.If(self.window.ready):
                    m.d.sync += self.fragment_index.eq(self.fragment_index + 1)
                    m.next = "Row"
                    with m.If(self.fragment_index + 1 >= self.fragments):
                        m.d.sync += self.finished.eq(1)
                        m.next = "Idle"
        return m
