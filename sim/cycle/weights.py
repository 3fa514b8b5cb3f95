"""Weight streamer (hw/load/weight_streamer.py) and weight loader (hw/array/weight_loader.py)."""

from fluidnpu.hw.isa import PC_INDEX_BITS, Op
from fluidnpu.hw.tile import PARAMETER_BYTES

from .addresses import settle
from .bus import WEIGHT, form_bursts, step_reader, wake
from .state import REST, compiled

__all__ = ["beats_to_end", "loader_levels", "step_loader", "step_streamer"]

BYTES = PARAMETER_BYTES
INDEX_BITS = PC_INDEX_BITS
CONV, POOL = int(Op.CONV), int(Op.POOL)


@compiled
def load_geometry(m, layer):
    """Of what is being loaded: vector, log2 kd, beats of a set, sets of a block (kh * kw, twice)."""
    if m.wl_ahead:
        v = m.d_variant
        vector, kd = layer.op != CONV, layer.log2_kd[v]
        channels, cols = layer.out_channels, m.pes >> (layer.log2_kr[v] + kd)
        taps = layer.kh * layer.kw << layer.twice
    else:
        vector, kd, channels, cols, taps = m.a_vector != 0, m.a_kd, m.wl_left, m.pes >> (m.a_kr + m.a_kd), m.a_taps
    words = (1 if vector else min(channels, cols)) << kd
    return vector, kd, (words - 1) // m.wpb + 1, taps


@compiled
def block_beats(m, kd):
    """Parameter beats of a block."""
    return (m.lanes * BYTES // m.bus_bytes) << kd


@compiled
def beats_to_end(m, layer):
    """Beats that the loader takes before the last one of its set or of its parameters."""
    if m.wl_par_beats:
        return m.wl_par_beats - 1
    _, kd, beats, _ = load_geometry(m, layer)
    if m.wl_block:
        return block_beats(m, kd) - 1 - m.wl_beat if m.wl_has_bank else 0
    return beats - 1 - m.wl_beat


@compiled
def loader_levels(m, layer):
    """What the loader does with the beat at the FIFO's output in this cycle."""
    passing = m.wl_par_beats != 0
    may_load = not m.wl_full and (not m.wl_ahead or (m.e_announced and not m.i_revoke))
    room = not m.wl_block or m.wl_has_bank or m.wl_banks_used < 2
    m.i_wl_ready = passing or (may_load and room)
    m.i_takes_par = m.ws_valid and passing
    m.i_takes_set = m.ws_valid and m.i_wl_ready and not passing
    m.i_set_ends = m.i_set_done = 0
    if m.i_takes_set:
        vector, kd, beats, _ = load_geometry(m, layer)
        if m.wl_block:
            m.i_set_done = m.wl_beat == block_beats(m, kd) - 1
        else:
            m.i_set_ends = m.wl_beat == beats - 1
            m.i_set_done = m.i_set_ends and not vector
    m.i_par_ends = m.i_takes_par and m.wl_par_beats == 1
    m.i_set_ready = m.wl_full or m.i_set_done
    m.i_par_left = passing and not m.i_par_ends


@compiled
def take_set_beat(m, layer):
    """A beat of a set, or of a block's parameters, is taken."""
    m.wl_beat += 1
    if m.wl_block:
        m.wl_banks_used += 1 - m.wl_has_bank
        m.wl_has_bank = 1
        if m.i_set_done:
            m.wl_beat = m.wl_block = 0
            m.wl_full = 1
    elif m.i_set_ends:
        vector, _, _, taps = load_geometry(m, layer)
        m.wl_beat = 0
        if vector:
            m.wl_tap += 1
            if m.wl_tap == taps:
                m.wl_tap, m.wl_block = 0, 1
        else:
            m.wl_full = 1


@compiled
def step_loader(m, layer):
    """Registers of the weight loader; after the controller decided (i_begin), before its registers."""
    if m.wl_par_ends:
        m.a_missing[m.wl_par_ends_bank] = 0
    if m.i_takes_set:
        take_set_beat(m, layer)
    if m.i_takes_par:
        m.wl_par_beats -= 1
    if m.v_drained_at == m.t:
        m.wl_banks_used -= 1
        m.next = m.t + 1
    elif m.v_drained_at > m.t:
        wake(m, m.v_drained_at)
    if m.i_revoke and m.wl_ahead:
        m.wl_banks_used -= m.wl_has_bank
        m.wl_beat = m.wl_full = m.wl_tap = m.wl_block = m.wl_has_bank = 0
    if m.i_set_ends or m.i_set_done or m.i_par_ends or m.wl_par_ends or m.i_revoke:
        m.next = m.t + 1
    elif m.i_takes_set or m.i_takes_par:
        m.flow = 1
    m.wl_par_ends = m.i_par_ends
    m.wl_par_ends_bank = m.wl_par_bank
    if m.i_start:
        m.wl_ahead = layer.op == POOL
        m.wl_left = layer.out_channels
    if m.i_begin and not m.a_pool:
        m.wl_full = m.wl_has_bank = 0
        cols = m.pes >> (m.a_kr + m.a_kd)
        used = min(m.wl_left, cols)
        if not m.a_vector and m.a_step == 0:
            m.wl_par_beats = (used * BYTES + m.bus_bytes - 1) // m.bus_bytes
            m.wl_par_bank = m.a_bank
            m.a_missing[m.a_bank] = 1
        if m.i_last_step:
            m.wl_left -= cols
            if m.i_last_ctile:
                m.wl_ahead = 1


@compiled
def step_streamer(m, layer, taken):
    """The streamer in one cycle, its reader included."""
    c = WEIGHT
    running = m.ws_running
    flush = m.i_revoke != 0 and m.ws_handed != 0
    form_bursts(m, c, taken == c, flush)
    request = m.ws_waiting != 0 and not m.i_revoke and m.i_request[c] != 0

    arrives = m.i_beat == c
    ends = arrives and m.i_last != 0
    ahead_arrives = arrives and m.rec_tag[c, m.r_rec_head[c]] != running
    keep = arrives and not (ahead_arrives and (m.ws_dropping or m.i_revoke))
    ahead_formed = m.i_formed[c] and m.r_rest_tag[c] != running
    left = m.ws_ahead_bursts + (1 if ahead_formed else 0) - (1 if ahead_arrives and ends else 0)
    formed_beats = m.i_formed_beats[c] if m.i_formed[c] else 0

    fetch_ahead = m.ws_running_left == 0
    fetch = m.ws_read != m.ws_write and (not m.ws_valid or m.i_wl_ready) and not (m.i_revoke and fetch_ahead)
    step_reader(m, c, taken == c, flush, request, m.ws_wait_addr, m.ws_wait_beats, 1 - running, ends)

    if m.i_start:
        m.ws_running = 1 - running
    if request:
        m.loads |= 1 << REST
        m.ws_waiting = 0
        m.ws_handed = 1
    v = m.d_variant
    if m.i_announce:
        m.ws_wait_beats = layer.weight_beats[v]
        address = (m.program_base[m.e_leader_pc >> INDEX_BITS] + layer.weights[v]) // m.bus_bytes
        m.ws_wait_addr = settle(m, address, m.ws_wait_beats, 0)
        m.ws_waiting = m.ws_wait_beats != 0
    if m.i_revoke:
        m.ws_waiting = 0
    if m.i_revoke or m.i_start:
        m.ws_handed = 0
    if m.i_revoke or m.ws_dropping:
        m.ws_dropping = left != 0
    m.ws_ahead_bursts = 0 if m.i_start else left

    kept = (formed_beats if ahead_formed else 0) - (1 if fetch and fetch_ahead else 0)
    m.ws_space += (1 if fetch else 0) - formed_beats + (m.ws_ahead_kept if m.i_revoke else 0)
    m.ws_ahead_kept = 0 if m.i_start or m.i_revoke else m.ws_ahead_kept + kept
    if keep:
        m.ws_write += 1
        if ahead_arrives:
            m.ws_ahead_written = 1
    if m.i_wl_ready:
        m.ws_valid = 0
    if fetch:
        m.ws_read += 1
        m.ws_valid = 1
        m.ws_front_ahead = fetch_ahead
        if fetch_ahead:
            m.ws_ahead_fetched = 1
    if m.i_announce:
        m.ws_mark = m.ws_end
        m.ws_end += m.ws_wait_beats
    ahead_left = m.ws_ahead_left
    if fetch:
        if fetch_ahead:
            m.ws_ahead_left -= 1
        else:
            m.ws_running_left -= 1
    if m.i_announce:
        m.ws_ahead_left = m.ws_wait_beats
    if m.i_start:
        m.ws_running_left = ahead_left - (1 if fetch else 0)
        m.ws_ahead_left = 0
        m.ws_front_ahead = 0
    if m.i_revoke:
        m.ws_end = m.ws_mark
        m.ws_ahead_left = 0
        if m.ws_ahead_written:
            m.ws_write = m.ws_mark
        if m.ws_ahead_fetched:
            m.ws_read = m.ws_mark
        if m.ws_front_ahead:
            m.ws_valid = 0
            m.ws_front_ahead = 0
    if m.i_start or m.i_revoke:
        m.ws_ahead_written = 0
        m.ws_ahead_fetched = 0
    if m.i_start or m.i_announce or m.i_revoke:
        m.next = m.t + 1
    elif arrives or fetch:
        m.flow = 1
