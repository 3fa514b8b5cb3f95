"""Which requests are new, and how fast they come."""

__all__ = ["Arrivals"]

GAPS = 64  # arrivals that the estimate of their rate remembers
LONG = 512  # that the estimate of the usual rate remembers
LEAST_GAPS = 8  # arrivals before it is trusted; until then only the present work counts


class Arrivals:
    """Arrival rate per program from the average gap, the last `GAPS` counting most."""

    def __init__(self, programs):
        self._known = set()
        self._latest = [None] * programs
        self._count, self._gap, self._long = [0] * programs, [0.0] * programs, [0.0] * programs

    def learn(self, waiting):
        """``waiting``: requests in order of arrival; those behind the last known one are new. Returns the new ones."""
        new = []
        for request in reversed(waiting):
            if request.id in self._known:
                break
            new.append(request)
        new.reverse()
        for request in new:
            p = request.program
            if self._latest[p] is not None:
                gap = request.arrival - self._latest[p]
                self._count[p] += 1
                self._gap[p] += (gap - self._gap[p]) / min(self._count[p], GAPS)
                self._long[p] += (gap - self._long[p]) / min(self._count[p], LONG)
            self._latest[p] = request.arrival
            self._known.add(request.id)
        return new

    def forget(self, id):
        """A request has left."""
        self._known.discard(id)

    def rate(self, program):
        """Requests per cycle; 0 until enough have come."""
        return 1 / max(1.0, self._gap[program]) if self._count[program] >= LEAST_GAPS else 0.0

    def usual_rate(self, program):
        """Requests per cycle over a longer time."""
        return 1 / max(1.0, self._long[program]) if self._count[program] >= LEAST_GAPS else 0.0
