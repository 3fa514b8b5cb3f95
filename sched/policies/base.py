"""The interface between serving loop and policies: what a policy sees (`State`) and what it may ask for (actions)."""

from dataclasses import dataclass, field

from fluidnpu.sched.request import Request

__all__ = ["Admit", "Batch", "Cancel", "Drop", "Leave", "Policy", "Sample", "State", "Wake"]


@dataclass
class Sample:
    """A live sample.

    op, line : where it stood when positions were last read (see `Policy.needs_positions`)
    exits : mask of exits that are enabled for it, None: all
    spread : S of the last head that decided on it, from the same reading, for policies that want it
        (`Policy.wants_spread`); None: there was no head yet, or it is not known
    preempted : times that newcomers were let past it, counted by the policy
    """

    request: Request
    slot: int
    admitted: int
    priority: int
    runnable: bool
    ride: bool
    op: int = 0
    line: int = 0
    exits: int | None = None
    spread: int | None = None
    preempted: int = 0


@dataclass
class State:
    """What the loop knows at an event.

    now : cycle; slots : of the device; waiting : requests in order of arrival; live : dict slot -> Sample;
    free : free slots in ascending order; rigid : the NPU keeps a batch until all of it has left
    """

    now: int
    slots: int
    waiting: list = field(default_factory=list)
    live: dict = field(default_factory=dict)
    rigid: bool = False

    @property
    def free(self):
        return [s for s in range(self.slots) if s not in self.live]


@dataclass(frozen=True, eq=False)
class Admit:
    """A waiting request enters a free slot. ``exits``: mask of exits to try, None: those that the request allows."""

    request: Request
    slot: int
    priority: int = 1
    runnable: bool = True
    ride: bool = True
    exits: int | None = None
    reason: str = "admit"


@dataclass(frozen=True)
class Batch:
    """New priority, runnable and ride for slots; ``commit=False`` records it until the next committed one."""

    slots: tuple
    priority: int = 1
    runnable: bool = True
    ride: bool = True
    commit: bool = True
    reason: str = "batch"


@dataclass(frozen=True)
class Leave:
    """Slots leave at their next exit head."""

    slots: tuple
    reason: str = "leave"


@dataclass(frozen=True)
class Cancel:
    """Slots are released without a decision."""

    slots: tuple
    reason: str = "cancel"


@dataclass(frozen=True, eq=False)
class Drop:
    """A waiting request is given up."""

    request: Request
    reason: str = "drop"


@dataclass(frozen=True)
class Wake:
    """Ask again at this cycle if nothing happens before."""

    cycle: int


class Policy:
    """Decides at every event: an arrival, a completion, a `Wake`. Deterministic, knows no device.

    Subclasses set ``name`` and give `decide`. ``model``: SurvivalTables, for the policies that need them, or a sequence
    of them, one per program of the device.

    wants_true_exits : the constructor takes ``true_exits``, dict request id -> exit that the sample will take. Only an
        oracle says so, and nobody else may be given them.
    wants_spread : where positions are read, S is too (one more bus access per live sample)
    drops : it may give requests up, so it is to be compared with others that do
    exit_handling : what becomes of the place of a sample that exits: "shrink", it leaves and is not computed any more;
        "bubble", its result leaves at once but its place is kept and computed until the batch ends; "hold", the result
        too is handed out when the batch ends. The last two need the NPU in rigid mode (`rigid`); with "hold" a result
        counts from `Result.completed`, otherwise from `Result.stamp`.
    """

    name = ""
    wants_true_exits = False
    wants_spread = False
    drops = False
    exit_handling = "shrink"

    def __init__(self, model=None):
        self.models = [model] if model is None or hasattr(model, "latency") else list(model)
        self.model = self.models[0]

    @property
    def rigid(self):
        """Whether the NPU has to run in rigid mode for this policy."""
        return self.exit_handling != "shrink"

    def tables(self, request):
        """SurvivalTables of the program that a request is for."""
        return self.models[request.program]

    def learn(self, result):
        """The exit rates of the result's network follow it, and the tables them. True if there are new tables."""
        tables = self.models[result.program]
        if not result.ok:
            return False
        tables.rates.learn(result.exit, result.exits)
        return tables.refresh()

    def needs_positions(self, state):
        """Whether `decide` will look at op and line of live samples; reading them takes bus time."""
        return False

    def decide(self, state):
        """Actions, executed in order. Called again at the next event, whatever was returned."""
        raise NotImplementedError

    def completed(self, result):
        """A sample left (Result); called before the `decide` of that event."""
