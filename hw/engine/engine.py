"""The fluid-batching engine: a sequencer that performs one atomic action at a time."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from .. import isa
from ..memory.read_client import ReadClientSignature
from ..tile import Layouts, descriptor_layout
from .dealer import Dealer
from .descriptor_cache import DescriptorCache
from .exit_unit import ExitUnit
from .leader import LeaderScan
from .slots import SlotTable

__all__ = ["Engine"]

_DEAD = 0xFFFF  # done position shown for a sample that will not go on: nobody waits for its lines


class Engine(wiring.Component):
    """Performs, in this order when several are possible: command, fault and write event, jump, exit result, exit
    start, release, revoke, deal. Starting the dealt tile is independent; it happens while no action is in progress.

    The result is a total order of actions (``trace``); sim/engine_model.py determines the same results from it.

    Latency: an action takes 2 cycles; an exit start or a deal scans the live slots (``count`` + 2) first; for the
    deal's own time see Dealer.

    Members: see docs/architecture.md; ``next_*`` and ``layer`` describe the announced tile and stay stable from
    ``announce`` to ``start`` or ``revoke``.
    """

    def __init__(self, config):
        self.config = config
        self.layouts = lay = Layouts(config)
        n, p = config.slots, config.programs
        slot = ceil_log2(n)
        super().__init__(
            {
                # command bus
                "command": In(stream.Signature(data.StructLayout({"opcode": 8, "words": data.ArrayLayout(32, 5)}))),
                "release_reservation": Out(1),
                "completion_valid": Out(1),
                "completion": Out(data.ArrayLayout(32, isa.COMPLETION_WORDS)),
                "popped": In(1),
                "popped_slot": In(slot),
                "rigid": In(1),
                "unstacked": In(1),
                "program_base": In(32).array(p),
                "program_ops": In(16).array(p),
                "program_written": In(p),
                "soft_reset": In(1),
                "resetting": Out(1),
                "busy": Out(1),
                "cycle": In(64),
                "view_slot": In(slot),
                "view": Out(data.ArrayLayout(32, 4)),
                # memory
                "descriptor_client": Out(ReadClientSignature(config)),
                "exit_client": Out(ReadClientSignature(config)),
                "arena_base": Out(32).array(n),
                "arena_bytes": Out(32).array(n),
                # the announced tile
                "announce": Out(1),
                "announced": Out(1),
                "revoke": Out(1),
                "start": Out(1),
                "layer": Out(descriptor_layout()),
                "next_tile": Out(lay.array_tile),
                "next_fragments": Out(bits_for(config.fragments)),
                "next_program": Out(2),
                "next_weights": Out(32),
                "next_weight_beats": Out(22),
                # stripe loader and weight streamer
                "loaded": In(1),
                "drained": In(1),
                "waiting": In(1),
                "there_slot": In(slot),
                "there_pc": Out(16),
                "there_line": Out(16),
                "load_fragment_index": In(lay.fragment_index),
                "load_fragment": Out(lay.fragment),
                "load_fault": In(n),
                "load_fault_code": In(4),
                "weight_error": In(1),
                "weight_error_next": In(1),
                "weight_error_code": In(4),
                # array
                "start_valid": Out(1),
                "start_ready": In(1),
                "half_free": In(2),
                # epilogue and writer
                "post": Out(stream.Signature(lay.post_tile)),
                "write": Out(stream.Signature(lay.write_tile)),
                "write_fragment_context": In(lay.context),
                "write_fragment_index": In(lay.fragment_index),
                "write_fragment": Out(lay.fragment),
                "write_event": In(stream.Signature(lay.write_event)),
                # observation
                "trace": Out(lay.event),
                "revoked": Out(1),
                "preempted": Out(1),
                "blocked_output": Out(1),
                "exit_taken": Out(1),
                "exit_taken_number": Out(4),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self.slots = slots = SlotTable(self.config)
        slots.elaborate(m, self.rigid)
        self._connect_tables(m)
        self._cache(m)
        self._exit(m)
        self._deal(m)
        self._tile(m)
        self._faults(m)
        self._sequence(m)
        return m

    # --- parts ------------------------------------------------------------------------------------------------

    def _connect_tables(self, m):
        """Slot state that other blocks look at, fragment lists, limits and results."""
        config, slots, lay = self.config, self.slots, self.layouts
        for s in range(config.slots):
            m.d.comb += [self.arena_base[s].eq(slots.arena_base[s]), self.arena_bytes[s].eq(slots.arena_bytes[s])]
        dead = slots.ending.bit_select(self.there_slot, 1)
        m.d.comb += [
            self.there_pc.eq(Mux(dead, _DEAD, slots.done_pc[self.there_slot])),
            self.there_line.eq(Mux(dead, _DEAD, slots.done_line[self.there_slot])),
        ]
        lists = 1 << (lay.context + lay.fragment_index)
        m.submodules.fragments = fragments = memory.Memory(shape=lay.fragment, depth=lists, init=[])
        self.fragment_write = fragments.write_port()
        load, write, undo = (fragments.read_port(domain="comb") for _ in range(3))
        self.context = Signal(lay.context)  # of the next tile to be dealt
        self.undo_index = Signal(lay.fragment_index)
        self.undo_fragment = undo.data
        m.d.comb += [
            load.addr.eq(Cat(self.load_fragment_index, self.context)),
            self.load_fragment.eq(load.data),
            write.addr.eq(Cat(self.write_fragment_index, self.write_fragment_context)),
            self.write_fragment.eq(write.data),
            undo.addr.eq(Cat(self.undo_index, self.context)),
        ]
        m.submodules.tags = tags = memory.Memory(shape=32, depth=config.slots, init=[])
        self.tag_write = tags.write_port()
        self.tag_read, view_tag = tags.read_port(domain="comb"), tags.read_port(domain="comb")
        result = data.StructLayout({"exit": 4, "top": 16, "spread": 32, "stamp": 64})
        m.submodules.results = results = memory.Memory(shape=result, depth=config.slots, init=[])
        self.result_write = results.write_port()
        self.result_read = results.read_port(domain="comb")
        m.submodules.limits = limits = memory.Memory(shape=32, depth=config.programs * config.exits, init=[])
        self.limit_write, self.limit_read = limits.write_port(), limits.read_port(domain="comb")
        self.limit_set = Signal(config.programs * config.exits)  # a limit that was never set is LIMIT_NEVER
        v = self.view_slot
        m.d.comb += view_tag.addr.eq(v)
        m.d.sync += [
            self.view[0].eq(slots.state_word(v)),
            self.view[1].eq(Cat(slots.line[v], slots.pc[v])),
            self.view[2].eq(Cat(slots.done_line[v], slots.done_pc[v])),
            self.view[3].eq(view_tag.data),
        ]

    def _cache(self, m):
        """Slots that want their descriptor get to know it in the background."""
        config, slots = self.config, self.slots
        m.submodules.cache = self.cache = cache = DescriptorCache(config)
        connect(m, cache.client, flipped(self.descriptor_client))
        m.d.comb += [cache.wanted.eq(slots.wanted), cache.forget.eq(self.program_written)]
        for s in range(config.slots):
            m.d.comb += cache.pc[s].eq(slots.pc[s])
        for i in range(config.programs):
            m.d.comb += [
                cache.program_base[i].eq(self.program_base[i]),
                cache.program_ops[i].eq(self.program_ops[i]),
            ]
        m.d.comb += cache.used.eq(
            Cat(
                Cat(slots.live[s] & slots.known[s] & (slots.entry[s] == e) for s in range(config.slots)).any()
                for e in range(cache.entries)
            )
        )
        with m.If(cache.found):
            m.d.sync += [
                slots.known.bit_select(cache.found_slot, 1).eq(1),
                slots.entry[cache.found_slot].eq(cache.found_entry),
                slots.op[cache.found_slot].eq(cache.found_op),
            ]

    def _exit(self, m):
        config = self.config
        m.submodules.scan = self.scan = scan = LeaderScan(config)
        m.d.comb += [scan.count.eq(self.slots.count)]
        m.d.comb += [scan.order[i].eq(self.slots.order[i]) for i in range(config.slots)]
        for s in range(config.slots):
            m.d.comb += [
                scan.priority[s].eq(self.slots.priority[s]),
                scan.pc[s].eq(self.slots.pc[s]),
                scan.line[s].eq(self.slots.line[s]),
            ]
        m.submodules.exit = self.exit = unit = ExitUnit(config)
        connect(m, unit.client, flipped(self.exit_client))
        m.d.comb += unit.forget.eq(self.program_written)
        self.exit_busy = Signal()
        self.exit_go = Signal()
        m.d.sync += self.exit_go.eq(0)
        m.d.comb += unit.go.eq(self.exit_go)
        self.exit_decided = Signal()
        self.exit_last = Signal()
        self.exit_number = Signal(4)
        self.exit_slot = Signal(ceil_log2(config.slots))
        self.exit_top, self.exit_spread = Signal(16), Signal(32)
        self.exit_fault, self.exit_fault_code = Signal(), Signal(4)
        self.exit_program = Signal(2)
        m.d.comb += [
            unit.slot.eq(self.exit_slot),
            unit.exit.eq(self.exit_number),
            unit.program.eq(self.exit_program),
        ]
        with m.If(unit.done):
            m.d.sync += [
                self.exit_decided.eq(1),
                self.exit_top.eq(unit.top),
                self.exit_spread.eq(unit.spread),
                self.exit_fault.eq(unit.fault),
                self.exit_fault_code.eq(unit.fault_code),
            ]

    def _deal(self, m):
        config, slots = self.config, self.slots
        m.submodules.dealer = self.dealer = dealer = Dealer(config)
        m.d.comb += [
            dealer.layer.eq(self.layer),
            dealer.unstacked.eq(self.unstacked),
            dealer.program.eq(self.next_program),
            dealer.leader.eq(self.scan.leader),
            dealer.count.eq(slots.count),
            dealer.ride.eq(slots.ride),
            *(dealer.order[i].eq(slots.order[i]) for i in range(config.slots)),
            self.fragment_write.en.eq(dealer.fragment_valid),
            self.fragment_write.addr.eq(Cat(dealer.fragment_index, self.context)),
            self.fragment_write.data.eq(dealer.fragment),
        ]
        for s in range(config.slots):
            for name in ("priority", "pc", "line", "row", "seg", "done_pc", "done_line"):
                m.d.comb += getattr(dealer, name)[s].eq(getattr(slots, name)[s])
        self.leader_pc = Signal(16)
        with m.If(dealer.issue_valid):
            s = dealer.issue_slot
            with m.If(dealer.issue_complete):
                m.d.sync += slots.move(s, self.leader_pc + 1)
            with m.Else():
                m.d.sync += [
                    slots.line[s].eq(dealer.issue_line),
                    slots.row[s].eq(dealer.issue_row),
                    slots.seg[s].eq(dealer.issue_seg),
                ]

    def _tile(self, m):
        """The announced tile as its users see it, and the ring of started ones."""
        config, layer, lay = self.config, self.layer, self.layouts
        wpb = exact_log2(config.words_per_beat)
        v = self.dealer.variant
        kr, kd = Signal(lay.log2_stack), Signal(lay.log2_stack)
        words = Signal(10)
        with m.Switch(v):
            for i in range(isa.VARIANTS):
                with m.Case(i):
                    m.d.comb += [
                        kr.eq(layer[f"log2_kr{i}"]),
                        kd.eq(layer[f"log2_kd{i}"]),
                        words.eq(layer[f"words{i}"]),
                        self.next_weights.eq(
                            Array(self.program_base)[self.next_program] + layer[f"weights{i}"],
                        ),
                        self.next_weight_beats.eq(layer[f"weight_beats{i}"]),
                    ]
        self.half = Signal()
        t, dealer = self.next_tile, self.dealer
        m.d.comb += [
            self.next_program.eq(self.leader_pc[isa.PC_INDEX_BITS :]),
            self.next_fragments.eq(dealer.fragments),
            t.context.eq(self.context),
            t.half.eq(self.half),
            t.vector.eq(layer.op == isa.Op.POOL),
            t.log2_kr.eq(kr),
            t.log2_kd.eq(kd),
            t.lines.eq(dealer.longest),
            t.sub_lines.eq(dealer.sub_lines),
            *(t[name].eq(layer[name]) for name in ("seg_w", "kh", "kw", "sx", "in_w", "in_h", "in_zero")),
            t.out_channels.eq(layer.out_channels),
            t.words.eq(words),
            t.pixel_words.eq((layer.in_pixel_beats << wpb) >> kd),
            t.line_words.eq((layer.stripe_line_beats << wpb) >> kd),
        ]
        p = self.post.p
        m.d.comb += [
            p.log2_kr.eq(kr),
            p.log2_kd.eq(kd),
            p.sub_rows.eq(dealer.sub_rows),
            p.pool.eq(layer.op == isa.Op.POOL),
            *(
                p[name].eq(layer[name])
                for name in (
                    "out_channels out_zero clamp_min clamp_max single_rounding average padded_average "
                    "bias multiplier shift chunk_beats out_pixel_beats"
                ).split()
            ),
        ]
        w = self.write.p
        m.d.comb += [
            w.context.eq(self.context),
            w.fragments.eq(dealer.fragments),
            w.pc.eq(self.leader_pc),
            *(
                w[name].eq(layer[name])
                for name in (
                    "lines nseg seg_w out_w out_offset out_line_beats out_pixel_beats out_channels chunk_beats"
                ).split()
            ),
        ]
        self.outstanding = Signal(range(config.trackers + 1))
        self.members = Signal(config.slots)  # of the announced, or the last revoked tile
        self.running_members = Signal(config.slots)  # of the tile started last
        self.context_members = Array(Signal(config.slots, name=f"members_{i}") for i in range(config.contexts))
        self.dropping = Signal()
        self.may_start = Signal()
        room = self.outstanding < config.trackers
        ready = self.loaded & room & self.post.ready & self.write.ready & ~self.resetting
        m.d.comb += [
            self.start_valid.eq(self.announced & ready & self.may_start),
            self.start.eq(self.start_valid & self.start_ready),
            self.post.valid.eq(self.start),
            self.write.valid.eq(self.start),
            self.blocked_output.eq(self.announced & self.loaded & ~(room & self.post.ready & self.write.ready)),
        ]
        self.retire = Signal()
        retired = Signal(config.slots)
        m.d.comb += retired.eq(Mux(self.retire, self.context_members[self.write_event.p.context], 0))
        started = Mux(self.start, self.members, 0)
        for s, tiles in enumerate(self.slots.tiles):
            m.d.sync += tiles.eq(tiles + started[s] - retired[s])
        m.d.sync += self.outstanding.eq(self.outstanding + self.start - self.retire)
        with m.If(self.start):
            m.d.sync += [
                self.announced.eq(0),
                self.slots.in_next.eq(0),
                self.running_members.eq(self.members),
                self.context_members[self.context].eq(self.members),
                self.context.eq(Mux(self.context == config.contexts - 1, 0, self.context + 1)),
                self.half.eq(~self.half),
            ]

    def _faults(self, m):
        """Errors of readers wait here until the sequencer marks their samples."""
        slots, n = self.slots, self.config.slots
        weight_mask = Mux(self.weight_error_next, self.members, self.running_members)
        # An input that no started tile will write never comes: the descriptor names a wrong producer.
        self.hopeless = Signal(3)
        stuck = self.waiting & ~slots.writing.bit_select(self.there_slot, 1) & ~self.write_event.valid
        m.d.sync += self.hopeless.eq(Mux(stuck, self.hopeless + 1, 0))
        hopeless = Mux(self.hopeless == 7, 1 << self.there_slot, 0)[:n]
        sources = (
            (self.load_fault, self.load_fault_code),
            (self.cache.fault, self.cache.fault_code),
            (Mux(self.weight_error, weight_mask, 0), self.weight_error_code),
            (hopeless, Const(isa.Code.DESCRIPTOR, 4)),
        )
        for s in range(n):
            for mask, code in sources:
                with m.If(mask[s] & slots.live[s] & ~slots.fault[s]):
                    m.d.sync += [slots.fault[s].eq(1), slots.fault_code[s].eq(code)]

    # --- the sequencer ----------------------------------------------------------------------------------------

    def _sequence(self, m):
        config, slots, cache, dealer, scan = self.config, self.slots, self.cache, self.dealer, self.scan
        n = config.slots
        slot_bits = ceil_log2(n)
        command, event = self.command, self.write_event
        trace = self.trace

        def emit(kind, slot=0, pc=0, line=0, data=0, data2=0):
            m.d.comb += [
                trace.valid.eq(1),
                trace.kind.eq(kind),
                trace.slot.eq(slot),
                trace.pc.eq(pc),
                trace.line.eq(line),
                trace.data.eq(data),
                trace.data2.eq(data2),
            ]

        with m.If(self.soft_reset):
            m.d.sync += self.resetting.eq(1)
        with m.If(self.popped):
            m.d.sync += slots.posted.bit_select(self.popped_slot, 1).eq(0)
        m.d.comb += self.busy.eq(slots.live.any() | self.resetting)

        # What is possible
        is_fence = command.p.opcode == isa.Opcode.FENCE
        can_command = command.valid & ~(is_fence & slots.cancelled_live.any()) & ~self.resetting
        fetching = Cat(cache.fetching & (cache.fetch_pc == slots.pc[s]) for s in range(n))
        examined = Mux(self.exit_busy, 1 << self.exit_slot, 0)
        dropped = Mux(self.dropping, self.members, 0)
        releasable = Signal(n)
        m.d.comb += releasable.eq(
            slots.live
            & slots.ending
            & ~slots.writing
            & ~slots.in_next
            & ~examined
            & ~dropped
            & ~fetching
            & ~slots.fault
        )
        unknown = (slots.eligible & ~slots.known).any()
        can_deal = (
            ~self.announced
            & ~self.dropping
            & Array((self.half_free[0], self.half_free[1]))[self.half]
            & slots.dealable.any()
            & ~unknown
        )
        # The dealt tile gives way if nobody in it may run, or somebody outside outranks all who may
        rank = Signal(8)
        ranks = [Mux(self.members[s] & slots.eligible[s], slots.priority[s], 0) for s in range(n)]
        while len(ranks) > 1:
            ranks = [Mux(a > b, a, b) for a, b in zip(ranks[::2], ranks[1::2], strict=True)]
        m.d.comb += rank.eq(ranks[0])
        outranked = Cat(slots.dealable[s] & ~slots.in_next[s] & (slots.priority[s] > rank) for s in range(n)).any()
        nobody = ~(self.members & slots.eligible).any()
        can_revoke = self.announced & (nobody | outranked | self.resetting)
        quiet = (
            (self.outstanding == 0)
            & ~self.announced
            & ~self.dropping
            & ~self.exit_busy
            & ~cache.fetching
            & ~event.valid
        )

        chosen = Signal(slot_bits)

        def first(mask):
            for s in reversed(range(n)):
                with m.If(mask[s]):
                    m.d.sync += chosen.eq(s)

        mask = Signal(n)
        m.d.comb += scan.mask.eq(mask)
        m.d.comb += dealer.dealable.eq(mask)
        previous = Signal(n)  # members of the tile dealt before
        self.scanning_exit = Signal()

        with m.FSM(init="Decide"):
            with m.State("Decide"):
                m.d.comb += self.may_start.eq(1)
                with m.If(self.start):
                    emit(isa.EngineEvent.START, line=self.context)
                with m.Elif(can_command):
                    m.next = "Command"
                with m.Elif(slots.fault.any()):
                    first(slots.fault)
                    m.next = "Fault"
                with m.Elif(event.valid):
                    m.next = "Write error"
                    with m.If(~event.p.error):
                        m.next = "Write done"
                        with m.If(~event.p.done):
                            m.next = "Write retire"
                with m.Elif(self.dropping & self.drained):
                    m.next = "Drained"
                with m.Elif(slots.at_jump.any() & ~self.resetting):
                    first(slots.at_jump)
                    m.next = "Jump"
                with m.Elif(self.exit_decided):
                    m.next = "Exit result"
                with m.Elif(slots.at_exit.any() & ~self.exit_busy & ~self.resetting):
                    m.d.sync += [mask.eq(slots.at_exit), self.scanning_exit.eq(1)]
                    m.next = "Scan"
                with m.Elif(releasable.any() & ~self.resetting):
                    first(releasable)
                    m.next = "Release"
                with m.Elif(can_revoke):
                    m.next = "Revoke"
                with m.Elif(can_deal & ~self.resetting):
                    m.d.sync += [mask.eq(slots.dealable), self.scanning_exit.eq(0)]
                    m.next = "Scan"
                with m.Elif(self.resetting & quiet):
                    m.next = "Reset"

            with m.State("Command"):
                with m.If(command.valid):  # a soft reset may have emptied the queue meanwhile
                    self._command(m, emit)
                m.d.comb += command.ready.eq(1)
                m.next = "Decide"

            with m.State("Fault"):
                with m.If(~slots.failed.bit_select(chosen, 1)):
                    emit(isa.EngineEvent.FAILED, chosen, data=slots.fault_code[chosen])
                    m.d.sync += slots.code[chosen].eq(slots.fault_code[chosen])
                m.d.sync += [
                    slots.failed.bit_select(chosen, 1).eq(1),
                    slots.fault.bit_select(chosen, 1).eq(0),
                ]
                m.next = "Decide"

            # A write event: up to three actions of one cycle each
            with m.State("Write error"):
                with m.If(~slots.failed.bit_select(event.p.slot, 1)):
                    emit(isa.EngineEvent.FAILED, event.p.slot, data=event.p.code)
                    m.d.sync += slots.code[event.p.slot].eq(event.p.code)
                m.d.sync += slots.failed.bit_select(event.p.slot, 1).eq(1)
                with m.If(event.p.done):
                    m.next = "Write done"
                with m.Elif(event.p.retire):
                    m.next = "Write retire"
                with m.Else():
                    m.d.comb += event.ready.eq(1)
                    m.next = "Decide"
            with m.State("Write done"):
                emit(isa.EngineEvent.DONE, event.p.slot, event.p.pc, event.p.line)
                m.d.sync += [
                    slots.done_pc[event.p.slot].eq(event.p.pc),
                    slots.done_line[event.p.slot].eq(event.p.line),
                ]
                with m.If(event.p.retire):
                    m.next = "Write retire"
                with m.Else():
                    m.d.comb += event.ready.eq(1)
                    m.next = "Decide"
            with m.State("Write retire"):
                with m.If(event.p.retire):
                    emit(isa.EngineEvent.RETIRE, line=event.p.context)
                m.d.comb += [self.retire.eq(event.p.retire), event.ready.eq(1)]
                m.next = "Decide"

            with m.State("Drained"):
                emit(isa.EngineEvent.DRAINED)
                m.d.sync += self.dropping.eq(0)
                m.next = "Decide"

            with m.State("Jump"):
                m.d.comb += cache.read_entry.eq(slots.entry[chosen])
                here = slots.pc[chosen]
                enters = slots.leave.bit_select(chosen, 1) | slots.exits[chosen].bit_select(cache.read.exit, 1)
                target = Signal(16)
                m.d.comb += target.eq(
                    Mux(enters, here + 1, Cat(cache.read.target[: isa.PC_INDEX_BITS], here[isa.PC_INDEX_BITS :]))
                )
                emit(isa.EngineEvent.JUMP, chosen, target)
                m.d.sync += slots.move(chosen, target)
                m.next = "Decide"

            with m.State("Scan"):
                m.d.comb += scan.go.eq(1)
                m.next = "Scanning"
            with m.State("Scanning"), m.If(scan.done):
                m.next = "Load"
                with m.If(self.scanning_exit):
                    m.next = "Exit start"

            with m.State("Exit start"):
                self._exit_start(m, emit)
                m.next = "Decide"
            with m.State("Exit result"):
                self._exit_result(m, emit)
                m.next = "Decide"

            with m.State("Release"):
                self._release(m, emit, chosen)
                m.next = "Decide"

            with m.State("Revoke"):
                emit(isa.EngineEvent.REVOKE)
                m.d.comb += [self.revoke.eq(1), self.revoked.eq(1)]
                m.d.sync += [
                    self.announced.eq(0),
                    self.dropping.eq(1),
                    slots.in_next.eq(0),
                    self.undo_index.eq(0),
                ]
                m.next = "Undo"
            with m.State("Undo"):
                # Fragments of a slot are neighbours: its first one says where it stood.
                f = self.undo_fragment
                before = Signal(slot_bits + 1)
                m.d.sync += [before.eq(Cat(f.slot, 1)), self.undo_index.eq(self.undo_index + 1)]
                with m.If((self.undo_index == 0) | (before != Cat(f.slot, Const(1, 1)))):
                    m.d.sync += [
                        *slots.move(f.slot, self.leader_pc),
                        slots.line[f.slot].eq(f.line),
                        slots.row[f.slot].eq(f.row),
                        slots.seg[f.slot].eq(f.seg),
                    ]
                with m.If(self.undo_index == self.next_fragments - 1):
                    m.next = "Decide"

            with m.State("Load"):
                m.d.comb += cache.read_entry.eq(slots.entry[scan.leader])
                m.d.sync += [self.layer.eq(cache.read), self.leader_pc.eq(slots.pc[scan.leader])]
                m.next = "Deal"
            with m.State("Deal"):
                m.d.comb += dealer.go.eq(1)
                m.next = "Dealing"
            with m.State("Dealing"):
                with m.If(dealer.fragment_valid):
                    f = dealer.fragment
                    emit(isa.EngineEvent.FRAGMENT, f.slot, self.leader_pc, f.line, Cat(f.lines, Const(0, 16))[:16])
                    m.d.comb += trace.data[16:].eq(f.sub_tile)
                with m.If(dealer.done):
                    emit(
                        isa.EngineEvent.DEAL,
                        scan.leader,
                        self.leader_pc,
                        self.context,
                        Cat(dealer.candidates, Const(0, 16 - n) if n < 16 else Const(0, 0), dealer.variant),
                        dealer.fragments,
                    )
                    m.d.comb += self.announce.eq(1)
                    m.d.sync += [
                        self.announced.eq(1),
                        self.members.eq(dealer.members),
                        slots.in_next.eq(dealer.members),
                        previous.eq(dealer.members),
                    ]
                    m.d.comb += self.preempted.eq((previous & mask).any() & ~(previous & dealer.candidates).any())
                    with m.If(self.rigid & ~(slots.group & slots.live).any()):
                        m.d.sync += slots.group.eq(dealer.candidates)
                    m.next = "Decide"

            with m.State("Reset"):
                emit(isa.EngineEvent.RESET)
                slots.clear(m)
                m.d.sync += [self.resetting.eq(0), self.limit_set.eq(0), previous.eq(0)]
                m.next = "Decide"

    def _post(self, m, status, slot=0, code=0, tag=0, exit=0, top=0, spread=0, stamp=0):
        """Post a completion; its entry was reserved when the command was queued."""
        values = {"status": status, "slot": slot, "exit": exit, "code": code, "top": top, "tag": tag, "spread": spread}
        stamp = Cat(stamp, Const(0, 64))[:64] if not isinstance(stamp, int) else Const(stamp, 64)
        values |= {"stamp_low": stamp[:32], "stamp_high": stamp[32:]}
        m.d.comb += self.completion_valid.eq(1)
        for f in isa.COMPLETION_FIELDS:
            m.d.comb += self.completion[f.word][f.lsb : f.lsb + f.width].eq(values[f.name])

    def _command(self, m, emit):
        """Execute the command at the head of the queue."""
        config, slots = self.config, self.slots
        n = config.slots
        words = self.command.p.words
        opcode = self.command.p.opcode
        get = {
            op: {f.name: words[f.word][f.lsb : f.lsb + f.width] for f in fields} for op, fields in isa.COMMANDS.items()
        }
        code = Signal(4)
        emit(isa.EngineEvent.COMMAND, words[0][:4], line=code, data=opcode, data2=words[0])
        mask = get[isa.Opcode.BATCH]["slot_mask"][:n] & slots.live

        with m.Switch(opcode):
            with m.Case(isa.Opcode.ADMIT):
                a = get[isa.Opcode.ADMIT]
                slot = a["slot"]
                short = slot[: ceil_log2(n)]
                program, index = a["pc"][isa.PC_INDEX_BITS :], a["pc"][: isa.PC_INDEX_BITS]
                aligned = ~a["arena_base"][: exact_log2(config.bus_bytes)].any()
                end = Signal(34)
                m.d.comb += end.eq(a["arena_base"] + a["arena_bytes"])
                with m.If(slot >= n):
                    m.d.comb += code.eq(isa.Code.SLOT)
                with m.Elif((slots.live | slots.posted).bit_select(short, 1)):
                    m.d.comb += code.eq(isa.Code.OCCUPIED)
                with m.Elif((program >= config.programs) | (index >= Array(self.program_ops)[program])):
                    m.d.comb += code.eq(isa.Code.PC)
                with m.Elif((a["arena_bytes"] == 0) | ~aligned | (end > 1 << 32)):
                    m.d.comb += code.eq(isa.Code.ARENA)
                with m.Else():
                    m.d.sync += [
                        *slots.move(short, a["pc"]),
                        slots.done_pc[short].eq(a["pc"]),
                        slots.done_line[short].eq(0),
                        slots.priority[short].eq(a["priority"]),
                        slots.arena_base[short].eq(a["arena_base"]),
                        slots.arena_bytes[short].eq(a["arena_bytes"]),
                        slots.exits[short].eq(a["exits"]),
                        slots.code[short].eq(0),
                        slots.live.bit_select(short, 1).eq(1),
                        slots.runnable.bit_select(short, 1).eq(a["runnable"]),
                        slots.ride.bit_select(short, 1).eq(a["ride"]),
                    ]
                    for vector in ("leave cancelled failed finished decided pending fault group").split():
                        m.d.sync += getattr(slots, vector).bit_select(short, 1).eq(0)
                    slots.append(m, short)
                    m.d.comb += [
                        self.tag_write.en.eq(1),
                        self.tag_write.addr.eq(short),
                        self.tag_write.data.eq(a["tag"]),
                        self.result_write.en.eq(1),
                        self.result_write.addr.eq(short),
                        self.result_write.data.eq(0),
                    ]
                with m.If(code != 0):
                    self._post(m, isa.Status.ERROR, slot, code, a["tag"])
            with m.Case(isa.Opcode.BATCH):
                b = get[isa.Opcode.BATCH]
                m.d.comb += self.release_reservation.eq(1)
                for s in range(n):
                    fresh = mask[s]
                    value = {
                        name: Mux(fresh, b[name], now)
                        for name, now in (
                            ("priority", slots.pending_priority[s]),
                            ("runnable", slots.pending_runnable[s]),
                            ("ride", slots.pending_ride[s]),
                        )
                    }
                    m.d.sync += [
                        slots.pending[s].eq((slots.pending[s] | fresh) & ~b["commit"]),
                        slots.pending_priority[s].eq(value["priority"]),
                        slots.pending_runnable[s].eq(value["runnable"]),
                        slots.pending_ride[s].eq(value["ride"]),
                    ]
                    with m.If(b["commit"] & (slots.pending[s] | fresh)):
                        m.d.sync += [
                            slots.priority[s].eq(value["priority"]),
                            slots.runnable[s].eq(value["runnable"]),
                            slots.ride[s].eq(value["ride"]),
                        ]
            with m.Case(isa.Opcode.LEAVE):
                m.d.comb += self.release_reservation.eq(1)
                m.d.sync += slots.leave.eq(slots.leave | mask)
            with m.Case(isa.Opcode.CANCEL):
                m.d.comb += self.release_reservation.eq(1)
                m.d.sync += slots.cancelled.eq(slots.cancelled | mask)
            with m.Case(isa.Opcode.LIMIT):
                limit = get[isa.Opcode.LIMIT]
                with m.If((limit["program"] >= config.programs) | (limit["exit"] >= config.exits)):
                    m.d.comb += code.eq(isa.Code.EXIT)
                    self._post(m, isa.Status.ERROR, code=code)
                with m.Else():
                    place = self._limit_index(limit["program"], limit["exit"])
                    m.d.comb += [
                        self.release_reservation.eq(1),
                        self.limit_write.en.eq(1),
                        self.limit_write.addr.eq(place),
                        self.limit_write.data.eq(limit["limit"]),
                    ]
                    m.d.sync += self.limit_set.bit_select(place, 1).eq(1)
            with m.Case(isa.Opcode.FENCE):
                self._post(m, isa.Status.FENCE, tag=get[isa.Opcode.FENCE]["tag"], stamp=self.cycle)
            with m.Default():
                m.d.comb += code.eq(isa.Code.OPCODE)
                self._post(m, isa.Status.ERROR, code=code)

    def _limit_index(self, program, exit):
        return Cat(exit[: exact_log2(self.config.exits)], program[: exact_log2(self.config.programs)])

    def _exit_start(self, m, emit):
        slots, unit, cache = self.slots, self.exit, self.cache
        s = self.scan.leader
        d = cache.read
        pc = slots.pc[s]
        program = pc[isa.PC_INDEX_BITS :]
        emit(isa.EngineEvent.EXIT_START, s, pc)
        m.d.comb += cache.read_entry.eq(slots.entry[s])
        m.d.sync += [
            self.exit_busy.eq(1),
            self.exit_slot.eq(s),
            self.exit_number.eq(d.exit),
            self.exit_last.eq(d.last),
            self.exit_program.eq(program),
            unit.logits.eq(slots.arena_base[s] + d.in_offset),
            unit.table.eq(Array(self.program_base)[program] + d.bias.as_unsigned()),
            unit.classes.eq(d.out_channels),
            self.exit_go.eq(1),
        ]

    def _exit_result(self, m, emit):
        slots = self.slots
        s = self.exit_slot
        place = self._limit_index(self.exit_program, self.exit_number)
        m.d.comb += self.limit_read.addr.eq(place)
        limit = Mux(self.limit_set.bit_select(place, 1), self.limit_read.data, isa.LIMIT_NEVER)
        confident = (limit != isa.LIMIT_NEVER) & (self.exit_spread <= limit)
        decides = slots.leave.bit_select(s, 1) | confident | self.exit_last
        known_already = slots.decided.bit_select(s, 1)
        finishes = self.exit_last | (~self.rigid & (decides | known_already))
        m.d.sync += [self.exit_busy.eq(0), self.exit_decided.eq(0)]
        with m.If(self.exit_fault):
            with m.If(~slots.fault.bit_select(s, 1)):
                m.d.sync += [
                    slots.fault.bit_select(s, 1).eq(1),
                    slots.fault_code[s].eq(self.exit_fault_code),
                ]
        with m.Else():
            emit(
                isa.EngineEvent.EXIT_RESULT,
                s,
                slots.pc[s],
                data=Cat(self.exit_top, finishes, Const(0, 3), self.exit_number),
                data2=self.exit_spread,
            )
            with m.If(decides & ~known_already):
                m.d.sync += slots.decided.bit_select(s, 1).eq(1)
                m.d.comb += [
                    self.exit_taken.eq(1),
                    self.exit_taken_number.eq(self.exit_number),
                    self.result_write.en.eq(1),
                    self.result_write.addr.eq(s),
                    self.result_write.data.exit.eq(self.exit_number),
                    self.result_write.data.top.eq(self.exit_top),
                    self.result_write.data.spread.eq(self.exit_spread),
                    self.result_write.data.stamp.eq(self.cycle),
                ]
            with m.If(finishes):
                m.d.sync += slots.finished.bit_select(s, 1).eq(1)
            with m.Else():
                m.d.sync += slots.move(s, slots.pc[s] + 1)

    def _release(self, m, emit, s):
        slots = self.slots
        m.d.comb += [self.tag_read.addr.eq(s), self.result_read.addr.eq(s)]
        failed = slots.failed.bit_select(s, 1)
        code = Mux(failed, slots.code[s], 0)
        status = Mux(
            failed,
            isa.Status.FAILED,
            Mux(slots.cancelled.bit_select(s, 1), isa.Status.CANCELLED, isa.Status.OK),
        )
        result = self.result_read.data
        stamp = Mux(slots.decided.bit_select(s, 1), result.stamp, self.cycle)
        emit(isa.EngineEvent.RELEASE, s, data=Cat(status[:4], code[:4]))
        self._post(m, status, s, code, self.tag_read.data, result.exit, result.top, result.spread, stamp)
        for vector in ("live pending group in_next known").split():
            m.d.sync += getattr(slots, vector).bit_select(s, 1).eq(0)
        m.d.sync += slots.posted.bit_select(s, 1).eq(1)
        slots.remove(m, s)
