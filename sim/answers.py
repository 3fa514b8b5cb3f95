"""What every answer must be, by the integer reference, and the comparison with what the NPU said."""

from dataclasses import dataclass

import numpy as np
from fluidnpu.nn import reference
from fluidnpu.nn.exits import decide, exit_table, logits_of, top_and_spread

__all__ = ["Answer", "WrongAnswer", "check_answers", "expected_answers", "visited_exits"]


class WrongAnswer(AssertionError):
    """The NPU's answers, or the order of its work, differ from the reference; the message lists the first of them."""


@dataclass(frozen=True, eq=False)
class Answer:
    """Of one image: the exit that it takes; per exit its logits (int8 [classes]), class and S; of a network without
    exits its outputs by name (int8 [h, w, c])."""

    exit: int
    logits: tuple
    top: tuple
    spread: tuple
    outputs: dict


def expected_answers(network, images, limits, masks=None):
    """dict request id -> Answer, by nn.reference and nn.exits.

    images : dict id -> int8 [h, w, c]; limits : one per exit; masks : dict id -> mask of enabled exits (missing: all)
    """
    if not images:
        return {}
    tensors = reference.run(network, np.stack(list(images.values())))
    logits = [logits_of(e, tensors) for e in network.ends]
    found = [top_and_spread(q, exit_table(e.scale, e.beta)) for q, e in zip(logits, network.ends, strict=True)]
    taken = decide(network, tensors, limits).exit
    answers = {}
    for n, id in enumerate(images):
        mask = None if masks is None else masks.get(id)
        exit = taken[n] if mask is None else decide(network, {k: t[n] for k, t in tensors.items()}, limits, mask).exit
        tops, spreads = (tuple(int(f[i][n]) for f in found) for i in (0, 1))
        outputs = {} if network.exits else {t.name: tensors[t.name][n] for t in network.outputs}
        answers[id] = Answer(int(exit), tuple(q[n] for q in logits), tops, spreads, outputs)
    return answers


def visited_exits(exit, exits, mask=None):
    """Exits whose logits a sample computed that left at ``exit`` of ``exits``: the enabled ones up to it."""
    enabled = (1 << exits) - 1 if mask is None else mask | 1 << exits - 1
    return [e for e in range(exit + 1) if enabled >> e & 1]


def check_answers(results, tensors, expected, early=(), most=8):
    """Compare every answered Result bit for bit: exit, class, S and logits. Raises WrongAnswer.

    tensors : dict id -> dict of what was found in the NPU's memory: exit -> logits int8 [classes], and of a network
        without exits the name of an output -> int8 [h, w, c]
    expected : of `expected_answers`
    early : ids of requests that the policy told to leave early; they may take an exit before the expected one
    most : differences that the message lists
    """
    wrong = []
    for r in results:
        if r.status in ("failed", "error"):
            wrong.append(f"request {r.id!r}: {r.status} ({r.code})")
        if not r.ok:
            continue
        answer = expected[r.id]
        if r.exit != answer.exit and not (r.id in early and r.exit < answer.exit):
            wrong.append(f"request {r.id!r}: exit {r.exit}, the reference takes exit {answer.exit}")
            continue
        for what, got, want in (("class", r.top, answer.top[r.exit]), ("S", r.spread, answer.spread[r.exit])):
            if got != want:
                wrong.append(f"request {r.id!r}: {what} {got} at exit {r.exit}, the reference says {want}")
        missing = answer.outputs.keys() - tensors[r.id].keys()
        if missing:
            wrong.append(f"request {r.id!r}: nobody looked at outputs {sorted(missing)}")
        for e, logits in tensors[r.id].items():
            if e in answer.outputs:
                different = int((logits != answer.outputs[e]).sum())
                if different:
                    wrong.append(f"request {r.id!r}: {different} of {logits.size} values of output '{e}' differ")
            elif not np.array_equal(logits, answer.logits[e]):
                wrong.append(
                    f"request {r.id!r}: logits of exit {e} are {logits.tolist()}, the reference says "
                    f"{answer.logits[e].tolist()}"
                )
    if wrong:
        more = f"\n... and {len(wrong) - most} more" if len(wrong) > most else ""
        first = "\n".join(wrong[:most])
        raise WrongAnswer(f"{len(wrong)} answers or tensors differ from the reference:\n{first}{more}")
