"""External memory (sim/rtl/memory.cpp), read arbiter and burst readers (hw/memory/)."""

from fluidnpu.hw.isa import Client

from .addresses import settle
from .state import COUNTER, RING, compiled

__all__ = [
    "RESIDUAL",
    "WEIGHT",
    "arbitrate",
    "burst_length",
    "form_bursts",
    "outstanding",
    "step_memory",
    "step_readers",
    "wake",
]

WEIGHT, RESIDUAL, STRIPE, DESCRIPTOR, EXIT = (int(c) for c in Client)
CLIENT_COUNT = len(Client)
COUNT_READ_BURSTS, COUNT_WRITE_BURSTS = COUNTER["read_bursts"], COUNTER["write_bursts"]
COUNT_WRITE_BEATS = COUNTER["write_beats"]
COUNT_WEIGHT, COUNT_STRIPE, COUNT_RESIDUAL = (COUNTER[f"{name}_beats"] for name in ("weight", "stripe", "residual"))
COUNT_DESCRIPTOR, COUNT_EXIT = COUNTER["descriptor_beats"], COUNTER["exit_beats"]


@compiled
def wake(m, t):
    """Something happens in cycle ``t`` at the latest."""
    if t < m.next:
        m.next = t


@compiled
def outstanding(m, c):
    """Formed bursts of client ``c`` whose beats did not all come."""
    return m.r_off[c] != 0 or m.r_records[c] != 0


@compiled
def arbitrate(m):
    """The client whose burst the arbiter takes in this cycle, -1: none. (AR is always ready.)"""
    for c in range(CLIENT_COUNT):
        if m.r_off[c] and m.r_records[c] < m.in_flight:
            m.i_taken_beats = m.r_off_beats[c]
            return c
    return -1


@compiled
def burst_length(m, c):
    """Beats of the next burst of client ``c``'s request."""
    return min(m.burst_beats, m.r_rest_beats[c], m.page_beats - m.r_rest_addr[c] % m.page_beats)


@compiled
def form_bursts(m, c, taken, flush):
    """What client ``c``'s reader does in this cycle: i_formed, i_formed_beats, i_request (takes a request)."""
    m.i_formed[c] = 0
    last = False
    if m.r_rest[c]:
        length = burst_length(m, c)
        last = length == m.r_rest_beats[c]
        m.i_formed_beats[c] = length
        room = c != WEIGHT or length <= m.ws_space
        if (not m.r_off[c] or taken) and room and not flush:
            m.i_formed[c] = 1
    m.i_request[c] = not m.r_rest[c] or (m.i_formed[c] and last)


@compiled
def step_reader(m, c, taken, flush, request, addr, beats, tag, burst_ends):
    """Registers of client ``c``'s reader. ``request``: one is transferred (addr in beats)."""
    if taken:
        m.r_off[c] = 0
        place = (m.r_rec_head[c] + m.r_records[c]) & 63
        m.rec_last[c, place] = m.r_off_last[c]
        m.rec_tag[c, place] = m.r_off_tag[c]
        m.r_records[c] += 1
    if burst_ends:
        m.r_records[c] -= 1
        m.r_rec_head[c] = (m.r_rec_head[c] + 1) & 63
    if m.i_formed[c]:
        length = m.i_formed_beats[c]
        m.r_off[c] = 1
        m.r_off_beats[c] = length
        m.r_off_last[c] = length == m.r_rest_beats[c]
        m.r_off_tag[c] = m.r_rest_tag[c]
        m.r_rest_beats[c] -= length
        m.r_rest_addr[c] = settle(m, m.r_rest_addr[c] + length, m.r_rest_beats[c], 0)
        m.r_rest[c] = m.r_rest_beats[c] != 0
    if request:
        m.r_rest[c] = 1
        m.r_rest_addr[c] = settle(m, addr, beats, 0)
        m.r_rest_beats[c] = beats
        m.r_rest_tag[c] = tag
    if flush:
        m.r_rest[c] = 0
    if taken or burst_ends or m.i_formed[c] or request or flush:
        m.next = m.t + 1


@compiled
def step_readers(m, taken):
    """Readers of descriptors and exits, which have a queue of two requests in front."""
    for c in (DESCRIPTOR, EXIT):
        if not (m.q_count[c] or m.r_rest[c] or m.r_off[c] or m.r_records[c]):
            continue
        form_bursts(m, c, taken == c, False)
        request = m.q_count[c] != 0 and m.i_request[c] != 0
        ends = m.i_beat == c and m.i_last != 0
        step_reader(m, c, taken == c, False, request, m.q_addr[c, 0], m.q_n[c, 0], m.q_tag[c, 0], ends)
        if request:
            m.q_addr[c, 0], m.q_n[c, 0], m.q_tag[c, 0] = m.q_addr[c, 1], m.q_n[c, 1], m.q_tag[c, 1]
            m.q_count[c] -= 1


@compiled
def _credit(m, credit, since):
    """A token bucket after the edges of cycles ``since`` + 1 .. t."""
    if credit >= 256:
        return credit
    edges = min(m.t - since, -(-(256 - credit) // m.beats_per_256))
    return credit + edges * m.beats_per_256


@compiled
def _read_beat(m):
    """The beat that is shown in the next cycle, if any."""
    t = m.t
    if not m.r_open:
        ready = m.reads_ready[m.reads_head]
        if t + 1 < ready:
            wake(m, ready - 1)
            return
        m.r_open = 1
        m.r_left = m.reads_beats[m.reads_head]
        m.r_start = t + 1 + m.burst_overhead
    if t + 1 < m.r_start:
        wake(m, m.r_start - 1)
        return
    if m.beats_per_256:
        if m.r_credit < 256:
            wake(m, t - (m.r_credit - 256) // m.beats_per_256)
            return
        m.r_credit -= 256
    m.r_shown = 1
    m.r_left -= 1
    m.r_client = m.reads_client[m.reads_head]
    m.r_last = m.r_left == 0
    m.flow = 1


@compiled
def step_memory(m, taken, aw_taken, w_taken, b_taken):
    """One edge of the memory: what was transferred in this cycle, what is shown in the next one.

    taken : client of the burst that enters the AR register, or -1
    aw_taken, w_taken (0, 1, 2: with its burst's last beat), b_taken : transfers on the write channels
    """
    t = m.t
    if m.ar_valid:
        place = (m.reads_head + m.reads_count) % RING
        m.reads_client[place], m.reads_beats[place] = m.ar_client, m.ar_beats
        m.reads_ready[place] = t + m.read_latency
        m.reads_count += 1
        m.counter[COUNT_READ_BURSTS] += 1
    m.ar_valid = taken >= 0
    if taken >= 0:
        m.ar_client, m.ar_beats = taken, m.i_taken_beats
        m.next = t + 1

    if m.r_shown:
        if m.r_client == WEIGHT:
            m.counter[COUNT_WEIGHT] += 1
        elif m.r_client == STRIPE:
            m.counter[COUNT_STRIPE] += 1
        elif m.r_client == RESIDUAL:
            m.counter[COUNT_RESIDUAL] += 1
        elif m.r_client == DESCRIPTOR:
            m.counter[COUNT_DESCRIPTOR] += 1
        else:
            m.counter[COUNT_EXIT] += 1
        m.r_shown = 0
        if m.r_last:
            m.next = t + 1
            m.reads_head = (m.reads_head + 1) % RING
            m.reads_count -= 1
            m.r_open = 0
    if m.beats_per_256:
        m.r_credit = _credit(m, m.r_credit, m.r_credit_at)
    if m.reads_count:
        _read_beat(m)

    if aw_taken:
        m.counter[COUNT_WRITE_BURSTS] += 1
        m.aw_count += 1
    if w_taken:
        m.counter[COUNT_WRITE_BEATS] += 1
    if w_taken == 2:
        m.wlast_count += 1
        m.w_blocked = t + 1 + m.burst_overhead
    while m.matched < min(m.aw_count, m.wlast_count):
        m.w_ready[m.matched % RING] = t + m.write_latency
        m.matched += 1
        m.b_waiting += 1
    m.wready = t + 1 >= m.w_blocked
    if not m.wready:
        wake(m, m.w_blocked - 1)
    if m.beats_per_256:
        if w_taken:
            m.w_credit = _credit_before(m) - 256
            if m.w_credit < 256:
                m.w_credit += m.beats_per_256
        else:
            m.w_credit = _credit(m, m.w_credit, m.r_credit_at)
        if m.w_credit < 256:
            m.wready = 0
            wake(m, t - (m.w_credit - 256) // m.beats_per_256)
        m.r_credit_at = t
    if b_taken:
        m.b_shown = 0
        m.b_head += 1
        m.b_waiting -= 1
    if not m.b_shown and m.b_waiting:
        ready = m.w_ready[m.b_head % RING]
        if t + 1 >= ready:
            m.b_shown = 1
        else:
            wake(m, ready - 1)
    if aw_taken or w_taken == 2 or b_taken or m.b_shown:
        m.next = t + 1
    elif w_taken or (m.o_ready and m.wready):
        m.flow = 1


@compiled
def _credit_before(m):
    """The write bucket after the edge before this one."""
    if m.w_credit >= 256:
        return m.w_credit
    edges = min(m.t - 1 - m.r_credit_at, -(-(256 - m.w_credit) // m.beats_per_256))
    return m.w_credit + edges * m.beats_per_256
