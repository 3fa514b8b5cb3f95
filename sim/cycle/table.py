"""The slot table (hw/engine/slots.py): movements of slots and their order by age."""

from .state import compiled

__all__ = ["append_slot", "first_slot", "move_slot", "remove_slot"]


@compiled
def first_slot(mask):
    """Lowest slot of a mask that is not empty."""
    s = 0
    while not mask >> s & 1:
        s += 1
    return s


@compiled
def move_slot(m, s, pc):
    """Slot ``s`` stands at the beginning of operation ``pc``; its descriptor is not known."""
    m.pc[s] = pc
    m.line[s] = m.row[s] = m.seg[s] = 0
    m.v_known &= ~(1 << s)
    m.i_moved |= 1 << s


@compiled
def append_slot(m, s):
    """Slot ``s`` is the youngest."""
    m.order[m.e_count] = s
    m.e_count += 1


@compiled
def remove_slot(m, s):
    """Close the gap that slot ``s`` leaves."""
    behind = False
    for i in range(m.e_count - 1):
        behind = behind or m.order[i] == s
        if behind:
            m.order[i] = m.order[i + 1]
    m.e_count -= 1
