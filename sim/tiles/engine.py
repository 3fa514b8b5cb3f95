"""Actions of the engine of docs/architecture.md at tile granularity.

The rules are those of sim/engine_model.py (leader, candidates, dealing, revocation, exits, rigid and unstacked modes);
the sequencer's actions take the cycles that hw/engine takes. A started tile always finishes, so the cycles in which its
lines are in memory are known when it starts.
"""

from fluidnpu.hw.isa import Status

from .durations import drain_of_line, load_cycles, there, tile_duration
from .state import COMPLETIONS, STARTED, compiled

__all__ = ["deal", "eligible", "ending", "finish_exit", "index", "move", "precedes", "release", "revoke", "start_tile"]

OK, CANCELLED = int(Status.OK), int(Status.CANCELLED)
FETCH = 78  # cycles of a descriptor that no other slot has fetched, beside the memory's latency
KNOWN = 4  # of one that the cache holds


@compiled
def ending(m, s):
    return m.cancelled[s] or m.finished[s]


@compiled
def eligible(m, s):
    if not m.alive[s] or not m.runnable[s] or ending(m, s):
        return False
    if m.rigid:
        for other in range(m.slots):
            if m.alive[other] and m.group[other]:
                return bool(m.group[s])
    return True


@compiled
def move(m, d, s, op):
    """Slot ``s`` stands at the beginning of ``op``; its descriptor has to be found."""
    m.op[s], m.line[s] = op, 0
    for other in range(m.slots):
        if other != s and m.alive[other] and m.program[other] == m.program[s] and m.op[other] == op:
            m.known[s] = max(m.t, m.known[other]) + KNOWN
            return
    m.fetch_free = max(m.t, m.fetch_free) + m.read_latency + FETCH - (50 if d[index(m, s)].kind else 0)
    m.known[s] = m.fetch_free


@compiled
def index(m, s):
    """Place of the slot's operation in the list of all programs' operations."""
    return m.program[s] * m.operations + m.op[s]


@compiled
def precedes(m, s, other):
    """Slot ``s`` precedes ``other`` as leader."""
    if m.priority[s] != m.priority[other]:
        return m.priority[s] > m.priority[other]
    here, place = m.program[s] * m.operations + m.op[s], m.program[other] * m.operations + m.op[other]
    if here != place:
        return here < place
    if m.line[s] != m.line[other]:
        return m.line[s] < m.line[other]
    return m.age[s] < m.age[other]


@compiled
def release(m, s):
    place = (m.c_head + m.c_level) % COMPLETIONS
    m.c_slot[place], m.c_tag[place], m.c_exit[place] = s, m.tag[s], m.exit[s]
    m.c_status[place] = CANCELLED if m.cancelled[s] else OK
    m.c_stamp[place] = m.stamp[s] if m.decided[s] else m.t
    m.c_level += 1
    m.alive[s] = m.group[s] = m.pending[s] = 0
    m.live -= 1
    behind = 0
    for i in range(m.live + 1):
        behind += m.order[i] == s
        if behind and i < m.live:
            m.order[i] = m.order[i + 1]


@compiled
def finish_exit(m, d):
    """The exit unit has decided."""
    s = m.x_slot
    m.x_slot = -1
    o = d[index(m, s)]
    decides = m.leave[s] or o.last or m.confident[s] >> o.exit & 1
    known = m.decided[s]
    m.head[s] = 1 + o.exit
    if decides and not known:
        m.decided[s], m.exit[s], m.stamp[s] = 1, o.exit, m.t
    if o.last or (not m.rigid and (decides or known)):
        m.finished[s] = 1
    else:
        move(m, d, s, m.op[s] + 1)


@compiled
def revoke(m, d, Y):
    """The dealt tile is dropped: its members go back."""
    m.revocations += 1
    m.n_dealt = 0
    for s in range(m.slots):
        if m.member[s]:
            if m.op[s] != m.n_op:
                m.op[s], m.known[s] = m.n_op, m.t + KNOWN
            m.line[s] = m.before_line[s]
            m.member[s] = 0
    waits = min(max(0, m.n_loaded - m.t), m.read_latency + 2 * m.burst_beats)
    m.drop_until = m.t + 2 + waits
    m.seq_free = m.t + 2 + m.n_fragments


@compiled
def inputs_there(m, o, Y, s, line):
    row = min(line // o.nseg * o.sy - o.pad + o.kh, o.in_h)
    if there(Y, s, o.producer, row * o.producer_nseg - 1) > m.t:
        return False
    return not o.residual or there(Y, s, o.res_producer, (line // o.nseg + 1) * o.res_nseg - 1) <= m.t


@compiled
def deal(m, d, Y, leader):
    """The next tile; its loading begins when the dealer has gone through it."""
    o = d[index(m, leader)]
    here, rank = index(m, leader), m.priority[leader]
    candidates, total, mask = 1, o.lines - m.line[leader], 1 << leader
    for i in range(m.live):
        s = m.order[i]
        if s != leader and m.ride[s] and index(m, s) == here and eligible(m, s) and m.known[s] <= m.t:
            candidates += 1
            total += o.lines - m.line[s]
            mask |= 1 << s
    v = 0 if m.unstacked else o.vsel >> 2 * (candidates - 1) & 3
    subs = o.kr[v]
    most = min(o.max_lines[v], (total + subs - 1) // subs)
    cycles = 2 * m.live + 8
    m.n_program, m.n_op, m.n_variant, m.n_candidates = m.program[leader], m.op[leader], v, candidates
    count = sub = used = stripe = longest = dealt = members = 0
    for i in range(-1, m.live):
        s = leader if i < 0 else m.order[i]
        if (i >= 0 and s == leader) or not mask >> s & 1:
            continue
        line, fresh, got = m.line[s], True, 0
        while line < o.lines and sub < subs:
            cost = o.kh if fresh else min(o.sy, o.kh)
            cycles += 1
            if used >= most or stripe + cost > o.stripe_lines[v]:
                sub += 1
                used = stripe = 0
                fresh = True
                continue
            if m.priority[s] < rank:
                cycles += 2
                if not inputs_there(m, o, Y, s, line):
                    break
            if fresh:
                m.f_slot[count], m.f_line[count], m.f_lines[count], m.f_sub[count] = s, line, 0, sub
                count += 1
                fresh = False
            m.f_lines[count - 1] += 1
            line, used, stripe, got = line + 1, used + 1, stripe + cost, got + 1
            longest = max(longest, used)
        cycles += 2
        if got:
            members |= 1 << s
            m.member[s], m.before_line[s] = 1, m.line[s]
            dealt += got
            if line == o.lines:
                move(m, d, s, m.op[s] + 1)
            else:
                m.line[s] = line
    if m.rigid:
        lives = False
        for s in range(m.slots):
            lives = lives or (m.alive[s] and m.group[s])
        for s in range(m.slots):
            if not lives:
                m.group[s] = mask >> s & 1
    m.n_dealt, m.n_longest, m.n_total, m.n_fragments = 1, longest, dealt, count
    m.seq_free = m.t + cycles
    m.n_loaded = load_cycles(m, o, Y, m.seq_free)
    m.n_start = max(m.n_loaded, m.a_end, m.retired[(m.started - m.trackers) % STARTED])
    if m.n_start > m.a_end:
        m.n_start = max(m.n_start, m.seq_free + 1)
    return members, mask


@compiled
def start_tile(m, d, Y):
    """The array takes the dealt tile: from now on everything about it is known."""
    o = d[m.n_program * m.operations + m.n_op]
    v = m.n_variant
    duration = max(2, tile_duration(m, o, v, m.n_longest, m.n_total) + o.extra[m.n_candidates])
    o.seen[m.n_candidates] += 1
    end = max(m.t, m.o_free if o.vector else m.o_before) + duration  # two banks of sums; a vector tile uses none
    c_tiles = o.full[v] + (o.part[v] > 0)
    if not o.vector and c_tiles > 1:
        end = max(end, m.o_free + duration * (c_tiles - 1) // c_tiles)
    m.busy += duration
    m.a_begin, m.a_end, m.a_beats = m.t, end, o.weight_beats[v]
    m.read_beats += o.weight_beats[v]
    m.written_beats += m.n_total * o.seg_w * o.out_beats
    line_time = drain_of_line(m, o, v)
    drained = max(end, m.o_free)
    m.o_before, m.o_free = m.o_free, drained + line_time * m.n_total
    now = drained + o.first[v] - line_time
    for i in range(m.n_fragments):
        s = m.f_slot[i]
        for line in range(m.f_line[i], m.f_line[i] + m.f_lines[i]):
            now += line_time
            Y[s, m.n_op, line] = now
    for s in range(m.slots):
        if m.member[s]:
            m.done[s] = now + 1
            m.member[s] = 0
    m.retired[m.started % STARTED] = now + 1
    m.started += 1
    m.tiles += 1
    m.n_dealt = 0
