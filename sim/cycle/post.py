"""The epilogue (hw/post/epilogue.py): drain jobs of c-tiles, blocks of vector tiles (vector_drain.py), chunks."""

from fluidnpu.hw.array.accumulators import ACC_LATENCY
from fluidnpu.hw.post.addition import Addition
from fluidnpu.hw.post.requantize import Requantizer
from fluidnpu.hw.post.residual_buffer import ResidualBuffer

from .array import BLOCKS
from .bus import wake
from .state import DRAINS, NEVER, compiled

__all__ = ["job_taken", "permit", "post_ready", "step_post", "take_operands"]

STAGED = ACC_LATENCY + Requantizer.LATENCY  # cycles from a request to the staging buffer
ADDED = Addition.LATENCY  # more with a residual addition
OPERANDS_READ = STAGED - ResidualBuffer.READ_LATENCY  # from a request to that of its second operands
DRAINED = ACC_LATENCY - 1
OPEN, WAIT, DRAIN, PERMIT = range(4)


@compiled
def post_ready(m):
    """The epilogue takes a tile."""
    return m.p_held != m.trackers


@compiled
def has_half(m):
    """The next job or block has its half of the staging buffer, and its second operands."""
    if m.p_opened:
        return True
    operands = not m.p_residual or m.n_full[m.p_next_res_half]
    return m.p_free[m.p_next_half] != 0 and operands != 0


@compiled
def permit(m):
    """The next block of the vector tile may begin."""
    return m.p_state == PERMIT and has_half(m)


@compiled
def job_taken(m):
    """A drain job passes from the array to the epilogue in this cycle."""
    b = m.a_turn
    waiting = m.t >= m.a_drain_at[b] and not m.a_missing[b]
    return waiting and m.p_state == WAIT and not m.p_offered and not m.v_busy and has_half(m)


@compiled
def take_operands(m):
    """The half of second operands that the job or the block of this cycle begins with, -1: none."""
    opens = m.i_job or (m.i_begin and m.a_vector)
    return m.p_next_res_half if opens and m.p_residual and not m.p_opened else -1


@compiled
def open_half(m):
    if not m.p_opened:
        m.p_free[m.p_next_half] = 0
        m.p_next_half = 1 - m.p_next_half
        m.p_opened = 1
        if m.p_residual:
            m.p_next_res_half = 1 - m.p_next_res_half


@compiled
def offer_chunk(m, at, tile_ends, complete):
    """The chunk is offered to the writer behind cycle ``at``."""
    place = (m.p_out_head + m.p_out_count) & 63
    m.p_out_at[place], m.p_out_complete[place] = at, complete
    m.p_out_half[place], m.p_out_last[place] = m.p_half, tile_ends
    m.p_out_count += 1


@compiled
def end_chunk(m, residual, tile_ends):
    """The last values of a chunk are asked for."""
    t = m.t
    if tile_ends:
        m.p_end_at[(m.p_ends_head + m.p_ends) & 3] = t + STAGED + (ADDED if residual else 0)
        m.p_ends += 1
    m.p_half = 1 - m.p_half
    if residual:
        m.n_read_at[m.p_res_half] = t + OPERANDS_READ
        m.p_res_half = 1 - m.p_res_half
        m.p_add_until = t + ADDED - 1


@compiled
def take_tile(m, context):
    """The epilogue begins with a tile."""
    m.loads |= 1 << DRAINS
    m.p_residual, m.p_context = m.t_residual[context], context
    m.p_channels, m.p_chunk_byte = m.t_channels[context], 0
    m.p_cols = m.pes >> (m.t_kr[context] + m.t_kd[context])
    m.p_word = m.p_place = m.p_beat = 0
    m.p_beginning = (m.p_beginning + 1) & 3
    m.p_offered = m.t_vector[context]
    m.p_state = PERMIT if m.t_vector[context] else WAIT
    m.next = m.t + 1


@compiled
def take_job(m):
    context = m.p_context
    open_half(m)
    m.p_job_bank, m.p_job_last = m.a_turn, m.a_drain_last[m.a_turn]
    m.a_drain_at[m.a_turn] = NEVER
    m.a_turn = 1 - m.a_turn
    quads = (min(m.p_channels, m.p_cols) - 1) // m.post_lanes + 1
    rows = 0
    for r in range(1 << m.t_kr[context]):
        rows += m.t_sub_rows[context, r]
    m.p_end = m.t + rows * quads
    m.p_chunk_ends = m.p_job_last or m.p_chunk_byte + m.p_cols >= m.t_chunk[context] * m.bus_bytes
    m.p_state = DRAIN
    if not m.p_chunk_ends:
        return
    # The chunk's pixels, or beats of packed ones, become complete one by one
    rows //= m.t_packed[context]
    quads *= m.t_packed[context]
    at = m.t + quads + STAGED + (ADDED if m.p_residual else 0)
    offer_chunk(m, at, m.p_job_last, 0)
    place = (m.p_rows_head + m.p_rows_count) & 63
    m.p_rows_at[place], m.p_rows_step[place], m.p_rows_left[place] = at, quads, rows
    left = (m.p_channels + m.p_chunk_byte + m.bus_bytes - 1) // m.bus_bytes  # beats from the chunk on
    m.p_rows_beats[place] = min(left, m.t_chunk[context])
    m.p_rows_count += 1


@compiled
def permit_block(m):
    """A block of the tile begins: its chunk has its half."""
    context = m.p_context
    open_half(m)
    m.p_word += 1
    last_word = m.p_word == m.t_words[context]
    places_end = m.p_place == m.wpb - 1
    m.p_place = 0 if places_end else m.p_place + 1
    if places_end:
        m.p_beat += 1 << m.t_kd[context]
    if last_word or (places_end and m.p_beat >= m.t_chunk[context]):
        m.p_opened = m.p_place = m.p_beat = 0
    if last_word:
        m.p_state = OPEN


@compiled
def end_block(m, last_tile):
    """The last results of a block are asked for."""
    context = m.v_context
    if not m.t_pool[context]:
        m.v_drained_at = m.t + DRAINED
        m.next = m.t + 1
    places_end = m.v_place == m.wpb - 1
    m.v_place = 0 if places_end else m.v_place + 1
    if places_end:
        m.v_beat += 1 << m.t_kd[context]
    if m.t_residual[context]:
        m.p_add_until = m.t + ADDED - 1
    if last_tile or (places_end and m.v_beat >= m.t_chunk[context]):
        m.v_place = m.v_beat = 0
        offer_chunk(m, m.t + STAGED + (ADDED if m.t_residual[context] else 0), last_tile, 1)
        end_chunk(m, m.t_residual[context], last_tile)


@compiled
def step_drain(m):
    """Results of vector tiles; returns that the offered tile is taken."""
    t = m.t
    tile_ends = False
    if m.v_count:
        at = m.v_end_at[m.v_head % BLOCKS]
        if at == t:
            tile_ends = m.v_end_last[m.v_head % BLOCKS] != 0
            m.v_head += 1
            m.v_count -= 1
            end_block(m, tile_ends)
            m.next = t + 1
        else:
            wake(m, at)
    take = m.p_offered and (not m.v_busy or tile_ends)
    if tile_ends:
        m.v_busy = 0
    if take:
        m.v_busy, m.v_context = 1, m.p_context
        m.p_offered = 0
        m.next = t + 1
    return take


@compiled
def step_post(m):
    """The epilogue in one cycle."""
    t = m.t
    if m.p_out_count:
        place = m.p_out_head & 63
        if m.p_out_at[place] == t:
            tail = (m.p_chunk_head + m.p_chunks) & 1
            m.chunk_half[tail], m.chunk_last[tail] = m.p_out_half[place], m.p_out_last[place]
            m.chunk_complete[tail] = m.p_out_complete[place]
            m.p_chunks += 1
            m.p_out_head += 1
            m.p_out_count -= 1
            m.next = t + 1
        if m.p_out_count:
            wake(m, m.p_out_at[m.p_out_head & 63])
    if m.p_ends:
        if m.p_end_at[m.p_ends_head & 3] == t:
            m.p_held -= 1
            m.p_ends_head += 1
            m.p_ends -= 1
            m.next = t + 1
        if m.p_ends:
            wake(m, m.p_end_at[m.p_ends_head & 3])
    if m.p_free_pulse:
        m.p_free[m.p_free_half] = 1
        m.next = t + 1
    if m.i_start:
        m.post_tile[m.p_arriving] = m.i_context
        m.p_arriving = (m.p_arriving + 1) & 3
        m.p_waiting += 1
        m.p_held += 1
    offered, busy = m.p_offered, m.v_busy
    take = step_drain(m)
    if m.p_state == OPEN:
        context = m.post_tile[m.p_beginning]
        if m.p_waiting and (not offered or take):
            if m.t_residual[context] or not (t < m.p_add_now or (m.p_residual and (offered or busy))):
                m.p_waiting -= 1
                take_tile(m, context)
            else:
                wake(m, max(t + 1, m.p_add_now))
    elif m.p_state == WAIT:
        if m.i_job:
            take_job(m)
            m.next = t + 1
    elif m.p_state == PERMIT:
        if m.i_begin and m.a_vector:
            permit_block(m)
            m.next = t + 1
    elif t == m.p_end:
        m.p_channels -= m.p_cols
        m.p_chunk_byte += m.p_cols
        m.p_drained_at[m.p_job_bank] = t + DRAINED
        if m.p_residual:
            m.p_add_until = t + ADDED - 1
        m.p_state = OPEN if m.p_job_last else WAIT
        if m.p_chunk_ends:
            m.p_opened = m.p_chunk_byte = 0
            end_chunk(m, m.p_residual, m.p_job_last)
        m.next = t + 1
    else:
        wake(m, m.p_end)
    m.p_add_now = m.p_add_until
