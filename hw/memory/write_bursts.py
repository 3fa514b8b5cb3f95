"""Where the pixels of a chunk go in external memory: fragments into runs, runs into AXI bursts."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from ..post.staging import sub_tile_beats
from ..tile import Layouts

__all__ = ["BEAT_ADDRESS_BITS", "BurstSplitter", "FragmentRuns", "runs_layout", "write_burst_layout"]

PAGE_BYTES = 4096  # no AXI burst crosses such a boundary
BEAT_ADDRESS_BITS = 36  # holds base + offset + row * line beats + pixel * pixel beats of any descriptor exactly


def _common_fields(config, layouts):
    """What the writer must know of a fragment's beats, and when a line's (done) or its last burst is answered."""
    return {
        "slot": layouts.slot,
        "context": layouts.context,
        "pc": 16,  # done: position of the slot after the line
        "line": 16,
        "done": 1,
        "retire": 1,
        "half": 1,
        "chunk_end": 1,
        "staged": 1,  # the chunk was complete when it was offered
        "jump": 1,  # the first beat lies at ``stage`` in the staging half, else behind the one before
        "stage": ceil_log2(config.stage_beats),
    }


def runs_layout(config):
    """A fragment's part of a chunk: ``lines`` lines of ``runs`` runs of ``run_beats`` beats; addresses in beats.

    pc, line: position of the slot behind the first line; complete: the last line is the layer's last one.
    """
    layouts = Layouts(config)
    return data.StructLayout(
        {
            "address": BEAT_ADDRESS_BITS,  # of the first run
            "line_pitch": 16,  # beats from line to line, from run to run
            "run_pitch": 16,
            "lines": layouts.line_count,
            "runs": layouts.row_count,
            "run_beats": layouts.row_count + 8,
            "complete": 1,
        }
        | _common_fields(config, layouts)
    )


def write_burst_layout(config):
    """One burst, not yet checked. done: of the last one of a line; retire, chunk_end: of a fragment; jump: of the first
    one."""
    layouts = Layouts(config)
    return data.StructLayout(
        {"address": BEAT_ADDRESS_BITS, "beats": bits_for(config.burst_beats)} | _common_fields(config, layouts)
    )


class FragmentRuns(Component):
    """Turns (tile, chunk, fragment) into the runs it consists of, fragment after fragment, chunk after chunk.

        address = arena_base + out_offset + chunk's first beat + row * out_line_beats + seg * seg_w * out_pixel_beats
        pixels  = min(seg_w, out_w - seg * seg_w)
        used    = min(chunk_beats, beats that are left of the pixel's part with out_channels channels)

    A line is one run of pixels * used beats if the chunk is the whole pixel, else ``pixels`` runs of ``used`` beats.

    Works ahead of the chunk: the runs of a chunk's first fragment are offered in the cycle in which the chunk comes.
    Throughput: a fragment every FRAGMENT_CYCLES cycles. Flow control: streams; ``chunk`` and ``tile`` stay until their
    last fragment is taken.

    Members
    -------
    tile, chunk : streams of write_tile, chunk
    fragment_context, fragment_index, fragment : combinational read port
    arena_base : bytes, per slot
    runs : stream of runs_layout
    first : with ``runs``: the first fragment of its chunk
    used : beats of a pixel in the chunk; channel_bytes : real ones of the pixel from the chunk's first beat on
    packed : of each word of a beat
    """

    FRAGMENT_CYCLES = 5

    def __init__(self, config):
        self.config = config
        layouts = Layouts(config)
        super().__init__(
            {
                "tile": In(stream.Signature(layouts.write_tile)),
                "chunk": In(stream.Signature(layouts.chunk)),
                "fragment_context": Out(layouts.context),
                "fragment_index": Out(layouts.fragment_index),
                "fragment": In(layouts.fragment),
                "arena_base": In(32).array(config.slots),
                "runs": Out(stream.Signature(runs_layout(config))),
                "first": Out(1),
                "used": Out(8),
                "channel_bytes": Out(16),
                "packed": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layouts = Layouts(c)
        bus_bits = exact_log2(c.bus_bytes)
        tile, chunk = self.tile.payload, self.chunk.payload
        out = Signal(runs_layout(c))
        index = Signal(layouts.fragment_index)
        chunk_first = Signal(17)  # beat of the pixel at which the chunk begins
        left = Signal(17)
        whole, last_index = Signal(), Signal()
        m.d.comb += [
            self.fragment_context.eq(tile.context),
            self.fragment_index.eq(index),
            self.used.eq(Mux(left < tile.chunk_beats, left, tile.chunk_beats)),
            self.channel_bytes.eq(tile.out_channels - (chunk_first << bus_bits)),
            self.packed.eq(tile.packed),
            self.first.eq(index == 0),
            whole.eq(self.used == tile.out_pixel_beats),
            last_index.eq(index + 1 >= tile.fragments),
        ]

        fragment = Signal(layouts.fragment)
        sub_tile = Signal(layouts.sub_tile)  # of the chunk's fragment before
        origin = Signal(BEAT_ADDRESS_BITS)
        row_beats = Signal(28)
        first_pixel = Signal(8 + layouts.row_count)
        pixel_beats = Signal(8 + layouts.row_count + 16)
        pixels_left = Signal(layouts.row_count + 9)
        pixels = Signal(layouts.row_count)
        after = Signal(17)
        complete = Signal()
        m.d.comb += [
            pixels_left.eq(tile.out_w - first_pixel),
            after.eq(fragment.line + fragment.lines),
            complete.eq(after == tile.lines),
        ]
        with m.FSM(init="Fetch"):
            with m.State("Fetch"), m.If(self.tile.valid):
                m.d.sync += [
                    fragment.eq(self.fragment),
                    origin.eq((tile.out_offset >> bus_bits) + chunk_first),
                    left.eq(((tile.out_channels + c.bus_bytes - 1) >> bus_bits) - chunk_first),
                ]
                m.next = "Row"
            with m.State("Row"):
                m.d.sync += [
                    origin.eq(origin + (Array(self.arena_base)[fragment.slot] >> bus_bits)),
                    row_beats.eq(fragment.row * tile.out_line_beats),
                    first_pixel.eq(fragment.seg * tile.seg_w),
                ]
                m.next = "Pixel"
            with m.State("Pixel"):
                m.d.sync += [
                    origin.eq(origin + row_beats),
                    pixel_beats.eq(first_pixel * tile.out_pixel_beats),
                    pixels.eq(Mux(pixels_left < tile.seg_w, pixels_left, tile.seg_w)),
                ]
                m.next = "Sum"
            with m.State("Sum"):
                m.d.sync += [
                    out.address.eq(origin + pixel_beats),
                    out.line_pitch.eq(tile.out_line_beats),
                    out.run_pitch.eq(tile.out_pixel_beats),
                    out.lines.eq(fragment.lines),
                    out.runs.eq(Mux(whole, 1, pixels)),
                    out.run_beats.eq(Mux(whole, pixels, 1) * self.used),
                    out.slot.eq(fragment.slot),
                    out.context.eq(tile.context),
                    out.pc.eq(tile.pc),
                    out.line.eq(fragment.line + 1),
                    out.complete.eq(complete),
                    out.jump.eq(fragment.sub_tile != sub_tile),
                    out.stage.eq(sub_tile_beats(c, fragment.sub_tile, tile.log2_kr)),
                ]
                m.next = "Offer"
            with m.State("Offer"):
                m.d.comb += [
                    self.runs.valid.eq(self.chunk.valid),
                    self.chunk.ready.eq(self.runs.ready & last_index),
                    self.tile.ready.eq(self.chunk.valid & self.chunk.ready & chunk.last),
                ]
                with m.If(self.runs.valid & self.runs.ready):
                    m.d.sync += [index.eq(index + 1), sub_tile.eq(fragment.sub_tile)]
                    with m.If(last_index):
                        m.d.sync += [
                            index.eq(0),
                            sub_tile.eq(0),
                            chunk_first.eq(Mux(chunk.last, 0, chunk_first + tile.chunk_beats)),
                        ]
                    m.next = "Fetch"
        m.d.comb += [
            self.runs.payload.eq(out),
            self.runs.payload.done.eq(chunk.last),
            self.runs.payload.retire.eq(last_index & chunk.last),
            self.runs.payload.half.eq(chunk.half),
            self.runs.payload.staged.eq(chunk.complete),
            self.runs.payload.chunk_end.eq(last_index),
        ]
        return m


class BurstSplitter(Component):
    """Splits runs into bursts of at most burst_beats beats that do not cross a 4 KB boundary.

    Latency 1; one burst per cycle, from fragment to fragment without a gap. Flow control: streams.

    Members: runs (stream of runs_layout), bursts (stream of write_burst_layout).
    """

    LATENCY = 1

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "runs": In(stream.Signature(runs_layout(config))),
                "bursts": Out(stream.Signature(write_burst_layout(config))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        page_bits = exact_log2(PAGE_BYTES // c.bus_bytes)
        out = self.bursts.payload
        runs = Signal(runs_layout(c))  # address, lines, runs: of the present line, of what is left
        busy = Signal()
        run = Signal(BEAT_ADDRESS_BITS)  # of the present run
        address = Signal(BEAT_ADDRESS_BITS)  # of the present burst
        left = Signal.like(runs.run_beats)  # beats of the run
        runs_left = Signal.like(runs.runs)
        page_left = Signal(page_bits + 1)
        allowed = Signal.like(out.beats)
        run_ends, line_ends, ends, moves = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            page_left.eq((1 << page_bits) - address[:page_bits]),
            allowed.eq(Mux(page_left < c.burst_beats, page_left, c.burst_beats)),
            run_ends.eq(left <= allowed),
            line_ends.eq(run_ends & (runs_left <= 1)),
            ends.eq(line_ends & (runs.lines <= 1)),
            self.bursts.valid.eq(busy),
            out.address.eq(address),
            out.beats.eq(Mux(run_ends, left, allowed)),
            out.slot.eq(runs.slot),
            out.context.eq(runs.context),
            out.pc.eq(runs.pc + (runs.complete & ends)),
            out.line.eq(Mux(runs.complete & ends, 0, runs.line)),
            out.half.eq(runs.half),
            out.done.eq(runs.done & line_ends),
            out.retire.eq(runs.retire & ends),
            out.chunk_end.eq(runs.chunk_end & ends),
            out.staged.eq(runs.staged),
            out.jump.eq(runs.jump),
            out.stage.eq(runs.stage),
            moves.eq(busy & self.bursts.ready),
            self.runs.ready.eq(~busy | (moves & ends)),
        ]
        next_run, next_line = Signal(BEAT_ADDRESS_BITS), Signal(BEAT_ADDRESS_BITS)
        m.d.comb += [next_run.eq(run + runs.run_pitch), next_line.eq(runs.address + runs.line_pitch)]
        with m.If(moves):
            m.d.sync += runs.jump.eq(0)
            m.d.sync += [address.eq(address + allowed), left.eq(left - allowed)]
            with m.If(run_ends):
                m.d.sync += [
                    address.eq(next_run),
                    run.eq(next_run),
                    left.eq(runs.run_beats),
                    runs_left.eq(runs_left - 1),
                ]
            with m.If(line_ends):
                m.d.sync += [
                    address.eq(next_line),
                    run.eq(next_line),
                    runs.address.eq(next_line),
                    runs_left.eq(runs.runs),
                    runs.lines.eq(runs.lines - 1),
                    runs.line.eq(runs.line + 1),
                ]
            with m.If(ends):
                m.d.sync += busy.eq(0)
        with m.If(self.runs.valid & self.runs.ready):
            load = self.runs.payload
            m.d.sync += [
                busy.eq(1),
                runs.eq(load),
                run.eq(load.address),
                address.eq(load.address),
                left.eq(load.run_beats),
                runs_left.eq(load.runs),
            ]
        return m
