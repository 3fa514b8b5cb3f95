"""Residual loader (hw/load/residual_loader.py): second operands of the epilogue's additions, chunk by chunk."""

from fluidnpu.hw.isa import NO_PRODUCER, PC_INDEX_BITS
from fluidnpu.hw.load.fragment_window import FragmentWindow

from .addresses import settle
from .bus import RESIDUAL as CLIENT
from .bus import form_bursts, outstanding, step_reader, wake
from .state import LAYER, OPERANDS, REST_OPERANDS, SECOND, compiled

__all__ = ["residual_row", "step_residual"]

IDLE, HALF, LOAD, NEXT = range(4)
WHOLE_LATENCY, SEGMENT_LATENCY = FragmentWindow.LATENCY, FragmentWindow.SEGMENT_LATENCY
IMAGE = NO_PRODUCER
PC_MASK = (1 << PC_INDEX_BITS) - 1


@compiled
def residual_row(m, announced, layer):
    """Whether the present line of the second operand is there: i_res_there, i_res_waiting; i_res_loaded.

    announced, layer : descriptors of the dealt tile and of the one that is worked on"""
    m.i_res_loaded = not announced.residual or m.n_first_there != 0
    m.i_res_there = m.i_res_waiting = 0
    if not m.n_walking:
        return
    s = m.n_slot
    if layer.res_producer == IMAGE or (m.v_cancelled | m.v_failed | m.v_finished) >> s & 1:
        m.i_res_there = 1
    else:
        pc = m.n_pc & ~PC_MASK | layer.res_producer & PC_MASK
        m.i_res_there = pc < m.done_pc[s] or (pc == m.done_pc[s] and m.n_need < m.done_line[s])
    m.i_res_waiting = not m.i_res_there


@compiled
def run_address(m, layer, address, whole, used):
    """What counts of the address of a run."""
    if whole:
        return settle(m, address, m.n_row_beats, layer.res_line_beats)
    return settle(m, address, used, layer.res_line_beats | layer.res_pixel_beats)


@compiled
def take_window(m, layer, whole, used):
    """The lines of the next fragment; addresses in beats."""
    context, i = m.n_context, m.n_window
    m.n_slot, m.n_lines = m.f_slot[context, i], m.f_lines[context, i]
    row = m.f_row[context, i]
    m.n_addr = (m.arena_base[m.n_slot] + layer.res_offset) // m.bus_bytes + row * layer.res_line_beats + m.n_chunk_first
    m.n_need = row * layer.res_producer_nseg + layer.res_producer_nseg - 1
    m.n_width = layer.seg_w
    pixels = layer.out_w // m.wpb if layer.out_packed else layer.out_w
    if layer.nseg > 1:
        first = m.f_seg[context, i] * layer.seg_w
        pixels = min(layer.seg_w, layer.out_w - first)
        m.n_width = pixels
        m.n_addr += first * layer.res_pixel_beats
    m.n_row_beats = pixels * layer.res_pixel_beats
    m.n_addr = run_address(m, layer, m.n_addr, whole, used)
    m.n_run, m.n_pixels = m.n_addr, m.n_width
    m.n_walking = 1
    m.n_window += 1


@compiled
def walk(m, layer, whole, used):
    """Registers after a run was asked for; returns that the fragment's last one was."""
    m.n_run = run_address(m, layer, m.n_run + layer.res_pixel_beats, whole, used)
    line_ends = whole or m.n_pixels == 1
    ends = line_ends and m.n_lines == 1
    m.n_pixels -= 1
    if line_ends:
        m.n_addr = run_address(m, layer, m.n_addr + layer.res_line_beats, whole, used)
        m.n_run = m.n_addr
        m.n_need += layer.res_producer_nseg
        m.n_lines -= 1
        m.n_pixels = m.n_width
    m.n_walking = not ends
    return ends


@compiled
def step_fsm(m, desc, drop, complete, used):
    """Which chunk goes where; returns "begin a chunk"."""
    state = m.n_state
    begin = False
    if state == IDLE:
        if m.n_pending and not m.i_revoke:
            m.loads |= 1 << OPERANDS
            desc[SECOND] = desc[LAYER]
            m.n_pc, m.n_context, m.n_fragments = m.e_leader_pc, m.e_context, m.e_fragments
            m.n_chunk_first = 0
            m.n_beats_left = (desc[LAYER].out_channels + m.bus_bytes - 1) // m.bus_bytes
            m.n_pending, m.n_dealt, m.n_state = 0, 1, HALF
    elif state == HALF:
        if drop:
            m.n_state = IDLE
        elif m.i_res_free:
            begin = True
            m.n_free[m.n_half] = 0
            m.n_state = LOAD
    elif state == LOAD:
        if drop:
            m.n_free[m.n_half] = 1
            m.n_state = IDLE
        elif complete:
            m.n_full[m.n_half] = 1
            m.n_half = 1 - m.n_half
            m.n_chunk_first += used
            m.n_beats_left -= used
            m.n_first_there = m.n_first_there or m.n_dealt
            m.n_state = NEXT
    elif drop:
        m.n_half = 1 - m.n_half
        m.n_full[m.n_half], m.n_free[m.n_half] = 0, 1
        m.n_state = IDLE
    elif not m.n_dealt:
        m.n_state = IDLE if m.n_beats_left == 0 else HALF
    if m.n_state != state:
        m.next = m.t + 1
    return begin


@compiled
def step_residual(m, desc, taken):
    """The loader in one cycle, its reader included; after residual_row and the sequencer."""
    t = m.t
    c = CLIENT
    drop = m.i_revoke != 0 and m.n_dealt != 0
    m.i_res_free = m.n_free[m.n_half]
    if m.i_res_taken >= 0:
        m.n_full[m.i_res_taken] = 0
        m.next = t + 1
    for half in range(2):
        if m.n_read_at[half] == t:
            m.n_free[half] = 1
            m.next = t + 1
        elif m.n_read_at[half] > t:
            wake(m, m.n_read_at[half])
    if m.n_state == IDLE and not m.n_pending and not m.i_announce and not m.n_dropping:
        return

    layer = desc[SECOND]
    form_bursts(m, c, taken == c, drop)
    pending = outstanding(m, c)
    busy = pending or m.r_rest[c] != 0
    used = min(m.n_beats_left, layer.chunk_beats)
    whole = used == layer.res_pixel_beats
    request = m.n_walking and m.i_res_there and not drop and m.i_request[c] != 0
    beats = m.n_row_beats if whole else used
    offered = m.n_state == LOAD and not m.n_finished and t >= m.n_offer_at
    complete = m.n_finished and not m.n_walking and not busy
    walking = m.n_walking
    step_reader(m, c, taken == c, drop, request, m.n_run, beats, 0, m.i_beat == c and m.i_last != 0)
    if request:
        m.loads |= 1 << REST_OPERANDS
    ends = request and walk(m, layer, whole, used)
    if offered and (not walking or ends):
        take_window(m, layer, whole, used)
        m.n_offer_at = t + (SEGMENT_LATENCY if layer.nseg > 1 else WHOLE_LATENCY)
        m.n_finished = m.n_window >= m.n_fragments
        m.next = t + 1
    elif offered or (m.n_state == LOAD and not m.n_finished):
        wake(m, max(t + 1, m.n_offer_at))
    if step_fsm(m, desc, drop, complete, used):
        m.n_window = m.n_finished = 0
        m.n_offer_at = t + (SEGMENT_LATENCY if layer.nseg > 1 else WHOLE_LATENCY)
    if drop:
        m.n_walking = 0
        m.next = t + 1
    if drop or m.n_dropping:
        if m.n_dropping != pending:
            m.next = t + 1
        m.n_dropping = pending
    if m.i_announce:
        m.n_pending = desc[LAYER].residual
    if m.i_revoke:
        m.n_pending = 0
    if m.i_revoke or m.i_start:
        m.n_dealt = m.n_first_there = 0
        m.next = t + 1
