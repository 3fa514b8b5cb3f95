"""The memo's tables: nodes, segments between them, how a segment is found (memo.py says what they are)."""

from collections import namedtuple

import numpy as np

from .interned import intern, mix, new_store
from .layout import CONTEXT, FRAME, HELD, KEY_WORDS, PC
from .shapes import NO_SHAPE, fetched_from, new_shapes, shape_of, token
from .state import COUNTERS, COUNTS, CTILES, EVENT_FIELDS, LINES, NEVER, compiled, part

__all__ = [
    "ABSENT",
    "AHEAD",
    "AROUND",
    "AT",
    "CHAINED",
    "CHANGES",
    "CONTEXTS",
    "COUNTED",
    "COUNTERS_THEN",
    "COUNTS_NOW",
    "CYCLES",
    "ENTRIES",
    "EVENT",
    "EVENTS",
    "EVENT_COUNT",
    "FIRST_EVENT",
    "FLIPS",
    "FROM_CONTEXT",
    "FROM_CTILES",
    "FROM_LINES",
    "FROM_PC",
    "HELD_THEN",
    "HINT",
    "KEY_COUNTS",
    "LAYER_PC",
    "LIMITS_NOW",
    "LOOKS",
    "MASK",
    "MISSED",
    "MOST_WORDS",
    "NEAR",
    "NODE",
    "OPERATIONS",
    "PLACES",
    "PLAIN_ONE",
    "SEGMENTS",
    "SET",
    "SINCE",
    "TAKE",
    "TAKEN",
    "TAKE_ANY",
    "TARGET",
    "VISITS",
    "WORDS",
    "WRITTEN",
    "Memo",
    "fitting",
    "new_memo",
    "put_ends", "put_entries", "put_events",
    "segment_place",
    "surroundings",
]  # fmt: skip

Memo = namedtuple("Memo", "nodes held around shapes about limits segments table events meta now start work chains")
Memo.__doc__ += """: numpy arrays and stores of vectors.

nodes, held, around : keys, what the descriptor cache held, surroundings; shapes : of operations
about [node, columns below], limits [node, counts]
segments : int32, records one behind the other (below); table : hash table of their first words + 1
events [n, fields]: cycles from the segment's start
meta : how much there is, where the segment under way began
now, start : frame, counts, limits of the present cycle and of the start of the segment, counters at its start
work : int32, a key; chains : chains.py
"""

SEGMENTS, WORDS, EVENTS, AT, SINCE, FIRST_EVENT, VISITS, LAYER_PC, MISSED, TAKEN = range(10)
# About a node: its `written` behind the base operation; all slots are at that or the next; a segment from it needs
# surroundings; counts that one may be looked up by; the segment that needs nothing, + 1; how chains are looked up
WRITTEN, NEAR, LOOKS, HINT, PLAIN_ONE, CHAINED = range(6)
# A segment: where it begins, what it is looked up by, where it leads to, what the frame becomes, counts at its start
# that events go by; numbers of the entries behind: counts that it is looked up by, changes of counts (count, kind,
# amount, limit), of counters (counter, amount)
(
    NODE, AROUND, MASK, CYCLES, TARGET, EVENT, EVENT_COUNT, FROM_CONTEXT, FROM_PC, FROM_LINES, FROM_CTILES,
    FLIPS, CONTEXTS, OPERATIONS, HELD_THEN, KEY_COUNTS, CHANGES, COUNTED, ENTRIES,
) = range(19)  # fmt: skip
TAKE, TAKE_ANY, SET = range(3)  # kinds of changes: subtract within the limit, subtract, set
COUNTS_NOW, LIMITS_NOW = FRAME, FRAME + COUNTS
COUNTERS_THEN = FRAME + 2 * COUNTS
MOST_WORDS = ENTRIES + 5 * COUNTS + 2 * len(COUNTERS)
PLACES = 2  # of the hash table per segment
AHEAD = 4  # operations of a surrounding
ABSENT = -1  # no surrounding


def new_memo(chains, nodes=1 << 16, words=1 << 25, events=1 << 20):
    """An empty memo with room for as many (nodes: a power of two; words of keys). Room that is not used costs no
    memory."""
    meta = np.zeros(16, np.int64)
    meta[AT] = -1
    return Memo(
        new_store(nodes, words),
        new_store(nodes, words),
        new_store(nodes, words),
        new_shapes(),
        np.zeros((nodes, 8), np.int32),
        np.zeros((nodes, COUNTS), np.int64),
        np.zeros(words, np.int32),
        np.zeros(2 * PLACES * nodes, np.int32),
        np.zeros((events, len(EVENT_FIELDS)), np.int32),
        meta,
        np.zeros(COUNTERS_THEN, np.int64),
        np.zeros(COUNTERS_THEN + len(COUNTERS), np.int64),
        np.zeros(KEY_WORDS, np.int32),
        chains,
    )


@compiled
def surroundings(m, memo, desc, flat, words, node, frame, near):
    """Number of what a look of the descriptor cache depends on beside the node. ``near``: by the shapes of the next
    operations, ABSENT if they are not layers; else by the operation itself."""
    work, base = memo.work, frame[PC]
    work[0], work[1], work[2], n = near, m.t & (m.slots - 1), frame[HELD], 3
    if not near:
        work[3] = base
        return intern(memo.around, work, 4)
    if not memo.about[node, NEAR]:
        return ABSENT
    behind = base + memo.about[node, WRITTEN]
    for pc in range(base, base + AHEAD):
        shape = shape_of(m, pc, desc, flat, words, memo.shapes)
        if shape == NO_SHAPE or not memo.shapes.known[pc, 3]:
            return ABSENT
        work[n] = shape
        work[n + 1], work[n + 2] = token(memo.shapes, pc, 1, base, behind), token(memo.shapes, pc, 2, base, behind)
        work[n + 3] = fetched_from(m, pc)
        n += 4
    return intern(memo.around, work, n)


@compiled
def segment_place(words, table, node, around, mask, counts):
    """(first word of this segment or -1, its place in the table)."""
    h = mix(mix(np.uint64(node), around), mask)
    for j in range(COUNTS):
        if mask >> j & 1:
            h = mix(h, counts[j])
    last = len(table) - 1
    place = np.int64(h >> np.uint64(20)) & last
    while table[place]:
        s = np.int64(table[place]) - 1
        if words[s + NODE] == node and words[s + AROUND] == around and words[s + MASK] == mask:
            same, entry = True, s + ENTRIES
            for j in range(COUNTS):
                if mask >> j & 1:
                    same = same and words[entry] == counts[j]
                    entry += 1
            if same:
                return s, place
        place = place + 1 & last
    return np.int64(-1), place


@compiled
def _times(words, meta, s, node, counts, cycles):
    """How often a segment can be taken at once within ``cycles``; 0 with counts that are too short in meta[MISSED]."""
    again = words[s + TARGET] == node and words[s + EVENT_COUNT] == 0 and words[s + AROUND] == ABSENT
    times = cycles // words[s + CYCLES]
    if not again:
        times = min(times, 1)
    short, entry = 0, s + ENTRIES + words[s + KEY_COUNTS]
    for _ in range(words[s + CHANGES]):
        amount, left = np.int64(words[entry + 2]), counts[words[entry]] - words[entry + 3]
        if words[entry + 1] == TAKE:
            if left < amount:
                short |= 1 << words[entry]
            elif again and amount > 0:
                times = min(times, left // amount)
        entry += 4
    if short:
        meta[MISSED] |= short
        return 0
    return times


@compiled
def fitting(words, table, about, meta, node, around, counts, cycles):
    """(segment from a node in a surrounding, how often) or (-1, 0)."""
    if around == ABSENT:
        s = np.int64(about[node, PLAIN_ONE]) - 1
    else:
        s, _ = segment_place(words, table, node, around, 0, counts)
    if s >= 0:
        times = _times(words, meta, s, node, counts, cycles)
        if times:
            return s, times
    hint = meta[MISSED] if meta[MISSED] else np.int64(about[node, HINT])
    if hint:
        s, _ = segment_place(words, table, node, around, hint, counts)
        if s >= 0:
            return s, _times(words, meta, s, node, counts, cycles)
    return np.int64(-1), 0


@compiled
def put_ends(words, s, node, target, cycles, then, now, contexts):
    """What a record of a segment or a chain says of its two ends. then, now : frame, then counts, at each of them."""
    words[s + NODE], words[s + TARGET], words[s + CYCLES] = node, target, cycles
    words[s + FROM_CONTEXT], words[s + FROM_PC] = then[CONTEXT], then[PC]
    words[s + FROM_LINES], words[s + FROM_CTILES] = then[COUNTS_NOW + LINES], then[COUNTS_NOW + CTILES]
    words[s + FLIPS] = 0
    for f in range(HELD + 1, CONTEXT):
        words[s + FLIPS] |= (then[f] ^ now[f]) << f
    words[s + CONTEXTS] = (now[CONTEXT] - then[CONTEXT] + contexts) % contexts
    words[s + OPERATIONS], words[s + HELD_THEN] = now[PC] - then[PC], now[HELD]


@compiled
def put_events(words, s, events, place, trace, first, count, since):
    """The record's events: ``count`` rows of the trace from ``first`` on, their cycles counted from ``since``."""
    words[s + EVENT], words[s + EVENT_COUNT] = place, count
    for e in range(count):
        for f in range(len(EVENT_FIELDS)):
            events[place + e, f] = trace[first + e, f] - (since if f == 0 else 0)


@part
def put_entries(m, memo, s, mask, sets):
    """The changing part of a segment's record, behind its first words."""
    meta, start, now, words = memo.meta, memo.start, memo.now, memo.segments
    n = s + ENTRIES
    for j in range(COUNTS):
        if mask >> j & 1:
            words[n] = start[COUNTS_NOW + j]
            n += 1
    words[s + KEY_COUNTS], words[s + CHANGES], words[s + COUNTED] = n - s - ENTRIES, 0, 0
    for j in range(COUNTS):
        before, after, limit = start[COUNTS_NOW + j], now[COUNTS_NOW + j], start[LIMITS_NOW + j]
        if before == after and not (sets >> j & 1 and limit == -NEVER):
            continue
        words[n], words[n + 1], words[n + 2], words[n + 3] = j, TAKE, before - after, limit
        if sets >> j & 1:
            words[n + 1], words[n + 2], words[n + 3] = SET, after, 0
        elif limit == -NEVER:
            words[n + 1], words[n + 3] = TAKE_ANY, 0
        words[s + CHANGES] += 1
        n += 4
    for i in range(len(COUNTERS)):
        amount = m.counter[i] - start[COUNTERS_THEN + i]
        if amount:
            words[n], words[n + 1] = i, amount
            words[s + COUNTED] += 1
            n += 2
    meta[WORDS] = n
