"""Whose turn it is: those who can still be in time, by deadline; then those who cannot."""

from typing import NamedTuple

from fluidnpu.sched.request import Request

from .base import Sample

__all__ = ["Entry", "due", "in_turn", "late_ones"]

PATIENCE = 10  # a request without a deadline takes its turn like one with an SLO of so many single latencies


class Entry(NamedTuple):
    """Somebody who waits: a request, or a live sample outside the group.

    op : where it would go on; slack : cycles to its deadline, None: it has none
    chance : P(decided in time) if it ran alone from now on; turn : of its tenant (see tenants), the least is first
    above : its tenant asks for more than its share
    foresight : its own, None: that of its program
    """

    request: Request
    sample: Sample | None
    op: int
    slack: float | None
    chance: float
    turn: float
    above: bool = False
    foresight: object = None


def in_turn(entries, foresights, late, leader, now):
    """Entries in the order in which they should start. ``foresights``: Foresight of every program.

    First those of tenants within their share

    * who will be in time whatever exit they take, by turn, then earliest deadline first;
    * before them who is in time only if it exits early, if it can have its try without making any of them late;
    * behind them the others with a chance, the greatest chance per cycle first;
    * last those without a chance, by ``leader``: greatest index, least remaining time, or age.

    Behind them tenants that ask for more, by turn, each one's entries in the same order.

    late = "keep": by tenant and arrival alone.
    """
    if late == "keep":
        return sorted(entries, key=lambda e: (e.above, e.turn, e.request.arrival))
    above = [e for e in entries if e.above]
    if not above:
        return _by_chance(entries, foresights, leader)
    found = _by_chance([e for e in entries if not e.above], foresights, leader)
    for turn in sorted({e.turn for e in above}):
        found += _by_chance([e for e in above if e.turn == turn], foresights, leader)
    return found


def _by_chance(entries, foresights, leader):
    sure, maybe, lost = [], [], []
    for e in entries:
        (sure if e.chance == 1.0 else maybe if e.chance else lost).append(e)
    sure.sort(key=lambda e: (e.turn, due(e.request, foresights[e.request.program]), e.request.arrival))
    if maybe:
        maybe.sort(key=lambda e: (e.turn, -_worth(e, foresights), e.request.arrival))
        first = next((e for e in maybe if _affordable(_trial(e, foresights), sure, foresights)), None)
        if first is not None:
            maybe.remove(first)
            sure.insert(0, first)
    lost.sort(key=lambda e: (e.turn, _rank(e, foresights, leader), e.request.arrival))
    return [*sure, *maybe, *lost]


def late_ones(state, group, foresight, place, between=False):
    """Members of the group that will not be decided in time even at the next exit; ``between``: at the next, but not
    at the one behind it."""
    found, exits = [], foresight.tables.exit_operations
    for sample in group:
        deadline = sample.request.deadline
        if deadline is None:
            continue
        l = place(sample)
        slack, b = deadline - state.now, len(group) if between else 1
        first = foresight.to_exit[l][b]
        if not between:
            if slack < first:
                found.append(sample)
        elif foresight.next_exit[l] < len(exits) - 1:
            behind = foresight.to_exit[exits[foresight.next_exit[l]] + 1][b]
            if first <= slack < first + behind:
                found.append(sample)
    return found


def due(request, foresight):
    """Cycle by which the request should be decided: its deadline, or what its patience makes of its arrival."""
    if request.slo is not None:
        return request.deadline
    return request.arrival + PATIENCE * foresight.to_end[0][1] / request.priority


def _sight(entry, foresights):
    return entry.foresight or foresights[entry.request.program]


def _rank(entry, foresights, leader):
    foresight = _sight(entry, foresights)
    if leader == "gittins":
        return -foresight.gittins[entry.op] * entry.request.priority
    return foresight.remaining[entry.op] / entry.request.priority if leader == "remaining" else 0.0


def _trial(entry, foresights):
    """Cycles alone until it is known whether the entry is in time."""
    reach = _sight(entry, foresights).reach(entry.op, 1)
    return max(time for time, _ in reach if time <= entry.slack)


def _worth(entry, foresights):
    return entry.chance / max(1.0, _trial(entry, foresights))


def _affordable(delay, sure, foresights):
    """Whether all of ``sure``, one after the other, are expected to stay in time after a delay."""
    for e in sure:
        foresight = _sight(e, foresights)
        if e.slack is not None and e.slack < delay + foresight.to_end[e.op][1]:
            return False
        delay += foresight.remaining[e.op]
    return True
