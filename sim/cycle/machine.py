"""The machine: all blocks, cycle by cycle, without the cycles in which nothing happens."""

from fluidnpu.hw import isa

from .array import array_levels, half_free, step_array
from .bus import arbitrate, step_memory, step_readers
from .cache import know_descriptor, step_cache
from .dealer import DONE as DEALT
from .engine import DEALING, DECIDE, REVOKE, sees_nothing_new, step_engine
from .exits import COMPUTE, step_exit
from .flow import flow_cycles, flow_on
from .handed import memo_at
from .loader import loader_row, step_stripes
from .memo import forget_start, pass_anchor
from .post import job_taken, permit, post_ready, step_post, take_operands
from .residual import residual_row, step_residual
from .state import DESCRIPTOR, LAYER, MACHINE, NEVER, SECOND, compiled, entry, part
from .weights import loader_levels, step_loader, step_streamer
from .writer import step_writer, write_ready

__all__ = ["AT_CYCLE", "AT_EXIT", "AT_IRQ", "FULL", "TROUBLE", "run_flat"]

AT_CYCLE, AT_IRQ, AT_EXIT, FULL, TROUBLE = range(5)
MOST_EVENTS = 8  # of one cycle
ARRAY, VECTOR, WEIGHTS, ACTIVATIONS, DEPENDENCY, OUTPUT, CONTROL, IDLE = range(len(isa.CAUSES))


@compiled
def levels(m, layer, second):
    """What the blocks show one another in this cycle."""
    m.i_beat, m.i_last, m.i_request_last, m.i_tag = -1, 0, 0, 0
    if m.r_shown:
        c = m.r_client
        m.i_beat, m.i_last = c, m.r_last
        m.i_request_last = m.r_last and m.rec_last[c, m.r_rec_head[c]]
        m.i_tag = m.rec_tag[c, m.r_rec_head[c]]
    m.i_revoke = m.e_state == REVOKE
    m.i_announce = m.e_state == DEALING and m.d_state == DEALT
    loader_levels(m, layer)
    m.i_permit = permit(m)
    array_levels(m)
    m.i_job = job_taken(m)
    m.i_res_taken = take_operands(m)
    room = m.e_outstanding < m.trackers and post_ready(m) and write_ready(m)
    residual_row(m, layer, second)
    loaded = m.l_loaded and m.i_res_loaded
    m.i_start = m.e_announced and loaded and room and m.e_state == DECIDE and m.i_start_ready
    m.i_blocked = m.e_announced and loaded and not room
    m.i_context, m.i_half = m.e_context, m.e_half
    m.i_fetching, m.i_fetch_pc = m.k_state != 0, m.k_pc
    m.i_chunk, m.i_write_tile = m.p_chunks != 0, m.o_tiles != 0
    loader_row(m, layer)


@compiled
def cause(m):
    """What this cycle counts as."""
    if m.i_issue:
        return VECTOR if m.a_vector else ARRAY
    if m.i_needs_set or (m.a_running and m.a_ended):
        return WEIGHTS
    stripes, operands = not m.l_loaded and not m.i_waiting, not m.i_res_loaded and not m.i_res_waiting
    if m.e_announced and (stripes or operands):
        return ACTIVATIONS
    if m.e_announced and (m.i_waiting or m.i_res_waiting):
        return DEPENDENCY
    if m.i_needs_bank or m.i_blocked:
        return OUTPUT
    return CONTROL if m.v_live else IDLE


@part
def step(m, layer, desc, flat, words, trace):
    """All registers, from cycle t to t + 1; ``next`` is the next cycle in which anything may happen."""
    m.next, m.flow = NEVER, 0
    free = half_free(m, m.e_half)
    drained = not m.l_dropping and not m.n_dropping and not m.ws_dropping
    taken = arbitrate(m)
    step_readers(m, taken)
    step_cache(m, desc, flat, words)
    m.i_event_pop = m.i_moved = 0
    if not sees_nothing_new(m, free, drained):
        step_engine(m, desc, trace, free, drained)
    know_descriptor(m)
    if m.x_busy:
        step_exit(m)
    step_residual(m, desc, taken)
    step_stripes(m, layer, taken)
    step_streamer(m, layer, taken)
    step_loader(m, layer)
    step_post(m)
    step_array(m, layer, trace)
    aw, w, b = step_writer(m)
    step_memory(m, taken, aw, w, b)


@compiled
def is_anchor(m):
    """A step or block of the array begins, and the sequencer has nothing to do for the host."""
    decided = m.x_state == COMPUTE and m.x_end == m.t
    if not m.i_begin or m.e_state != DECIDE or not m.v_live or m.unaligned:
        return False
    return not (m.m_count or m.v_popped or m.k_forget or decided)


@part
def run_machine(m, raw, desc, flat, words, memo, trace, until, irq):
    """Run to cycle ``until`` (its registers are then those seen in it); returns why it stopped.

    AT_IRQ : a completion waits, if ``irq``; AT_EXIT : the exit unit needs its answer (x_top, x_spread) of cycle t;
    FULL : no room for more events
    """
    layer, second = desc[LAYER], desc[SECOND]
    known = False  # the levels of this cycle
    jumps = len(memo.about) > 1
    forget_start(memo)
    while m.t < until:
        if irq and m.c_level:
            return AT_IRQ
        if m.n_events + MOST_EVENTS > len(trace):
            return FULL
        if not known:
            levels(m, layer, second)
        known = False
        if m.x_state == COMPUTE and m.x_end == m.t and not m.x_answered:
            return AT_EXIT
        if jumps and is_anchor(m) and pass_anchor(m, raw, desc, flat, words, memo, trace, until):
            continue
        m.steps += 1
        m.counter[cause(m)] += 1
        step(m, layer, desc, flat, words, trace)
        if m.trouble:
            return TROUBLE
        m.x_answered = 0
        m.t += 1
        following = min(m.next, until)
        if following > m.t:
            levels(m, layer, second)
            cycles = flow_cycles(m, layer, following - m.t) if m.flow else following - m.t
            known = cycles == 0
            if cycles:
                m.counter[cause(m)] += cycles
                if m.flow:
                    flow_on(m, cycles)
                m.t += cycles
    return AT_CYCLE


@entry
def run_flat(raw, flat, words, places, trace, until, irq):
    """`run_machine` of a machine (int64 [n]), descriptors (int64 [places, fields]) and the memo at ``places``: to look
    through a record of hundreds of fields takes numba longer than many runs do."""
    memo = memo_at(places)
    desc = flat.reshape(flat.size).view(DESCRIPTOR)
    return run_machine(raw.view(MACHINE)[0], raw, desc, flat, words, memo, trace, until, irq)
