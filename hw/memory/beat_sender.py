"""W channel of the output writer: beats of the staging buffer with their strobes, burst after burst."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from ..post.staging import stage_read_layout
from ..queue import Queue

__all__ = ["BeatSender"]


class BeatSender(Component):
    """Sends the beats of each burst from consecutive addresses of the half, starting at 0 in every chunk and at
    ``stage`` where a burst has ``jump``.

    A burst that is not ``sent`` is passed over, a beat per cycle, without reading. Strobes: beat b of a chunk holds
    beat b mod used of a pixel's part; bytes of the part from ``channel_bytes`` on are off. ``used`` and
    ``channel_bytes`` are given per half before the chunk's first burst.

    Latency: a burst that is taken in cycle n has its first beat in cycle n + LATENCY. One beat per cycle, from burst to
    burst without a gap. Flow control: streams; PREFETCH beats are read ahead, enough for the buffer's latency.

    Parameters: config, bursts (that can wait).

    Members
    -------
    burst : stream, always ready unless ``bursts`` wait
    pixel_valid, pixel_half, used, channel_bytes, packed : pixels of a chunk
    stage_read, stage_data : staging buffer, data one cycle after the address
    beats : stream of data, strb, last
    chunk_free, chunk_free_half : pulse, the last beat of a chunk is read
    busy : bursts or beats are here
    """

    LATENCY = 3
    PREFETCH = 4

    def __init__(self, config, bursts):
        self.config = config
        self.bursts = bursts
        self.burst_layout = data.StructLayout(
            {
                "sent": 1,
                "beats": bits_for(config.burst_beats),
                "half": 1,
                "chunk_end": 1,
                "jump": 1,
                "stage": ceil_log2(config.stage_beats),
            }
        )
        self.beat_layout = data.StructLayout({"data": 8 * config.bus_bytes, "strb": config.bus_bytes, "last": 1})
        super().__init__(
            {
                "burst": In(stream.Signature(self.burst_layout)),
                "pixel_valid": In(1),
                "pixel_half": In(1),
                "used": In(8),
                "channel_bytes": In(16),
                "packed": In(1),
                "stage_read": Out(stage_read_layout(config)),
                "stage_data": In(8 * config.bus_bytes),
                "beats": Out(stream.Signature(self.beat_layout)),
                "chunk_free": Out(1),
                "chunk_free_half": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        bus_bits = exact_log2(c.bus_bytes)
        m.submodules.waiting = waiting = Queue(self.burst_layout, self.bursts)
        m.submodules.ready = ready = Queue(self.beat_layout, self.PREFETCH)
        connect(m, flipped(self.burst), waiting.i)
        connect(m, ready.o, flipped(self.beats))

        pixels = Array(
            Signal(data.StructLayout({"used": 8, "channel_bytes": 16, "packed": 1}), name=f"pixel_{half}")
            for half in range(2)
        )
        with m.If(self.pixel_valid):
            m.d.sync += [
                pixels[self.pixel_half].used.eq(self.used),
                pixels[self.pixel_half].channel_bytes.eq(self.channel_bytes),
                pixels[self.pixel_half].packed.eq(self.packed),
            ]

        # Cycle 0: the address of a beat
        burst = waiting.o.payload
        pixel = pixels[burst.half]
        following = Signal.like(self.stage_read.address)
        beat = Signal.like(burst.beats)  # of the burst
        place = Signal(8)  # of the beat within the pixel's part
        place_byte = Signal(8 + bus_bits)
        read, passes, burst_ends = Signal(), Signal(), Signal()
        strobes_1, last_1, valid_1 = Signal(c.bus_bytes), Signal(), Signal()
        m.d.comb += [
            passes.eq(waiting.o.valid & (~burst.sent | (ready.level + valid_1 < self.PREFETCH))),
            read.eq(passes & burst.sent),
            burst_ends.eq(beat + 1 >= burst.beats),
            waiting.o.ready.eq(passes & burst_ends),
            self.stage_read.half.eq(burst.half),
            self.stage_read.address.eq(Mux(burst.jump & (beat == 0), burst.stage, following)),
            place_byte.eq(place << bus_bits),
        ]
        m.d.sync += [self.chunk_free.eq(passes & burst_ends & burst.chunk_end), self.chunk_free_half.eq(burst.half)]
        with m.If(passes):
            m.d.sync += [
                following.eq(self.stage_read.address + 1),
                beat.eq(Mux(burst_ends, 0, beat + 1)),
                place.eq(Mux(place + 1 >= pixel.used, 0, place + 1)),
            ]
            with m.If(burst_ends & burst.chunk_end):
                m.d.sync += [following.eq(0), place.eq(0)]

        # Cycle 1: its data
        real = Signal(16)  # bytes of the part from this beat on
        strobes, word_strobes = Signal(c.bus_bytes), Signal(c.lanes)
        m.d.comb += [
            real.eq(Mux(pixel.channel_bytes > place_byte, pixel.channel_bytes - place_byte, 0)),
            strobes.eq(Mux(real >= c.bus_bytes, (1 << c.bus_bytes) - 1, (1 << real[:bus_bits]) - 1)),
            word_strobes.eq(strobes),
        ]
        m.d.sync += [
            valid_1.eq(read),
            last_1.eq(burst_ends),
            strobes_1.eq(Mux(pixel.packed, word_strobes.replicate(c.words_per_beat), strobes)),
        ]
        m.d.comb += [
            ready.i.valid.eq(valid_1),
            ready.i.payload.data.eq(self.stage_data),
            ready.i.payload.strb.eq(strobes_1),
            ready.i.payload.last.eq(last_1),
            self.busy.eq(waiting.o.valid | valid_1 | ready.o.valid),
        ]
        return m
