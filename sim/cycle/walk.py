"""The way through what is known: segment by segment, or chain by chain (memo.py, chains.py)."""

import numpy as np
from fluidnpu.hw.isa import ArrayEvent, EngineEvent

from .chains import fitting_chain, keep_recorded, record, stop_recording
from .layout import CONTEXT, FRAME, HELD, PC
from .segments import (
    ABSENT,
    AROUND,
    CHAINED,
    CHANGES,
    CONTEXTS,
    COUNTED,
    COUNTS_NOW,
    CYCLES,
    ENTRIES,
    EVENT,
    EVENT_COUNT,
    FLIPS,
    FROM_CONTEXT,
    FROM_CTILES,
    FROM_LINES,
    FROM_PC,
    HELD_THEN,
    KEY_COUNTS,
    LIMITS_NOW,
    LOOKS,
    MISSED,
    OPERATIONS,
    SET,
    TAKEN,
    TARGET,
    fitting,
    surroundings,
)  # fmt: skip
from .state import CTILES, EVENT_FIELDS, LINES, compiled, part

__all__ = ["walk"]

ENGINE = 0
DEAL, START, RETIRE, FRAGMENT, DONE, JUMP, EXIT_START = (
    int(EngineEvent[n]) for n in "DEAL START RETIRE FRAGMENT DONE JUMP EXIT_START".split()
)
TILE, CTILE = int(ArrayEvent.TILE), int(ArrayEvent.CTILE)


@part
def _segment(m, memo, desc, flat, words, node, frame, counts, cycles):
    """(segment that leads on from a node, how often it is to be taken within ``cycles``); -1: it is not known."""
    memo.meta[MISSED] = 0
    known, table, about, meta = memo.segments, memo.table, memo.about, memo.meta
    s, times = fitting(known, table, about, meta, node, ABSENT, counts, cycles)
    if s < 0 and memo.about[node, LOOKS]:
        missed = memo.meta[MISSED]
        for near in (True, False):
            around = surroundings(m, memo, desc, flat, words, node, frame, near)
            if s < 0 and around != ABSENT:
                memo.meta[MISSED] = 0
                s, times = fitting(known, table, about, meta, node, around, counts, cycles)
                missed |= memo.meta[MISSED]
        memo.meta[MISSED] = missed
    return s, times


@compiled
def _repeat_events(m, words, events, s, trace, frame, counts):
    """The segment's events from this cycle on, with the present contexts, operations, lines and c-tiles."""
    contexts, operations = m.contexts, frame[PC] - words[s + FROM_PC]
    shift = frame[CONTEXT] - words[s + FROM_CONTEXT] + contexts
    lines, ctiles = words[s + FROM_LINES] - counts[LINES], counts[CTILES] - words[s + FROM_CTILES]
    n, first = m.n_events, words[s + EVENT]
    for e in range(first, first + words[s + EVENT_COUNT]):
        for f in range(len(EVENT_FIELDS)):
            trace[n, f] = events[e, f]
        trace[n, 0] += m.t
        kind = trace[n, 2]
        if trace[n, 1] != ENGINE:
            trace[n, 5] = (trace[n, 5] + shift) % contexts
            if kind == CTILE:
                trace[n, 6] += ctiles
            elif kind == TILE:
                ctiles = 0
        else:
            if kind in (FRAGMENT, DONE, DEAL, JUMP, EXIT_START):
                trace[n, 4] += operations
            if kind in (FRAGMENT, DONE):
                trace[n, 5] += lines
            elif kind in (DEAL, START, RETIRE):
                trace[n, 5] = (trace[n, 5] + shift) % contexts
        n += 1
    m.n_events = n


@compiled
def _take(m, words, s, times, frame, counts):
    """Cycle, counters, frame and counts behind a segment."""
    m.t += times * words[s + CYCLES]
    entry = s + ENTRIES + words[s + KEY_COUNTS]
    for _ in range(words[s + CHANGES]):
        if words[entry + 1] == SET:
            counts[words[entry]] = words[entry + 2]
        else:
            counts[words[entry]] -= times * words[entry + 2]
        entry += 4
    for _ in range(words[s + COUNTED]):
        m.counter[words[entry]] += times * words[entry + 1]
        entry += 2
    if words[s + AROUND] != ABSENT:
        frame[HELD] = words[s + HELD_THEN]
        frame[PC] += words[s + OPERATIONS]
    flips = words[s + FLIPS]
    if times & 1 and flips:
        for f in range(HELD + 1, CONTEXT):
            frame[f] ^= flips >> f & 1
    if words[s + CONTEXTS]:
        frame[CONTEXT] = (frame[CONTEXT] + times * words[s + CONTEXTS]) % m.contexts


@compiled
def _follow(m, words, events, s, times, trace, frame, counts):
    """Take a segment or chain; returns the node behind it."""
    if words[s + EVENT_COUNT]:
        _repeat_events(m, words, events, s, trace, frame, counts)
    _take(m, words, s, times, frame, counts)
    return np.int64(words[s + TARGET])


@part
def walk(m, memo, desc, flat, words, trace, node, until):
    """Follow chains and segments from ``node`` at this cycle; returns the node that it comes to. Of the registers only
    the cycle, counters and events are kept up to date; frame and counts in ``now``."""
    frame, counts, chains = memo.now[:FRAME], memo.now[COUNTS_NOW:LIMITS_NOW], memo.chains
    stop_recording(chains)
    while True:
        s, level, times = np.int64(-1), -1, 1
        if memo.about[node, CHAINED]:
            s, level = fitting_chain(m, memo, node, frame, counts, until - m.t, len(trace) - m.n_events)
        if level < 0:
            s, times = _segment(m, memo, desc, flat, words, node, frame, counts, until - m.t)
            if times == 0 or m.n_events + memo.segments[s + EVENT_COUNT] > len(trace):
                return node
        record(m, memo, node, s, times, level)
        if level < 0:
            node = _follow(m, memo.segments, memo.events, s, times, trace, frame, counts)
        else:
            node = _follow(m, chains.words, chains.events, s, 1, trace, frame, counts)
        keep_recorded(m, memo, trace, node)
        memo.meta[TAKEN] += 1
