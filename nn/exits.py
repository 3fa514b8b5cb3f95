"""The exit decision: top class and confidence of a vector of int8 logits, in integers.

With q the logits and m their maximum, softmax confidence of the top class is 1 / sum(exp(-scale * beta * (m - q))).
The exit unit sums a table instead, E[d] = round(2**16 * exp(-scale * beta * d)):

    S = sum over classes of E[m - q]          confident iff S <= limit, limit = floor(2**16 / threshold)

so that no division is needed. E[0] is 2**16 and S is 2**16 / confidence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from fluidnpu.hw.isa import LIMIT_ALWAYS, LIMIT_NEVER, MAX_CLASSES

from .graph import Exit, Network

__all__ = [
    "MAX_CLASSES",
    "Decision",
    "confidence",
    "decide",
    "exit_table",
    "is_confident",
    "limit_of",
    "logits_of",
    "top_and_spread",
]

ONE = 1 << 16


@dataclass(frozen=True, eq=False)
class Decision:
    """Where samples leave; three arrays of one shape, the batch's (0-dimensional for a single sample)."""

    exit: np.ndarray  # int64, which exit was taken
    top: np.ndarray  # int64, class
    spread: np.ndarray  # int64, S at that exit


def exit_table(scale: float, beta: float = 1.0) -> np.ndarray:
    """E, uint32 [256]. ``scale`` of the logits, ``beta`` of the softmax. Raises ValueError unless scale * beta > 0."""
    step = scale * beta
    if not (step > 0 and math.isfinite(step)):
        raise ValueError(f"logits scale * softmax beta is {step}, it must be positive and finite")
    return np.array([math.floor(ONE * math.exp(-step * d) + 0.5) for d in range(256)], np.uint32)


def limit_of(threshold: float) -> int:
    """Limit of a confidence threshold: leave iff confidence >= threshold. Above 1 never, 0 or below always."""
    if math.isnan(threshold):
        raise ValueError("exit threshold is not a number")
    if threshold > 1:
        return LIMIT_NEVER
    if threshold <= 0:
        return LIMIT_ALWAYS
    return min(math.floor(ONE / threshold), LIMIT_ALWAYS)


def top_and_spread(logits: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(top class, S) of int8 logits [..., classes]; the lowest index wins a tie. int64 arrays of shape [...]."""
    q = np.asarray(logits)
    if q.dtype != np.int8 or q.ndim < 1 or not 1 <= q.shape[-1] <= MAX_CLASSES:
        raise ValueError(f"logits are {q.dtype} {list(q.shape)}, they must be int8 [..., 1..{MAX_CLASSES}]")
    q = q.astype(np.int64)
    spread = np.asarray(table, np.int64)[q.max(-1, keepdims=True) - q].sum(-1)
    return q.argmax(-1), spread


def is_confident(spread: np.ndarray | int, limit: int) -> np.ndarray:
    """S <= limit, with 0 = never (no S is 0) and 0xFFFFFFFF = always."""
    return np.asarray(spread, np.int64) <= limit


def confidence(spread: np.ndarray | int) -> np.ndarray:
    """Softmax confidence of the top class, as the integers see it."""
    return ONE / np.asarray(spread, np.float64)


def logits_of(exit: Exit, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """Logits [..., classes] of an exit among the tensors [..., h, w, c] of a run."""
    return tensors[exit.logits.name][..., 0, 0, : exit.classes]


def decide(
    network: Network, tensors: Mapping[str, np.ndarray], limits: Sequence[int], enabled: int | None = None
) -> Decision:
    """The exit (of ``network.ends``) that each sample takes.

    ``tensors`` as ``reference.run`` returns them (one sample or a batch), ``limits`` one per exit, ``enabled`` a bit
    mask of exits (default all). A sample leaves at the first enabled exit whose S <= its limit; the last exit always
    finishes, whatever its limit and its bit. Raises ValueError on a wrong number of limits.
    """
    exits = network.ends
    if len(limits) != len(exits):
        raise ValueError(f"{network.name}: {len(limits)} limits for {len(exits)} exits")
    for e, limit in enumerate(limits):
        if not LIMIT_NEVER <= limit <= LIMIT_ALWAYS:
            raise ValueError(f"{network.name}: limit of exit {e} is {limit}, allowed {LIMIT_NEVER}..{LIMIT_ALWAYS}")
    last = len(exits) - 1
    top, spread = top_and_spread(logits_of(exits[last], tensors), exit_table(exits[last].scale, exits[last].beta))
    taken = np.full_like(top, last)
    for e in reversed(range(last)):
        if enabled is not None and not enabled >> e & 1:
            continue
        top_e, spread_e = top_and_spread(logits_of(exits[e], tensors), exit_table(exits[e].scale, exits[e].beta))
        leaves = is_confident(spread_e, limits[e])
        taken, top, spread = (np.where(leaves, a, b) for a, b in ((e, taken), (top_e, top), (spread_e, spread)))
    return Decision(taken, top, spread)
