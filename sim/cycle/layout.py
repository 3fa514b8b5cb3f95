"""Where in the machine's record the registers are that keys hold (canonical.py), and what kinds of values they are.

Every register that is not named here is in the key as it is.
"""

import numpy as np

from .bus import CLIENT_COUNT
from .state import CONFIGURATION, MACHINE, RING

__all__ = [
    "BANK", "CHUNK", "COLUMNS", "CONTEXT", "FAR", "FLOOR", "FRAGMENTS", "FRAME", "HALF", "HELD", "KEY_WORDS",
    "LINES_OF_FRAGMENT", "LINES_OF_SLOT", "OF_FRAGMENT", "OF_SLOT", "OF_TILE", "OPERAND", "PAIRS", "PC", "PCS_OF_SLOT",
    "PLAIN", "PLAINS", "RINGS", "SCALARS", "STAMP", "STREAM",
]  # fmt: skip

# Kinds of values; of 2..7 the frame holds what they are relative to
PLAIN, STAMP, HALF, BANK, CHUNK, OPERAND, STREAM, CONTEXT, PC = range(9)
FRAME = 9
HELD = PLAIN  # place in the frame: number of what the descriptor cache holds
FLOOR = 8  # a stamp that lies further back than any block looks (array.RELEASED)
FAR = 1 << 30  # NEVER in a key
KEY_WORDS = 1 << 13

_KINDS = {
    STAMP: """r_start w_blocked v_drained_at p_end p_add_now p_add_until o_offer_at l_offer_at n_offer_at k_done x_end
    x_go_at""",
    HALF: "a_half",
    BANK: "a_turn p_job_bank wl_par_bank wl_par_ends_bank",
    CHUNK: "p_half p_free_half s_half q_half",
    OPERAND: "p_next_res_half p_res_half",
    CONTEXT: "a_context p_context v_context n_context w_context",
    PC: "e_leader_pc n_pc",
}
_FRAME = {HALF: "e_half", BANK: "a_bank", CHUNK: "p_next_half", OPERAND: "n_half", STREAM: "ws_running",
          CONTEXT: "e_context"}  # fmt: skip
_RINGS = (  # head, entries, size, columns with their kinds
    ("reads_head", "reads_count", RING, {"reads_client": PLAIN, "reads_beats": PLAIN, "reads_ready": STAMP}),
    ("b_head", "b_waiting", RING, {"w_ready": STAMP}),
    ("v_head", "v_count", 16, {"v_end_at": STAMP, "v_end_last": PLAIN}),
    ("p_out_head", "p_out_count", 64,
     {"p_out_at": STAMP, "p_out_half": CHUNK, "p_out_last": PLAIN, "p_out_complete": PLAIN}),
    ("p_rows_head", "p_rows_count", 64,
     {"p_rows_at": STAMP, "p_rows_step": PLAIN, "p_rows_left": PLAIN, "p_rows_beats": PLAIN}),
    ("p_ends_head", "p_ends", 4, {"p_end_at": STAMP}),
    ("p_chunk_head", "p_chunks", 2, {"chunk_half": CHUNK, "chunk_last": PLAIN, "chunk_complete": PLAIN}),
    ("o_event_head", "o_events", 2, {"ev_done": PLAIN, "ev_retire": PLAIN}),
    ("o_resp_head", "o_resp", 128, {"resp_done": PLAIN, "resp_retire": PLAIN}),
    ("o_send_head", "o_send", 128, {"send_beats": PLAIN, "send_half": CHUNK, "send_end": PLAIN}),
    ("o_tile_head", "o_tiles", 4, {"o_tile": CONTEXT}),
    ("p_beginning", "p_waiting", 4, {"post_tile": CONTEXT}),
)  # fmt: skip
_PAIRS = {  # arrays of two, one for each half or bank: whose, kind of values
    "a_pending": (BANK, PLAIN), "a_missing": (BANK, PLAIN), "a_drain_last": (BANK, PLAIN),
    "a_drain_at": (BANK, STAMP), "p_drained_at": (BANK, STAMP), "a_read_end": (HALF, STAMP),
    "p_free": (CHUNK, PLAIN), "n_free": (OPERAND, PLAIN), "n_full": (OPERAND, PLAIN), "n_read_at": (OPERAND, STAMP),
}  # fmt: skip
# Taken care of by name below, or by counts.py
_OTHERS = """
r_credit_at ws_read ws_write ws_mark ws_end ws_running_left wl_left a_left a_ctile a_step a_row_end p_channels
p_arriving o_chunk_first o_last1 o_ready_head l_y_top l_need n_need n_chunk_first n_beats_left matched aw_count
wlast_count k_pc k_filled k_valid k_entry
"""
# Nobody looks at them where keys are made (before the first row of a step, the sequencer in "Decide", no command), they
# change only where keys are not made, or they are what the host and not the machine goes by
_OUTSIDE = """
e_seen steps next flow trouble loads visits unaligned a_t0 a_end e_chosen e_scan_exit e_scan_end e_leader e_mask e_undo
e_before v_posted v_popped k_forget x_answered x_top x_spread m_count m_head c_level c_head c_unreserved n_events
d_index d_count d_slot d_line d_row d_seg d_sub d_used d_stripe d_got d_fresh d_target d_scan d_total d_kr d_max_lines
d_stripe_lines d_holding d_held_slot d_held_sub d_held_line d_held_row d_held_seg d_operand d_held_lines d_candidates
d_members
"""


def _place(name):
    return MACHINE.fields[name][1] // 8


def _tables():
    """Places in the record: of plain scalars; of the others with their kinds; of pairs; of rings and their columns."""
    kinds = [(name, kind) for kind, names in _KINDS.items() for name in names.split()]
    known = {name for name, _ in kinds} | set(_FRAME.values()) | {n for ring in _RINGS for n in ring[:2]}
    known |= set(_OTHERS.split()) | set(_OUTSIDE.split()) | set(CONFIGURATION)
    scalars = [n for n in MACHINE.names if MACHINE[n].shape == () and not n.startswith("i_")]
    missing = known - set(scalars)
    assert not missing, missing
    plain = [_place(n) for n in scalars if n not in known]
    rings, columns = [], []
    for head, entries, size, arrays in _RINGS:
        rings.append((_place(head), _place(entries), size, len(columns), len(columns) + len(arrays)))
        columns += [(_place(name), kind) for name, kind in arrays.items()]
    for c in range(CLIENT_COUNT):
        rings.append((_place("r_rec_head") + c, _place("r_records") + c, 64, len(columns), len(columns) + 2))
        columns += [(_place("rec_last") + 64 * c, PLAIN), (_place("rec_tag") + 64 * c, PLAIN if c else STREAM)]
    pairs = [(_place(name), whose, kind) for name, (whose, kind) in _PAIRS.items()]
    others = [(_place(name), kind) for name, kind in kinds]
    return [np.array(rows, np.int64) for rows in (plain, others, pairs, rings, columns)]


def _places(names):
    return np.array([_place(name) for name in names.split()], np.int64)


PLAINS, SCALARS, PAIRS, RINGS, COLUMNS = _tables()
OF_SLOT = _places("seg priority exit_mask tiles")
PCS_OF_SLOT = _places("pc done_pc")
OF_TILE = _places(
    "t_kr t_kd t_members t_vector t_pool t_words t_channels t_chunk t_residual t_packed t_pixel_beats t_seg_w t_out_w "
    "t_line_beats t_lines"
)
OF_FRAGMENT = _places("f_slot f_sub f_seg f_lines")
LINES_OF_FRAGMENT = _places("f_line f_row")
LINES_OF_SLOT = _places("line row done_line")
FRAGMENTS = MACHINE["f_slot"].shape[1]
