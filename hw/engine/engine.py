"""The fluid-batching engine: a sequencer that performs one atomic action at a time."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import bits_for, ceil_log2

from .. import isa
from ..command.layouts import command_layout
from ..memory.read_client import ReadClientSignature
from ..tile import Layouts, descriptor_layout
from .dealer import Dealer
from .descriptor_cache import DescriptorCache
from .exit_unit import ExitUnit
from .leader import LeaderScan
from .sequencer import build_sequencer
from .slots import SlotTable
from .tile_ring import connect_tile

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
                "command": In(stream.Signature(command_layout())),
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
                "view": Out(data.ArrayLayout(32, len(isa.SLOT_WORDS))),
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
                # the loaders and the weight streamer; loaded, drained: all of them
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
                # residual loader
                "residual_there_slot": In(slot),
                "residual_there_pc": Out(16),
                "residual_there_line": Out(16),
                "residual_waiting": In(1),
                "residual_fragment_context": In(lay.context),
                "residual_fragment_index": In(lay.fragment_index),
                "residual_fragment": Out(lay.fragment),
                "residual_fault": In(n),
                "residual_fault_code": In(4),
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
        connect_tile(m, self)
        self._faults(m)
        build_sequencer(m, self)
        return m

    # --- parts ------------------------------------------------------------------------------------------------

    def _connect_tables(self, m):
        """Slot state that other blocks look at, fragment lists, limits and results."""
        config, slots, lay = self.config, self.slots, self.layouts
        for s in range(config.slots):
            m.d.comb += [self.arena_base[s].eq(slots.arena_base[s]), self.arena_bytes[s].eq(slots.arena_bytes[s])]
        for slot, pc, line in (
            (self.there_slot, self.there_pc, self.there_line),
            (self.residual_there_slot, self.residual_there_pc, self.residual_there_line),
        ):
            dead = slots.ending.bit_select(slot, 1)
            m.d.comb += [
                pc.eq(Mux(dead, _DEAD, slots.done_pc[slot])),
                line.eq(Mux(dead, _DEAD, slots.done_line[slot])),
            ]
        lists = 1 << (lay.context + lay.fragment_index)
        m.submodules.fragments = fragments = memory.Memory(shape=lay.fragment, depth=lists, init=[])
        self.fragment_write = fragments.write_port()
        load, write, undo, residual = (fragments.read_port(domain="comb") for _ in range(4))
        self.context = Signal(lay.context)  # of the next tile to be dealt
        self.undo_index = Signal(lay.fragment_index)
        self.undo_fragment = undo.data
        m.d.comb += [
            load.addr.eq(Cat(self.load_fragment_index, self.context)),
            self.load_fragment.eq(load.data),
            write.addr.eq(Cat(self.write_fragment_index, self.write_fragment_context)),
            self.write_fragment.eq(write.data),
            undo.addr.eq(Cat(self.undo_index, self.context)),
            residual.addr.eq(Cat(self.residual_fragment_index, self.residual_fragment_context)),
            self.residual_fragment.eq(residual.data),
        ]
        m.submodules.tags = tags = memory.Memory(shape=32, depth=config.slots, init=[])
        self.tag_write = tags.write_port()
        self.tag_read, view_tag = tags.read_port(domain="comb"), tags.read_port(domain="comb")
        result = data.StructLayout({"exit": 4, "top": 16, "spread": 32, "stamp": 64})
        m.submodules.results = results = memory.Memory(shape=result, depth=config.slots, init=[])
        self.result_write = results.write_port()
        self.result_read = results.read_port(domain="comb")
        m.submodules.spreads = spreads = memory.Memory(shape=32, depth=config.slots, init=[])
        self.spread_write, view_spread = spreads.write_port(), spreads.read_port(domain="comb")
        m.submodules.limits = limits = memory.Memory(shape=32, depth=config.programs * config.exits, init=[])
        self.limit_write, self.limit_read = limits.write_port(), limits.read_port(domain="comb")
        self.limit_set = Signal(config.programs * config.exits)  # a limit that was never set is LIMIT_NEVER
        v = self.view_slot
        m.d.comb += [view_tag.addr.eq(v), view_spread.addr.eq(v)]
        m.d.sync += [
            self.view[0].eq(slots.state_word(v)),
            self.view[1].eq(Cat(slots.line[v], slots.pc[v])),
            self.view[2].eq(Cat(slots.done_line[v], slots.done_pc[v])),
            self.view[3].eq(view_tag.data),
            self.view[4].eq(view_spread.data),
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

    def _faults(self, m):
        """Errors of readers wait here until the sequencer marks their samples."""
        slots, n = self.slots, self.config.slots
        weight_mask = Mux(self.weight_error_next, self.members, self.running_members)
        # An input that no started tile will write never comes: the descriptor names a wrong producer.
        hopeless = []
        for name, waiting, slot in (
            ("stripe_stuck", self.waiting, self.there_slot),
            ("residual_stuck", self.residual_waiting, self.residual_there_slot),
        ):
            cycles = Signal(3, name=name)
            stuck = waiting & ~slots.writing.bit_select(slot, 1) & ~self.write_event.valid
            m.d.sync += cycles.eq(Mux(stuck, cycles + 1, 0))
            hopeless.append((Mux(cycles == 7, 1 << slot, 0)[:n], Const(isa.Code.DESCRIPTOR, 4)))
        sources = (
            (self.load_fault, self.load_fault_code),
            (self.residual_fault, self.residual_fault_code),
            (self.cache.fault, self.cache.fault_code),
            (Mux(self.weight_error, weight_mask, 0), self.weight_error_code),
            *hopeless,
        )
        for s in range(n):
            for mask, code in sources:
                with m.If(mask[s] & slots.live[s] & ~slots.fault[s]):
                    m.d.sync += [slots.fault[s].eq(1), slots.fault_code[s].eq(code)]
