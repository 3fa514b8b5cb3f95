"""The tile model's time: from event to event."""

from .engine import deal, eligible, ending, finish_exit, index, move, precedes, release, revoke, start_tile
from .state import MACHINE, OPERATION, compiled

__all__ = ["advance", "command"]

LAYER, JUMP, EXIT = 0, 1, 2
EXITS = 16  # most exits of a program
EXIT_FIXED = 12  # cycles of the exit unit, beside the memory's latency, logits, table and two looks at every class
ADMIT, BATCH, LEAVE, CANCEL = range(4)
BUS_FULL = 1.1  # a tile whose weights take the bus for more than 1 / BUS_FULL of its time


@compiled
def outranked(m, d):
    """The dealt tile has to give way."""
    rank = -1
    for s in range(m.slots):
        if m.member[s] and eligible(m, s):
            rank = max(rank, m.priority[s])
    if rank < 0:
        return True
    for s in range(m.slots):
        over = m.alive[s] and not m.member[s] and m.priority[s] > rank and m.known[s] <= m.t
        if over and d[index(m, s)].kind == LAYER and eligible(m, s):
            return True
    return False


@compiled
def exit_end(m, o):
    """When the exit unit has decided; its reads come last on the bus."""
    tag = 1 + m.program[m.x_slot] * EXITS + o.exit
    beats = o.logit_beats + (0 if m.x_tag[o.exit % len(m.x_tag)] == tag else o.table_beats)
    m.x_tag[o.exit % len(m.x_tag)] = tag
    now, queues = m.seq_free, 0  # clients whose reads fill the bus
    if m.a_end > now and 256 * (m.a_end - m.a_begin) < BUS_FULL * m.a_beats * m.beat_256:
        queues += 1
    if m.n_dealt and m.n_waits <= now < m.n_loaded:
        queues += 1
        queues += m.n_weights <= now < m.n_weights + m.fifo_beats
    now += queues * max(0, m.in_flight * m.burst_beats - m.read_latency) * m.beat_256 // 256
    return now + m.read_latency + EXIT_FIXED + beats * m.beat_256 // 256 + 2 * o.classes


@compiled
def act(m, d, Y):
    """The sequencer's next action, if one is possible in this cycle; True if so."""
    for i in range(m.live):
        s = m.order[i]
        if m.known[s] <= m.t and not m.member[s] and eligible(m, s) and d[index(m, s)].kind == JUMP:
            o = d[index(m, s)]
            m.seq_free = m.t + 2
            move(m, d, s, m.op[s] + 1 if m.leave[s] or m.exits[s] >> o.exit & 1 else o.target)
            return True
    if m.x_slot >= 0 and m.x_end <= m.t:
        m.seq_free = m.t + 2
        finish_exit(m, d)
        return True
    if m.x_slot < 0:
        first = -1
        for i in range(m.live):
            s = m.order[i]
            if m.known[s] > m.t or m.member[s] or m.done[s] > m.t or ending(m, s):
                continue
            if d[index(m, s)].kind == EXIT and (first < 0 or precedes(m, s, first)):
                first = s
        if first >= 0:
            m.seq_free = m.t + m.live + 4
            m.x_slot = first
            m.x_end = exit_end(m, d[index(m, first)])
            return True
    for i in range(m.live):
        s = m.order[i]
        if ending(m, s) and m.done[s] <= m.t and not m.member[s] and m.x_slot != s and m.drop_until <= m.t:
            m.seq_free = m.t + 2
            release(m, s)
            return True
    if m.n_dealt and outranked(m, d):
        revoke(m, d, Y)
        return True
    if m.n_dealt or m.drop_until > m.t:
        return False
    leader, waiting = -1, 0
    for i in range(m.live):
        s = m.order[i]
        if not eligible(m, s):
            continue
        if m.known[s] > m.t:
            return False
        if d[index(m, s)].kind == LAYER:
            waiting |= 1 << s
            if leader < 0 or precedes(m, s, leader):
                leader = s
    if leader < 0:
        return False
    members, candidates = deal(m, d, Y, leader)
    m.preemptions += bool(m.previous & waiting) and not m.previous & candidates
    m.previous = members
    return True


@compiled
def next_event(m, until):
    """The first cycle behind the present one in which something may become possible."""
    t, best = m.t, until
    if m.seq_free > t:
        best = min(best, m.seq_free)
    if m.n_dealt:
        best = min(best, max(m.n_start, t + 1))
    if m.x_slot >= 0 and m.x_end > t:
        best = min(best, m.x_end)
    if m.drop_until > t:
        best = min(best, m.drop_until)
    for i in range(m.live):
        s = m.order[i]
        if m.known[s] > t:
            best = min(best, m.known[s])
        if m.done[s] > t:
            best = min(best, m.done[s])
    return best


@compiled
def advance(raw, operations, Y, until, irq):
    """Go on to cycle ``until``, or to the first one in which a completion waits if ``irq``; returns the cycle.

    raw : int64 [n], the machine; operations : int64 [places, n]; Y : int64 [slots, operations, lines], the cycle in
    which a line of a sample is in memory
    """
    m = raw.view(MACHINE)[0]
    d = operations.reshape(operations.size).view(OPERATION)
    while True:
        if irq and m.c_level:
            return m.t
        if m.n_dealt and m.n_start <= m.t:
            start_tile(m, d, Y)
        if m.seq_free <= m.t and act(m, d, Y):
            if m.seq_free <= m.t:
                m.seq_free = m.t + 1
            continue
        if m.t >= until:
            return m.t
        m.t = next_event(m, until)


@compiled
def command(raw, operations, opcode, mask, a, b, c, e):
    """A command takes effect in the present cycle.

    ADMIT : slot ``mask``, a: tag, b: priority | runnable << 8 | ride << 9, c: exits | confident << 16, e: program
    BATCH : slots ``mask``, a: priority, b: runnable, c: ride, e: commit. LEAVE, CANCEL : slots ``mask``
    """
    m = raw.view(MACHINE)[0]
    d = operations.reshape(operations.size).view(OPERATION)
    if opcode == ADMIT:
        s = mask
        m.alive[s], m.tag[s], m.priority[s], m.runnable[s], m.ride[s] = 1, a, b & 255, b >> 8 & 1, b >> 9 & 1
        m.exits[s], m.confident[s], m.program[s] = c & 0xFFFF, c >> 16, e
        m.leave[s] = m.cancelled[s] = m.finished[s] = m.decided[s] = m.group[s] = m.member[s] = m.pending[s] = 0
        m.exit[s] = m.head[s] = m.done[s] = 0
        m.age[s] = m.admitted
        m.admitted += 1
        m.order[m.live] = s
        m.live += 1
        move(m, d, s, 0)
        return
    for s in range(m.slots):
        if opcode == BATCH:
            if mask >> s & 1 and m.alive[s]:
                m.pending[s], m.pending_priority[s], m.pending_runnable[s], m.pending_ride[s] = 1, a, b, c
            if e and m.pending[s]:
                m.priority[s], m.runnable[s] = m.pending_priority[s], m.pending_runnable[s]
                m.ride[s], m.pending[s] = m.pending_ride[s], 0
        elif mask >> s & 1 and m.alive[s]:
            if opcode == LEAVE:
                m.leave[s] = 1
            else:
                m.cancelled[s] = 1
