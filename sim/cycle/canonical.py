"""The machine's state in a form that is equal whenever what follows is: the *key* of the memo of segments.

A key holds all registers that matter (layout.py), as int32: stamps relative to the present cycle, rings from their
heads on, halves, banks, contexts and operations relative to those of the *frame*, shapes (shapes.py) instead of
descriptors, lines relative to a slot's line where nothing depends on where in a layer it is, long counts (counts.py)
as LONG. Registers that are written before they are read again are not in it. What the descriptor cache holds (held.py)
has a key of its own, whose number is in the frame: it matters only where the cache looks for a descriptor. `exchange`
makes a key of the registers, or the registers of a key, a frame and the counts.
"""

import numpy as np

from .addresses import pixels_alike
from .bus import CLIENT_COUNT, DESCRIPTOR
from .cache import out_offset_of
from .counts import line_base, put_counts, take_counts
from .held import take_held
from .layout import (
    BANK,
    CHUNK,
    COLUMNS,
    CONTEXT,
    FAR,
    FLOOR,
    FRAGMENTS,
    HALF,
    LINES_OF_FRAGMENT,
    LINES_OF_SLOT,
    OF_FRAGMENT,
    OF_SLOT,
    OF_TILE,
    OPERAND,
    PAIRS,
    PC,
    PCS_OF_SLOT,
    PLAIN,
    PLAINS,
    RINGS,
    SCALARS,
    STAMP,
    STREAM,
)  # fmt: skip
from .shapes import shape_of, token
from .state import COUNTS, LAYER, NEVER, SECOND, compiled

__all__ = ["exchange", "written"]


@compiled
def _put_frame(m, frame):
    frame[HALF], frame[BANK], frame[CHUNK], frame[OPERAND] = m.e_half, m.a_bank, m.p_next_half, m.n_half
    frame[STREAM], frame[CONTEXT] = m.ws_running, m.e_context
    base = FAR
    for s in range(m.slots):
        if m.v_live >> s & 1:
            base = min(base, m.pc[s])
    frame[PC] = base


@compiled
def _take_frame(m, frame):
    m.e_half, m.a_bank, m.p_next_half, m.n_half = frame[HALF], frame[BANK], frame[CHUNK], frame[OPERAND]
    m.ws_running, m.e_context = frame[STREAM], frame[CONTEXT]


@compiled
def written(m):
    """The operation in front of which all lines of all slots are in memory."""
    pc = FAR
    for s in range(m.slots):
        if m.v_live >> s & 1:
            pc = min(pc, m.done_pc[s])
    return pc


@compiled
def _move(a, i, key, n, kind, t, frame, contexts, save):
    """A register a[i] to the key's word n, or back; returns n + 1."""
    if save:
        v = a[i]
        if kind == STAMP:
            v = min(FAR, max(-FLOOR, v - t))
        elif kind == CONTEXT:
            v = (v - frame[CONTEXT] + contexts) % contexts
        elif kind == PC:
            v = FAR if v < 0 else v - frame[PC]
        elif kind:
            v ^= frame[kind]
        key[n] = v
        return n + 1
    v = np.int64(key[n])
    if kind == STAMP:
        v = NEVER if v == FAR else v + t
    elif kind == CONTEXT:
        v = (v + frame[CONTEXT]) % contexts
    elif kind == PC:
        v = -1 if v == FAR else v + frame[PC]
    elif kind:
        v ^= frame[kind]
    a[i] = v
    return n + 1


@compiled
def _plain(a, i, key, n, save):
    if save:
        key[n] = a[i]
    else:
        a[i] = key[n]
    return n + 1


@compiled
def _relative(a, i, key, n, base, save):
    """A register relative to ``base``."""
    if save:
        key[n] = a[i] - base
    else:
        a[i] = key[n] + base
    return n + 1


@compiled
def _tables_of_record(m, raw, key, n, frame, save):
    """Scalars, pairs and rings."""
    t, contexts = m.t, m.contexts
    for i in range(len(PLAINS)):
        n = _plain(raw, PLAINS[i], key, n, save)
    for i in range(len(SCALARS)):
        n = _move(raw, SCALARS[i, 0], key, n, SCALARS[i, 1], t, frame, contexts, save)
    for i in range(len(PAIRS)):
        first = frame[PAIRS[i, 1]]
        for place in (PAIRS[i, 0] + first, PAIRS[i, 0] + 1 - first):
            n = _move(raw, place, key, n, PAIRS[i, 2], t, frame, contexts, save)
    for i in range(len(RINGS)):
        if not save:
            raw[RINGS[i, 0]] = 0
        n = _plain(raw, RINGS[i, 1], key, n, save)
        head, size = raw[RINGS[i, 0]], RINGS[i, 2]
        for e in range(raw[RINGS[i, 1]]):
            place = (head + e) & (size - 1)
            for c in range(RINGS[i, 3], RINGS[i, 4]):
                n = _move(raw, COLUMNS[c, 0] + place, key, n, COLUMNS[c, 1], t, frame, contexts, save)
    if not save:
        m.p_arriving = m.p_waiting & 3
        m.matched = m.b_waiting
    return n


@compiled
def _streams(m, key, n, save):
    """Positions in the weight FIFO, counts of write bursts, beats on their way, stamps with their own limits."""
    t = m.t
    if save:
        stream_end = m.ws_read + m.ws_running_left
        key[n] = m.ws_write - m.ws_read
        key[n + 1] = m.ws_mark - stream_end if m.e_announced else 0
        key[n + 2] = m.ws_end - stream_end
        key[n + 3], key[n + 4] = m.aw_count - m.matched, m.wlast_count - m.matched
        key[n + 5] = 0
        for i in range(m.o_ready + m.o_valid1):
            key[n + 5] |= (m.o_last1 >> (m.o_ready_head + i & 7) & 1) << i
        key[n + 6] = max(m.a_row_end - t, -m.a_row_drain - 2)
        key[n + 7] = t - m.r_credit_at if m.beats_per_256 else 0
        key[n + 8] = m.n_chunk_first + m.n_beats_left
    else:
        m.ws_read, m.ws_write = 0, key[n]
        m.ws_mark, m.ws_end = m.ws_running_left + key[n + 1], m.ws_running_left + key[n + 2]
        m.aw_count, m.wlast_count = m.matched + key[n + 3], m.matched + key[n + 4]
        m.o_ready_head, m.o_last1 = 0, key[n + 5]
        m.a_row_end = t + key[n + 6]
        if m.beats_per_256:
            m.r_credit_at = t - key[n + 7]
        m.n_chunk_first = key[n + 8] - m.n_beats_left
    return n + 9


@compiled
def _readers(m, key, n, frame, save):
    """Requests and bursts of the readers; beats still to ask for are long counts where requests are large."""
    t, contexts = m.t, m.contexts
    for c in range(CLIENT_COUNT):
        kind = PLAIN if c else STREAM
        n = _plain(m.r_rest, c, key, n, save)
        n = _plain(m.r_off, c, key, n, save)
        if m.r_rest[c]:
            n = _plain(m.r_rest_addr, c, key, n, save)
            n = _move(m.r_rest_tag, c, key, n, kind, t, frame, contexts, save)
            if c >= DESCRIPTOR:
                n = _plain(m.r_rest_beats, c, key, n, save)
        if m.r_off[c]:
            n = _plain(m.r_off_beats, c, key, n, save)
            n = _plain(m.r_off_last, c, key, n, save)
            n = _move(m.r_off_tag, c, key, n, kind, t, frame, contexts, save)
        n = _plain(m.q_count, c, key, n, save)
        for i in range(m.q_count[c]):
            for a in (m.q_addr[c], m.q_n[c], m.q_tag[c]):
                n = _plain(a, i, key, n, save)
    return n


@compiled
def _operation(m, desc, flat, words, shapes, pc, frame, behind, key, n):
    """What time depends on of operation ``pc``."""
    key[n] = shape_of(m, pc, desc, flat, words, shapes)
    key[n + 1] = token(shapes, pc, 1, frame[PC], behind)
    key[n + 2] = token(shapes, pc, 2, frame[PC], behind)
    return n + 3


@compiled
def _slots(m, raw, desc, flat, words, shapes, key, n, frame, save):
    """Slots but for their lines; what the exit unit remembers."""
    behind = written(m) if save else 0
    for i in range(m.e_count):
        n = _plain(m.order, i, key, n, save)
    for s in range(m.slots):
        if not m.v_live >> s & 1:
            continue  # no segment holds an ADMIT or a release: the slot stays as it is
        for i in range(len(OF_SLOT)):
            n = _plain(raw, OF_SLOT[i] + s, key, n, save)
        for i in range(len(PCS_OF_SLOT)):
            n = _relative(raw, PCS_OF_SLOT[i] + s, key, n, frame[PC], save)
        if m.v_known >> s & 1:
            n = _plain(m.op, s, key, n, save)
            n = _operation(m, desc, flat, words, shapes, m.pc[s], frame, behind, key, n) if save else n + 3
        if m.v_pending >> s & 1:
            n = _plain(m.pending_priority, s, key, n, save)
    for way in range(len(m.x_tag)):
        if m.x_tags_valid >> way & 1:
            n = _plain(m.x_tag, way, key, n, save)
            n = _plain(m.x_tag_program, way, key, n, save)
    if save:
        key[n] = m.k_pc - frame[PC] if m.k_state else FAR
        n += 1
        if m.e_announced:
            n = _operation(m, desc, flat, words, shapes, m.e_leader_pc, frame, behind, key, n)
        if m.n_pc >= 0:
            n = _operation(m, desc, flat, words, shapes, m.n_pc, frame, behind, key, n)
    else:
        m.k_pc = key[n] + frame[PC] if m.k_state else 0
        n += 1 + 3 * (m.e_announced + (m.n_pc >= 0))
    return n


@compiled
def _contexts(m, raw, words, key, n, frame, base, pc, save):
    """Tiles under way; ``base``: the line that lines of operation ``pc`` are relative to."""
    for back in range(0 if m.e_announced else 1, m.e_outstanding + 1):
        c = (m.e_context - back + m.contexts) % m.contexts
        n = _plain(m.t_fragments, c, key, n, save)
        if back:
            n = _relative(m.t_pc, c, key, n, frame[PC], save)
            for i in range(len(OF_TILE)):
                n = _plain(raw, OF_TILE[i] + c, key, n, save)
            for r in range(1 << m.t_kr[c]):
                n = _plain(m.t_sub_rows[c], r, key, n, save)
            if save:
                channels = (m.t_channels[c] + m.bus_bytes - 1) // m.bus_bytes
                chunk, pixel, line, width = m.t_chunk[c], m.t_pixel_beats[c], m.t_line_beats[c], m.t_out_w[c]
                alike = pixels_alike(m, m.t_offset[c], channels, chunk, pixel, line, width, m.t_seg_w[c] >= width)
                key[n] = 0 if alike else m.t_offset[c]
            else:
                m.t_offset[c] = out_offset_of(m, m.t_pc[c], words) // m.bus_bytes % m.page_beats
            n += 1
        first = base if (m.t_pc[c] if back else m.e_leader_pc) == pc else 0
        for i in range(m.t_fragments[c]):
            place = c * FRAGMENTS + i
            for a in range(len(OF_FRAGMENT)):
                n = _plain(raw, OF_FRAGMENT[a] + place, key, n, save)
            for a in range(len(LINES_OF_FRAGMENT)):
                n = _relative(raw, LINES_OF_FRAGMENT[a] + place, key, n, first, save)
    if m.e_announced:
        for r in range(m.max_stack):
            n = _plain(m.sub_lines, r, key, n, save)
            n = _plain(m.sub_rows, r, key, n, save)
    return n


@compiled
def _lines(m, raw, desc, key, n, base, pc, save):
    """Lines of slots, and of the loaders' walks."""
    for s in range(m.slots):
        if m.v_live >> s & 1:
            for i in range(len(LINES_OF_SLOT)):
                n = _relative(raw, LINES_OF_SLOT[i] + s, key, n, base, save)
    if m.l_walking:
        layer = desc[LAYER]
        shift = base if m.e_leader_pc == pc else 0
        if save:
            key[n], key[n + 1] = m.l_y_top - shift * layer.sy, m.l_need - shift * layer.sy * layer.producer_nseg
        else:
            m.l_y_top, m.l_need = key[n] + shift * layer.sy, key[n + 1] + shift * layer.sy * layer.producer_nseg
        n += 2
    if m.n_walking:
        shift = base * desc[SECOND].res_producer_nseg if m.n_pc == pc else 0
        if save:
            key[n] = m.n_need - shift
        else:
            m.n_need = key[n] + shift
        n += 1
    return n


@compiled
def exchange(m, raw, desc, flat, words, shapes, key, frame, held, counts, limits, save):
    """``save``: key, frame, counts and limits (from where on a count is long) of the registers; else the registers at
    cycle t of key, frame, counts and ``held`` (what put_held made). Returns the key's length.

    raw : the record of m as int64; key : int32 [KEY_WORDS]; frame : int64 [FRAME]; counts, limits : int64 [COUNTS]
    """
    old_layer, old_second = m.e_leader_pc, m.n_pc
    if save:
        _put_frame(m, frame)
        put_counts(m, desc, key, counts, limits)
    else:
        _take_frame(m, frame)
    n = _tables_of_record(m, raw, key, COUNTS, frame, save)
    n = _readers(m, key, n, frame, save)
    n = _slots(m, raw, desc, flat, words, shapes, key, n, frame, save)
    if not save:
        take_held(m, desc, flat, words, frame, held, old_layer, old_second)
    base, pc = line_base(m, desc, key, counts)
    n = _contexts(m, raw, words, key, n, frame, base, pc, save)
    n = _lines(m, raw, desc, key, n, base, pc, save)
    if not save:
        take_counts(m, counts)
    return _streams(m, key, n, save)
