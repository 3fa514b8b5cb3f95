"""Output writer: runs and bursts of a chunk (hw/memory/write_bursts.py), beats (beat_sender.py), responses and events
(output_writer.py)."""

from fluidnpu.hw.memory.beat_sender import BeatSender

from .addresses import settle
from .bus import wake
from .state import WRITES, compiled

__all__ = ["step_writer", "write_ready"]

PREFETCH = BeatSender.PREFETCH
EVENTS = 2
FETCH_CYCLES = 4  # of FragmentRuns, from the look at a fragment to its offer
FETCH, OFFER = 0, 1


@compiled
def write_ready(m):
    """The writer takes a tile."""
    return m.o_tiles != m.trackers


@compiled
def settle_run(m, address):
    """What counts of the address of a run, of the next ones and of those of the next lines."""
    pitches = (m.s_run_pitch if m.s_runs > 1 else 0) | m.s_line_pitch
    return settle(m, address, m.s_run_beats, pitches)


@compiled
def offer_runs(m):
    """The runs of the present fragment go to the splitter."""
    context = m.o_tile[m.o_tile_head]
    i = m.o_index
    bus = m.bus_bytes
    slot = m.f_slot[context, i]
    left = (m.t_channels[context] + bus - 1) // bus - m.o_chunk_first
    used = min(left, m.t_chunk[context])
    whole = used == m.t_pixel_beats[context]
    first_pixel = m.f_seg[context, i] * m.t_seg_w[context]
    pixels = min(m.t_out_w[context] - first_pixel, m.t_seg_w[context])
    address = m.t_offset[context] + m.o_chunk_first + m.arena_base[slot] // bus
    address += m.f_row[context, i] * m.t_line_beats[context] + first_pixel * m.t_pixel_beats[context]
    last_index = i + 1 >= m.t_fragments[context]
    chunk_last = m.chunk_last[m.p_chunk_head & 1]
    m.o_busy = 1
    m.s_line_pitch, m.s_run_pitch = m.t_line_beats[context], m.t_pixel_beats[context]
    m.s_lines = m.f_lines[context, i]
    m.s_runs = m.s_runs_left = 1 if whole else pixels
    m.s_run_beats = m.s_left = (pixels if whole else 1) * used
    m.s_address = m.s_line_address = m.s_run = settle_run(m, address)
    m.s_done = chunk_last
    m.s_retire = last_index and chunk_last
    m.s_half, m.s_chunk_end = m.chunk_half[m.p_chunk_head & 1], last_index
    m.s_staged = m.chunk_complete[m.p_chunk_head & 1]
    m.o_index += 1
    if last_index:
        m.o_index = 0
        m.o_chunk_first = 0 if chunk_last else m.o_chunk_first + m.t_chunk[context]
        m.p_chunk_head += 1
        m.p_chunks -= 1
        if chunk_last:
            m.loads |= 1 << WRITES
            m.o_tile_head = (m.o_tile_head + 1) & 3
            m.o_tiles -= 1
    m.o_state = FETCH
    m.o_offer_at = 0


@compiled
def split_burst(m, allowed, run_ends, line_ends, ends):
    """The splitter's registers after a burst."""
    m.s_left -= allowed
    m.s_address = settle(m, m.s_address + allowed, m.s_left, 0)
    if run_ends:
        m.s_run = settle_run(m, m.s_run + m.s_run_pitch)
        m.s_address = m.s_run
        m.s_left = m.s_run_beats
        m.s_runs_left -= 1
    if line_ends:
        m.s_line_address = settle_run(m, m.s_line_address + m.s_line_pitch)
        m.s_address = m.s_run = m.s_line_address
        m.s_runs_left = m.s_runs
        m.s_lines -= 1
    if ends:
        m.o_busy = 0


@compiled
def count_staged(m):
    """Beats of complete pixels (p_rows: of the chunks' last jobs) that no burst has taken, as seen in this cycle."""
    while m.p_rows_count:
        place = m.p_rows_head & 63
        if m.p_rows_at[place] >= m.t:
            break
        rows = min(m.p_rows_left[place], (m.t - 1 - m.p_rows_at[place]) // m.p_rows_step[place] + 1)
        m.o_staged += rows * m.p_rows_beats[place]
        m.p_rows_at[place] += rows * m.p_rows_step[place]
        m.p_rows_left[place] -= rows
        if m.p_rows_left[place]:
            break
        m.p_rows_head += 1
        m.p_rows_count -= 1


@compiled
def wait_for_staged(m):
    """Wake when the burst on trial may be staged."""
    if m.p_rows_count:
        place = m.p_rows_head & 63
        rows = (m.q_beats - m.o_staged + m.p_rows_beats[place] - 1) // m.p_rows_beats[place]
        rows = min(rows, m.p_rows_left[place])
        wake(m, m.p_rows_at[place] + (rows - 1) * m.p_rows_step[place] + 1)


@compiled
def step_writer(m):
    """The writer in one cycle: returns (AW transferred, W transferred: 2 with a burst's last beat, B transferred)."""
    t = m.t
    m.p_free_pulse = 0
    waits = (m.o_state == OFFER and t >= m.o_offer_at and not m.i_chunk) or m.o_tiles == 0
    if waits and not (m.o_busy or m.o_trial or m.o_resp or m.o_events or m.i_start):
        return 0, 0, 0
    outstanding = 2 * m.in_flight
    count_staged(m)
    judged = m.o_trial and m.o_resp != outstanding and (m.q_staged or m.o_staged >= m.q_beats)
    if judged and not m.q_staged:
        m.o_staged -= m.q_beats
    bursts_ready = not m.o_trial or judged
    moves = m.o_busy and bursts_ready

    # Responses
    aw_taken = m.o_aw != 0 and m.awready != 0
    head = m.o_resp_head & 127
    b_taken = m.b_shown != 0 and m.o_resp != 0 and m.o_events != EVENTS
    if m.i_event_pop:
        m.o_event_head += 1
        m.o_events -= 1
        m.next = t + 1
    if b_taken:
        if m.resp_done[head] or m.resp_retire[head]:
            place = (m.o_event_head + m.o_events) & 1
            m.ev_done[place], m.ev_retire[place] = m.resp_done[head], m.resp_retire[head]
            m.o_events += 1
        m.o_resp_head += 1
        m.o_resp -= 1

    # Beats
    w_taken = 0
    ready_level = m.o_ready
    if m.o_ready and m.wready:
        w_taken = 2 if m.o_last1 >> m.o_ready_head & 1 else 1
        m.o_ready -= 1
        m.o_ready_head = (m.o_ready_head + 1) & 7
    passes = m.o_send != 0 and ready_level + m.o_valid1 < PREFETCH
    if m.o_valid1:
        m.o_ready += 1
    m.o_valid1 = passes
    if passes:
        send = m.o_send_head & 127
        burst_ends = m.o_beat + 1 >= m.send_beats[send]
        place = (m.o_ready_head + m.o_ready) & 7  # where this beat will stand
        m.o_last1 = m.o_last1 & ~(1 << place) | (1 << place if burst_ends else 0)
        m.o_beat += 1
        if burst_ends:
            m.o_beat = 0
            m.p_free_pulse = m.send_end[send]
            m.p_free_half = m.send_half[send]
            m.o_send_head += 1
            m.o_send -= 1
            m.next = t + 1
        m.flow = 1

    # Addresses, a burst on trial, the splitter, the fragments
    if aw_taken:
        m.o_aw -= 1
    if judged:
        tail = (m.o_resp_head + m.o_resp) & 127
        m.resp_done[tail], m.resp_retire[tail] = m.q_done, m.q_retire
        m.o_resp += 1
        tail = (m.o_send_head + m.o_send) & 127
        m.send_beats[tail], m.send_half[tail], m.send_end[tail] = m.q_beats, m.q_half, m.q_chunk_end
        m.o_send += 1
        m.o_aw += 1
    if bursts_ready:
        m.o_trial = moves
    ends = False
    if moves:
        allowed = min(m.page_beats - m.s_address % m.page_beats, m.burst_beats)
        run_ends = m.s_left <= allowed
        line_ends = run_ends and m.s_runs_left <= 1
        ends = line_ends and m.s_lines <= 1
        m.q_beats = m.s_left if run_ends else allowed
        m.q_half, m.q_staged = m.s_half, m.s_staged
        m.q_done, m.q_retire, m.q_chunk_end = m.s_done and line_ends, m.s_retire and ends, m.s_chunk_end and ends
    runs_ready = not m.o_busy or ends
    offers = m.o_state == OFFER and m.i_chunk and t >= m.o_offer_at and runs_ready
    if moves:
        split_burst(m, allowed, run_ends, line_ends, ends)
    if m.o_state == FETCH:
        if m.i_write_tile:
            m.o_state = OFFER
            m.o_offer_at = t + FETCH_CYCLES
            m.next = t + 1
    elif offers:
        offer_runs(m)
        m.next = t + 1
    elif t < m.o_offer_at:
        wake(m, m.o_offer_at)
    if m.i_start:
        m.o_tile[(m.o_tile_head + m.o_tiles) & 3] = m.i_context
        m.o_tiles += 1
    if m.o_trial and not m.q_staged and m.o_staged < m.q_beats:
        wait_for_staged(m)
    if moves or judged or aw_taken or w_taken == 2 or b_taken or m.p_free_pulse:
        m.next = t + 1
    elif w_taken or m.o_valid1:
        m.flow = 1
    return aw_taken, w_taken, b_taken
