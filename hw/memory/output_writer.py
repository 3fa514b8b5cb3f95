"""Writes complete chunks from the staging buffer to the arenas and reports what is in memory."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.utils import exact_log2

from ..axi import Axi4Signature
from ..isa import Code
from ..post.staging import stage_read_layout
from ..queue import Queue
from ..tile import Layouts
from .address_check import AddressCheck
from .beat_sender import BeatSender
from .write_bursts import BEAT_ADDRESS_BITS, BurstSplitter, FragmentRuns, write_burst_layout

__all__ = ["Axi4WriteSignature", "OutputWriter"]

_INCREMENTING = 1


class Axi4WriteSignature(Signature):
    """The channels AW, W and B of Axi4Signature, seen from the manager."""

    def __init__(self, data_bytes, id_width=3):
        members = Axi4Signature(data_bytes, id_width).members
        super().__init__({name: member for name, member in members.items() if name.startswith(("aw", "w", "b"))})


class OutputWriter(Component):
    """Writes the chunks of the started tiles, in order, with one AXI ID (0), and turns responses into events.

    Fragments in order, their lines in order, a line as one run if the chunk is the whole pixel, else pixel by pixel;
    runs are split into bursts of at most burst_beats beats inside 4 KB pages. Every burst whose first or last byte
    lies outside of its slot's arena is not sent; it answers as if it were, in order, with Code.ADDRESS. Bytes behind
    the last real channel have their strobes off. At most ``outstanding`` bursts wait for their responses.

    A chunk may be offered before it is complete: a burst is sent when all its beats are staged.

    Timing: a complete chunk that is offered in cycle n (its first fragment computed: FragmentRuns) has its first AW in
    cycle n + AW_LATENCY and its first beat in cycle n + W_LATENCY. From there on a beat per cycle and a burst per
    cycle if the memory takes them and a fragment has FragmentRuns.FRAGMENT_CYCLES beats or bursts. AW is never behind
    its W by more than the memory makes it; neither waits for the other. The event of a response comes one cycle after
    it.

    Events, in the order of the responses, only where there is something to say: ``error`` with Code.WRITE (error
    response) or Code.ADDRESS; ``done`` with the last response of a line in the tile's last chunk: the slot's position
    is (pc, line + 1), (pc + 1, 0) if the layer is complete; ``retire`` with the tile's last response.
    B waits only while EVENTS events are not taken.

    Parameters: config.

    Members
    -------
    tile : stream of write_tile, given when the tile starts; at most ``trackers`` wait
    fragment_context, fragment_index, fragment : combinational read port; a tile's fragments are 0..fragments - 1
    arena_base, arena_bytes : bytes, per slot
    staged : beats of the staging buffer that are complete from the next cycle on, in the order of the chunks, without
        those of chunks that are offered complete
    chunk : stream of chunk; chunk_free, chunk_free_half : pulse: its last beat is read
    stage_read, stage_data : read port of the staging buffer, data one cycle after the address
    bus : channels AW, W, B, manager
    event : stream of write_event
    burst, beat : pulses: the memory took one
    waiting : level, the memory does not take what is offered
    idle : level, no tile, no burst, no event
    """

    AW_LATENCY = 3
    W_LATENCY = 5
    EVENTS = 2

    def __init__(self, config):
        self.config = config
        self.outstanding = 2 * config.reads_in_flight
        layouts = Layouts(config)
        super().__init__(
            {
                "tile": In(stream.Signature(layouts.write_tile)),
                "fragment_context": Out(layouts.context),
                "fragment_index": Out(layouts.fragment_index),
                "fragment": In(layouts.fragment),
                "arena_base": In(32).array(config.slots),
                "arena_bytes": In(32).array(config.slots),
                "staged": In(8),
                "chunk": In(stream.Signature(layouts.chunk)),
                "chunk_free": Out(1),
                "chunk_free_half": Out(1),
                "stage_read": Out(stage_read_layout(config)),
                "stage_data": In(8 * config.bus_bytes),
                "bus": Out(Axi4WriteSignature(config.bus_bytes)),
                "event": Out(stream.Signature(layouts.write_event)),
                "burst": Out(1),
                "beat": Out(1),
                "waiting": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        bus_bits = exact_log2(c.bus_bytes)
        m.submodules.tiles = tiles = Queue(Layouts(c).write_tile, c.trackers)
        m.submodules.fragments = fragments = FragmentRuns(c)
        m.submodules.splitter = splitter = BurstSplitter(c)
        m.submodules.check = check = AddressCheck(c)
        connect(m, flipped(self.tile), tiles.i)
        connect(m, tiles=tiles.o, fragments=fragments.tile)
        connect(m, flipped(self.chunk), fragments.chunk)
        connect(m, fragments=fragments.runs, splitter=splitter.runs)
        m.d.comb += [
            self.fragment_context.eq(fragments.fragment_context),
            self.fragment_index.eq(fragments.fragment_index),
            fragments.fragment.eq(self.fragment),
        ]
        for slot in range(c.slots):
            m.d.comb += [
                fragments.arena_base[slot].eq(self.arena_base[slot]),
                check.arena_base[slot].eq(self.arena_base[slot]),
                check.arena_bytes[slot].eq(self.arena_bytes[slot]),
            ]

        # A burst on trial; what passes goes to AW. Every queue is as deep as that of the responses: its room is room
        candidate, on_trial = Signal(write_burst_layout(c)), Signal()
        address, inside, judged = Signal(BEAT_ADDRESS_BITS + bus_bits), Signal(), Signal()
        staged = Signal(range(2 * c.stage_beats + 1))  # complete beats that no burst has taken
        complete = Signal()
        m.d.comb += complete.eq(candidate.staged | (staged >= candidate.beats))
        m.d.sync += staged.eq(staged + self.staged - Mux(judged & ~candidate.staged, candidate.beats, 0))
        response = data.StructLayout(
            {"sent": 1}
            | {name: write_burst_layout(c)[name].shape for name in ("slot", "context", "done", "pc", "line", "retire")}
        )
        m.submodules.addresses = addresses = Queue(data.StructLayout({"addr": 32, "len": 8}), self.outstanding)
        m.submodules.responses = responses = Queue(response, self.outstanding)
        m.submodules.sender = sender = BeatSender(c, self.outstanding)
        m.d.comb += [
            address.eq(candidate.address << bus_bits),
            check.addr.eq(address),
            check.bytes.eq(candidate.beats << bus_bits),
            check.arena.eq(1),
            check.owner.eq(candidate.slot),
            inside.eq(check.inside & ~address[32:].any()),
            judged.eq(on_trial & responses.i.ready & complete),
            splitter.bursts.ready.eq(~on_trial | judged),
            addresses.i.valid.eq(judged & inside),
            addresses.i.payload.addr.eq(address),
            addresses.i.payload.len.eq(candidate.beats - 1),
            sender.burst.valid.eq(judged),
            sender.burst.payload.sent.eq(inside),
            sender.burst.payload.beats.eq(candidate.beats),
            sender.burst.payload.half.eq(candidate.half),
            sender.burst.payload.chunk_end.eq(candidate.chunk_end),
            sender.burst.payload.jump.eq(candidate.jump),
            sender.burst.payload.stage.eq(candidate.stage),
            responses.i.valid.eq(on_trial & complete),
            responses.i.payload.sent.eq(inside),
        ]
        m.d.comb += [
            responses.i.payload[name].eq(candidate[name])
            for name in ("slot", "context", "done", "pc", "line", "retire")
        ]
        with m.If(splitter.bursts.ready):
            m.d.sync += [candidate.eq(splitter.bursts.payload), on_trial.eq(splitter.bursts.valid)]

        # AW and W
        bus = self.bus
        m.d.comb += [
            bus.awvalid.eq(addresses.o.valid),
            addresses.o.ready.eq(bus.awready),
            bus.awaddr.eq(addresses.o.payload.addr),
            bus.awlen.eq(addresses.o.payload.len),
            bus.awsize.eq(bus_bits),
            bus.awburst.eq(_INCREMENTING),
            sender.pixel_valid.eq(fragments.runs.valid & fragments.runs.ready & fragments.first),
            sender.pixel_half.eq(self.chunk.payload.half),
            sender.used.eq(fragments.used),
            sender.channel_bytes.eq(fragments.channel_bytes),
            sender.packed.eq(fragments.packed),
            self.stage_read.eq(sender.stage_read),
            sender.stage_data.eq(self.stage_data),
            self.chunk_free.eq(sender.chunk_free),
            self.chunk_free_half.eq(sender.chunk_free_half),
            bus.wvalid.eq(sender.beats.valid),
            sender.beats.ready.eq(bus.wready),
            bus.wdata.eq(sender.beats.payload.data),
            bus.wstrb.eq(sender.beats.payload.strb),
            bus.wlast.eq(sender.beats.payload.last),
        ]

        # Responses. Room for an event is asked for before B shows whether there is one: no path from B to bready.
        m.submodules.events = events = Queue(Layouts(c).write_event, self.EVENTS)
        connect(m, events.o, flipped(self.event))
        head, event = responses.o.payload, events.i.payload
        error = Signal()
        m.d.comb += [
            bus.bready.eq(responses.o.valid & head.sent & events.i.ready),
            responses.o.ready.eq(events.i.ready & (bus.bvalid | ~head.sent)),
            error.eq(~head.sent | bus.bresp[1]),
            events.i.valid.eq(responses.o.valid & responses.o.ready & (head.done | head.retire | error)),
            event.slot.eq(head.slot),
            event.context.eq(head.context),
            event.done.eq(head.done),
            event.pc.eq(head.pc),
            event.line.eq(head.line),
            event.retire.eq(head.retire),
            event.error.eq(error),
            event.code.eq(Mux(~error, Code.NONE, Mux(head.sent, Code.WRITE, Code.ADDRESS))),
            self.burst.eq(bus.awvalid & bus.awready),
            self.beat.eq(bus.wvalid & bus.wready),
            self.waiting.eq((bus.awvalid & ~bus.awready) | (bus.wvalid & ~bus.wready)),
            self.idle.eq(
                ~tiles.o.valid
                & ~splitter.bursts.valid
                & ~on_trial
                & ~sender.busy
                & ~responses.o.valid
                & ~events.o.valid
            ),
        ]
        return m
