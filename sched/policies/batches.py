"""What policies that run whole batches have in common: which requests may share a batch, how one starts, how long it
takes."""

from .base import Admit, Batch

__all__ = ["alike", "expected_times", "full_times", "start_together"]


def alike(waiting, most):
    """The oldest request and those behind it for the same network, at most ``most`` of them: only they can share
    weights."""
    return [r for r in waiting if r.program == waiting[0].program][:most]


def start_together(requests, free, reason="start", **how):
    """Actions by which ``requests`` enter the first slots of ``free`` and begin in the same cycle, so that in rigid
    mode all of them are the group. ``how``: further arguments of Admit."""
    places = list(zip(requests, free, strict=False))
    if len(places) == 1:
        return [Admit(*places[0], reason=reason, **how)]
    priority = how.get("priority", 1)
    admits = [Admit(request, slot, runnable=False, **how) for request, slot in places]
    return [*admits, Batch(tuple(slot for _, slot in places), priority, reason=reason)]


def full_times(tables):
    """Cycles of the whole network without an early exit for 0..B samples, a list."""
    return tables.latency.cycles.sum(0).tolist()


def expected_times(tables, exit_aware):
    """Cycles of a batch of 0..B, expected with exits or of the whole network, a list."""
    return tables.remaining[0].tolist() if exit_aware else full_times(tables)
