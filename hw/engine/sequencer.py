"""The sequencer: decides which action comes next and performs one at a time."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal
from amaranth.utils import ceil_log2

from .. import isa
from .actions import execute_command, finish_exit, release, start_exit

__all__ = ["build_sequencer"]


def build_sequencer(m, engine):
    """Add the sequencer's FSM to ``m``. Called by Engine.elaborate, whose signals it drives.

    ``Decide`` looks for the first possible action, in the order of docs/architecture.md; only there may a tile start.
    Every other state belongs to one action, and at most one event leaves per cycle.
    """
    config, slots, cache, dealer, scan = engine.config, engine.slots, engine.cache, engine.dealer, engine.scan
    n = config.slots
    slot_bits = ceil_log2(n)
    command, event = engine.command, engine.write_event
    trace = engine.trace

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

    with m.If(engine.soft_reset):
        m.d.sync += engine.resetting.eq(1)
    with m.If(engine.popped):
        m.d.sync += slots.posted.bit_select(engine.popped_slot, 1).eq(0)
    m.d.comb += engine.busy.eq(slots.live.any() | engine.resetting)

    # What is possible
    is_fence = command.p.opcode == isa.Opcode.FENCE
    can_command = command.valid & ~(is_fence & slots.cancelled_live.any()) & ~engine.resetting
    fetching = Cat(cache.fetching & (cache.fetch_pc == slots.pc[s]) for s in range(n))
    examined = Mux(engine.exit_busy, 1 << engine.exit_slot, 0)
    dropped = Mux(engine.dropping, engine.members, 0)
    releasable = Signal(n)
    m.d.comb += releasable.eq(
        slots.live & slots.ending & ~slots.writing & ~slots.in_next & ~examined & ~dropped & ~fetching & ~slots.fault
    )
    unknown = (slots.eligible & ~slots.known).any()
    can_deal = (
        ~engine.announced
        & ~engine.dropping
        & Array((engine.half_free[0], engine.half_free[1]))[engine.half]
        & slots.dealable.any()
        & ~unknown
    )
    # The dealt tile gives way if nobody in it may run, or somebody outside outranks all who may
    rank = Signal(8)
    ranks = [Mux(engine.members[s] & slots.eligible[s], slots.priority[s], 0) for s in range(n)]
    while len(ranks) > 1:
        ranks = [Mux(a > b, a, b) for a, b in zip(ranks[::2], ranks[1::2], strict=True)]
    m.d.comb += rank.eq(ranks[0])
    outranked = Cat(slots.dealable[s] & ~slots.in_next[s] & (slots.priority[s] > rank) for s in range(n)).any()
    nobody = ~(engine.members & slots.eligible).any()
    can_revoke = engine.announced & (nobody | outranked | engine.resetting)
    quiet = (
        (engine.outstanding == 0)
        & ~engine.announced
        & ~engine.dropping
        & ~engine.exit_busy
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
    engine.scanning_exit = Signal()

    with m.FSM(init="Decide"):
        with m.State("Decide"):
            m.d.comb += engine.may_start.eq(1)
            with m.If(engine.start):
                emit(isa.EngineEvent.START, line=engine.context)
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
            with m.Elif(engine.dropping & engine.drained):
                m.next = "Drained"
            with m.Elif(slots.at_jump.any() & ~engine.resetting):
                first(slots.at_jump)
                m.next = "Jump"
            with m.Elif(engine.exit_decided):
                m.next = "Exit result"
            with m.Elif(slots.at_exit.any() & ~engine.exit_busy & ~engine.resetting):
                m.d.sync += [mask.eq(slots.at_exit), engine.scanning_exit.eq(1)]
                m.next = "Scan"
            with m.Elif(releasable.any() & ~engine.resetting):
                first(releasable)
                m.next = "Release"
            with m.Elif(can_revoke):
                m.next = "Revoke"
            with m.Elif(can_deal & ~engine.resetting):
                m.d.sync += [mask.eq(slots.dealable), engine.scanning_exit.eq(0)]
                m.next = "Scan"
            with m.Elif(engine.resetting & quiet):
                m.next = "Reset"

        with m.State("Command"):
            with m.If(command.valid):  # a soft reset may have emptied the queue meanwhile
                execute_command(m, engine, emit)
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
            m.d.comb += [engine.retire.eq(event.p.retire), event.ready.eq(1)]
            m.next = "Decide"

        with m.State("Drained"):
            emit(isa.EngineEvent.DRAINED)
            m.d.sync += engine.dropping.eq(0)
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
            with m.If(engine.scanning_exit):
                m.next = "Exit start"

        with m.State("Exit start"):
            start_exit(m, engine, emit)
            m.next = "Decide"
        with m.State("Exit result"):
            finish_exit(m, engine, emit)
            m.next = "Decide"

        with m.State("Release"):
            release(m, engine, emit, chosen)
            m.next = "Decide"

        with m.State("Revoke"):
            emit(isa.EngineEvent.REVOKE)
            m.d.comb += [engine.revoke.eq(1), engine.revoked.eq(1)]
            m.d.sync += [
                engine.announced.eq(0),
                engine.dropping.eq(1),
                slots.in_next.eq(0),
                engine.undo_index.eq(0),
            ]
            m.next = "Undo"
        with m.State("Undo"):
            # Fragments of a slot are neighbours: its first one says where it stood.
            f = engine.undo_fragment
            before = Signal(slot_bits + 1)
            m.d.sync += [before.eq(Cat(f.slot, 1)), engine.undo_index.eq(engine.undo_index + 1)]
            with m.If((engine.undo_index == 0) | (before != Cat(f.slot, Const(1, 1)))):
                m.d.sync += [
                    *slots.move(f.slot, engine.leader_pc),
                    slots.line[f.slot].eq(f.line),
                    slots.row[f.slot].eq(f.row),
                    slots.seg[f.slot].eq(f.seg),
                ]
            with m.If(engine.undo_index == engine.next_fragments - 1):
                m.next = "Decide"

        with m.State("Load"):
            m.d.comb += cache.read_entry.eq(slots.entry[scan.leader])
            m.d.sync += [engine.layer.eq(cache.read), engine.leader_pc.eq(slots.pc[scan.leader])]
            m.next = "Deal"
        with m.State("Deal"):
            m.d.comb += dealer.go.eq(1)
            m.next = "Dealing"
        with m.State("Dealing"):
            with m.If(dealer.fragment_valid):
                f = dealer.fragment
                emit(isa.EngineEvent.FRAGMENT, f.slot, engine.leader_pc, f.line, Cat(f.lines, Const(0, 16))[:16])
                m.d.comb += trace.data[16:].eq(f.sub_tile)
            with m.If(dealer.done):
                emit(
                    isa.EngineEvent.DEAL,
                    scan.leader,
                    engine.leader_pc,
                    engine.context,
                    Cat(dealer.candidates, Const(0, 16 - n) if n < 16 else Const(0, 0), dealer.variant),
                    dealer.fragments,
                )
                m.d.comb += engine.announce.eq(1)
                m.d.sync += [
                    engine.announced.eq(1),
                    engine.members.eq(dealer.members),
                    slots.in_next.eq(dealer.members),
                    previous.eq(dealer.members),
                ]
                m.d.comb += engine.preempted.eq((previous & mask).any() & ~(previous & dealer.candidates).any())
                with m.If(engine.rigid & ~(slots.group & slots.live).any()):
                    m.d.sync += slots.group.eq(dealer.candidates)
                m.next = "Decide"

        with m.State("Reset"):
            emit(isa.EngineEvent.RESET)
            slots.clear(m)
            m.d.sync += [engine.resetting.eq(0), engine.limit_set.eq(0), previous.eq(0)]
            m.next = "Decide"
