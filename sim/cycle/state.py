"""State of the cycle model: one record for the machine, one per descriptor, the list of events.

Everything is int64 in records of fixed size, so that the compiled code serves every configuration. A register's value
is the one seen in the present cycle; a *stamp* is the cycle from which on something holds (NEVER: not in sight).
"""

import functools
import hashlib
from pathlib import Path

import numba
import numpy as np
from amaranth.utils import exact_log2
from fluidnpu.hw import isa
from fluidnpu.hw.array.address_generator import AddressGenerator
from fluidnpu.hw.array.pe import ProcessingElement
from fluidnpu.hw.tile import PARAMETER_BYTES, RMW_DISTANCE

from ..verilator import build_root

__all__ = [
    "CACHE", "COMMANDS", "CONFIGURATION", "COUNTER", "COUNTERS", "DESCRIPTOR", "EVENT_FIELDS", "LAYER", "MACHINE",
    "NEVER", "PROGRAMS", "RING", "SCRATCH", "SECOND", "State", "compiled", "entry", "new_descriptors", "new_machine",
    "part",
]  # fmt: skip

NEVER = 1 << 60
SLOTS, STACK, CONTEXTS, FRAGMENTS, CLIENTS, PROGRAMS, EXITS = 16, 16, 4, 32, 5, 4, 16
COMMANDS = 64
RING = 512  # entries of the larger rings; more than all clients' bursts under way
EVENT_FIELDS = ("cycle", "source", "kind", "slot", "pc", "line", "data", "data2")
COUNTERS = isa.COUNTERS
COUNTER = {name: i for i, name in enumerate(COUNTERS)}

# Long counts (counts.py): steps of the c-tile; beats to ask for of weights, second operands, stripes; weight beats to
# take from the FIFO; channels that the array, the weight loader, the epilogue have to do; beats of a pixel that the
# writer, the residual loader have to do; c-tiles done; lines
STEPS, REST, REST_OPERANDS, REST_STRIPES, FETCH, LEFT, LOADS, DRAINS, WRITES, OPERANDS, CTILES, LINES = range(12)
COUNTS = 12

# Places in the array of descriptors: cached, of the dealt tile, of the tile that the residual loader works on, none
CACHE, LAYER, SECOND, SCRATCH = 0, SLOTS + 1, SLOTS + 2, SLOTS + 3
_VARIANT = ("log2_kr", "log2_kd", "max_lines", "stripe_lines", "weights", "words", "weight_beats")


def _cache_folder():
    """Where the compiled code is kept: a folder per version of the sources. (Numba itself looks only at the file of a
    function, not at those of the functions and constants that were compiled into it.)"""
    digest = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(isa.__file__).parent):
        for file in sorted(folder.rglob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return build_root() / "cycle" / digest.hexdigest()[:20]


numba.config.CACHE_DIR = str(_cache_folder())
numba.config.LOOP_VECTORIZE = numba.config.SLP_VECTORIZE = 0  # short loops: it takes long to compile and gains nothing
compiled = functools.partial(numba.njit, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
# Of functions with one caller: LLVM looks at the whole code below a function again for each level of calls
part = functools.partial(compiled, inline="always")
entry = functools.partial(numba.njit, error_model="numpy", cache=True)  # what Python calls


def _descriptor_dtype():
    plain = [f.name for f in isa.DESCRIPTOR_FIELDS if not (f.name[-1].isdigit() and f.name[:-1] in _VARIANT)]
    return np.dtype([(name, "i8") for name in plain] + [(name, "i8", (isa.VARIANTS,)) for name in _VARIANT])


DESCRIPTOR = _descriptor_dtype()

CONFIGURATION = tuple(
    """
    t pes lanes max_stack slots bus_bytes post_lanes in_flight burst_beats page_beats programs trackers contexts update
    operand wpb exits read_latency write_latency beats_per_256 burst_overhead
""".split()
)  # and time

_FIELDS = (
    # the model itself: loads are long counts that were set anew, visits those of the descriptor cache
    ((), f"""
    {' '.join(CONFIGURATION)} steps next flow trouble loads visits unaligned
    """
    # memory
    """
    ar_valid ar_client ar_beats reads_head reads_count r_shown r_client r_last r_open r_left r_start r_credit
    r_credit_at awready wready w_credit w_blocked aw_count wlast_count matched b_head b_waiting b_shown
    """
    # weight streamer and loader
    """
    ws_running ws_waiting ws_wait_addr ws_wait_beats ws_handed ws_dropping ws_ahead_bursts ws_write ws_read ws_mark
    ws_end ws_ahead_written ws_ahead_fetched ws_running_left ws_ahead_left ws_front_ahead ws_space ws_ahead_kept
    ws_valid
    wl_ahead wl_left wl_beat wl_full wl_tap wl_block wl_has_bank wl_banks_used
    wl_par_beats wl_par_bank wl_par_ends wl_par_ends_bank
    """
    # array
    """
    a_running a_ended a_context a_half a_vector a_pool a_drain a_period a_late_end a_row_end a_row_drain
    a_kr a_kd a_rows a_taps a_words a_left a_ctile a_step a_steps a_bank
    a_in_step a_t0 a_end a_turn
    """
    # epilogue
    """
    p_state p_held p_offered p_next_half p_next_res_half p_word p_place p_beat p_add_now v_busy v_context
    v_head v_count v_place v_beat v_drained_at
    p_waiting p_arriving p_beginning p_context p_end p_half p_opened p_chunk_byte p_channels
    p_residual p_res_half p_add_until
    p_cols p_job_last p_job_bank p_chunk_ends p_out_head p_out_count p_free_pulse p_free_half p_chunks p_chunk_head
    p_ends_head p_ends p_rows_head p_rows_count
    """
    # output writer
    """
    o_tiles o_tile_head o_index o_chunk_first o_offer_at o_state o_busy o_trial s_address s_line_address s_run s_left
    s_runs_left s_runs s_run_beats s_run_pitch s_line_pitch s_lines
    s_staged
    s_done s_retire s_half s_chunk_end q_beats q_staged q_done q_retire q_half q_chunk_end
    o_staged o_aw o_resp_head o_resp o_send_head o_send o_beat o_valid1 o_last1 o_ready o_ready_head o_events
    o_event_head
    """
    # stripe loader
    """
    l_loaded l_dropping l_walking l_offer_at l_window l_windows l_finished
    l_slot l_sub l_lines l_y_top l_addr l_row_beats l_need l_to_window l_rows_left
    """
    # residual loader
    """
    n_state n_pending n_dealt n_first_there n_half n_chunk_first n_beats_left n_pc n_context n_fragments n_window
    n_finished n_offer_at n_walking n_slot n_lines n_addr n_run n_row_beats n_need n_width n_pixels n_dropping
    """
    # engine
    """
    e_state e_seen e_chosen e_scan_exit e_scan_end e_leader e_mask e_previous e_announced e_context e_half e_members
    e_outstanding e_dropping e_undo e_before e_leader_pc e_fragments e_rigid e_unstacked
    e_count w_context w_index w_line
    v_live v_posted v_runnable v_ride v_leave v_cancelled v_failed v_finished v_decided v_known v_next v_pending
    v_pending_runnable v_pending_ride v_group v_popped
    d_state d_index d_count d_slot d_line d_row d_seg d_sub d_used d_stripe d_got d_fresh d_variant d_target d_scan
    d_total d_kr d_max_lines d_stripe_lines d_holding d_held_slot d_held_sub d_held_line d_held_row d_held_seg
    d_operand d_held_lines d_longest d_candidates d_members
    k_state k_pc k_entry k_filled k_done k_valid k_forget
    x_state x_slot x_exit x_last x_program x_busy x_decided x_classes x_logits x_table x_end x_answered x_tags_valid
    x_go_at x_top x_spread
    m_count m_head c_level c_head c_unreserved n_events
    """
    # what the blocks tell one another in a cycle
    """
    i_beat i_last i_request_last i_tag i_revoke i_announce i_start i_set_ready i_par_left i_begin i_issue
    i_step_ends i_tile_ends i_start_ready i_needs_set i_needs_bank i_permit i_set_done
    i_takes_set i_takes_par i_set_ends i_par_ends i_wl_ready i_job
    i_taken_beats i_inside i_there i_waiting i_event_pop i_last_step i_last_ctile i_chunk i_write_tile
    i_res_loaded i_res_there i_res_waiting i_res_free i_res_taken
    i_context i_half i_blocked i_fetching i_fetch_pc i_found i_found_entry i_moved
    """),
    ((2,), "n_free n_full n_read_at"),
    ((2,), "p_drained_at a_pending a_missing a_drain_at a_drain_last a_read_end p_free chunk_half chunk_last "
    "chunk_complete ev_done ev_retire"),
    ((4,), "x_tag x_tag_program o_tile post_tile p_end_at"),
    ((CLIENTS,), "r_rest r_rest_addr r_rest_beats r_rest_tag r_off r_off_beats r_off_last r_off_tag r_records "
    "r_rec_head i_formed i_formed_beats i_request q_count"),
    ((CLIENTS, 2), "q_addr q_n q_tag"),
    ((CLIENTS, 64), "rec_last rec_tag"),
    ((RING,), "reads_client reads_beats reads_ready w_ready"),
    ((16,), "v_end_at v_end_last"),
    ((64,), "p_out_at p_out_half p_out_last p_out_complete p_rows_at p_rows_step p_rows_left p_rows_beats"),
    ((128,), "resp_done resp_retire send_beats send_half send_end"),
    ((PROGRAMS,), "program_base program_ops"),
    ((SLOTS,), "order priority pending_priority pc line row seg done_pc done_line op entry arena_base arena_bytes "
    "exit_mask tiles tag res_exit res_top res_spread res_stamp head_spread chosen"),
    ((SLOTS + 1,), "k_tag k_op"),
    ((CONTEXTS,), "t_fragments t_pc t_kr t_kd t_members t_vector t_pool t_words "
    "t_channels t_chunk t_residual t_packed t_pixel_beats t_seg_w t_out_w "
    "t_offset t_line_beats t_lines"),
    ((STACK,), "sub_rows sub_lines"),
    ((CONTEXTS, STACK), "t_sub_rows"),
    ((CONTEXTS, FRAGMENTS), "f_slot f_sub f_line f_row f_seg f_lines"),
    ((PROGRAMS * EXITS,), "limit limit_set"),
    ((COMMANDS,), "cmd_opcode"),
    ((COMMANDS, isa.COMMAND_WORDS), "cmd_words"),
    ((256, 9), "completion"),
    ((len(COUNTERS),), "counter"),
)  # fmt: skip


def _machine_dtype():
    fields = []
    for shape, names in _FIELDS:
        fields += [(name, "i8", shape) if shape else (name, "i8") for name in names.split()]
    return np.dtype(fields)


MACHINE = _machine_dtype()


def _register(name):
    place = MACHINE.fields[name][1] // 8

    def get(self):
        return self._words[place]

    def put(self, value):
        self._words[place] = value

    return property(get, put)


class State:
    """Python's view of a machine (record array [1]): its registers as attributes, integers or arrays. (Each attribute
    of numpy's own records takes more than a microsecond.)"""

    def __init__(self, machine):
        self._words = memoryview(np.asarray(machine).view("i8"))
        for name in MACHINE.names:
            if MACHINE[name].shape:
                setattr(self, name, np.asarray(machine[name][0]))


for _name in MACHINE.names:
    if not MACHINE[_name].shape:
        setattr(State, _name, _register(_name))


def new_descriptors():
    """Array of descriptor records: the cache, the dealt tile's, the one of second operands, one to look at."""
    return np.zeros(SCRATCH + 1, DESCRIPTOR).view(np.recarray)


def new_machine(config, memory):
    """The state at cycle 0 after reset, of a configuration and a memory (MemorySettings, in order, without jitter)."""
    machine = np.zeros(1, MACHINE).view(np.recarray)
    m = machine[0]
    for name in "pes lanes max_stack slots bus_bytes post_lanes".split():
        m[name] = getattr(config, name)
    for name in "burst_beats programs trackers contexts exits".split():
        m[name] = getattr(config, name)
    m.in_flight, m.wpb = config.reads_in_flight, config.words_per_beat
    m.page_beats = 4096 // config.bus_bytes
    stacking = exact_log2(config.max_stack)
    m.operand = AddressGenerator.LATENCY + (2 if config.max_stack > 2 else 1)
    m.update = m.operand + ProcessingElement.LATENCY + stacking
    for name in "read_latency write_latency beats_per_256 burst_overhead".split():
        m[name] = getattr(memory, name)
    m.r_credit = m.w_credit = 256
    m.awready = m.wready = 1
    m.wl_ahead = m.a_taps = 1
    m.e_seen = m.e_leader_pc = m.n_pc = -1
    m.ws_space = config.weight_fifo_beats
    m.p_free[:] = m.n_free[:] = 1
    m.c_unreserved = config.completion_entries
    m.a_drain_at[:] = NEVER
    m.p_drained_at[:] = NEVER
    m.a_read_end[:] = m.n_read_at[:] = m.v_drained_at = -NEVER
    return machine


assert RMW_DISTANCE >= 1 and PARAMETER_BYTES % 8 == 0
