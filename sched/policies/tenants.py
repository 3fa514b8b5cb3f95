"""Fair shares between tenants: weighted start-time fair queueing, and slots that others cannot fill."""

from dataclasses import dataclass, field

from .arrivals import GAPS, LEAST_GAPS, MeanGap

__all__ = ["AWAY", "Tenants", "tenant_of"]

AWAY = 8  # mean gaps between its requests after which a tenant is not expected any more
BUSY = 0.8  # of what the NPU can do in its best batches: below it there is enough for all


def tenant_of(request):
    """Who asks: tenants are told apart by (program, tenant)."""
    return request.program, request.tenant


@dataclass
class _Seen:
    """Arrivals of a tenant. cycles : of service of its latest request"""

    priority: float
    cycles: float
    gaps: MeanGap = field(default_factory=lambda: MeanGap(GAPS))


class Tenants:
    """Shares, and virtual times: a tenant's grows by the cycles that it is served, divided by its priority; the least
    is first.

    A tenant that was away comes back at the present virtual time, so nobody saves up service. A tenant that asks for
    less than its share is therefore ahead of every one that asks for more (Goyal, Vin and Cheng, SIGCOMM 1996).

    A tenant is *above* its share while it asks for more than its priority's part of the NPU's time, and all together
    for about as much as there is. With one tenant nothing changes.
    """

    def __init__(self):
        self._time, self._now = {}, 0.0
        self._seen, self._expected, self._above = {}, {}, set()

    @property
    def several(self):
        """Whether there is more than one tenant."""
        return len(self._seen) > 1

    def turn(self, request):
        """Virtual time at which the request's tenant is served next."""
        return max(self._now, self._time.get(tenant_of(request), 0.0))

    def charge(self, request, cycles):
        """``cycles`` of service begin for the tenant."""
        self._now = self.turn(request)
        self._time[tenant_of(request)] = self._now + cycles / request.priority

    def arrived(self, request, cycles):
        """A request came, in order of arrival; it will take ``cycles`` of service."""
        seen = self._seen.setdefault(tenant_of(request), _Seen(request.priority, cycles))
        seen.gaps.arrived(request.arrival)
        seen.cycles = cycles

    def look(self, now):
        """It is ``now``: who is expected, and who asks for more than its share."""
        if len(self._seen) < 2:
            return
        self._expected = {
            t: s for t, s in self._seen.items() if s.gaps.count and now - s.gaps.last <= AWAY * s.gaps.value
        }
        known = {t: s for t, s in self._expected.items() if s.gaps.count >= LEAST_GAPS}
        weights = sum(s.priority for s in self._expected.values())
        demands = {t: s.cycles * s.gaps.rate for t, s in known.items()}
        busy = sum(demands.values()) > BUSY
        self._above = {t for t, d in demands.items() if busy and d * weights > known[t].priority}

    def above(self, request):
        """Whether the request's tenant asks for more than its share of an NPU that has not enough for all."""
        return tenant_of(request) in self._above

    def kept(self, request, slots, held):
        """Slots that requests of this one's tenant leave free for others: each tenant that is expected can have half
        of its equal part of the ``slots``, at least one; all of them together half of the slots.

        held : dict tenant -> slots that it has
        """
        mine = tenant_of(request)
        others = [t for t in self._expected if t != mine]
        if not others:
            return 0
        part = max(1, slots // (2 * (len(others) + 1)))
        return min(slots // 2, sum(max(0, part - held.get(t, 0)) for t in others))
