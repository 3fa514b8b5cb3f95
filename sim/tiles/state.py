"""State of the tile model: one record for the machine, one per operation of a program; all int64."""

import hashlib
from pathlib import Path

import numba
import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.engine.exit_unit import ExitUnit

from ..verilator import build_root

__all__ = ["COMPLETIONS", "FRAGMENTS", "MACHINE", "NEVER", "OPERATION", "SLOTS", "STARTED", "compiled", "new_machine"]

NEVER = 1 << 60
SLOTS, FRAGMENTS, COMPLETIONS, STARTED = 16, 48, 64, 4


def _cache_folder():
    """Where the compiled code is kept: a folder per version of the sources, as for the cycle model."""
    digest = hashlib.sha256()
    for file in (*sorted(Path(__file__).parent.glob("*.py")), Path(isa.__file__)):
        digest.update(file.name.encode() + file.read_bytes())
    return str(build_root() / "tiles" / digest.hexdigest()[:20])


def compiled(function):
    """``function`` compiled by numba, kept in the build folder."""
    others = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _cache_folder()
    try:
        return numba.njit(cache=True, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = others


_MACHINE = (
    # The configuration and the memory; ``beat_256``: cycles of a beat * 256
    ((), "t slots trackers read_latency fifo_beats in_flight burst_beats beat_256 rigid unstacked operations"),
    # Sequencer, completions, slots in use and their ages
    ((), "seq_free fetch_free drop_until c_head c_level admitted live previous"),
    # The running tile: its time, its weight beats; drain of the sums of the last tile and of the one before
    ((), "a_begin a_end a_beats o_free o_before started"),
    # The dealt tile; ``n_start``: when it can start at the earliest; ``n_waits``: up to when
    # its loading waits for lines; ``n_weights``: when its weights begin to come
    ((), "n_dealt n_op n_program n_variant n_longest n_total n_fragments n_candidates"),
    ((), "n_start n_loaded n_waits n_weights"),
    # Exit unit
    ((), "x_slot x_end"),
    # Counts
    ((), "tiles preemptions revocations busy read_beats written_beats"),
    ((ExitUnit.TABLES,), "x_tag"),  # tables that the exit unit holds: 1 + program * EXITS + exit
    ((STARTED,), "retired"),  # when the last tiles' writes were all answered
    ((SLOTS,), "order"),  # slots by age
    (
        (SLOTS,),
        """alive runnable ride priority program op line age exits confident tag leave cancelled finished decided group
        member known done exit head stamp pending pending_priority pending_runnable pending_ride before_line""",
    ),
    ((FRAGMENTS,), "f_slot f_line f_lines f_sub"),
    ((COMPLETIONS,), "c_slot c_status c_exit c_tag c_stamp"),
)

# kind: 0 layer, 1 JUMP, 2 EXIT; first: cycles from a tile's last sum to its first line in memory, beside that line's
# drain; extra: cycles that a tile takes longer than its formula, per number of candidates (calibration.py); seen: such
# tiles so far; the others: arithmetic of durations.py, per variant, and for whole and last c-tiles
_OPERATION = (
    ((), "kind exit last target lines nseg kh sy pad in_h producer producer_nseg residual res_producer res_nseg"),
    ((), "row_beats res_beats out_beats seg_w vsel vector taps narrow classes logit_beats table_beats"),
    ((isa.VARIANTS,), "kr max_lines stripe_lines weight_beats full part first"),
    ((isa.VARIANTS, 2), "count words parameters drain_cycles drain_beats"),
    ((SLOTS + 1,), "extra seen"),
)


def _dtype(groups):
    return np.dtype(
        [(name, "i8", shape) if shape else (name, "i8") for shape, names in groups for name in names.split()]
    )


MACHINE, OPERATION = _dtype(_MACHINE), _dtype(_OPERATION)


def new_machine(config, memory, rigid=False, unstacked=False):
    """The state at cycle 0 of a configuration and a memory (MemorySettings)."""
    machine = np.zeros(1, MACHINE)
    m = machine[0]
    m["slots"], m["trackers"], m["fifo_beats"] = config.slots, config.trackers, config.weight_fifo_beats
    m["in_flight"], m["burst_beats"] = config.reads_in_flight, config.burst_beats
    m["read_latency"] = memory.read_latency
    m["beat_256"] = beat_256(config, memory)
    m["rigid"], m["unstacked"] = rigid, unstacked
    m["x_slot"] = -1
    return machine


def beat_256(config, memory):
    """256 times the cycles that a beat takes in the long run."""
    share = 65536 // memory.beats_per_256 if memory.beats_per_256 else 256
    return max(share, 256 * (config.burst_beats + memory.burst_overhead) // config.burst_beats)
