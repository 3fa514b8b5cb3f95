"""Controller of the array (hw/array/controller.py) and its drain jobs."""

from fluidnpu.hw.isa import ArrayEvent, Op
from fluidnpu.hw.tile import RMW_DISTANCE

from .bus import wake
from .state import CTILES, FETCH, LEFT, LOADS, NEVER, STEPS, compiled

__all__ = ["array_levels", "half_free", "step_array"]

RMW = RMW_DISTANCE
CONV, POOL = int(Op.CONV), int(Op.POOL)
TILE, CTILE, END = int(ArrayEvent.TILE), int(ArrayEvent.CTILE), int(ArrayEvent.END)
ARRAY_PORT = 1
RELEASED = 3  # a half is free this many cycles after the last row's: line table and bank were read
SET_BY_START = 1 << STEPS | 1 << FETCH | 1 << LEFT | 1 << LOADS | 1 << CTILES
BLOCKS = 16  # of the ring of blocks whose results are on their way


@compiled
def array_event(m, trace, kind, line, data):
    n = m.n_events
    trace[n, 0], trace[n, 1], trace[n, 2], trace[n, 3], trace[n, 4] = m.t, ARRAY_PORT, kind, 0, 0
    trace[n, 5], trace[n, 6], trace[n, 7] = line, data, 0
    m.n_events = n + 1


@compiled
def vector_waits(m):
    """The first row of a block would come too early for the results of the row before."""
    return m.t < m.a_row_end + max(1, m.a_row_drain - m.a_taps + 1)


@compiled
def array_levels(m):
    """What the controller does in this cycle (after loader_levels and permit)."""
    t = m.t
    m.i_begin = m.i_issue = m.i_step_ends = m.i_needs_set = m.i_needs_bank = 0
    m.i_last_step = m.a_step == m.a_steps - 1
    m.i_last_ctile = m.a_ctile == m.a_words - 1 if m.a_vector else m.a_left <= m.pes >> (m.a_kr + m.a_kd)
    if m.a_running and not m.a_ended:
        if m.a_in_step:
            m.i_issue = (t - m.a_t0) % m.a_period < m.a_taps if m.a_vector else t < m.a_t0 + m.a_rows
            m.i_needs_bank = m.a_vector and not m.i_issue
            m.i_step_ends = t == m.a_end
        else:
            m.i_needs_set = not m.a_pool and not m.i_set_ready
            if m.a_vector:
                m.i_needs_bank = not m.i_permit or vector_waits(m)
            else:
                m.i_needs_bank = m.a_step == 0 and m.a_pending[m.a_bank]
            if not m.i_needs_set and not m.i_needs_bank:
                m.i_begin = m.i_issue = 1
                m.i_step_ends = m.a_vector and m.a_rows * m.a_taps == 1
    finishes = m.i_step_ends and m.i_last_step and m.i_last_ctile and not m.i_begin
    m.i_tile_ends = m.a_running and (m.a_ended or finishes) and not m.i_par_left
    m.i_start_ready = not m.a_running or m.i_tile_ends


@compiled
def half_free(m, half):
    """No row that is issued or on its way reads this half."""
    if m.a_running and not m.a_ended and m.a_half == half:
        return False
    if m.t >= m.a_read_end[half] + RELEASED:
        return True
    wake(m, m.a_read_end[half] + RELEASED)
    return False


@compiled
def begin_step(m, trace):
    """The first row of a step, or the first tap of a block."""
    t = m.t
    if m.a_step == 0:
        data = m.a_rows | m.a_kr << 16 | m.a_kd << 20 if m.a_ctile == 0 else m.a_ctile
        array_event(m, trace, TILE if m.a_ctile == 0 else CTILE, m.a_context, data)
    m.a_in_step, m.a_t0 = 1, t
    if m.a_vector:
        m.a_end = t + (m.a_rows - 1) * m.a_period + m.a_taps - 1
        place = (m.v_head + m.v_count) % BLOCKS
        m.v_end_at[place], m.v_end_last[place] = m.a_end + m.operand + m.a_drain, m.i_last_ctile
        m.v_count += 1
        m.a_row_end, m.a_row_drain = m.a_end, m.a_drain
        return
    m.a_end = t + max(m.a_rows, RMW) - 1
    if m.a_step == 0:
        m.a_pending[m.a_bank] = 1
    if m.i_last_step:
        m.a_drain_at[m.a_bank] = t + m.a_rows + m.update
        m.a_drain_last[m.a_bank] = m.i_last_ctile


@compiled
def end_step(m, trace):
    """The last row of a step, or the last tap of a block."""
    m.a_in_step = 0
    m.a_step += 1
    if not m.i_last_step:
        return
    if m.i_last_ctile:
        m.a_ended = 1
        m.a_read_end[m.a_half] = m.t
        m.a_late_end = m.i_begin
        if not m.i_begin:
            array_event(m, trace, END, m.a_context, 0)
    if not m.a_vector:
        m.a_bank = 1 - m.a_bank
    m.loads |= 1 << STEPS
    m.a_step = 0
    m.a_ctile += 1
    m.a_left -= m.pes >> (m.a_kr + m.a_kd)


@compiled
def begin_tile(m, layer):
    v = m.d_variant
    m.loads |= SET_BY_START
    m.a_running, m.a_ended, m.a_in_step = 1, 0, 0
    m.a_context, m.a_half = m.i_context, m.i_half
    m.a_vector, m.a_pool = layer.op != CONV, layer.op == POOL
    m.a_kr, m.a_kd = layer.log2_kr[v], layer.log2_kd[v]
    m.a_rows = m.d_longest * layer.seg_w
    m.a_taps, m.a_words = layer.kh * layer.kw << layer.twice, layer.words[v]
    m.a_left, m.a_ctile, m.a_step = layer.out_channels, 0, 0
    m.a_steps = 1 if m.a_vector else m.a_taps * m.a_words
    sub_tiles = 0
    for r in range(m.max_stack):
        sub_tiles += m.sub_lines[r] != 0
    m.a_drain = (sub_tiles << m.a_kd) * max(1, m.lanes // m.post_lanes)
    m.a_period = max(m.a_taps, m.a_drain)


@compiled
def step_array(m, layer, trace):
    """Registers of the controller and of the drain jobs; after the weight loader's."""
    t = m.t
    for bank in range(2):
        if m.p_drained_at[bank] == t:
            m.p_drained_at[bank] = NEVER
            m.a_pending[bank] = 0
            m.next = t + 1
        else:
            wake(m, m.p_drained_at[bank])
        if m.a_drain_at[bank] > t:
            wake(m, m.a_drain_at[bank])
    if m.a_late_end:
        array_event(m, trace, END, m.a_context, 0)
        m.a_late_end = 0
    if m.i_begin:
        begin_step(m, trace)
        m.next = t + 1
    if m.i_step_ends:
        end_step(m, trace)
        m.next = t + 1
    elif m.a_in_step:
        wake(m, max(m.a_end, t + 1))
        if not m.a_vector:
            wake(m, max(m.a_t0 + m.a_rows, t + 1))
        elif m.a_period > m.a_taps:  # taps, then a pause
            phase = (t - m.a_t0) % m.a_period
            wake(m, t - phase + (m.a_taps if phase < m.a_taps else m.a_period))
    elif m.a_running and m.a_vector and vector_waits(m):
        wake(m, m.a_row_end + m.a_row_drain - m.a_taps + 1)
    if m.i_tile_ends:
        m.a_running = 0
        m.next = t + 1
    if m.i_start:
        begin_tile(m, layer)
        m.next = t + 1
