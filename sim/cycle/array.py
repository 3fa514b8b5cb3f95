"""Controller of the array (hw/array/controller.py), its drain jobs and the epilogue (hw/post/)."""

from fluidnpu.hw.array.accumulators import ACC_LATENCY
from fluidnpu.hw.isa import ArrayEvent, Op
from fluidnpu.hw.post.addition import Addition
from fluidnpu.hw.post.requantize import Requantizer
from fluidnpu.hw.post.residual_buffer import ResidualBuffer
from fluidnpu.hw.tile import RMW_DISTANCE

from .bus import wake
from .state import NEVER, compiled

__all__ = ["array_levels", "half_free", "job_taken", "post_ready", "step_array", "step_post"]

RMW = RMW_DISTANCE
POOL = int(Op.POOL)
TILE, CTILE, END = int(ArrayEvent.TILE), int(ArrayEvent.CTILE), int(ArrayEvent.END)
STAGED = ACC_LATENCY + Requantizer.LATENCY  # cycles from a request to the staging buffer
ADDED = Addition.LATENCY  # more with a residual addition
OPERANDS_READ = STAGED - ResidualBuffer.READ_LATENCY  # from a request to that of its second operands
DRAINED = ACC_LATENCY - 1
OPEN, WAIT, DRAIN = 0, 1, 2
ARRAY_PORT = 1
RELEASED = 3  # a half is free this many cycles after the last row's: line table and bank were read


@compiled
def array_event(m, trace, kind, line, data):
    n = m.n_events
    trace[n, 0], trace[n, 1], trace[n, 2], trace[n, 3], trace[n, 4] = m.t, ARRAY_PORT, kind, 0, 0
    trace[n, 5], trace[n, 6], trace[n, 7] = line, data, 0
    m.n_events = n + 1


@compiled
def array_levels(m):
    """What the controller does in this cycle (after loader_levels)."""
    t = m.t
    m.i_begin = m.i_issue = m.i_step_ends = m.i_needs_set = m.i_needs_bank = 0
    m.i_last_step = m.a_step == m.a_steps - 1
    m.i_last_ctile = m.a_left <= m.pes >> (m.a_kr + m.a_kd)
    m.i_new_set = not m.a_vector or m.a_step % m.a_taps == 0
    if m.a_running and not m.a_ended:
        if m.a_in_step:
            m.i_issue = t < m.a_t0 + m.a_rows
            m.i_step_ends = t == m.a_end
        else:
            m.i_needs_set = m.i_new_set and not m.i_set_ready
            m.i_needs_bank = m.a_step == 0 and m.a_pending[m.a_bank]
            if not m.i_needs_set and not m.i_needs_bank:
                m.i_begin = m.i_issue = 1
    finishes = m.i_step_ends and m.i_last_step and m.i_last_ctile
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
def begin_ctile(m):
    used = min(m.a_left, m.pes >> (m.a_kr + m.a_kd))
    m.a_step = 0
    m.a_steps = m.a_taps * ((used - 1) // m.lanes + 1 if m.a_vector else m.a_words)


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
    if m.i_begin:
        if m.a_step == 0:
            data = m.a_rows | m.a_kr << 16 | m.a_kd << 20 if m.a_ctile == 0 else m.a_ctile
            array_event(m, trace, TILE if m.a_ctile == 0 else CTILE, m.a_context, data)
            m.a_pending[m.a_bank] = 1
        m.a_in_step = 1
        m.a_t0 = t
        m.a_end = t + max(m.a_rows, RMW) - 1
        if m.i_last_step:
            m.a_drain_at[m.a_bank] = t + m.a_rows + m.update
            m.a_drain_last[m.a_bank] = m.i_last_ctile
        m.next = t + 1
    elif m.i_step_ends:
        m.a_in_step = 0
        m.a_step += 1
        if m.i_last_step:
            if m.i_last_ctile:
                array_event(m, trace, END, m.a_context, 0)
                m.a_ended = 1
                m.a_read_end[m.a_half] = t
            m.a_bank = 1 - m.a_bank
            m.a_ctile += 1
            m.a_left -= m.pes >> (m.a_kr + m.a_kd)
            if not m.a_ended:
                begin_ctile(m)
        m.next = t + 1
    elif m.a_in_step:
        wake(m, m.a_t0 + m.a_rows if t < m.a_t0 + m.a_rows else m.a_end)
        wake(m, m.a_end)
    if m.i_tile_ends:
        m.a_running = 0
        m.next = t + 1
    if m.i_start:
        v = m.d_variant
        m.a_running, m.a_ended, m.a_in_step = 1, 0, 0
        m.a_context, m.a_half = m.i_context, m.i_half
        m.a_vector = layer.op == POOL
        m.a_kr, m.a_kd = layer.log2_kr[v], layer.log2_kd[v]
        m.a_rows = m.d_longest * layer.seg_w
        m.a_taps, m.a_words = layer.kh * layer.kw, layer.words[v]
        m.a_left, m.a_ctile = layer.out_channels, 0
        begin_ctile(m)
        m.next = t + 1


@compiled
def post_ready(m):
    """The epilogue takes a tile."""
    return m.p_held != m.trackers


@compiled
def job_taken(m):
    """A drain job passes from the array to the epilogue in this cycle; i_res_taken: with this half of operands."""
    m.i_res_taken = -1
    b = m.a_turn
    waiting = m.t >= m.a_drain_at[b] and not m.a_missing[b]
    if not waiting or m.p_state != WAIT:
        return False
    if m.p_opened:
        return True
    if not m.p_free[m.p_half] or (m.p_residual and not m.n_full[m.p_res_half]):
        return False
    if m.p_residual:
        m.i_res_taken = m.p_res_half
    return True


@compiled
def step_post(m):
    """The epilogue: one job after the other, chunks into the staging buffer."""
    t = m.t
    if m.p_out_count:
        place = m.p_out_head & 63
        if m.p_out_at[place] == t:
            tail = (m.p_chunk_head + m.p_chunks) & 1
            m.chunk_half[tail], m.chunk_last[tail] = m.p_out_half[place], m.p_out_last[place]
            m.p_chunks += 1
            m.p_held -= m.p_out_last[place]
            m.p_out_head += 1
            m.p_out_count -= 1
            m.next = t + 1
        if m.p_out_count:
            wake(m, m.p_out_at[m.p_out_head & 63])
    if m.p_free_pulse:
        m.p_free[m.p_free_half] = 1
        m.next = t + 1
    if m.p_state == OPEN:
        context = m.post_tile[m.p_beginning]
        if m.p_waiting and not m.t_residual[context] and t < m.p_add_until:
            wake(m, m.p_add_until)
        elif m.p_waiting:
            m.p_residual = m.t_residual[context]
            m.p_context = context
            m.p_channels = m.t_channels[context]
            m.p_chunk_byte = 0
            m.p_cols = m.pes >> (m.t_kr[context] + m.t_kd[context])
            m.p_waiting -= 1
            m.p_beginning = (m.p_beginning + 1) & 3
            m.p_state = WAIT
            m.next = t + 1
    elif m.p_state == WAIT:
        if m.i_job:
            m.p_free[m.p_half] = 0
            m.p_opened = 1
            m.p_job_bank, m.p_job_last = m.a_turn, m.a_drain_last[m.a_turn]
            m.a_drain_at[m.a_turn] = NEVER
            m.a_turn = 1 - m.a_turn
            quads = (min(m.p_channels, m.p_cols) - 1) // m.post_lanes + 1
            rows = 0
            for r in range(1 << m.t_kr[m.p_context]):
                rows += m.t_sub_rows[m.p_context, r]
            m.p_end = t + rows * quads
            ends = m.p_job_last or m.p_chunk_byte + m.p_cols >= m.t_chunk[m.p_context] * m.bus_bytes
            m.p_chunk_ends = ends
            m.p_state = DRAIN
            wake(m, m.p_end)
            m.next = t + 1
    elif t == m.p_end:
        m.p_channels -= m.p_cols
        m.p_chunk_byte += m.p_cols
        m.p_drained_at[m.p_job_bank] = t + DRAINED
        if m.p_residual:
            m.p_add_until = t + ADDED - 1
        m.p_state = WAIT
        if m.p_chunk_ends:
            place = (m.p_out_head + m.p_out_count) & 63
            m.p_out_half[place], m.p_out_last[place] = m.p_half, m.p_job_last
            m.p_out_at[place] = t + STAGED + (ADDED if m.p_residual else 0)
            m.p_out_count += 1
            m.p_opened = 0
            if m.p_residual:
                m.n_read_at[m.p_res_half] = t + OPERANDS_READ
                m.p_res_half = 1 - m.p_res_half
            m.p_half = 1 - m.p_half
            m.p_chunk_byte = 0
        if m.p_job_last:
            m.p_state = OPEN
        m.next = t + 1
    else:
        wake(m, m.p_end)
    if m.i_start:
        m.post_tile[m.p_arriving] = m.i_context
        m.p_arriving = (m.p_arriving + 1) & 3
        m.p_waiting += 1
        m.p_held += 1
