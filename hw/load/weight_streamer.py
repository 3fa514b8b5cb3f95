"""Streams the weights of the running tile, then of the announced one, from external memory to the array."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from ..isa import PC_INDEX_BITS, Code
from ..memory.burst_reader import BurstReader
from ..memory.read_client import ReadClientSignature

__all__ = ["WEIGHT_BEATS_BITS", "WeightStreamer"]

WEIGHT_BEATS_BITS = 22  # width of the descriptor's weight_beats
_CODE_BITS = 4


class WeightStreamer(Component):
    """Prefetches weight streams into a FIFO of ``weight_fifo_beats`` beats (one more waits at its output).

    There is at most one running and one announced tile. The announced tile's bursts queue behind those of the running
    tile; space in the FIFO is taken before a burst is formed. Beats leave in order: the running tile's, then the
    announced tile's (the array preloads its first set). At most one of the three pulses comes in a cycle.

    Latency: the first burst is offered to the arbiter 3 cycles after ``announce`` (if the running tile's are all
    formed); a beat is offered to the array 2 cycles after its arrival. Throughput: one beat per cycle.

    Parameters: config.

    Members
    -------
    announce : pulse, a tile was dealt; next_addr (bytes), next_beats, next_program are taken in that cycle. Only while
        ``drained`` and while no tile is announced
    start : pulse, the announced tile is the running one from the next cycle on (the array has taken every beat of
        the one before)
    revoke : pulse, forget the announced tile: bursts not formed, beats in the FIFO, beats under way
    drained : level, no beat of a dropped tile is under way (valid from the cycle after ``revoke``)
    client : to the read arbiter
    weights : out, stream of beats. ``revoke`` withdraws an offered beat of the announced tile
    error, error_next, error_code : pulse in the cycle in which a beat arrives that could not be read (it is delivered
        nevertheless, with any data); error_next: it belongs to the announced or to a dropped tile, else to the
        running one, a pulse in the same cycle not counted; error_code: Code.WEIGHT_READ or Code.ADDRESS
    """

    LATENCY = 2

    def __init__(self, config):
        self.config = config
        super().__init__(
            {
                "announce": In(1),
                "next_addr": In(32),
                "next_beats": In(WEIGHT_BEATS_BITS),
                "next_program": In(16 - PC_INDEX_BITS),
                "start": In(1),
                "revoke": In(1),
                "drained": Out(1, init=1),
                "client": Out(ReadClientSignature(config)),
                "weights": Out(stream.Signature(8 * config.bus_bytes)),
                "error": Out(1),
                "error_next": Out(1),
                "error_code": Out(_CODE_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        depth = c.weight_fifo_beats
        beat_bits = 8 * c.bus_bytes

        # The running tile has parity ``running``, the announced or dropped one the other.
        running = Signal()
        with m.If(self.start):
            m.d.sync += running.eq(~running)

        # Request the announced tile's stream once the running tile's last burst is formed.
        m.submodules.reader = reader = BurstReader(c, 1, requests_depth=0, beats_bits=WEIGHT_BEATS_BITS)
        connect(m, reader.client, flipped(self.client))
        waiting = Signal(data.StructLayout({"addr": 32, "beats": WEIGHT_BEATS_BITS, "program": 16 - PC_INDEX_BITS}))
        waiting_valid = Signal()
        handed_over = Signal()  # the reader works on the announced tile
        taken = reader.request.valid & reader.request.ready
        m.d.comb += [
            reader.request.valid.eq(waiting_valid & ~self.revoke),
            reader.request.p.addr.eq(waiting.addr),
            reader.request.p.beats.eq(waiting.beats),
            reader.request.p.owner.eq(waiting.program),
            reader.request.p.tag.eq(~running),
            reader.flush.eq(self.revoke & handed_over),
        ]
        with m.If(taken):
            m.d.sync += [waiting_valid.eq(0), handed_over.eq(1)]
        with m.If(self.announce):
            m.d.sync += [
                waiting.addr.eq(self.next_addr),
                waiting.beats.eq(self.next_beats),
                waiting.program.eq(self.next_program),
                waiting_valid.eq(self.next_beats != 0),
            ]
        with m.If(self.revoke):
            m.d.sync += waiting_valid.eq(0)
        with m.If(self.revoke | self.start):
            m.d.sync += handed_over.eq(0)

        # Arrivals.
        dropping = Signal()
        ahead_arrives = Signal()  # a beat that is not the running tile's
        keep = Signal()
        m.d.comb += [
            ahead_arrives.eq(reader.beat_valid & (reader.tag != running)),
            keep.eq(reader.beat_valid & ~(ahead_arrives & (dropping | self.revoke))),
            self.error.eq(reader.beat_valid & reader.error),
            self.error_next.eq(ahead_arrives),
            self.error_code.eq(Mux(reader.rejected, Code.ADDRESS, Code.WEIGHT_READ)),
            self.drained.eq(~dropping),
        ]
        ahead_bursts = Signal(range(c.reads_in_flight + 2))
        ahead_bursts_left = Signal.like(ahead_bursts)
        ahead_formed = reader.formed & (reader.formed_tag != running)
        m.d.comb += ahead_bursts_left.eq(ahead_bursts + ahead_formed - (ahead_arrives & reader.burst_last))
        m.d.sync += ahead_bursts.eq(Mux(self.start, 0, ahead_bursts_left))
        with m.If(self.revoke | dropping):
            m.d.sync += dropping.eq(ahead_bursts_left != 0)

        # FIFO. ``mark`` is where the announced tile begins, ``end`` where the next one will; one pointer bit more
        # than the address tells full from empty.
        m.submodules.fifo = fifo = memory.Memory(shape=beat_bits, depth=depth, init=[])
        write_port = fifo.write_port()
        read_port = fifo.read_port()
        write, read, mark, end = (Signal(exact_log2(depth) + 1, name=name) for name in ("write", "read", "mark", "end"))
        ahead_written = Signal()
        ahead_fetched = Signal()
        running_left = Signal(WEIGHT_BEATS_BITS)  # beats not fetched yet
        ahead_left = Signal(WEIGHT_BEATS_BITS)
        front_ahead = Signal()  # the beat at the output belongs to the announced tile
        wanted = Signal()
        fetch = Signal()
        fetch_ahead = Signal()
        m.d.comb += [
            write_port.addr.eq(write[:-1]),
            write_port.data.eq(reader.data),
            write_port.en.eq(keep),
            read_port.addr.eq(read[:-1]),
            read_port.en.eq(fetch),
            self.weights.payload.eq(read_port.data),
            fetch_ahead.eq(running_left == 0),
            wanted.eq((read != write) & (~self.weights.valid | self.weights.ready)),
            fetch.eq(wanted & ~(self.revoke & fetch_ahead)),
        ]
        with m.If(keep):
            m.d.sync += [write.eq(write + 1), ahead_written.eq(ahead_written | ahead_arrives)]
        with m.If(self.weights.ready):
            m.d.sync += self.weights.valid.eq(0)
        with m.If(fetch):
            m.d.sync += [
                read.eq(read + 1),
                self.weights.valid.eq(1),
                front_ahead.eq(fetch_ahead),
                ahead_fetched.eq(ahead_fetched | fetch_ahead),
            ]
            with m.If(fetch_ahead):
                m.d.sync += ahead_left.eq(ahead_left - 1)
            with m.Else():
                m.d.sync += running_left.eq(running_left - 1)
        with m.If(self.announce):
            m.d.sync += [mark.eq(end), end.eq(end + self.next_beats), ahead_left.eq(self.next_beats)]
        with m.If(self.start):
            m.d.sync += [running_left.eq(ahead_left - fetch), ahead_left.eq(0), front_ahead.eq(0)]
        with m.If(self.revoke):
            m.d.sync += [end.eq(mark), ahead_left.eq(0)]
            with m.If(ahead_written):
                m.d.sync += write.eq(mark)
            with m.If(ahead_fetched):
                m.d.sync += read.eq(mark)
            with m.If(front_ahead):
                m.d.sync += [self.weights.valid.eq(0), front_ahead.eq(0)]
        with m.If(self.start | self.revoke):
            m.d.sync += [ahead_written.eq(0), ahead_fetched.eq(0)]

        # Space: beats that no burst has taken. ``ahead_kept`` of the others were taken for the announced tile.
        space = Signal(range(depth + 1), init=depth)
        ahead_kept = Signal(range(depth + 1))
        formed_beats = Mux(reader.formed, reader.formed_beats, 0)
        m.d.comb += reader.room.eq(space)
        m.d.sync += [
            space.eq(space - formed_beats + fetch + Mux(self.revoke, ahead_kept, 0)),
            ahead_kept.eq(ahead_kept + Mux(ahead_formed, reader.formed_beats, 0) - (fetch & fetch_ahead)),
        ]
        with m.If(self.start | self.revoke):
            m.d.sync += ahead_kept.eq(0)
        return m
