"""Fair shares between tenants: weighted start-time fair queueing, and slots that others cannot fill."""

__all__ = ["AWAY", "Tenants", "tenant_of"]

AWAY = 8  # mean gaps between its requests after which a tenant is not expected any more


def tenant_of(request):
    """Who asks: tenants are told apart by (program, tenant)."""
    return request.program, request.tenant


class Tenants:
    """Virtual times: a tenant's grows by the cycles that it is served, divided by its priority; the least is first.

    A tenant that was away comes back at the present virtual time, so nobody saves up service. A tenant that asks for
    less than its share is therefore ahead of every one that asks for more (Goyal, Vin and Cheng, SIGCOMM 1996). With
    one tenant nothing changes.
    """

    def __init__(self):
        self._time, self._now = {}, 0.0
        self._seen = {}  # tenant -> [last arrival, mean gap or None, number of gaps]

    def turn(self, request):
        """Virtual time at which the request's tenant is served next."""
        return max(self._now, self._time.get(tenant_of(request), 0.0))

    def charge(self, request, cycles):
        """``cycles`` of service begin for the tenant."""
        self._now = self.turn(request)
        self._time[tenant_of(request)] = self._now + cycles / request.priority

    def arrived(self, request):
        """A request came, in order of arrival."""
        seen = self._seen.get(tenant_of(request))
        if seen is None:
            self._seen[tenant_of(request)] = [request.arrival, None, 0]
            return
        gap, seen[0] = request.arrival - seen[0], request.arrival
        seen[2] = min(seen[2] + 1, 2 * AWAY)
        seen[1] = gap if seen[1] is None else seen[1] + (gap - seen[1]) / seen[2]

    def expected(self, now):
        """Tenants whose next request may come any time: as often as they sent, they are not away for long."""
        if len(self._seen) < 2:
            return list(self._seen)
        return [t for t, (last, gap, _) in self._seen.items() if gap is not None and now - last <= AWAY * gap]

    def kept(self, request, slots, held, now):
        """Slots that requests of this one's tenant leave free for others: each tenant that is expected can have half
        of its equal part of the ``slots``, at least one; all of them together half of the slots.

        held : dict tenant -> slots that it has
        """
        expected, mine = self.expected(now), tenant_of(request)
        others = [t for t in expected if t != mine]
        if not others:
            return 0
        part = max(1, slots // (2 * (len(others) + 1)))
        return min(slots // 2, sum(max(0, part - held.get(t, 0)) for t in others))
