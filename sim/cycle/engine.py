"""The sequencer of the engine (hw/engine/sequencer.py): one action at a time."""

from fluidnpu.hw.isa import LAYERS, PC_INDEX_BITS, EngineEvent, Op

from .actions import FENCE, emit, execute, finish_exit, release
from .dealer import DONE as DEALT
from .dealer import begin_dealing, step_dealer
from .exits import begin_exit
from .state import COUNTER, LAYER, compiled
from .table import first_slot, move_slot

__all__ = ["DEALING", "DECIDE", "REVOKE", "sees_nothing_new", "step_engine"]

(
    DECIDE, COMMAND, WRITE_DONE, WRITE_RETIRE, DRAINED, JUMP, SCAN, SCANNING, EXIT_START, EXIT_RESULT, RELEASE, REVOKE,
    UNDO, LOAD, DEAL, DEALING,
) = range(16)  # fmt: skip
CONV, POOL, AT_EXIT, AT_JUMP = (int(op) for op in (Op.CONV, Op.POOL, Op.EXIT, Op.JUMP))
EV_DONE, EV_JUMP, EV_EXIT_START, EV_REVOKE, EV_DRAINED, EV_DEAL, EV_START, EV_RETIRE = (
    int(EngineEvent[name]) for name in "DONE JUMP EXIT_START REVOKE DRAINED DEAL START RETIRE".split()
)
INDEX_BITS = PC_INDEX_BITS
COUNT_TILES, COUNT_REVOCATIONS = COUNTER["tiles"], COUNTER["revocations"]
COUNT_PREEMPTIONS = COUNTER["preemptions"]


@compiled
def masks(m):
    """(ending, eligible, dealable, writing, at_jump, at_exit) over the slots."""
    ending = m.v_cancelled | m.v_failed | m.v_finished
    eligible = m.v_live & m.v_runnable & ~ending
    if m.e_rigid and m.v_group & m.v_live:
        eligible &= m.v_group
    dealable = writing = at_jump = at_exit = 0
    for s in range(m.slots):
        bit = 1 << s
        if m.tiles[s]:
            writing |= bit
        if m.v_known & bit:
            if m.op[s] in LAYERS:
                dealable |= bit
            elif m.op[s] == AT_JUMP:
                at_jump |= bit
            elif m.op[s] == AT_EXIT:
                at_exit |= bit
    dealable &= eligible
    at_jump &= eligible & ~m.v_next
    at_exit &= m.v_live & ~ending & ~m.v_next & ~writing
    return ending, eligible, dealable, writing, at_jump, at_exit


@compiled
def outranked(m, eligible, dealable):
    """The dealt tile has to give way."""
    if not m.e_members & eligible:
        return True
    rank = 0
    for s in range(m.slots):
        if m.e_members & eligible & 1 << s:
            rank = max(rank, m.priority[s])
    over = False
    for s in range(m.slots):
        over = over or (dealable & ~m.v_next & 1 << s and m.priority[s] > rank)
    return over


@compiled
def sees_nothing_new(m, half_free, drained):
    """The sequencer waits in "Decide" and found nothing to do when all was as it is now."""
    if m.e_state != DECIDE or m.i_start or m.v_popped:
        return False
    bits = m.x_decided | m.x_busy << 1 | m.i_fetching << 2 | m.o_events << 3 | m.m_count << 6
    sees = bits << 32 | m.i_fetch_pc << 2 | (2 if half_free else 0) | (1 if drained else 0)
    same = sees == m.e_seen
    m.e_seen = sees
    return same


@compiled
def decide(m, trace, half_free, drained):
    """The next action; a tile may start here."""
    if m.i_start:
        emit(m, trace, EV_START, 0, 0, m.e_context, 0, 0)
        return
    ending, eligible, dealable, writing, at_jump, at_exit = masks(m)
    if m.m_count and not (m.cmd_opcode[m.m_head] == FENCE and m.v_live & m.v_cancelled):
        m.e_state = COMMAND
    elif m.o_events:
        m.e_state = WRITE_DONE if m.ev_done[m.o_event_head & 1] else WRITE_RETIRE
    elif m.e_dropping and drained:
        m.e_state = DRAINED
    elif at_jump:
        m.e_chosen = first_slot(at_jump)
        m.e_state = JUMP
    elif m.x_decided:
        m.e_state = EXIT_RESULT
    elif at_exit and not m.x_busy:
        m.e_mask, m.e_scan_exit, m.e_state = at_exit, 1, SCAN
    else:
        releasable = m.v_live & ending & ~writing & ~m.v_next
        if m.x_busy:
            releasable &= ~(1 << m.x_slot)
        if m.e_dropping:
            releasable &= ~m.e_members
        if m.i_fetching:
            for s in range(m.slots):
                if m.pc[s] == m.i_fetch_pc:
                    releasable &= ~(1 << s)
        if releasable:
            m.e_chosen = first_slot(releasable)
            m.e_state = RELEASE
        elif m.e_announced and outranked(m, eligible, dealable):
            m.e_state = REVOKE
        elif not m.e_announced and not m.e_dropping and half_free and dealable and not eligible & ~m.v_known:
            m.e_mask, m.e_scan_exit, m.e_state = dealable, 0, SCAN


@compiled
def dealt(m, trace):
    """The dealer is done: the tile is announced."""
    mask = m.d_candidates | m.d_variant << 16
    emit(m, trace, EV_DEAL, m.e_leader, m.e_leader_pc, m.e_context, mask, m.e_fragments)
    if m.e_previous & m.e_mask and not m.e_previous & m.d_candidates:
        m.counter[COUNT_PREEMPTIONS] += 1
    m.e_announced = 1
    m.e_members = m.v_next = m.e_previous = m.d_members
    m.t_fragments[m.e_context] = m.e_fragments
    if m.e_rigid and not m.v_group & m.v_live:
        m.v_group = m.d_candidates
    m.e_state = DECIDE


@compiled
def undo(m):
    """One fragment of the revoked tile: its slot goes back if it is the slot's first one."""
    i, context = m.e_undo, m.e_context
    s = m.f_slot[context, i]
    if i == 0 or m.e_before != s:
        move_slot(m, s, m.e_leader_pc)
        m.line[s], m.row[s], m.seg[s] = m.f_line[context, i], m.f_row[context, i], m.f_seg[context, i]
    m.e_before = s
    m.e_undo += 1
    if m.e_undo == m.e_fragments:
        m.e_state = DECIDE


@compiled
def start_tile(m, desc):
    """The dealt tile is handed over."""
    context = m.e_context
    m.counter[COUNT_TILES] += 1
    m.t_members[context] = m.e_members
    m.t_pc[context] = m.e_leader_pc
    layer = desc[LAYER]
    m.t_kr[context], m.t_kd[context] = layer.log2_kr[m.d_variant], layer.log2_kd[m.d_variant]
    for r in range(m.max_stack):
        m.t_sub_rows[context, r] = m.sub_rows[r]
    m.t_channels[context], m.t_chunk[context], m.t_residual[context] = (
        layer.out_channels,
        layer.chunk_beats,
        layer.residual,
    )
    m.t_pixel_beats[context], m.t_line_beats[context] = layer.out_pixel_beats, layer.out_line_beats
    m.t_vector[context], m.t_pool[context] = layer.op != CONV, layer.op == POOL
    m.t_words[context] = layer.words[m.d_variant]
    m.t_packed[context] = packed = m.wpb if layer.out_packed else 1
    m.t_seg_w[context], m.t_out_w[context] = layer.seg_w // packed, layer.out_w // packed
    m.t_offset[context], m.t_lines[context] = layer.out_offset // m.bus_bytes % m.page_beats, layer.lines
    for s in range(m.slots):
        m.tiles[s] += m.e_members >> s & 1
    m.e_outstanding += 1
    m.e_announced = 0
    m.v_next = 0
    m.e_context = 0 if context == m.contexts - 1 else context + 1
    m.e_half = 1 - m.e_half


@compiled
def write_done(m, trace):
    """The next line of the oldest started tile is in memory: lines are written in the order of the fragments."""
    context, i = m.w_context, m.w_index
    s = m.f_slot[context, i]
    m.w_line += 1
    pc, line = m.t_pc[context], m.f_line[context, i] + m.w_line
    if m.w_line == m.f_lines[context, i]:
        m.w_index, m.w_line = i + 1, 0
    if line == m.t_lines[context]:
        pc, line = pc + 1, 0
    emit(m, trace, EV_DONE, s, pc, line, 0, 0)
    m.done_pc[s], m.done_line[s] = pc, line


@compiled
def retire_tile(m, trace):
    context = m.w_context
    emit(m, trace, EV_RETIRE, 0, 0, context, 0, 0)
    for s in range(m.slots):
        m.tiles[s] -= m.t_members[context] >> s & 1
    m.e_outstanding -= 1
    m.w_context = 0 if context == m.contexts - 1 else context + 1
    m.w_index = 0


@compiled
def scan_leader(m):
    """The slot of e_mask that is least in (-priority, pc, line, age)."""
    found = False
    best = 0
    for i in range(m.e_count):
        s = m.order[i]
        key = (255 - m.priority[s]) << 32 | m.pc[s] << 16 | m.line[s]
        if m.e_mask >> s & 1 and (not found or key < best):
            found, best, m.e_leader = True, key, s


@compiled
def step_engine(m, desc, trace, half_free, drained):
    """The sequencer in one cycle; the other blocks' registers are still those of this cycle. Sets i_event_pop."""
    state, chosen = m.e_state, m.e_chosen
    head = m.o_event_head & 1
    events = m.n_events
    if state == DECIDE:
        decide(m, trace, half_free, drained)
    elif state == COMMAND:
        execute(m, trace)
        m.e_state = DECIDE
    elif state == WRITE_DONE:
        write_done(m, trace)
        m.i_event_pop = not m.ev_retire[head]
        m.e_state = WRITE_RETIRE if m.ev_retire[head] else DECIDE
    elif state == WRITE_RETIRE:
        retire_tile(m, trace)
        m.i_event_pop = 1
        m.e_state = DECIDE
    elif state == DRAINED:
        emit(m, trace, EV_DRAINED, 0, 0, 0, 0, 0)
        m.e_dropping = 0
        m.e_state = DECIDE
    elif state == JUMP:
        layer = desc[m.entry[chosen]]
        here = m.pc[chosen]
        enters = (m.v_leave >> chosen | m.exit_mask[chosen] >> layer.exit) & 1
        keep = here >> INDEX_BITS << INDEX_BITS
        target = here + 1 if enters else keep | layer.target & ((1 << INDEX_BITS) - 1)
        emit(m, trace, EV_JUMP, chosen, target, 0, 0, 0)
        move_slot(m, chosen, target)
        m.e_state = DECIDE
    elif state == SCAN:
        scan_leader(m)
        m.e_scan_end = m.t + m.e_count + 1
        m.e_state = SCANNING
    elif state == SCANNING:
        if m.t == m.e_scan_end:
            m.e_state = EXIT_START if m.e_scan_exit else LOAD
    elif state == EXIT_START:
        emit(m, trace, EV_EXIT_START, m.e_leader, m.pc[m.e_leader], 0, 0, 0)
        begin_exit(m, desc, m.e_leader)
        m.e_state = DECIDE
    elif state == EXIT_RESULT:
        finish_exit(m, trace)
        m.e_state = DECIDE
    elif state == RELEASE:
        release(m, trace, chosen)
        m.e_state = DECIDE
    elif state == REVOKE:
        emit(m, trace, EV_REVOKE, 0, 0, 0, 0, 0)
        m.counter[COUNT_REVOCATIONS] += 1
        m.e_announced, m.e_dropping, m.v_next, m.e_undo = 0, 1, 0, 0
        m.e_state = UNDO
    elif state == UNDO:
        undo(m)
    elif state == LOAD:
        desc[LAYER] = desc[m.entry[m.e_leader]]
        m.e_leader_pc = m.pc[m.e_leader]
        m.e_state = DEAL
    elif state == DEAL:
        begin_dealing(m, desc)
        m.e_state = DEALING
    elif m.d_state == DEALT:
        dealt(m, trace)
        m.d_state = 0
    else:
        step_dealer(m, desc, trace)
    if m.i_start:
        start_tile(m, desc)
    if m.v_popped:
        m.v_posted &= ~m.v_popped
        m.v_popped = 0
        m.next = m.t + 1
    if state != DECIDE or m.e_state != DECIDE or m.n_events != events:
        m.next = m.t + 1
        m.e_seen = -1
