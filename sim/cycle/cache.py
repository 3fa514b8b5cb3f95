"""Descriptor cache (hw/engine/descriptor_cache.py): fetches what slots want, one descriptor at a time."""

import numpy as np
from fluidnpu.hw.engine.descriptor_check import DescriptorCheck
from fluidnpu.hw.isa import DESCRIPTOR_BYTES, DESCRIPTOR_FIELDS, LAYERS, PC_INDEX_BITS, VARIANTS

from .addresses import settle
from .bus import DESCRIPTOR, wake
from .state import CACHE, compiled
from .state import DESCRIPTOR as DESCRIPTOR_DTYPE

__all__ = ["CHECK", "PLACES", "know_descriptor", "out_offset_of", "read_descriptor", "step_cache"]

IDLE, ASK, RECEIVE, JUDGE, CHECK = range(5)
BYTES = DESCRIPTOR_BYTES
INDEX_BITS = PC_INDEX_BITS
INDEX_MASK = (1 << PC_INDEX_BITS) - 1
LAYER_CHECK = 1 + DescriptorCheck.LAYER_STEPS + VARIANTS * DescriptorCheck.VARIANT_STEPS
TROUBLE = 1  # an operation behind the program's end


def _places():
    """(word, lsb, mask, sign) of every int64 of a descriptor record, in its order."""
    fields = {f.name: f for f in DESCRIPTOR_FIELDS}
    names = []
    for name in DESCRIPTOR_DTYPE.names:
        names += [name] if name in fields else [f"{name}{v}" for v in range(VARIANTS)]
    found = [fields[name] for name in names]
    rows = [(f.word, f.lsb, (1 << f.width) - 1, 1 << f.width - 1 if f.signed else 0) for f in found]
    return np.array(rows, np.int64)


PLACES = _places()
OUT_OFFSET = next((f.word, f.lsb, (1 << f.width) - 1) for f in DESCRIPTOR_FIELDS if f.name == "out_offset")


@compiled
def out_offset_of(m, pc, words):
    """Field out_offset of operation ``pc``."""
    base = (m.program_base[pc >> INDEX_BITS] + (pc & INDEX_MASK) * BYTES) // 4
    return np.int64(words[base + OUT_OFFSET[0]]) >> OUT_OFFSET[1] & OUT_OFFSET[2]


@compiled
def read_descriptor(m, pc, place, flat, words):
    """Descriptor of operation ``pc`` to a place. flat : the descriptors as rows of int64; words : memory."""
    base = (m.program_base[pc >> INDEX_BITS] + (pc & INDEX_MASK) * BYTES) // 4
    for i in range(len(PLACES)):
        value = np.int64(words[base + PLACES[i, 0]]) >> PLACES[i, 1] & PLACES[i, 2]
        flat[place, i] = (value ^ PLACES[i, 3]) - PLACES[i, 3]


@compiled
def _victim(m):
    """An entry that no slot refers to, not the one filled last."""
    used = 0
    for s in range(m.slots):
        if m.v_live & m.v_known & 1 << s:
            used |= 1 << m.entry[s]
    e = 0
    while used >> e & 1 or m.k_filled == e:
        e += 1
    return e


@compiled
def _hit(m, pc):
    for e in range(m.slots + 1):
        if m.k_valid >> e & 1 and m.k_tag[e] == pc:
            return e
    return -1


@compiled
def _visit(m, wanted):
    """The slot whose turn it is: it finds its descriptor, or a fetch begins."""
    t = m.t
    s = t & (m.slots - 1)
    for ahead in range(1, m.slots):
        later = t + ahead & (m.slots - 1)
        if wanted >> later & 1 and (m.k_state == IDLE or _hit(m, m.pc[later]) >= 0):
            wake(m, t + ahead)
            break
    if not wanted >> s & 1:
        return
    e = _hit(m, m.pc[s])
    if e >= 0:
        m.i_found, m.i_found_entry = s, e
        m.next = t + 1
    elif m.k_state == IDLE and not m.k_forget:
        m.k_pc, m.k_entry = m.pc[s], _victim(m)
        m.k_valid &= ~(1 << m.k_entry)
        m.k_state = ASK
        m.next = t + 1


@compiled
def step_cache(m, desc, flat, words):
    """The cache in one cycle; before the sequencer moves slots, after the readers took their requests."""
    t = m.t
    state = m.k_state
    m.i_found = -1
    wanted = m.v_live & ~(m.v_cancelled | m.v_failed | m.v_finished) & ~m.v_known
    if not wanted and state == IDLE and not m.k_forget:
        return
    m.visits += 1
    if wanted:
        _visit(m, wanted)
    if state == ASK:
        program, index = m.k_pc >> INDEX_BITS, m.k_pc & INDEX_MASK
        if index >= m.program_ops[program]:
            m.trouble = TROUBLE
        q = m.q_count[DESCRIPTOR]
        beats = BYTES // m.bus_bytes
        m.q_addr[DESCRIPTOR, q] = settle(m, (m.program_base[program] + index * BYTES) // m.bus_bytes, beats, 0)
        m.q_n[DESCRIPTOR, q] = beats
        m.q_count[DESCRIPTOR] = q + 1
        m.k_state = RECEIVE
        m.next = t + 1
    elif state == RECEIVE:
        if m.i_beat == DESCRIPTOR and m.i_request_last:
            m.k_state = JUDGE
            m.next = t + 1
    elif state == JUDGE:
        read_descriptor(m, m.k_pc, CACHE + m.k_entry, flat, words)
        op = desc[CACHE + m.k_entry].op
        m.k_done = t + (LAYER_CHECK if op in LAYERS else 1)
        m.k_state = CHECK
        wake(m, m.k_done)
    elif state == CHECK:
        wake(m, max(t + 1, m.k_done))
        if t == m.k_done:
            e = m.k_entry
            m.k_filled = e
            m.k_valid |= 1 << e
            m.k_tag[e], m.k_op[e] = m.k_pc, desc[CACHE + e].op
            m.k_state = IDLE
            m.next = t + 1
    if m.k_forget:
        for e in range(m.slots + 1):
            if m.k_forget >> (m.k_tag[e] >> INDEX_BITS) & 1:
                m.k_valid &= ~(1 << e)
        m.x_tags_valid = 0
        m.k_forget = 0


@compiled
def know_descriptor(m):
    """What was found for a slot holds unless the sequencer moved the slot in the same cycle."""
    s = m.i_found
    if s >= 0 and not m.i_moved >> s & 1:
        m.v_known |= 1 << s
        m.entry[s], m.op[s] = m.i_found_entry, m.k_op[m.i_found_entry]
        m.e_seen = -1
