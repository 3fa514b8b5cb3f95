"""Fair shares between tenants: weighted start-time fair queueing."""

__all__ = ["Tenants"]


class Tenants:
    """Virtual times: a tenant's grows by the cycles that it is served, divided by its priority; the least is first.

    A tenant that was away comes back at the present virtual time, so nobody saves up service. A tenant that asks for
    less than its share is therefore ahead of every one that asks for more (Goyal, Vin and Cheng, SIGCOMM 1996). With
    one tenant nothing changes. Tenants are told apart by (program, tenant).
    """

    def __init__(self):
        self._time, self._now = {}, 0.0

    def turn(self, request):
        """Virtual time at which the request's tenant is served next."""
        return max(self._now, self._time.get((request.program, request.tenant), 0.0))

    def charge(self, request, cycles):
        """``cycles`` of service begin for the tenant."""
        self._now = self.turn(request)
        self._time[request.program, request.tenant] = self._now + cycles / request.priority
