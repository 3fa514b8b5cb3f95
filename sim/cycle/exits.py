"""The exit unit (hw/engine/exit_unit.py): when a decision is made. What it is comes from `exit_answer`."""

from fluidnpu.hw.engine.exit_unit import ExitUnit
from fluidnpu.hw.isa import EXIT_TABLE_BYTES, PC_INDEX_BITS

from .addresses import settle
from .bus import EXIT, wake
from .state import NEVER, compiled

__all__ = ["begin_exit", "step_exit"]

IDLE, LOGITS, TABLE, RECEIVE, RECEIVE_BOTH, COMPUTE = range(6)
TABLES = ExitUnit.TABLES
TABLE_BYTES = EXIT_TABLE_BYTES
INDEX_BITS = PC_INDEX_BITS


@compiled
def logit_beats(m):
    return (m.x_classes + m.bus_bytes - 1) // m.bus_bytes


@compiled
def begin_exit(m, desc, s):
    """Sequencer's action: hand the exit of slot ``s`` to the unit."""
    d = desc[m.entry[s]]
    program = m.pc[s] >> INDEX_BITS
    m.x_busy, m.x_slot, m.x_exit, m.x_last, m.x_program = 1, s, d.exit, d.last, program
    m.x_table = d.bias
    m.x_classes = d.out_channels
    m.x_logits = settle(m, (m.arena_base[s] + d.in_offset) // m.bus_bytes, logit_beats(m), 0)
    m.x_go_at = m.t + 1


@compiled
def _request(m, address, count, tag):
    q = m.q_count[EXIT]
    m.q_addr[EXIT, q], m.q_n[EXIT, q], m.q_tag[EXIT, q] = address, count, tag
    m.q_count[EXIT] = q + 1


@compiled
def step_exit(m):
    """The unit in one cycle; after the readers took their requests. x_state COMPUTE needs x_top and x_spread."""
    t = m.t
    state = m.x_state
    way = m.x_exit % TABLES
    if state == IDLE:
        if m.x_busy and m.x_go_at == t:
            m.x_state = LOGITS
            m.next = t + 1
        elif m.x_busy and m.x_go_at > t:
            wake(m, m.x_go_at)
    elif state == LOGITS:
        hit = m.x_tags_valid >> way & 1 and m.x_tag[way] == m.x_table and m.x_tag_program[way] == m.x_program
        _request(m, m.x_logits, logit_beats(m), 0)
        m.x_state = RECEIVE if hit else TABLE
        m.next = t + 1
    elif state == TABLE:
        beats = TABLE_BYTES // m.bus_bytes
        address = (m.program_base[m.x_program] + m.x_table) // m.bus_bytes
        _request(m, settle(m, address, beats, 0), beats, 1)
        m.x_tags_valid |= 1 << way
        m.x_tag[way], m.x_tag_program[way] = m.x_table, m.x_program
        m.x_state = RECEIVE_BOTH
        m.next = t + 1
    elif state in (RECEIVE, RECEIVE_BOTH):
        if m.i_beat == EXIT and m.i_request_last and (state == RECEIVE or m.i_tag):
            # the maximum over the classes, then the sum over them
            m.x_end = t + 1 + (m.x_classes + 1) + (m.x_classes + 2)
            m.x_state = COMPUTE
            wake(m, m.x_end)
    elif state == COMPUTE:
        if t == m.x_end:
            m.x_decided = 1
            m.x_state = IDLE
            m.x_go_at = NEVER
            m.next = t + 1
        else:
            wake(m, m.x_end)
