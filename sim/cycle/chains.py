"""Segments put together: what the memo went through once is kept as *chains* of 8, 64, 512, 4096 segments.

A chain leads from a node to another as its segments, one after the other, do, and is kept as a segment is: cycles,
events, what becomes of counters, counts and frame. It is looked up by everything that could decide for another segment
on the way: the node and the counts, of which c-tiles done decide nothing and lines have to be the same only if one of
the segments was looked up by them, else enough that all of them hold; the cycle modulo slots, what the descriptor cache
holds and the operation, if one of the segments needs surroundings. So chains serve the tiles of a layer, and those
without surroundings layers of the same shapes; and they are as exact as their segments are.

Each level has a recorder, which begins in front of a segment or shorter chain where no chain of its level is known.
"""

from collections import namedtuple

import numpy as np

from .counts import LONG
from .interned import clear, find, fits, intern, new_store
from .layout import FRAME, HELD, PC
from .segments import (
    ABSENT,
    AROUND,
    CHAINED,
    CHANGES,
    COUNTED,
    COUNTERS_THEN,
    COUNTS_NOW,
    CYCLES,
    ENTRIES,
    EVENT_COUNT,
    KEY_COUNTS,
    LIMITS_NOW,
    MASK,
    MOST_WORDS,
    NODE,
    SET,
    TAKE,
    TAKE_ANY,
    put_ends,
    put_events,
)
from .state import COUNTERS, COUNTS, CTILES, EVENT_FIELDS, LINES, compiled, part

__all__ = ["Chains", "clear_chains", "fitting_chain", "keep_recorded", "new_chains", "record", "stop_recording"]

Chains = namedtuple("Chains", "keys first words events log key")
Chains.__doc__ += """: keys, what chains are looked up by; first [key, level], their first words + 1 in ``words``
(a segment's, segments.py; of a chain MASK is its number of segments; AROUND is ABSENT if it needs no surroundings)
events [n, fields]: cycles from the chain's start; key : int32, one to look up
log [level, columns below and a snapshot]: recorders; its last row: how much there is
"""

LEVELS, FACTOR = 4, 8
BY_LINES, BY_PLACE = 1, 2  # what a chain is looked up by, beside the node and the other counts
# A recorder: number of segments (0: it does not record), first node, cycle, first event; a segment was looked up by
# lines, or needs surroundings; lines, c-tiles have been set; lines that the chain needs at its start. Behind them:
# frame, counts (and room for limits), counters at its start
SEGMENTS, NODE_THEN, SINCE, FIRST_EVENT, LOOKED_BY, LINES_SET, CTILES_SET, NEEDED, THEN = range(9)
WORDS, EVENTS = range(2)  # of the last row
NO_NEED = -(1 << 30)
MOST_KEY = COUNTS + 8
NEED, LOOKED_UP = ENTRIES, ENTRIES + 1  # in front of its changes: lines that a chain needs, what it is looked up by


def new_chains(keys=1 << 16):
    """None, with room for chains from a number (a power of two) of places. Room that is not used costs no memory."""
    return Chains(
        new_store(keys, MOST_KEY * keys),
        np.zeros((keys, LEVELS), np.int32),
        np.zeros(64 * keys, np.int32),
        np.zeros((8 * keys, len(EVENT_FIELDS)), np.int32),
        np.zeros((LEVELS + 1, THEN + COUNTERS_THEN + len(COUNTERS)), np.int64),
        np.zeros(MOST_KEY, np.int32),
    )


@compiled
def clear_chains(chains, about):
    """Forget all."""
    chains.first[: chains.keys.used[0]] = 0
    clear(chains.keys)
    chains.log[:] = 0
    about[:, CHAINED] = 0


@compiled
def stop_recording(chains):
    """What comes next does not follow from what came."""
    for level in range(LEVELS):
        chains.log[level, SEGMENTS] = 0


@compiled
def _put_key(key, node, by, t, slots, frame, counts):
    """What a chain from here is looked up by; returns the number of words."""
    key[0], key[1], n = node, by, 2
    for j in range(COUNTS):
        if j != CTILES and (j != LINES or by & BY_LINES):
            key[n] = counts[j]
            n += 1
    if by & BY_PLACE:
        key[n], key[n + 1], key[n + 2] = t & (slots - 1), frame[HELD], frame[PC]
        n += 3
    return n


@compiled
def fitting_chain(m, memo, node, frame, counts, cycles, events):
    """(first word, level) of the longest chain from here that ends within ``cycles`` and has at most ``events``
    events; (-1, -1)."""
    chains, kinds = memo.chains, memo.about[node, CHAINED]
    words, best, best_level = chains.words, np.int64(-1), -1
    for by in range(4):
        if kinds >> by & 1:
            number = find(chains.keys, chains.key, _put_key(chains.key, node, by, m.t, m.slots, frame, counts))
            level = LEVELS - 1 if number >= 0 else -1
            while level > best_level:
                s = np.int64(chains.first[number, level]) - 1
                if s >= 0:
                    fits_in = words[s + CYCLES] <= cycles and words[s + EVENT_COUNT] <= events
                    if fits_in and counts[LINES] >= words[s + NEED]:
                        best, best_level = s, level
                level -= 1
    return best, best_level


@compiled
def _of_segment(memo, s, times):
    """(it was looked up by lines, it sets lines, it sets c-tiles, lines it needs) of a segment taken ``times``."""
    words, node = memo.segments, memo.segments[s + NODE]
    lines_set = ctiles_set = False
    need = NO_NEED
    if memo.nodes.words[memo.nodes.rows[node, 0] + LINES] == LONG:
        need = memo.limits[node, LINES]
    entry = s + ENTRIES + words[s + KEY_COUNTS]
    for _ in range(words[s + CHANGES]):
        kind = words[entry + 1]
        if words[entry] == LINES:
            lines_set |= kind == SET
            if kind == TAKE:
                need = max(need, times * words[entry + 2] + words[entry + 3])
        elif words[entry] == CTILES:
            ctiles_set |= kind == SET
        entry += 4
    return words[s + MASK] >> LINES & 1, lines_set, ctiles_set, need


@compiled
def _of_chain(words, s):
    """The same of a chain."""
    lines_set = ctiles_set = False
    entry = s + ENTRIES + words[s + KEY_COUNTS]
    for _ in range(words[s + CHANGES]):
        if words[entry + 1] == SET:
            lines_set |= words[entry] == LINES
            ctiles_set |= words[entry] == CTILES
        entry += 4
    return words[s + LOOKED_UP] & BY_LINES, lines_set, ctiles_set, np.int64(words[s + NEED])


@part
def _begin(m, recorder, node, now):
    """A chain may begin here."""
    recorder[NODE_THEN], recorder[SINCE], recorder[FIRST_EVENT] = node, m.t, m.n_events
    recorder[LOOKED_BY] = recorder[LINES_SET] = recorder[CTILES_SET] = 0
    recorder[NEEDED] = NO_NEED
    for i in range(LIMITS_NOW):
        recorder[THEN + i] = now[i]
    for i in range(len(COUNTERS)):
        recorder[THEN + COUNTERS_THEN + i] = m.counter[i]


@part
def record(m, memo, node, s, times, level):
    """In front of a segment (level -1) or chain of a level at ``node``, to be taken now."""
    now, log = memo.now, memo.chains.log
    if level < 0:
        words, length = memo.segments, 1
        by_lines, lines_set, ctiles_set, need = _of_segment(memo, s, times)
    else:
        words, length = memo.chains.words, memo.chains.words[s + MASK]
        by_lines, lines_set, ctiles_set, need = _of_chain(words, s)
    by_place = words[s + AROUND] != ABSENT
    for k in range(LEVELS):
        recorder = log[k]
        if k <= level:
            recorder[SEGMENTS] = 0
            continue
        if recorder[SEGMENTS] == 0:
            _begin(m, recorder, node, now)
        recorder[SEGMENTS] += length
        if by_place:
            recorder[LOOKED_BY] |= BY_PLACE
        if not recorder[LINES_SET]:
            if by_lines:
                recorder[LOOKED_BY] |= BY_LINES
            if need > NO_NEED:
                used = recorder[THEN + COUNTS_NOW + LINES] - now[COUNTS_NOW + LINES]
                recorder[NEEDED] = max(recorder[NEEDED], used + need)
        recorder[LINES_SET] |= lines_set
        recorder[CTILES_SET] |= ctiles_set


@part
def _put_changes(m, words, n, recorder, now):
    """Entries of a chain for changes of counts, of counters; returns (counts, counters, the word behind)."""
    changes = counted = 0
    for j in range(COUNTS):
        before, after = recorder[THEN + COUNTS_NOW + j], now[COUNTS_NOW + j]
        relative = (j == LINES and not recorder[LINES_SET]) or (j == CTILES and not recorder[CTILES_SET])
        if before == after and (relative or (j != LINES and j != CTILES)):
            continue
        words[n], words[n + 1], words[n + 2], words[n + 3] = j, SET, after, 0
        if relative:
            words[n + 1], words[n + 2] = TAKE_ANY, before - after
        changes += 1
        n += 4
    for i in range(len(COUNTERS)):
        amount = m.counter[i] - recorder[THEN + COUNTERS_THEN + i]
        if amount:
            words[n], words[n + 1] = i, amount
            counted += 1
            n += 2
    return changes, counted, n


@compiled
def _keep(m, memo, trace, recorder, level, node):
    """The recorder's chain ends here, at ``node``: remember it, if there is not one that serves more."""
    chains, now, about = memo.chains, memo.now, memo.about
    used, words = chains.log[LEVELS], chains.words
    count, by = m.n_events - recorder[FIRST_EVENT], recorder[LOOKED_BY]
    full = not fits(chains.keys, MOST_KEY) or used[WORDS] + MOST_WORDS > len(words)
    if full or used[EVENTS] + count > len(chains.events):
        clear_chains(chains, about)
        return
    first_node = recorder[NODE_THEN]
    frame, counts = recorder[THEN : THEN + FRAME], recorder[THEN + COUNTS_NOW : THEN + LIMITS_NOW]
    length = _put_key(chains.key, first_node, by, recorder[SINCE], m.slots, frame, counts)
    number = intern(chains.keys, chains.key, length)
    present = np.int64(chains.first[number, level]) - 1
    if present >= 0 and words[present + NEED] <= recorder[NEEDED]:
        return
    about[first_node, CHAINED] |= 1 << by
    s = used[WORDS]
    chains.first[number, level] = s + 1
    words[s + MASK], words[s + AROUND] = recorder[SEGMENTS], 0 if by & BY_PLACE else ABSENT
    put_ends(words, s, first_node, node, m.t - recorder[SINCE], recorder[THEN:], now, m.contexts)
    words[s + KEY_COUNTS], words[s + NEED], words[s + LOOKED_UP] = 2, recorder[NEEDED], by
    words[s + CHANGES], words[s + COUNTED], used[WORDS] = _put_changes(m, words, s + ENTRIES + 2, recorder, now)
    put_events(words, s, chains.events, used[EVENTS], trace, recorder[FIRST_EVENT], count, recorder[SINCE])
    used[EVENTS] += count


@part
def keep_recorded(m, memo, trace, node):
    """Behind a segment or chain, at ``node``: chains that are long enough are remembered."""
    length = FACTOR
    for level in range(LEVELS):
        recorder = memo.chains.log[level]
        if recorder[SEGMENTS] >= length:
            _keep(m, memo, trace, recorder, level, node)
            recorder[SEGMENTS] = 0
        length *= FACTOR
