"""The dealer (hw/engine/dealer.py): one state per cycle."""

from fluidnpu.hw.isa import NO_PRODUCER, PC_INDEX_BITS, EngineEvent

from .state import LAYER, compiled
from .table import move_slot

__all__ = ["DONE", "begin_dealing", "step_dealer"]

IDLE, CANDIDATES, VARIANT, TARGET, TAKE, LINE, REACH, THERE, FLUSH, DONE = range(10)
IMAGE = NO_PRODUCER
PC_MASK = (1 << PC_INDEX_BITS) - 1
EV_FRAGMENT = int(EngineEvent.FRAGMENT)


@compiled
def begin_dealing(m, desc):
    m.chosen[0] = m.e_leader
    m.d_count = 1
    m.d_candidates = 1 << m.e_leader
    m.d_members = m.e_fragments = m.d_longest = m.d_scan = m.d_holding = 0
    m.d_total = desc[LAYER].lines - m.line[m.e_leader]
    m.sub_lines[:] = 0
    m.sub_rows[:] = 0
    m.d_state = CANDIDATES


@compiled
def write_fragment(m, trace):
    """The held fragment goes to the list, if there is one."""
    if not m.d_holding:
        return
    context, i = m.e_context, m.e_fragments
    m.f_slot[context, i], m.f_sub[context, i], m.f_line[context, i] = m.d_held_slot, m.d_held_sub, m.d_held_line
    m.f_row[context, i], m.f_seg[context, i], m.f_lines[context, i] = m.d_held_row, m.d_held_seg, m.d_held_lines
    n = m.n_events
    trace[n, 0], trace[n, 1], trace[n, 2], trace[n, 3] = m.t, 0, EV_FRAGMENT, m.d_held_slot
    trace[n, 4], trace[n, 5], trace[n, 6], trace[n, 7] = m.e_leader_pc, m.d_held_line, 0, 0
    trace[n, 6] = m.d_held_lines | m.d_held_sub << 16
    m.n_events = n + 1
    m.e_fragments = i + 1


@compiled
def close_candidate(m, layer):
    """The slot gets no further line in this tile: its new position."""
    if not m.d_got:
        return
    s = m.d_slot
    if m.d_line == layer.lines:
        move_slot(m, s, m.e_leader_pc + 1)
    else:
        m.line[s], m.row[s], m.seg[s] = m.d_line, m.d_row, m.d_seg


@compiled
def take_line(m, layer, trace, cost):
    """One line goes to the present sub-tile; a fresh one opens a fragment."""
    last_seg = m.d_seg == layer.nseg - 1
    width = layer.seg_w
    if layer.nseg != 1 and last_seg:
        width = layer.out_w - (layer.nseg - 1) * layer.seg_w
    if m.d_fresh:
        write_fragment(m, trace)
        m.d_holding = 1
        m.d_held_slot, m.d_held_sub, m.d_held_line = m.d_slot, m.d_sub, m.d_line
        m.d_held_row, m.d_held_seg, m.d_held_lines = m.d_row, m.d_seg, 1
    else:
        m.d_held_lines += 1
    m.d_fresh = 0
    m.d_got = 1
    m.d_members |= 1 << m.d_slot
    m.d_line += 1
    m.d_seg = 0 if last_seg else m.d_seg + 1
    m.d_row += 1 if last_seg else 0
    m.d_used += 1
    m.d_stripe += cost
    m.sub_lines[m.d_sub] = m.d_used
    m.sub_rows[m.d_sub] += width
    m.d_longest = max(m.d_longest, m.d_used)
    m.d_state = LINE


@compiled
def line_state(m, layer, trace):
    """State "Line": the next line of the present candidate."""
    cost = layer.kh if m.d_fresh else min(layer.sy, layer.kh)
    if m.d_line == layer.lines:
        close_candidate(m, layer)
        m.d_index += 1
        m.d_state = TAKE
    elif m.d_used >= m.d_target or m.d_stripe + cost > m.d_stripe_lines:
        m.d_sub += 1
        m.d_used = m.d_stripe = 0
        m.d_fresh = 1
        if m.d_sub == 1 << m.d_kr:
            close_candidate(m, layer)
            m.d_state = FLUSH
    elif m.priority[m.d_slot] < m.priority[m.e_leader]:
        m.d_operand = 0
        m.d_state = REACH
    else:
        take_line(m, layer, trace, cost)


@compiled
def inputs_there(m, layer):
    """The inputs of the present line (d_operand 0), or its second operand (1), are in memory."""
    if m.d_operand:
        producer, needed = layer.res_producer, (m.d_row + 1) * layer.res_producer_nseg - 1
    else:
        producer = layer.producer
        needed = min(m.d_row * layer.sy - layer.pad_top + layer.kh, layer.in_h) * layer.producer_nseg - 1
    if producer == IMAGE:
        return True
    pc = m.e_leader_pc & ~PC_MASK | producer & PC_MASK
    s = m.d_slot
    return pc < m.done_pc[s] or (pc == m.done_pc[s] and needed < m.done_line[s])


@compiled
def step_dealer(m, desc, trace):
    """The dealer in one cycle."""
    layer = desc[LAYER]
    state = m.d_state
    if state == CANDIDATES:
        s = m.order[m.d_scan]
        if m.e_mask >> s & 1 and m.v_ride >> s & 1 and m.pc[s] == m.pc[m.e_leader] and s != m.e_leader:
            m.chosen[m.d_count] = s
            m.d_count += 1
            m.d_candidates |= 1 << s
            m.d_total += layer.lines - m.line[s]
        m.d_scan += 1
        if m.d_scan == m.e_count:
            m.d_state = VARIANT
    elif state == VARIANT:
        v = 0 if m.e_unstacked else layer.vsel >> 2 * (m.d_count - 1) & 3
        m.d_variant, m.d_kr, m.d_max_lines = v, layer.log2_kr[v], layer.max_lines[v]
        m.d_stripe_lines = layer.stripe_lines[v]
        m.d_state = TARGET
    elif state == TARGET:
        m.d_target = min(m.d_total + (1 << m.d_kr) - 1 >> m.d_kr, m.d_max_lines)
        m.d_index = m.d_sub = m.d_used = m.d_stripe = 0
        m.d_state = TAKE
    elif state == TAKE:
        if m.d_index == m.d_count:
            m.d_state = FLUSH
        else:
            s = m.chosen[m.d_index]
            m.d_slot, m.d_line, m.d_row, m.d_seg = s, m.line[s], m.row[s], m.seg[s]
            m.d_got, m.d_fresh = 0, 1
            m.d_state = LINE
    elif state == LINE:
        line_state(m, layer, trace)
    elif state == REACH:
        m.d_state = THERE
    elif state == THERE:
        there = inputs_there(m, layer)
        if there and layer.residual and not m.d_operand:
            m.d_operand = 1
            m.d_state = REACH
        elif there:
            take_line(m, layer, trace, layer.kh if m.d_fresh else min(layer.sy, layer.kh))
        else:
            close_candidate(m, layer)
            m.d_index += 1
            m.d_state = TAKE
    elif state == FLUSH:
        write_fragment(m, trace)
        m.d_holding = 0
        m.d_state = DONE


assert IDLE == 0
