"""Requests that wait, in the order in which they should start, kept from event to event.

Decisions look at the head of the queue, and a queue may be thousands long: nothing here is computed again but for
requests whose prospects have changed.
"""

from bisect import bisect_left, insort
from heapq import heappop, heappush
from itertools import count

from .tenants import tenant_of

__all__ = ["Waiting"]


class Waiting:
    """Requests by tenant and by how many of their exits they can still reach in time.

    A request whose deadline is d has *level* n while n of its ``steps`` fit into d - now. Its level falls at known
    cycles: a heap of them makes an update cost O(log n) per change, an arrival O(n) moves of a pointer.

    steps : request -> ascending cycles that it needs alone to each exit that may answer it ([]: all have level 0)
    rank : (request, level, levels) -> sort key inside a level; ties go by arrival
    """

    def __init__(self, steps, rank):
        self._steps, self._rank, self._number = steps, rank, count()
        self._clear()

    def _clear(self):
        self._lines = {}  # tenant -> levels, each a sorted list of (rank, arrival, number, request)
        self._where = {}  # id -> (levels, level, item)
        self._changes = []  # heap: (cycle in which the level falls, number, id)

    def __len__(self):
        return len(self._where)

    def update(self, waiting, now):
        """``waiting``: all requests that wait at cycle ``now``, in order of arrival. Those that were taken are gone."""
        new = []
        for request in reversed(waiting):
            if request.id in self._where:
                break
            new.append(request)
        if len(self._where) + len(new) != len(waiting) or (waiting and not self._has(waiting[0], new)):
            self._clear()
            new = waiting[::-1]
        for request in reversed(new):
            self._add(request, now)
        changes = self._changes
        while changes and changes[0][0] < now:
            _, number, id = heappop(changes)
            place = self._where.get(id)
            if place is not None and place[2][2] == number:
                self.take(place[2][3])
                self._add(place[2][3], now)

    def take(self, request):
        """The request does not wait any more."""
        levels, level, item = self._where.pop(request.id)
        del levels[level][bisect_left(levels[level], item)]

    def heads(self, most, lost):
        """[(request, level, levels), ...]: the first ``most`` of every level of every tenant, best level first, but
        ``lost`` of those that reach no exit in time."""
        return [
            (item[3], level, len(line) - 1)
            for line in self._lines.values()
            for level in range(len(line) - 1, -1, -1)
            for item in line[level][: most if level or len(line) == 1 else lost]
        ]

    def lost(self):
        """Requests that reach no exit in time."""
        return [item[3] for line in self._lines.values() if len(line) > 1 for item in line[0]]

    def count(self, program, chance=False):
        """Number of requests for a program; ``chance``: of those that can reach an exit in time."""
        found = 0
        for (of, _), line in self._lines.items():
            if of == program:
                found += sum(map(len, line[1:] if chance and len(line) > 1 else line))
        return found

    def _has(self, request, new):
        place = self._where.get(request.id)
        return place[2][3] is request if place else len(new) > 0

    def _add(self, request, now):
        steps, deadline = self._steps(request), request.deadline
        levels = len(steps)
        line = self._lines.get(tenant_of(request))
        if line is None or len(line) != levels + 1:
            line = self._lines[tenant_of(request)] = [[] for _ in range(levels + 1)]
        level, number = levels, next(self._number)
        if deadline is not None:
            while level and deadline - steps[level - 1] < now:
                level -= 1
            if level:
                heappush(self._changes, (deadline - steps[level - 1], number, request.id))
        item = (self._rank(request, level, levels), request.arrival, number, request)
        insort(line[level], item)
        self._where[request.id] = line, level, item
