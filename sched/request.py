"""What goes into the serving loop and what comes out: requests, results, and the decisions in between."""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

__all__ = ["DROPPED", "Decision", "Request", "Result"]

DROPPED = "dropped"  # status of a request that the policy gave up before it was admitted


@dataclass(frozen=True, eq=False)
class Request:
    """An image to classify.

    id : any name, unique in a run
    arrival : cycle at which the host learns of it
    image : int8 [h, w, c], uint8 [bytes] as Program.pack_input returns it, or None in studies of time alone
    slo : cycles from arrival to decision that are promised, None: no promise
    exits : mask of exits at which it may leave, None: all
    program : index of the network in the driver
    tenant : who asks, for reports; priority : weight of the tenant, 1 is ordinary (PREMA: 1, 3, 9)
    """

    id: Hashable
    arrival: int
    image: np.ndarray | None
    slo: int | None = None
    exits: int | None = None
    program: int = 0
    tenant: str = ""
    priority: float = 1.0

    @property
    def deadline(self):
        """Cycle by which the decision is due, or None."""
        return None if self.slo is None else self.arrival + self.slo


@dataclass(frozen=True)
class Result:
    """What became of a request. Times are cycles.

    status : "ok", "cancelled", "failed" (a descriptor or the memory), "error" (the NPU refused it), "dropped"
    code : name of isa.Code, why it failed
    admitted : when it was given to the NPU (None: dropped); stamp : the decision; completed : when the host saw it
    exit, top, spread : exit taken, class, S of the decision; they mean something with status "ok" only
    program : of the request; exits : mask of exits that were enabled for it, None: all
    held : the host hands it out when it saw it, at the end of a batch (Policy.exit_handling "hold")
    """

    id: Hashable
    status: str
    arrival: int
    deadline: int | None
    stamp: int
    completed: int
    admitted: int | None = None
    slot: int | None = None
    exit: int = 0
    top: int = 0
    spread: int = 0
    code: str = "NONE"
    program: int = 0
    exits: int | None = None
    held: bool = False

    @property
    def ok(self):
        return self.status == "ok"

    @property
    def end(self):
        """When the answer is there."""
        return self.completed if self.held else self.stamp

    @property
    def latency(self):
        """Cycles from arrival to the answer."""
        return self.end - self.arrival

    @property
    def waited(self):
        """Cycles in the host's queue."""
        return (self.stamp if self.admitted is None else self.admitted) - self.arrival

    @property
    def met(self):
        """Decided, and within the deadline if there is one."""
        return self.ok and (self.deadline is None or self.end <= self.deadline)


@dataclass(frozen=True)
class Decision:
    """Something the policy did.

    kind : the action's reason (start, defer, merge, urgent, ...), or its name in lower case
    slots : concerned; requests : their ids; queue : requests left waiting
    """

    cycle: int
    kind: str
    slots: tuple
    requests: tuple
    queue: int
