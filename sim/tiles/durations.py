"""How long a dealt tile takes: loading, multiplying, draining. The formulas are the array's contract
(docs/architecture.md, "Array: order and time"); the constants around it are measured (calibration.py)."""

from .state import compiled

__all__ = ["drain_of_line", "load_cycles", "there", "tile_duration"]


@compiled
def _steps(m, o, v, last, rows):
    """Cycles of the steps of a whole c-tile (last 0) or of the narrower last one (1)."""
    words = o.words[v, last] * m.beat_256 // 256
    return max(o.count[v, last] * max(rows, words, o.narrow), o.count[v, last] * words)


@compiled
def _drain(m, o, v, last, rows):
    """Cycles in which the epilogue empties the sums of a c-tile."""
    return rows * max(o.drain_cycles[v, last], o.drain_beats[v, last] * m.beat_256 // 256)


@compiled
def tile_duration(m, o, v, longest, total):
    """Cycles of the array for a tile of variant ``v`` with ``longest`` lines in a sub-tile, ``total`` in all; the
    drain of the last c-tile is not among them."""
    rows, total_rows = longest * o.seg_w, total * o.seg_w
    if o.vector:
        subs = min(o.kr[v], (total + longest - 1) // longest)
        row = max(o.taps, subs * o.drain_cycles[v, 0])
        beats = max(o.parameters[v, 0], total_rows * o.drain_beats[v, 0]) * m.beat_256 // 256
        cycles = o.full[v] * max(rows * row, beats)
    else:
        cycles, drain = 0, 0
        if o.full[v]:
            steps, drain = _steps(m, o, v, 0, rows), _drain(m, o, v, 0, total_rows)
            cycles = steps + (o.full[v] - 1) * max(steps, drain)
        if o.part[v]:
            cycles += max(_steps(m, o, v, 1, rows), drain)
    return cycles


@compiled
def drain_of_line(m, o, v):
    """Cycles of the epilogue for a line in the tile's last c-tile."""
    if o.vector:
        return 4
    last = 1 if o.part[v] else 0
    return o.seg_w * max(o.drain_cycles[v, last], o.drain_beats[v, last] * m.beat_256 // 256)


@compiled
def there(Y, s, producer, line):
    """Cycle from which on a line of a layer of slot ``s`` is in memory (producer -1: the image)."""
    return 0 if producer < 0 else Y[s, producer, line]


@compiled
def _transfer(now, cycles, others, share, ahead):
    """When a transfer of ``cycles`` ends that may begin at ``now``: until ``others`` the running tile's weights take
    their share of the bus, then the dealt tile's own go first for ``ahead`` cycles."""
    if now < others:
        room = (others - now) * (1 - share)
        if cycles <= room:
            return now + cycles / (1 - share)
        now, cycles = others, cycles - room
    return max(now, others + ahead) + cycles


@compiled
def load_cycles(m, o, Y, begin):
    """Cycle in which the dealt tile is loaded, if loading begins in cycle ``begin``."""
    slow = m.beat_256 / 256
    now = float(begin + m.read_latency)
    # The weights of a tile stream ahead of the array by what the FIFO holds.
    running = max(1, m.a_end - m.a_begin)
    share = min(0.95, m.a_beats * slow / running)
    others = m.a_end - min(m.fifo_beats, m.a_beats) * running / max(1, m.a_beats)
    others = max(now, others)
    ahead = min(o.weight_beats[m.n_variant], m.fifo_beats) * slow
    bursts = (o.row_beats + m.burst_beats - 1) // m.burst_beats
    row_time = max(o.row_beats * slow, bursts * (m.read_latency + 4) / m.in_flight)
    if o.residual:  # the first chunk's operands
        for i in range(m.n_fragments):
            s, first = m.f_slot[i], m.f_line[i]
            for line in range(first, first + m.f_lines[i]):
                when = there(Y, s, o.res_producer, (line // o.nseg + 1) * o.res_nseg - 1)
                now = _transfer(max(now, when + m.read_latency), o.res_beats * slow, others, share, ahead)
                m.read_beats += o.res_beats
    m.n_waits, m.n_weights = 0, int(others)
    for i in range(m.n_fragments):
        s, known = m.f_slot[i], -1  # rows below ``known`` are there already
        for line in range(m.f_line[i], m.f_line[i] + m.f_lines[i]):
            top = line // o.nseg * o.sy - o.pad
            for row in range(max(0, top, known), min(o.in_h, top + o.kh)):
                when = there(Y, s, o.producer, (row + 1) * o.producer_nseg - 1)
                if when + m.read_latency + 4 > now:
                    now, m.n_waits = when + m.read_latency + 4.0, when
                now = _transfer(now, row_time, others, share, ahead)
                m.read_beats += o.row_beats
            known = top + o.kh if o.nseg == 1 else -1
    return int(now) + 2
