"""Cycles in which nothing but beats moves: read beats come in, weight beats go to the loader, write beats go out.

Such a cycle changes counts by one; a row of them is taken at once. It ends before the last beat of a burst, of a weight
set or of parameters, and where a reader gets the room that it waits for.
"""

from .bus import WEIGHT, burst_length
from .state import COUNTER, compiled
from .weights import beats_to_end
from .writer import PREFETCH

__all__ = ["flow_cycles", "flow_on"]

COUNT_WRITE = COUNTER["write_beats"]
COUNT_OTHERS = tuple(COUNTER[f"{name}_beats"] for name in ("weight", "residual", "stripe", "descriptor", "exit"))


@compiled
def _weights_arrive(m):
    return m.r_shown and m.r_client == WEIGHT


@compiled
def _read_cycles(m, most):
    """Beats of the open burst before its last one; without a beat there is nothing to count."""
    if not m.r_shown:
        return most
    if m.beats_per_256:
        return 0
    return min(most, m.r_left)


@compiled
def _weight_cycles(m, layer, most):
    """Of the weight FIFO and the loader (after levels of this cycle)."""
    level = m.ws_write - m.ws_read
    arrive = _weights_arrive(m)
    if arrive and (
        m.ws_dropping or (not m.ws_ahead_written and m.rec_tag[WEIGHT, m.r_rec_head[WEIGHT]] != m.ws_running)
    ):
        return 0
    if m.r_rest[WEIGHT] and not m.r_off[WEIGHT]:
        most = min(most, burst_length(m, WEIGHT) - m.ws_space)  # room that it waits for
    if not m.i_takes_set and not m.i_takes_par:
        quiet = (m.ws_valid and not m.i_wl_ready) or (level == 0 and not arrive and not m.ws_valid)
        return most if quiet else 0
    if level == 0:
        return 0
    ahead = m.ws_running_left == 0
    if m.ws_front_ahead != ahead or (ahead and not m.ws_ahead_fetched):
        return 0
    if not arrive:
        most = min(most, level)
    if not ahead:
        most = min(most, m.ws_running_left)
    return min(most, beats_to_end(m, layer))


@compiled
def _write_cycles(m, most):
    """Of the beat sender: all beats on their way are of one burst and not its last."""
    if not m.o_ready and not m.o_valid1:
        return most
    if not m.wready and not m.o_valid1 and (not m.o_send or m.o_ready >= PREFETCH):
        return most
    if m.beats_per_256 or not m.wready or m.o_ready != 1 or not m.o_valid1 or not m.o_send:
        return 0
    if m.o_last1 >> m.o_ready_head & 1 or m.o_last1 >> (m.o_ready_head + 1 & 7) & 1:
        return 0
    return min(most, m.send_beats[m.o_send_head & 127] - m.o_beat - 1)


@compiled
def flow_cycles(m, layer, most):
    """Of the ``most`` next cycles, those in which nothing but beats moves; 0: this one has to be stepped."""
    cycles = _weight_cycles(m, layer, _read_cycles(m, most))
    return max(0, _write_cycles(m, cycles))


@compiled
def flow_on(m, cycles):
    """Registers after ``cycles`` of them."""
    if m.r_shown:
        m.r_left -= cycles
        m.r_last = m.r_left == 0
        m.counter[COUNT_OTHERS[m.r_client]] += cycles
        if m.r_client == WEIGHT:
            m.ws_write += cycles
    if m.i_takes_set or m.i_takes_par:
        m.ws_read += cycles
        m.ws_space += cycles
        if m.ws_running_left:
            m.ws_running_left -= cycles
        else:
            m.ws_ahead_left -= cycles
            m.ws_ahead_kept -= cycles
        if m.i_takes_par:
            m.wl_par_beats -= cycles
        else:
            m.wl_beat += cycles
    if m.o_valid1:
        m.o_beat += cycles
        m.counter[COUNT_WRITE] += cycles
        m.o_ready_head = m.o_ready_head + cycles & 7
        m.o_last1 = 0
