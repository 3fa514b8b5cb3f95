"""What the descriptor cache holds, and the descriptors behind it, as a key of its own (canonical.py)."""

import numpy as np

from .cache import CHECK, read_descriptor
from .layout import PC
from .shapes import shape_of
from .state import CACHE, LAYER, SECOND, compiled

__all__ = ["put_held", "take_held"]


@compiled
def put_held(m, desc, flat, words, shapes, frame, vector):
    """What the descriptor cache holds, and in which entries; returns the number of words."""
    vector[0], vector[1], vector[2], n = m.k_valid, m.k_filled, m.k_entry, 3
    for e in range(m.slots + 1):
        if m.k_valid >> e & 1:
            vector[n] = m.k_tag[e] - frame[PC]
            vector[n + 1] = shape_of(m, m.k_tag[e], desc, flat, words, shapes)
            vector[n + 2] = m.k_op[e]
            n += 3
    for s in range(m.slots):
        if m.v_live >> s & 1:
            vector[n] = m.entry[s]
            n += 1
    return n


@compiled
def take_held(m, desc, flat, words, frame, vector, old_layer, old_second):
    """The descriptor cache, and the descriptors that the registers name."""
    old = m.k_valid
    m.k_valid, m.k_filled, m.k_entry, n = np.int64(vector[0]), np.int64(vector[1]), np.int64(vector[2]), 3
    for e in range(m.slots + 1):
        if m.k_valid >> e & 1:
            tag = vector[n] + frame[PC]
            if not (old >> e & 1 and m.k_tag[e] == tag):
                m.k_tag[e] = tag
                read_descriptor(m, tag, CACHE + e, flat, words)
            m.k_op[e] = vector[n + 2]
            n += 3
    for s in range(m.slots):
        if m.v_live >> s & 1:
            m.entry[s] = vector[n]
            n += 1
    if m.k_state == CHECK:
        read_descriptor(m, m.k_pc, CACHE + m.k_entry, flat, words)
    if m.e_leader_pc != old_layer and m.e_leader_pc >= 0:
        read_descriptor(m, m.e_leader_pc, LAYER, flat, words)
    if m.n_pc != old_second and m.n_pc >= 0:
        read_descriptor(m, m.n_pc, SECOND, flat, words)
