"""Whose turn it is: those who can still be in time, by deadline; then those who cannot."""

from typing import NamedTuple

from fluidnpu.sched.request import Request

from .base import Sample

__all__ = ["Entry", "in_turn", "late_ones"]

PATIENCE = 10  # a request without a deadline takes its turn like one with an SLO of so many single latencies


class Entry(NamedTuple):
    """Somebody who waits: a request, or a live sample outside the group.

    op : where it would go on; slack : cycles to its deadline, None: it has none
    chance : P(decided in time) if it ran alone from now on; turn : of its tenant (see tenants), the least is first
    """

    request: Request
    sample: Sample | None
    op: int
    slack: float | None
    chance: float
    turn: float


def in_turn(entries, foresights, late, leader, now):
    """Entries in the order in which they should start. ``foresights``: Foresight of every program.

    By turn of the tenant; then

    * those who will be in time whatever exit they take, earliest deadline first;
    * before them who is in time only if it exits early, if it can have its try without making any of them late;
    * behind them the others with a chance, the greatest chance per cycle first;
    * last those without a chance, by ``leader``: greatest index, least remaining time, or age.

    late = "keep": by tenant and arrival alone.
    """
    if late == "keep":
        return sorted(entries, key=lambda e: (e.turn, e.request.arrival))
    sure, maybe, lost = [], [], []
    for e in entries:
        (sure if e.chance == 1.0 else maybe if e.chance else lost).append(e)
    sure.sort(key=lambda e: (e.turn, _due(e, foresights, now, leader), e.request.arrival))
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


def _due(entry, foresights, now, leader):
    if entry.slack is not None:
        return now + entry.slack
    foresight = foresights[entry.request.program]
    wait = PATIENCE * foresight.to_end[0][1] / entry.request.priority
    return entry.request.arrival + wait


def _rank(entry, foresights, leader):
    foresight = foresights[entry.request.program]
    if leader == "gittins":
        return -foresight.gittins[entry.op] * entry.request.priority
    return foresight.remaining[entry.op] / entry.request.priority if leader == "remaining" else 0.0


def _trial(entry, foresights):
    """Cycles alone until it is known whether the entry is in time."""
    reach = foresights[entry.request.program].reach(entry.op, 1)
    return max(time for time, _ in reach if time <= entry.slack)


def _worth(entry, foresights):
    return entry.chance / max(1.0, _trial(entry, foresights))


def _affordable(delay, sure, foresights):
    """Whether all of ``sure``, one after the other, are expected to stay in time after a delay."""
    for e in sure:
        foresight = foresights[e.request.program]
        if e.slack is not None and e.slack < delay + foresight.to_end[e.op][1]:
            return False
        delay += foresight.remaining[e.op]
    return True
