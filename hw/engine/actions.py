"""What an action of the sequencer does: commands, exits, release. Statements for one FSM state each."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal
from amaranth.utils import ceil_log2, exact_log2

from .. import isa

__all__ = ["execute_command", "finish_exit", "release", "start_exit"]


def _post(m, engine, status, slot=0, code=0, tag=0, exit=0, top=0, spread=0, stamp=0):
    """Post a completion; its entry was reserved when the command was queued."""
    values = {"status": status, "slot": slot, "exit": exit, "code": code, "top": top, "tag": tag, "spread": spread}
    stamp = Cat(stamp, Const(0, 64))[:64] if not isinstance(stamp, int) else Const(stamp, 64)
    values |= {"stamp_low": stamp[:32], "stamp_high": stamp[32:]}
    m.d.comb += engine.completion_valid.eq(1)
    for f in isa.COMPLETION_FIELDS:
        m.d.comb += engine.completion[f.word][f.lsb : f.lsb + f.width].eq(values[f.name])


def _limit_index(engine, program, exit):
    return Cat(exit[: exact_log2(engine.config.exits)], program[: exact_log2(engine.config.programs)])


def execute_command(m, engine, emit):
    """Execute the command at the head of the queue."""
    config, slots = engine.config, engine.slots
    n = config.slots
    words = engine.command.p.words
    opcode = engine.command.p.opcode
    get = {op: {f.name: words[f.word][f.lsb : f.lsb + f.width] for f in fields} for op, fields in isa.COMMANDS.items()}
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
            with m.Elif((program >= config.programs) | (index >= Array(engine.program_ops)[program])):
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
                    engine.tag_write.en.eq(1),
                    engine.tag_write.addr.eq(short),
                    engine.tag_write.data.eq(a["tag"]),
                    engine.result_write.en.eq(1),
                    engine.result_write.addr.eq(short),
                    engine.result_write.data.eq(0),
                    engine.spread_write.en.eq(1),
                    engine.spread_write.addr.eq(short),
                    engine.spread_write.data.eq(isa.SPREAD_NONE),
                ]
            with m.If(code != 0):
                _post(m, engine, isa.Status.ERROR, slot, code, a["tag"])
        with m.Case(isa.Opcode.BATCH):
            b = get[isa.Opcode.BATCH]
            m.d.comb += engine.release_reservation.eq(1)
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
            m.d.comb += engine.release_reservation.eq(1)
            m.d.sync += slots.leave.eq(slots.leave | mask)
        with m.Case(isa.Opcode.CANCEL):
            m.d.comb += engine.release_reservation.eq(1)
            m.d.sync += slots.cancelled.eq(slots.cancelled | mask)
        with m.Case(isa.Opcode.LIMIT):
            limit = get[isa.Opcode.LIMIT]
            with m.If((limit["program"] >= config.programs) | (limit["exit"] >= config.exits)):
                m.d.comb += code.eq(isa.Code.EXIT)
                _post(m, engine, isa.Status.ERROR, code=code)
            with m.Else():
                place = _limit_index(engine, limit["program"], limit["exit"])
                m.d.comb += [
                    engine.release_reservation.eq(1),
                    engine.limit_write.en.eq(1),
                    engine.limit_write.addr.eq(place),
                    engine.limit_write.data.eq(limit["limit"]),
                ]
                m.d.sync += engine.limit_set.bit_select(place, 1).eq(1)
        with m.Case(isa.Opcode.FENCE):
            _post(m, engine, isa.Status.FENCE, tag=get[isa.Opcode.FENCE]["tag"], stamp=engine.cycle)
        with m.Default():
            m.d.comb += code.eq(isa.Code.OPCODE)
            _post(m, engine, isa.Status.ERROR, code=code)


def start_exit(m, engine, emit):
    slots, unit, cache = engine.slots, engine.exit, engine.cache
    s = engine.scan.leader
    d = cache.read
    pc = slots.pc[s]
    program = pc[isa.PC_INDEX_BITS :]
    emit(isa.EngineEvent.EXIT_START, s, pc)
    m.d.comb += cache.read_entry.eq(slots.entry[s])
    m.d.sync += [
        engine.exit_busy.eq(1),
        engine.exit_slot.eq(s),
        engine.exit_number.eq(d.exit),
        engine.exit_last.eq(d.last),
        engine.exit_program.eq(program),
        unit.logits.eq(slots.arena_base[s] + d.in_offset),
        unit.table.eq(Array(engine.program_base)[program] + d.bias.as_unsigned()),
        unit.classes.eq(d.out_channels),
        engine.exit_go.eq(1),
    ]


def finish_exit(m, engine, emit):
    slots = engine.slots
    s = engine.exit_slot
    place = _limit_index(engine, engine.exit_program, engine.exit_number)
    m.d.comb += engine.limit_read.addr.eq(place)
    limit = Mux(engine.limit_set.bit_select(place, 1), engine.limit_read.data, isa.LIMIT_NEVER)
    confident = (limit != isa.LIMIT_NEVER) & (engine.exit_spread <= limit)
    decides = slots.leave.bit_select(s, 1) | confident | engine.exit_last
    known_already = slots.decided.bit_select(s, 1)
    finishes = engine.exit_last | (~engine.rigid & (decides | known_already))
    m.d.sync += [engine.exit_busy.eq(0), engine.exit_decided.eq(0)]
    with m.If(engine.exit_fault):
        with m.If(~slots.fault.bit_select(s, 1)):
            m.d.sync += [
                slots.fault.bit_select(s, 1).eq(1),
                slots.fault_code[s].eq(engine.exit_fault_code),
            ]
    with m.Else():
        emit(
            isa.EngineEvent.EXIT_RESULT,
            s,
            slots.pc[s],
            data=Cat(engine.exit_top, finishes, Const(0, 3), engine.exit_number),
            data2=engine.exit_spread,
        )
        m.d.comb += [
            engine.spread_write.en.eq(1),
            engine.spread_write.addr.eq(s),
            engine.spread_write.data.eq(engine.exit_spread),
        ]
        with m.If(decides & ~known_already):
            m.d.sync += slots.decided.bit_select(s, 1).eq(1)
            m.d.comb += [
                engine.exit_taken.eq(1),
                engine.exit_taken_number.eq(engine.exit_number),
                engine.result_write.en.eq(1),
                engine.result_write.addr.eq(s),
                engine.result_write.data.exit.eq(engine.exit_number),
                engine.result_write.data.top.eq(engine.exit_top),
                engine.result_write.data.spread.eq(engine.exit_spread),
                engine.result_write.data.stamp.eq(engine.cycle),
            ]
        with m.If(finishes):
            m.d.sync += slots.finished.bit_select(s, 1).eq(1)
        with m.Else():
            m.d.sync += slots.move(s, slots.pc[s] + 1)


def release(m, engine, emit, s):
    slots = engine.slots
    m.d.comb += [engine.tag_read.addr.eq(s), engine.result_read.addr.eq(s)]
    failed = slots.failed.bit_select(s, 1)
    code, status = Signal(4), Signal(4)  # as wide as their fields in the event
    m.d.comb += [
        code.eq(Mux(failed, slots.code[s], 0)),
        status.eq(
            Mux(
                failed,
                isa.Status.FAILED,
                Mux(slots.cancelled.bit_select(s, 1), isa.Status.CANCELLED, isa.Status.OK),
            )
        ),
    ]
    result = engine.result_read.data
    stamp = Mux(slots.decided.bit_select(s, 1), result.stamp, engine.cycle)
    emit(isa.EngineEvent.RELEASE, s, data=Cat(status, code))
    _post(m, engine, status, s, code, engine.tag_read.data, result.exit, result.top, result.spread, stamp)
    for vector in ("live pending group in_next known").split():
        m.d.sync += getattr(slots, vector).bit_select(s, 1).eq(0)
    m.d.sync += slots.posted.bit_select(s, 1).eq(1)
    slots.remove(m, s)
