"""Reads any number of beats from external memory as legal bursts, and says what every beat is."""

from amaranth.hdl import Module, Mux, ResetInserter, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, exact_log2

from ..queue import Queue
from .read_client import ReadClientSignature

__all__ = ["BurstReader"]

_PAGE_BYTES = 4096  # AXI: no burst crosses a 4 KB boundary


class BurstReader(Component):
    """Splits requests into bursts and returns their beats, in order, with the request's tag.

    A burst ends at ``burst_beats`` beats, at a 4 KB boundary or at the end of its request. At most
    ``reads_in_flight`` bursts are under way. A rejected burst answers with as many error beats, in its turn; no burst
    is issued meanwhile, so that they cannot meet beats from the bus. Requests follow one another without a bubble.

    Latency: a request is offered as a burst 2 cycles after its transfer (``requests_depth`` 0; one more otherwise), a
    beat leaves in the cycle in which it arrives. Throughput: one burst per cycle, one beat per cycle.

    Parameters
    ----------
    config
    tag_shape : shape of the tag that comes back with every beat
    requests_depth : requests that wait behind the one being split (0: none, ``request`` leads straight to it)
    beats_bits : width of a request's length

    Members
    -------
    request : in, stream of {addr (bytes; the part below a beat is ignored), beats (at least 1), arena, owner (slot or
        program), tag}
    room : level, beats that the consumer has space for; a burst is formed only if it fits. All ones: always
    formed, formed_beats, formed_tag : pulse, a burst was formed (its space is taken), its length and tag
    flush : pulse, forget every request, also one taken in the same cycle, except for bursts already formed
    client : to the read arbiter
    beat_valid, data, error, rejected, tag, offset, burst_last, last : a beat (never stalled); error: it holds no data,
        rejected: because of its address; offset: number of the beat in its request; burst_last: ends its burst,
        last: ends its request (never given for a flushed one)
    outstanding : level, formed bursts whose beats did not all come
    busy : level, outstanding or there are requests
    """

    LATENCY = 2

    def __init__(self, config, tag_shape, requests_depth=2, beats_bits=16):
        self.config = config
        self.tag_shape = tag_shape
        self.requests_depth = requests_depth
        self.beats_bits = beats_bits
        self.request_layout = data.StructLayout(
            {"addr": 32, "beats": beats_bits, "arena": 1, "owner": 4, "tag": tag_shape}
        )
        burst = bits_for(config.burst_beats)
        room = bits_for(max(config.burst_beats, config.weight_fifo_beats))
        super().__init__(
            {
                "request": In(stream.Signature(self.request_layout)),
                "room": In(room, init=(1 << room) - 1),
                "formed": Out(1),
                "formed_beats": Out(burst),
                "formed_tag": Out(tag_shape),
                "flush": In(1),
                "client": Out(ReadClientSignature(config)),
                "beat_valid": Out(1),
                "data": Out(8 * config.bus_bytes),
                "error": Out(1),
                "rejected": Out(1),
                "tag": Out(tag_shape),
                "offset": Out(beats_bits),
                "burst_last": Out(1),
                "last": Out(1),
                "outstanding": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        beat_shift = exact_log2(c.bus_bytes)
        burst_bits = bits_for(c.burst_beats)

        request = stream.Signature(self.request_layout).flip().create()
        queued = Signal()
        if self.requests_depth:
            requests = Queue(self.request_layout, self.requests_depth)
            m.submodules.requests = ResetInserter(self.flush)(requests)
            connect(m, flipped(self.request), requests.i)
            m.d.comb += [
                request.payload.eq(requests.o.payload),
                request.valid.eq(requests.o.valid),
                requests.o.ready.eq(request.ready),
                queued.eq(requests.o.valid),
            ]
        else:
            m.d.comb += [
                request.payload.eq(self.request.payload),
                request.valid.eq(self.request.valid),
                self.request.ready.eq(request.ready),
            ]

        # Form bursts: ``rest`` is what is left of a request, ``offered`` the burst that the arbiter sees.
        record = data.StructLayout({"tag": self.tag_shape, "first": 1, "last": 1})
        rest = Signal(self.request_layout)
        rest_valid = Signal()
        rest_first = Signal()
        rest_last = Signal()
        offered_valid = Signal()
        offered_record = Signal(record)
        offered = self.client.request
        taken = Signal()
        length = Signal(burst_bits)
        page_beats = _PAGE_BYTES // c.bus_bytes
        to_boundary = Signal(range(page_beats + 1))
        m.d.comb += [
            to_boundary.eq(page_beats - rest.addr[beat_shift : exact_log2(_PAGE_BYTES)]),
            length.eq(c.burst_beats),
            rest_last.eq(length == rest.beats),
        ]
        with m.If((rest.beats < c.burst_beats) & (rest.beats <= to_boundary)):
            m.d.comb += length.eq(rest.beats)
        with m.Elif(to_boundary < c.burst_beats):
            m.d.comb += length.eq(to_boundary)
        m.d.comb += [
            self.formed.eq(rest_valid & (~offered_valid | taken) & (length <= self.room) & ~self.flush),
            self.formed_beats.eq(length),
            self.formed_tag.eq(rest.tag),
            request.ready.eq(~rest_valid | (self.formed & rest_last)),
        ]
        with m.If(taken):
            m.d.sync += offered_valid.eq(0)
        with m.If(self.formed):
            m.d.sync += [
                offered_valid.eq(1),
                offered.p.addr.eq(rest.addr),
                offered.p.beats.eq(length),
                offered.p.arena.eq(rest.arena),
                offered.p.owner.eq(rest.owner),
                offered_record.tag.eq(rest.tag),
                offered_record.first.eq(rest_first),
                offered_record.last.eq(rest_last),
                rest.addr.eq(rest.addr + (length << beat_shift)),
                rest.beats.eq(rest.beats - length),
                rest_valid.eq(~rest_last),
                rest_first.eq(0),
            ]
        with m.If(request.ready & request.valid):
            m.d.sync += [
                rest.eq(request.payload),
                rest.addr.eq(request.p.addr & ~(c.bus_bytes - 1)),
                rest_valid.eq(1),
                rest_first.eq(1),
            ]
        with m.If(self.flush):
            m.d.sync += rest_valid.eq(0)

        # Remember what is under way. A rejected burst waits until everything before it has come.
        m.submodules.records = records = Queue(record, c.reads_in_flight)
        refused = Signal(record)
        refused_left = Signal(burst_bits)
        m.d.comb += [
            offered.valid.eq(offered_valid & records.i.ready & (refused_left == 0)),
            taken.eq(offered.valid & offered.ready),
            records.i.valid.eq(taken & ~self.client.rejected),
            records.i.payload.eq(offered_record),
            records.o.ready.eq(self.client.beat_valid & self.client.beat_last),
        ]
        with m.If(taken & self.client.rejected):
            m.d.sync += [refused.eq(offered_record), refused_left.eq(offered.p.beats)]
        with m.Elif((refused_left != 0) & ~records.o.valid):
            m.d.comb += self.rejected.eq(1)
            m.d.sync += refused_left.eq(refused_left - 1)

        # Give beats back.
        current = Signal(record)
        position = Signal(self.beats_bits)
        burst_begins = Signal(init=1)
        m.d.comb += [
            current.as_value().eq(Mux(self.rejected, refused.as_value(), records.o.payload.as_value())),
            self.beat_valid.eq(self.client.beat_valid | self.rejected),
            self.data.eq(self.client.beat.data),
            self.error.eq(self.client.beat.error | self.rejected),
            self.tag.eq(current.tag),
            self.burst_last.eq(Mux(self.rejected, refused_left == 1, self.client.beat_last)),
            self.last.eq(self.burst_last & current.last),
            self.offset.eq(Mux(burst_begins & current.first, 0, position)),
            self.outstanding.eq(offered_valid | records.o.valid | (refused_left != 0)),
            self.busy.eq(self.outstanding | rest_valid | queued),
        ]
        with m.If(self.beat_valid):
            m.d.sync += [position.eq(self.offset + 1), burst_begins.eq(self.burst_last)]
        return m
