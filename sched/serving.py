"""The serving loop: arrivals in, commands out, completions in.

It sleeps until the interrupt, the next arrival or the policy's own alarm, and never polls. What the policy decides is
executed in order and logged.
"""

from collections import deque

from fluidnpu.hw.isa import Status

from .driver import DriverError
from .policies.base import Admit, Batch, Cancel, Drop, Leave, Sample, State, Wake
from .request import DROPPED, Decision, Result

__all__ = ["Server", "ServingError", "serve"]


class ServingError(RuntimeError):
    """The loop cannot go on; the message names the request."""


async def serve(driver, requests, policy, *, decisions=None, on_result=None, decision_cycles=0):
    """Serve every request; returns one Result per request, in order of completion.

    Parameters
    ----------
    driver : a started Driver with every program loaded that a request names
    requests : Request objects in any order
    policy : policies.Policy
    decisions : list that receives a Decision for everything the policy does
    on_result : called with each Result
    decision_cycles : that the host computes whenever it asks the policy, before anything comes of it; the bus
        transactions cost what they cost in any case

    Raises ServingError for requests that cannot be served as given, an illegal action, or a policy that stalls.
    """
    return await Server(driver, requests, policy, decisions, on_result, decision_cycles).run()


class Server:
    """One run of `serve` (parameters: see there)."""

    def __init__(self, driver, requests, policy, decisions=None, on_result=None, decision_cycles=0):
        if decision_cycles < 0:
            raise ServingError(f"decision_cycles = {decision_cycles}, it must be at least 0")
        self.driver, self.policy, self.decision_cycles = driver, policy, decision_cycles
        self.decisions = [] if decisions is None else decisions
        self.on_result = on_result
        self.requests = sorted(requests, key=lambda r: r.arrival)
        self.tags = {id(r): tag for tag, r in enumerate(self.requests)}
        ids = set()
        for r in self.requests:
            if r.id in ids:
                raise ServingError(f"request {r.id!r} comes twice: ids must be unique")
            if r.arrival < 0 or (r.slo is not None and r.slo <= 0):
                raise ServingError(f"request {r.id!r}: arrival {r.arrival} and SLO {r.slo} must be positive")
            ids.add(r.id)
        self.pending = deque(self.requests)  # not yet arrived
        self.state = State(0, driver.sizes["slots"], rigid=driver.rigid)
        self.results = []
        self.alarm = None

    async def run(self):
        """Serve to the end; returns the results."""
        device = self.driver.device
        interrupt = False
        while self.pending or self.state.waiting or self.state.live:
            if interrupt:
                for completion in await self.driver.completions():
                    await self._complete(completion)
            self.state.now = await device.cycle()
            while self.pending and self.pending[0].arrival <= self.state.now:
                self.state.waiting.append(self.pending.popleft())
            await self._decide()
            interrupt = await self._sleep(device)
        return self.results

    async def _sleep(self, device):
        times = [t for t in (self.pending[0].arrival if self.pending else None, self.alarm) if t is not None]
        if not times and not self.state.live:
            if self.state.waiting:
                raise ServingError(
                    f"policy {self.policy.name} lets request {self.state.waiting[0].id!r} wait although nothing runs"
                )
            return False
        return await device.wait(min(times, default=None))

    async def _decide(self):
        state = self.state
        if state.live and self.policy.needs_positions(state):
            positions = await self.driver.positions(state.live, spreads=self.policy.wants_spread)
            for slot, position in positions.items():
                sample = state.live[slot]
                sample.op, sample.line, sample.spread = position.op, position.line, position.spread
        self.alarm = None
        actions = self.policy.decide(state)
        if self.decision_cycles:
            await self.driver.device.busy(self.decision_cycles)
        for action in actions:
            await self._execute(action)

    # --- actions ----------------------------------------------------------------------------------------------

    async def _execute(self, action):
        if isinstance(action, Wake):
            self.alarm = action.cycle if self.alarm is None else min(self.alarm, action.cycle)
            return
        if isinstance(action, Admit):
            await self._admit(action)
            slots, requests = (action.slot,), (action.request.id,)
        elif isinstance(action, Drop):
            self._take(action.request)
            self._finish(self._result(action.request, DROPPED, self.state.now))
            slots, requests = (), (action.request.id,)
        else:
            slots = tuple(action.slots)
            gone = [s for s in slots if s not in self.state.live]
            if gone or not slots:
                raise ServingError(f"policy {self.policy.name}: {action} names slots {gone}, which hold no sample")
            requests = tuple(self.state.live[s].request.id for s in slots)
            await self._command(action, sum(1 << s for s in slots))
        self.decisions.append(Decision(self.state.now, action.reason, slots, requests, len(self.state.waiting)))

    async def _admit(self, action):
        request, slot = action.request, action.slot
        masks = [mask for mask in (request.exits, action.exits) if mask is not None]
        exits = masks[0] & masks[-1] if masks else None
        if slot not in self.state.free:
            raise ServingError(f"policy {self.policy.name}: request {request.id!r} for slot {slot}, which is not free")
        self._take(request)
        try:
            await self.driver.admit(
                slot,
                request.image,
                self.tags[id(request)],
                program=request.program,
                priority=action.priority,
                runnable=action.runnable,
                ride=action.ride,
                exits=exits,
            )
        except (DriverError, ValueError, KeyError) as error:
            raise ServingError(f"request {request.id!r} cannot be admitted: {error}") from error
        sample = Sample(request, slot, self.state.now, action.priority, action.runnable, action.ride, exits=exits)
        self.state.live[slot] = sample

    def _take(self, request):
        for i, waiting in enumerate(self.state.waiting):
            if waiting is request:
                del self.state.waiting[i]
                return
        raise ServingError(f"policy {self.policy.name}: request {request.id!r} is not waiting")

    async def _command(self, action, mask):
        match action:
            case Batch():
                await self.driver.batch(mask, action.priority, action.runnable, action.ride, action.commit)
                for sample in (self.state.live[s] for s in action.slots):
                    sample.priority, sample.runnable, sample.ride = action.priority, action.runnable, action.ride
            case Leave():
                await self.driver.leave(mask)
            case Cancel():
                await self.driver.cancel(mask)
            case _:
                raise ServingError(f"policy {self.policy.name}: {action!r} is no action")

    # --- completions ------------------------------------------------------------------------------------------

    async def _complete(self, completion):
        if not (completion.of_sample or completion.of_admit):
            if completion.status == Status.ERROR:
                raise ServingError(f"the NPU refused a command: {completion.code.name}")
            return  # a FENCE that somebody else queued
        sample = self.state.live.get(completion.slot)
        if sample is None or self.tags[id(sample.request)] != completion.tag:
            raise ServingError(f"completion of slot {completion.slot} with tag {completion.tag}, which nobody admitted")
        del self.state.live[completion.slot]
        now = await self.driver.device.cycle()
        status = completion.status.name.lower()
        stamp = completion.stamp if completion.of_sample else now
        self._finish(
            self._result(
                sample.request, status, stamp, now, admitted=sample.admitted, slot=sample.slot, exit=completion.exit,
                top=completion.top, spread=completion.spread, code=completion.code.name, exits=sample.exits,
                held=self.policy.exit_handling == "hold",
            )
        )  # fmt: skip

    @staticmethod
    def _result(request, status, stamp, completed=None, **more):
        completed = stamp if completed is None else completed
        more = {"program": request.program, **more}
        return Result(request.id, status, request.arrival, request.deadline, stamp, completed, **more)

    def _finish(self, result):
        self.results.append(result)
        self.policy.completed(result)
        if self.on_result:
            self.on_result(result)
