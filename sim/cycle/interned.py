"""Vectors of int32, each kept once and known by a number from then on."""

from collections import namedtuple

import numpy as np

from .state import compiled

__all__ = ["Store", "clear", "find", "fits", "intern", "mix", "new_store"]

Store = namedtuple("Store", "words rows table used")
Store.__doc__ += """: words, all vectors; rows [n, 2], each one's first word and length; table, a hash table of
number + 1; used: vectors, words"""

PLACES = 2  # of the hash table per vector


def new_store(vectors, words):
    """Room for a number of vectors (a power of two) and of words; room that is not used costs no memory."""
    return Store(
        np.empty(words, np.int32),
        np.empty((vectors, 2), np.int64),
        np.zeros(PLACES * vectors, np.int32),
        np.zeros(2, np.int64),
    )


@compiled
def mix(h, v):
    """Hash ``h`` (uint64) with an integer added."""
    h = (h ^ np.uint64(v)) * np.uint64(0x9E3779B97F4A7C15)
    return h ^ h >> np.uint64(29)


@compiled
def fits(store, length):
    """There is room for one more vector."""
    return store.used[0] + 1 < len(store.rows) and store.used[1] + length <= len(store.words)


@compiled
def clear(store):
    store.used[:] = 0
    store.table[:] = 0


@compiled
def _place_of(store, vector, length):
    """(number of vector[:length] or -1, its place in the table)."""
    words, rows, table = store.words, store.rows, store.table
    h = np.uint64(length)
    for i in range(0, length - 1, 2):
        h = mix(h, np.int64(vector[i]) << 32 ^ vector[i + 1])
    h = mix(h, vector[length - 1])
    last = len(table) - 1
    place = np.int64(h >> np.uint64(20)) & last
    while table[place]:
        number = np.int64(table[place]) - 1
        if rows[number, 1] == length:
            first, i = rows[number, 0], 0
            while i < length and words[first + i] == vector[i]:
                i += 1
            if i == length:
                return number, place
        place = place + 1 & last
    return np.int64(-1), place


@compiled
def find(store, vector, length):
    """The number of vector[:length]; -1: it is not there."""
    return _place_of(store, vector, length)[0]


@compiled
def intern(store, vector, length):
    """The number of vector[:length]; the next one if it is new (there must be room)."""
    known, place = _place_of(store, vector, length)
    if known >= 0:
        return known
    words, rows = store.words, store.rows
    number, first = store.used[0], store.used[1]
    rows[number, 0], rows[number, 1] = first, length
    for i in range(length):
        words[first + i] = vector[i]
    store.used[0] += 1
    store.used[1] += length
    store.table[place] = number + 1
    return number
