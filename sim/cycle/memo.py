"""What the machine did from one state to the next, remembered: the model runs through what it has seen without steps.

A *node* is a key (canonical.py) of a cycle in which a step of the array begins while the sequencer has nothing to do. A
*segment* leads from a node to the next: its cycles, its events, what it adds to counters, counts and frame. A segment
holds wherever the machine comes to the same node again, in another tile, in another layer of the same shape, of another
sample, as long as no long count falls below its limit; where one does, those counts are part of what the segment is
looked up by. Where the descriptor cache looked for something, so are its *surroundings*: the cycle modulo slots, what
the cache holds and the next operations' shapes. (Memoised simulation: Schnarr and Larus, FastSim, ASPLOS 1998.)

Segments that follow one another are put together to chains (chains.py); `walk` follows both.

No segment holds a command, the result of an exit or a completion: those depend on what is in no key.
"""

from fluidnpu.hw.isa import EngineEvent

from .canonical import exchange, written
from .chains import clear_chains
from .counts import LONG, tidy
from .held import put_held
from .interned import clear, fits, intern
from .layout import FRAME, HELD, KEY_WORDS, PC
from .segments import (
    ABSENT,
    AHEAD,
    AROUND,
    AT,
    COUNTERS_THEN,
    COUNTS_NOW,
    EVENTS,
    FIRST_EVENT,
    HINT,
    LAYER_PC,
    LIMITS_NOW,
    LOOKS,
    MASK,
    MISSED,
    MOST_WORDS,
    NEAR,
    PLACES,
    PLAIN_ONE,
    SEGMENTS,
    SINCE,
    VISITS,
    WORDS,
    WRITTEN,
    put_ends,
    put_entries,
    put_events,
    segment_place,
    surroundings,
)  # fmt: skip
from .state import COUNTERS, COUNTS, LINES, NEVER, compiled, part
from .walk import walk

__all__ = ["forget_start", "pass_anchor"]

ENGINE = 0
COMMAND, EXIT_RESULT, RELEASE = (int(EngineEvent[n]) for n in "COMMAND EXIT_RESULT RELEASE".split())

SPARE = 64  # shapes that one anchor may find


@compiled
def forget_start(memo):
    """The segment under way is not one: somebody looked at, or changed, the machine."""
    memo.meta[AT] = -1


@part
def _make_room(memo):
    """Empty everything if something is nearly full."""
    meta = memo.meta
    room = PLACES * meta[SEGMENTS] + 1 < len(memo.table) and meta[WORDS] + MOST_WORDS <= len(memo.segments)
    room = room and fits(memo.nodes, KEY_WORDS)
    room = room and fits(memo.held, KEY_WORDS) and fits(memo.around, KEY_WORDS)
    room = room and memo.shapes.store.used[0] + SPARE < len(memo.shapes.store.rows)
    if not room:
        clear(memo.nodes)
        clear(memo.held)
        clear(memo.around)
        clear(memo.shapes.store)
        clear_chains(memo.chains, memo.about)
        memo.shapes.known[:] = 0
        memo.table[:] = 0
        memo.about[:] = 0
        meta[SEGMENTS] = meta[WORDS] = meta[EVENTS] = 0
        meta[AT] = -1


@compiled
def _shared_pc(m):
    pc = -1
    for s in range(m.slots):
        if m.v_live >> s & 1:
            pc = m.pc[s]
    return pc


@part
def _begin(m, memo, node):
    """A segment begins at a node in this cycle."""
    meta, start = memo.meta, memo.start
    meta[AT], meta[SINCE], meta[FIRST_EVENT], meta[VISITS] = node, m.t, m.n_events, m.visits
    meta[LAYER_PC] = _shared_pc(m)
    m.loads = 0
    for i in range(COUNTERS_THEN):
        start[i] = memo.now[i]
    for i in range(len(COUNTERS)):
        start[COUNTERS_THEN + i] = m.counter[i]


@compiled
def _changes(m, memo, node):
    """(mask, sets) of the segment to ``node``: counts by which it has to be looked up, counts that it sets; limits of
    the others hold."""
    words, rows = memo.nodes.words, memo.nodes.rows
    first, last = rows[memo.meta[AT], 0], rows[node, 0]
    short = sets = 0
    same_layer = memo.meta[LAYER_PC] == _shared_pc(m)
    for j in range(COUNTS):
        bit = 1 << j
        loaded = m.loads & bit
        if words[first + j] != LONG:
            sets |= bit
        elif memo.start[LIMITS_NOW + j] == -NEVER:
            sets |= loaded
        elif loaded or words[last + j] != LONG or (j == LINES and not same_layer):
            short |= bit
    missed = memo.meta[MISSED]
    if missed and not short & ~missed:
        short = missed
    if short:
        memo.about[memo.meta[AT], HINT] = short
    return short, sets | short


@part
def _reach(m, memo, desc, flat, words, looked):
    """The surroundings that the segment under way depends on."""
    if not looked:
        return ABSENT
    start, meta = memo.start, memo.meta
    memo.about[meta[AT], LOOKS] = 1
    furthest = max(m.e_leader_pc, m.k_pc if m.k_state else 0)
    for s in range(m.slots):
        if m.v_live >> s & 1:
            furthest = max(furthest, m.pc[s])
    t = m.t
    m.t = meta[SINCE]
    around = ABSENT
    if furthest < start[PC] + AHEAD:
        around = surroundings(m, memo, desc, flat, words, meta[AT], start, True)
    if around == ABSENT:
        around = surroundings(m, memo, desc, flat, words, meta[AT], start, False)
    m.t = t
    return around


@part
def _end(m, memo, desc, flat, words, trace, node):
    """The segment under way ends at ``node``: remember it."""
    meta, start, now = memo.meta, memo.start, memo.now
    count = m.n_events - meta[FIRST_EVENT]
    if meta[EVENTS] + count > len(memo.events):
        return
    for e in range(meta[FIRST_EVENT], m.n_events):
        if trace[e, 1] == ENGINE and trace[e, 2] in (COMMAND, EXIT_RESULT, RELEASE):
            return
    around = _reach(m, memo, desc, flat, words, m.visits != meta[VISITS] or now[PC] != start[PC])
    mask, sets = _changes(m, memo, node)
    counts = start[COUNTS_NOW:LIMITS_NOW]
    known, place = segment_place(memo.segments, memo.table, meta[AT], around, mask, counts)
    if known >= 0:
        return
    s, words = meta[WORDS], memo.segments
    memo.table[place] = s + 1
    if around == ABSENT and mask == 0:
        memo.about[meta[AT], PLAIN_ONE] = s + 1
    words[s + AROUND], words[s + MASK] = around, mask
    put_ends(words, s, meta[AT], node, m.t - meta[SINCE], start, now, m.contexts)
    put_entries(m, memo, s, mask, sets)
    put_events(words, s, memo.events, meta[EVENTS], trace, meta[FIRST_EVENT], count, meta[SINCE])
    meta[EVENTS] += count
    meta[SEGMENTS] += 1


@part
def _present_node(m, memo, raw, desc, flat, words):
    """Number of the node of the present cycle; frame, counts and limits in ``now``."""
    now, work = memo.now, memo.work
    frame, counts, limits = now[:FRAME], now[COUNTS_NOW:LIMITS_NOW], now[LIMITS_NOW:COUNTERS_THEN]
    tidy(m)
    length = exchange(m, raw, desc, flat, words, memo.shapes, work, frame, work, counts, limits, True)
    node = intern(memo.nodes, work, length)
    frame[HELD] = intern(memo.held, work, put_held(m, desc, flat, words, memo.shapes, frame, work))
    about = memo.about[node]
    about[WRITTEN], about[NEAR] = written(m) - frame[PC], 1
    for s in range(m.slots):
        if m.v_live >> s & 1 and m.pc[s] > frame[PC] + 1:
            about[NEAR] = 0
    memo.limits[node] = limits
    return node


@compiled
def pass_anchor(m, raw, desc, flat, words, memo, trace, until):
    """At a cycle in which the array begins a step and the sequencer, in "Decide", has no command: remember how the
    machine came here, and go on as far as it is known. True: the machine is in a later cycle."""
    if memo.meta[AT] >= 0 and memo.meta[SINCE] == m.t:
        return False
    _make_room(memo)
    node = _present_node(m, memo, raw, desc, flat, words)
    if memo.meta[AT] >= 0:
        _end(m, memo, desc, flat, words, trace, node)
    t, now = m.t, memo.now
    node = walk(m, memo, desc, flat, words, trace, node, until)
    moved = m.t != t
    if moved:
        key = memo.nodes.words[memo.nodes.rows[node, 0] :]
        held = memo.held.words[memo.held.rows[now[HELD], 0] :]
        frame, counts, limits = now[:FRAME], now[COUNTS_NOW:LIMITS_NOW], now[LIMITS_NOW:COUNTERS_THEN]
        exchange(m, raw, desc, flat, words, memo.shapes, key, frame, held, counts, limits, False)
        m.e_seen = -1
        limits[:] = memo.limits[node]
    _begin(m, memo, node)
    return moved
