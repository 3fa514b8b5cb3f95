"""Which requests are new, and how fast they come."""

__all__ = ["GAPS", "LEAST_GAPS", "Arrivals", "MeanGap"]

GAPS = 64  # that the estimate of a rate remembers
LONG = 512  # that the estimate of the usual rate remembers
LEAST_GAPS = 8  # before it is trusted; until then only the present work counts


class MeanGap:
    """Mean of the gaps between arrivals, the last ``memory`` counting most.

    value : cycles; count : gaps that were seen; last : cycle of the latest arrival, None: there was none
    """

    def __init__(self, memory):
        self.value, self.count, self.last, self._memory = 0.0, 0, None, memory

    def arrived(self, cycle):
        """There is an arrival, in order."""
        if self.last is not None:
            self.count += 1
            self.value += (cycle - self.last - self.value) / min(self.count, self._memory)
        self.last = cycle

    @property
    def rate(self):
        """Arrivals per cycle; 0 until `LEAST_GAPS` were seen."""
        return 1 / max(1.0, self.value) if self.count >= LEAST_GAPS else 0.0


class Arrivals:
    """Arrival rate per program."""

    def __init__(self, programs):
        self._known = set()
        self._recent, self._usual = ([MeanGap(memory) for _ in range(programs)] for memory in (GAPS, LONG))

    def learn(self, waiting):
        """``waiting``: requests in order of arrival; those behind the last known one are new. Returns the new ones."""
        new = []
        for request in reversed(waiting):
            if request.id in self._known:
                break
            new.append(request)
        new.reverse()
        for request in new:
            self._recent[request.program].arrived(request.arrival)
            self._usual[request.program].arrived(request.arrival)
            self._known.add(request.id)
        return new

    def forget(self, id):
        """A request has left."""
        self._known.discard(id)

    def rate(self, program):
        """Requests per cycle; 0 until enough have come."""
        return self._recent[program].rate

    def usual_rate(self, program):
        """Requests per cycle over a longer time."""
        return self._usual[program].rate
