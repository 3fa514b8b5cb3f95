"""What an action of the sequencer does: commands, exits, release (hw/engine/actions.py)."""

from fluidnpu.hw.isa import LIMIT_NEVER, PC_INDEX_BITS, SPREAD_NONE, Code, EngineEvent, Opcode, Status

from .state import COMMANDS, COUNTER, compiled
from .table import append_slot, move_slot, remove_slot

__all__ = ["FENCE", "emit", "execute", "finish_exit", "release"]

FENCE, ADMIT, BATCH, LEAVE, CANCEL, LIMIT = (
    int(o) for o in (Opcode.FENCE, Opcode.ADMIT, Opcode.BATCH, Opcode.LEAVE, Opcode.CANCEL, Opcode.LIMIT)
)
EV_COMMAND, EV_EXIT_RESULT, EV_RELEASE = (int(EngineEvent[n]) for n in ("COMMAND", "EXIT_RESULT", "RELEASE"))
BAD_OPCODE, BAD_SLOT, OCCUPIED, BAD_PC, BAD_ARENA, BAD_EXIT = (
    int(c) for c in (Code.OPCODE, Code.SLOT, Code.OCCUPIED, Code.PC, Code.ARENA, Code.EXIT)
)
OK, CANCELLED, ERROR, FENCED = (int(s) for s in (Status.OK, Status.CANCELLED, Status.ERROR, Status.FENCE))
NEVER_LEAVES, NO_SPREAD = int(LIMIT_NEVER), int(SPREAD_NONE)
INDEX_BITS = PC_INDEX_BITS
COUNT_EXITS = COUNTER["exits_0"]


@compiled
def emit(m, trace, kind, slot, pc, line, data, data2):
    n = m.n_events
    trace[n, 0], trace[n, 1], trace[n, 2], trace[n, 3], trace[n, 4] = m.t, 0, kind, slot, pc
    trace[n, 5], trace[n, 6], trace[n, 7] = line, data, data2
    m.n_events = n + 1


@compiled
def post(m, status, slot, code, tag, exit, top, spread, stamp):
    """A completion, seen by the host from the next cycle on."""
    place = (m.c_head + m.c_level) & 255
    m.completion[place, 0], m.completion[place, 1], m.completion[place, 2] = status, slot, exit
    m.completion[place, 3], m.completion[place, 4], m.completion[place, 5] = code, top, tag
    m.completion[place, 6], m.completion[place, 7] = spread, stamp
    m.c_level += 1


@compiled
def execute(m, trace):
    """The command at the head of the queue."""
    opcode, w = m.cmd_opcode[m.m_head], m.cmd_words[m.m_head]
    code = 0
    mask = w[0] & 0xFFFF & m.v_live
    if opcode == ADMIT:
        slot, pc, base, size = w[0] & 15, w[0] >> 16 & 0xFFFF, w[2], w[3]
        program, index = pc >> INDEX_BITS, pc & ((1 << INDEX_BITS) - 1)
        if slot >= m.slots:
            code = BAD_SLOT
        elif (m.v_live | m.v_posted) >> slot & 1:
            code = OCCUPIED
        elif program >= m.programs or index >= m.program_ops[program]:
            code = BAD_PC
        elif size == 0 or base % m.bus_bytes or base + size > 1 << 32:
            code = BAD_ARENA
        else:
            bit = 1 << slot
            move_slot(m, slot, pc)
            m.done_pc[slot], m.done_line[slot] = pc, 0
            m.priority[slot], m.exit_mask[slot], m.tag[slot] = w[0] >> 8 & 255, w[4] & 0xFFFF, w[1]
            m.arena_base[slot], m.arena_bytes[slot] = base, size
            m.unaligned |= base % (m.page_beats * m.bus_bytes)
            m.v_live |= bit
            m.v_runnable = m.v_runnable & ~bit | (w[0] >> 4 & 1) << slot
            m.v_ride = m.v_ride & ~bit | (w[0] >> 5 & 1) << slot
            m.v_leave &= ~bit
            m.v_cancelled &= ~bit
            m.v_failed &= ~bit
            m.v_finished &= ~bit
            m.v_decided &= ~bit
            m.v_pending &= ~bit
            m.v_group &= ~bit
            m.res_exit[slot] = m.res_top[slot] = m.res_spread[slot] = m.res_stamp[slot] = 0
            m.head_spread[slot] = NO_SPREAD
            append_slot(m, slot)
        if code:
            post(m, ERROR, slot, code, w[1], 0, 0, 0, 0)
    elif opcode == BATCH:
        m.c_unreserved += 1
        commit = w[0] >> 26 & 1
        for s in range(m.slots):
            bit = 1 << s
            if mask & bit:
                m.pending_priority[s] = w[0] >> 16 & 255
                m.v_pending_runnable = m.v_pending_runnable & ~bit | (w[0] >> 24 & 1) << s
                m.v_pending_ride = m.v_pending_ride & ~bit | (w[0] >> 25 & 1) << s
                m.v_pending |= bit
            if commit and m.v_pending & bit:
                m.priority[s] = m.pending_priority[s]
                m.v_runnable = m.v_runnable & ~bit | m.v_pending_runnable & bit
                m.v_ride = m.v_ride & ~bit | m.v_pending_ride & bit
        if commit:
            m.v_pending = 0
    elif opcode == LEAVE:
        m.c_unreserved += 1
        m.v_leave |= mask
    elif opcode == CANCEL:
        m.c_unreserved += 1
        m.v_cancelled |= mask
    elif opcode == LIMIT:
        program, exit = w[0] & 3, w[0] >> 8 & 15
        if program >= m.programs or exit >= m.exits:
            code = BAD_EXIT
            post(m, ERROR, 0, code, 0, 0, 0, 0, 0)
        else:
            m.c_unreserved += 1
            m.limit[program * 16 + exit] = w[1]
            m.limit_set[program * 16 + exit] = 1
    elif opcode == FENCE:
        post(m, FENCED, 0, 0, w[1], 0, 0, 0, m.t)
    else:
        code = BAD_OPCODE
        post(m, ERROR, 0, code, 0, 0, 0, 0, 0)
    emit(m, trace, EV_COMMAND, w[0] & 15, 0, code, opcode, w[0])
    m.m_head = (m.m_head + 1) % COMMANDS
    m.m_count -= 1


@compiled
def finish_exit(m, trace):
    """The exit unit has decided: stay or go on."""
    s = m.x_slot
    bit = 1 << s
    place = m.x_program * 16 + m.x_exit
    limit = m.limit[place] if m.limit_set[place] else NEVER_LEAVES
    confident = limit != NEVER_LEAVES and m.x_spread <= limit
    decides = m.v_leave & bit or confident or m.x_last
    known = m.v_decided & bit
    finishes = m.x_last or (not m.e_rigid and (decides or known))
    m.x_busy = m.x_decided = 0
    data = m.x_top | (1 << 16 if finishes else 0) | m.x_exit << 20
    emit(m, trace, EV_EXIT_RESULT, s, m.pc[s], 0, data, m.x_spread)
    m.head_spread[s] = m.x_spread
    if decides and not known:
        m.v_decided |= bit
        m.counter[COUNT_EXITS + m.x_exit] += 1
        m.res_exit[s], m.res_top[s], m.res_spread[s], m.res_stamp[s] = m.x_exit, m.x_top, m.x_spread, m.t
    if finishes:
        m.v_finished |= bit
    else:
        move_slot(m, s, m.pc[s] + 1)


@compiled
def release(m, trace, s):
    """The sample's completion; the slot is free but for the host's pop."""
    bit = 1 << s
    status = CANCELLED if m.v_cancelled & bit else OK
    stamp = m.res_stamp[s] if m.v_decided & bit else m.t
    emit(m, trace, EV_RELEASE, s, 0, 0, status, 0)
    post(m, status, s, 0, m.tag[s], m.res_exit[s], m.res_top[s], m.res_spread[s], stamp)
    m.v_live &= ~bit
    m.v_pending &= ~bit
    m.v_group &= ~bit
    m.v_next &= ~bit
    m.v_known &= ~bit
    m.v_posted |= bit
    remove_slot(m, s)
