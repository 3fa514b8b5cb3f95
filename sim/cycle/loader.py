"""Stripe loader (hw/load/stripe_loader.py) with its fragment windows (hw/load/fragment_window.py)."""

from fluidnpu.hw.isa import NO_PRODUCER, PC_INDEX_BITS
from fluidnpu.hw.load.fragment_window import FragmentWindow

from .addresses import settle
from .bus import STRIPE, form_bursts, outstanding, step_reader, wake
from .state import REST_STRIPES, compiled

__all__ = ["loader_row", "step_stripes"]

WHOLE_LATENCY, SEGMENT_LATENCY = FragmentWindow.LATENCY, FragmentWindow.SEGMENT_LATENCY
IMAGE = NO_PRODUCER
PC_MASK = (1 << PC_INDEX_BITS) - 1


@compiled
def loader_row(m, layer):
    """Whether the present row lies inside of the image and is there: i_inside, i_there, i_waiting."""
    m.i_inside = m.i_there = m.i_waiting = 0
    if not m.l_walking:
        return
    m.i_inside = m.l_y_top >= 0 and m.l_y_top < layer.in_h and m.l_row_beats != 0
    if not m.i_inside:
        return
    s = m.l_slot
    if layer.producer == IMAGE or (m.v_cancelled | m.v_failed | m.v_finished) >> s & 1:
        m.i_there = 1
    else:
        pc = m.e_leader_pc & ~PC_MASK | layer.producer & PC_MASK
        m.i_there = pc < m.done_pc[s] or (pc == m.done_pc[s] and m.l_need < m.done_line[s])
    m.i_waiting = not m.i_there


@compiled
def take_window(m, layer):
    """The window of the next fragment (FragmentWindow's formulas; addresses in beats)."""
    context, i = m.e_context, m.l_window
    m.l_slot, m.l_sub, m.l_lines = m.f_slot[context, i], m.f_sub[context, i], m.f_lines[context, i]
    m.l_y_top = m.f_row[context, i] * layer.sy - layer.pad_top
    m.l_addr = (m.arena_base[m.l_slot] + layer.in_offset) // m.bus_bytes + m.l_y_top * layer.in_line_beats
    pixels = -(-layer.in_w // m.wpb) if layer.in_packed else layer.in_w
    m.l_row_beats = pixels * layer.in_pixel_beats
    m.l_need = m.l_y_top * layer.producer_nseg + layer.producer_nseg - 1
    if layer.nseg > 1:
        x_left = m.f_seg[context, i] * layer.seg_w * layer.sx - layer.pad_left
        first = max(0, x_left)
        end = min(layer.in_w, x_left + layer.stripe_pixels)
        m.l_addr += first * layer.in_pixel_beats
        m.l_row_beats = max(0, end - first) * layer.in_pixel_beats
    m.l_addr = settle(m, m.l_addr, m.l_row_beats, layer.in_line_beats)
    m.l_to_window = 0
    m.l_window += 1


@compiled
def next_row(m, layer, begins, rows_after, row_end, ends):
    """Registers of the walk after a row."""
    skipping = layer.sy > layer.kh
    m.l_rows_left = rows_after - 1
    m.l_to_window -= 1
    rows = 1
    if row_end and skipping:
        rows += layer.sy - layer.kh
    m.l_y_top += rows
    m.l_addr = settle(m, m.l_addr + rows * layer.in_line_beats, m.l_row_beats, layer.in_line_beats)
    m.l_need += rows * layer.producer_nseg
    m.l_walking = not ends
    if begins:
        m.l_lines -= 1
        m.l_to_window = (layer.kh if skipping else layer.sy) - 1


@compiled
def step_stripes(m, layer, taken):
    """The loader in one cycle, its reader included; after loader_row."""
    t = m.t
    c = STRIPE
    stop = m.i_revoke or m.i_start
    done = m.l_loaded or not m.l_windows
    if done and not (stop or m.i_announce or m.l_dropping or m.r_records[c] or m.r_rest[c] or m.r_off[c]):
        return
    form_bursts(m, c, taken == c, m.i_revoke != 0)
    busy = outstanding(m, c) or m.r_rest[c] != 0
    pending = outstanding(m, c)
    begins = m.l_lines != 0 and m.l_to_window == 0
    rows_after = layer.kh - 1 if begins else m.l_rows_left
    row_end = rows_after == 0
    ends = row_end and m.l_lines == (1 if begins else 0)
    request = m.l_walking and m.i_inside and m.i_there and not stop and m.i_request[c] != 0
    if request:
        m.loads |= 1 << REST_STRIPES
    step = m.l_walking and not stop and (not m.i_inside or request)
    offered = m.l_windows and not m.l_finished and t >= m.l_offer_at
    takes = offered and (not m.l_walking or (step and ends))
    walking, finished = m.l_walking, m.l_finished
    arrives = m.i_beat == c
    step_reader(m, c, taken == c, m.i_revoke != 0, request, m.l_addr, m.l_row_beats, 0, arrives and m.i_last != 0)

    if step:
        next_row(m, layer, begins, rows_after, row_end, ends)
        m.next = t + 1
    if takes:
        take_window(m, layer)
        m.l_walking = 1
        m.l_offer_at = t + (SEGMENT_LATENCY if layer.nseg > 1 else WHOLE_LATENCY)
        if m.l_window >= m.t_fragments[m.e_context]:
            m.l_finished = 1
        m.next = t + 1
    elif m.l_windows and not m.l_finished and t < m.l_offer_at:
        wake(m, m.l_offer_at)
    loaded = m.l_loaded
    if stop or m.i_announce:
        m.l_loaded = 0
    elif finished and not walking and not busy:
        m.l_loaded = 1
    if m.l_loaded != loaded:
        m.next = t + 1
    if m.i_announce:
        m.l_windows, m.l_window, m.l_finished = 1, 0, 0
        m.l_offer_at = t + (SEGMENT_LATENCY if layer.nseg > 1 else WHOLE_LATENCY)
        m.next = t + 1
    if stop:
        m.l_windows = m.l_finished = m.l_walking = 0
        m.next = t + 1
    if m.i_revoke or m.l_dropping:
        if m.l_dropping != pending:
            m.next = t + 1
        m.l_dropping = pending
