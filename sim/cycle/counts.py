"""Long counts: how many steps, beats, channels, lines are left. While many are, nothing depends on how many.

Each has a limit: what happens in a number of cycles is the same for all values that are still not below the limit at
their end. Limits of -NEVER are of numbers that only events show.
"""

from fluidnpu.hw.isa import LAYERS, NO_PRODUCER, PC_INDEX_BITS, VARIANTS

from .addresses import pixels_alike, runs_alike
from .bus import RESIDUAL, STRIPE, WEIGHT
from .post import DRAIN as EPILOGUE_DRAIN
from .post import OPEN as EPILOGUE_OPEN
from .residual import IDLE as NO_OPERANDS
from .state import (
    CACHE,
    CTILES,
    DRAINS,
    FETCH,
    LEFT,
    LINES,
    LOADS,
    NEVER,
    OPERANDS,
    REST,
    REST_OPERANDS,
    REST_STRIPES,
    SECOND,
    STEPS,
    WRITES,
    compiled,
)  # fmt: skip
from .table import first_slot
from .writer import count_staged

__all__ = ["LONG", "line_base", "put_counts", "take_counts", "tidy"]

LONG = -(1 << 30)
IMAGE = NO_PRODUCER
INDEX_MASK = (1 << PC_INDEX_BITS) - 1


@compiled
def _put(key, counts, limits, count, value, limit, may_be_long):
    counts[count], limits[count] = value, limit
    key[count] = LONG if may_be_long and value >= limit else value


@compiled
def operands_alike(m, d):
    """Runs of the second operand of a layer are cut alike wherever they are."""
    total, first = (d.out_channels + m.bus_bytes - 1) // m.bus_bytes, d.res_offset // m.bus_bytes
    return pixels_alike(m, first, total, d.chunk_beats, d.res_pixel_beats, d.res_line_beats, d.out_w, d.nseg == 1)


@compiled
def put_counts(m, desc, key, counts, limits):
    """Counts and limits; key[0 .. COUNTS-1]: the counts, or LONG."""
    conv = not m.a_vector
    cols = m.pes >> (m.a_kr + m.a_kd)
    _put(key, counts, limits, STEPS, m.a_steps - 1 - m.a_step, 2, conv and m.a_step > 0)
    for count, c in ((REST, WEIGHT), (REST_OPERANDS, RESIDUAL), (REST_STRIPES, STRIPE)):
        rest = m.r_rest_beats[c] if m.r_rest[c] else 0
        _put(key, counts, limits, count, rest, 2 * m.burst_beats, m.r_rest_addr[c] == 0)
    _put(key, counts, limits, FETCH, m.ws_running_left, 2, True)
    _put(key, counts, limits, LEFT, m.a_left, 2 * cols if conv else -NEVER, True)
    _put(key, counts, limits, LOADS, m.wl_left, 2 * cols if conv else -NEVER, True)
    chunk = m.t_chunk[m.p_context]
    _put(key, counts, limits, DRAINS, m.p_channels, 2 * m.p_cols + chunk * m.bus_bytes, True)
    left, chunk, alike = 0, 0, False
    if m.o_tiles:
        c = m.o_tile[m.o_tile_head & 3]
        chunk, total = m.t_chunk[c], (m.t_channels[c] + m.bus_bytes - 1) // m.bus_bytes
        left = total - m.o_chunk_first
        pixel, line, width = m.t_pixel_beats[c], m.t_line_beats[c], m.t_out_w[c]
        alike = pixels_alike(m, m.t_offset[c], total, chunk, pixel, line, width, m.t_seg_w[c] >= width)
    _put(key, counts, limits, WRITES, left, 2 * chunk, alike)
    left, chunk, alike = 0, 0, False
    if m.n_state != NO_OPERANDS:
        d = desc[SECOND]
        chunk, left = d.chunk_beats, m.n_beats_left
        alike = operands_alike(m, d)
    _put(key, counts, limits, OPERANDS, left, 2 * chunk, alike)
    _put(key, counts, limits, CTILES, m.a_ctile, -NEVER, conv and m.a_ctile > 0)
    lines, limit = _lines_left(m, desc)
    _put(key, counts, limits, LINES, lines, limit, lines > 0)


@compiled
def take_counts(m, counts):
    """Registers of the counts; of the writer's after its tile's."""
    m.a_step = m.a_steps - 1 - counts[STEPS]
    m.r_rest_beats[WEIGHT], m.r_rest_beats[RESIDUAL] = counts[REST], counts[REST_OPERANDS]
    m.r_rest_beats[STRIPE] = counts[REST_STRIPES]
    m.ws_running_left = counts[FETCH]
    m.a_left, m.wl_left, m.p_channels = counts[LEFT], counts[LOADS], counts[DRAINS]
    m.o_chunk_first = 0
    if m.o_tiles:
        c = m.o_tile[m.o_tile_head & 3]
        m.o_chunk_first = (m.t_channels[c] + m.bus_bytes - 1) // m.bus_bytes - counts[WRITES]
    m.n_beats_left = counts[OPERANDS]
    m.a_ctile = counts[CTILES]


@compiled
def _before(m, producer, pc):
    """Lines of a layer in front of ``pc``: all there where ``pc`` has begun to be written."""
    return producer == IMAGE or producer & INDEX_MASK < pc & INDEX_MASK


@compiled
def _lines_left(m, desc):
    """(lines of the layer from its slots' position on, limit) if all slots are inside of one layer and nothing depends
    on where; else (0, 1)."""
    if not m.v_live:
        return 0, 1
    ref = first_slot(m.v_live)
    pc = m.pc[ref]
    if not m.v_known >> ref & 1:
        return 0, 1
    d = desc[CACHE + m.entry[ref]]
    if d.op not in LAYERS or d.nseg != 1 or not _before(m, d.producer, pc):
        return 0, 1
    if d.residual and not _before(m, d.res_producer, pc):
        return 0, 1
    most = 0
    for v in range(VARIANTS):
        most = max(most, d.max_lines[v] << d.log2_kr[v])
    most += d.kh + 1
    first_row, most_ahead = m.row[ref], 0
    for s in range(m.slots):
        if m.v_live >> s & 1:
            if m.pc[s] != pc or m.done_pc[s] != pc or not m.v_known >> s & 1 or d.lines - m.line[s] < most:
                return 0, 1
            first_row = min(first_row, m.row[s])
            most_ahead = max(most_ahead, m.line[s] - m.line[ref])
    for back in range(0 if m.e_announced else 1, m.e_outstanding + 1):
        c = (m.e_context - back + m.contexts) % m.contexts
        if (m.t_pc[c] if back else m.e_leader_pc) == pc:
            for i in range(m.t_fragments[c]):
                first_row = min(first_row, m.f_row[c, i])
    if first_row * d.sy < d.pad_top:
        return 0, 1
    row = d.in_w * d.in_pixel_beats
    if not runs_alike(m, d.in_offset // m.bus_bytes, row, d.in_line_beats, row, 0):
        return 0, 1
    channels, first = (d.out_channels + m.bus_bytes - 1) // m.bus_bytes, d.out_offset // m.bus_bytes
    if not pixels_alike(m, first, channels, d.chunk_beats, d.out_pixel_beats, d.out_line_beats, d.out_w, True):
        return 0, 1
    if d.residual and not operands_alike(m, d):
        return 0, 1
    return d.lines - m.line[ref], most + most_ahead


@compiled
def line_base(m, desc, key, counts):
    """(line, operation): lines of this operation are in the key relative to that line; (0, -1): none is."""
    if key[LINES] != LONG:
        return 0, -1
    ref = first_slot(m.v_live)
    return desc[CACHE + m.entry[ref]].lines - counts[LINES], m.pc[ref]


@compiled
def tidy(m):
    """Registers that will be written before they are read become 0, and lazy ones are brought up to this cycle."""
    count_staged(m)
    m.e_seen = -1
    if not m.l_walking:
        m.l_slot = m.l_sub = m.l_lines = m.l_y_top = m.l_addr = m.l_row_beats = m.l_need = 0
        m.l_to_window = m.l_rows_left = 0
    if not m.n_walking:
        m.n_slot = m.n_lines = m.n_addr = m.n_run = m.n_row_beats = m.n_need = m.n_width = m.n_pixels = 0
    if m.n_state == NO_OPERANDS:
        m.n_fragments = m.n_chunk_first = m.n_beats_left = m.n_window = m.n_finished = 0
        m.n_context, m.n_pc = m.e_context, -1
    if not m.o_busy:
        m.s_address = m.s_line_address = m.s_run = m.s_left = m.s_runs_left = m.s_runs = m.s_run_beats = 0
        m.s_run_pitch = m.s_line_pitch = m.s_lines = m.s_staged = m.s_done = m.s_retire = m.s_chunk_end = 0
        m.s_half = m.p_next_half
    if not m.o_trial:
        m.q_beats = m.q_staged = m.q_done = m.q_retire = m.q_chunk_end = 0
        m.q_half = m.p_next_half
    if not m.v_busy:
        m.v_context = m.e_context
    if m.p_state == EPILOGUE_OPEN and not m.p_offered:
        m.p_context = m.e_context
        m.p_channels = m.p_cols = m.p_chunk_byte = 0
    if m.p_state != EPILOGUE_DRAIN:
        m.p_end = m.p_job_last = m.p_chunk_ends = 0
        m.p_job_bank = m.a_bank
    if not m.p_free_pulse:
        m.p_free_half = m.p_next_half
    if not m.ar_valid:
        m.ar_client = m.ar_beats = 0
    if not m.r_shown:
        m.r_client = m.r_last = 0
    if not m.r_open:
        m.r_left = m.r_start = 0
    if not m.x_busy:
        m.x_slot = m.x_exit = m.x_last = m.x_program = m.x_classes = m.x_logits = m.x_table = m.x_end = m.x_go_at = 0
    if not m.k_state:
        m.k_pc = m.k_entry = m.k_done = 0
    if not m.e_announced:
        m.d_variant = m.d_longest = 0
        m.e_leader_pc = -1
    if not m.wl_par_beats:
        m.wl_par_bank = m.wl_par_ends_bank if m.wl_par_ends else m.a_bank
    if not m.wl_par_ends:
        m.wl_par_ends_bank = m.a_bank
    for bank in range(2):
        if m.a_drain_at[bank] == NEVER:
            m.a_drain_last[bank] = 0
    for c in (WEIGHT, RESIDUAL, STRIPE):
        if m.r_rest[c] == 0:
            m.r_rest_addr[c] = m.r_rest_beats[c] = 0
