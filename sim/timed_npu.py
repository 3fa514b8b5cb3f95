"""An NPU whose samples' decisions are known beforehand, to study time: on the cycle model (exact) or the tile model
(fast)."""

import hashlib
import time
from dataclasses import dataclass, field

import numpy as np
from fluidnpu.hw.config import NpuConfig
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.serving import serve

from .cycle.device import CycleDevice, run_now
from .decisions import GivenValues
from .measured_latency import measure_latency
from .memory import IDEAL, MemorySettings
from .session import memory_bytes_for
from .tiles.calibration import calibrate
from .tiles.device import TileDriver
from .tiles.operations import combine
from .verilator import build_root

__all__ = ["DEVICES", "Served", "TimedNpu"]

DEVICES = ("tiles", "cycles")
MOST_CYCLES = 1_000_000  # of one sample; larger networks are measured for 1, 2, 4, ... live samples only


@dataclass(frozen=True)
class Served:
    """results : of `sched.serve`, in order of completion; decisions : number of the policy's actions per kind
    statistics : counts of the device; cycles : of the run; seconds : all of it
    calls : of Policy.decide; policy_seconds : that the policy took; nothing_seconds : that doing nothing took beside it
    """

    results: list
    decisions: dict
    statistics: dict
    cycles: int
    calls: int
    policy_seconds: float
    nothing_seconds: float
    seconds: float


@dataclass(frozen=True, eq=False)
class TimedNpu:
    """An NPU with its programs.

    programs : of nn.compiler; no limit of an exit may be LIMIT_NEVER
    latencies : LatencyTable of each; operations : of the tile model (both: see `build`)
    rigid, unstacked : mode bits of the NPU
    """

    config: NpuConfig
    programs: tuple
    latencies: tuple
    operations: np.ndarray
    memory: MemorySettings = IDEAL
    rigid: bool = False
    unstacked: bool = False
    options: dict = field(default_factory=dict)

    @classmethod
    def build(cls, config, programs, *, memory=IDEAL, rigid=False, unstacked=False):
        """Latencies and calibration measured on the cycle model, or known from an earlier time."""
        latencies, operations = [], []
        for program in programs:
            latency = _kept_latency(config, program, memory, unstacked)
            latencies.append(latency)
            operations.append(calibrate(config, program, latency, memory=memory, unstacked=unstacked))
        return cls(config, tuple(programs), tuple(latencies), combine(operations), memory, rigid, unstacked)

    def serve(self, requests, decided, policy, *, device="tiles", decision_cycles=0):
        """Serve requests (without images, in order of arrival) under a policy; returns Served.

        decided : decisions.Decided, by place of the request; device : of DEVICES; decision_cycles : see `sched.serve`.
        The NPU runs rigid if it is so or the policy wants it.
        """
        if device == "cycles":
            npu = CycleDevice(self.config, self.memory, self.memory_bytes, GivenValues(decided), record=False)
            return run_now(self.serve_on(npu, requests, policy, decision_cycles=decision_cycles))
        if device != "tiles":
            raise ValueError(f"unknown device {device!r}; there are {', '.join(DEVICES)}")
        modes = {"memory": self.memory, "rigid": self.rigid or policy.rigid, "unstacked": self.unstacked}
        driver = TileDriver(self.config, self.programs, self.operations, decided, **modes)
        return run_now(_serve(driver, requests, policy, decision_cycles))

    @property
    def memory_bytes(self):
        """External memory that programs and arenas need."""
        return sum(memory_bytes_for(p, self.config.slots) for p in self.programs)

    async def serve_on(self, device, requests, policy, *, decision_cycles=0):
        """The same on any sched.Device of this configuration that has `memory_bytes` and was just reset."""
        driver = Driver(device, memory_bytes=self.memory_bytes)
        await driver.start(rigid=self.rigid or policy.rigid, unstacked=self.unstacked)
        for program in self.programs:
            await driver.load_program(program)
        return await _serve(driver, requests, policy, decision_cycles)


async def _serve(driver, requests, policy, decision_cycles):
    begin = time.perf_counter()
    timer, counts = _Timer(policy), _Counts()
    results = await serve(driver, requests, timer, decisions=counts, decision_cycles=decision_cycles)
    cycles = await driver.device.cycle()
    statistics = driver.statistics if isinstance(driver, TileDriver) else await driver.counters()
    seconds = time.perf_counter() - begin
    return Served(results, counts.kinds, statistics, cycles, timer.calls, timer.seconds, timer.nothing, seconds)


class _Timer:
    """A policy that measures how long it decides."""

    def __init__(self, policy):
        self._policy = policy
        self.calls, self.seconds, self.nothing = 0, 0.0, 0.0

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def needs_positions(self, state):
        begin = time.perf_counter()
        needed = self._policy.needs_positions(state)
        self.seconds += time.perf_counter() - begin
        return needed

    def decide(self, state):
        begin = time.perf_counter()
        actions = self._policy.decide(state)
        end = time.perf_counter()
        _nothing(state)
        self.nothing += time.perf_counter() - end
        self.seconds += end - begin
        self.calls += 1
        return actions

    def completed(self, result):
        begin = time.perf_counter()
        self._policy.completed(result)
        self.seconds += time.perf_counter() - begin


def _nothing(state):
    return []


class _Counts:
    """A list of decisions that only counts their kinds."""

    def __init__(self):
        self.kinds = {}

    def append(self, decision):
        self.kinds[decision.kind] = self.kinds.get(decision.kind, 0) + 1


def _kept_latency(config, program, memory, unstacked):
    """LatencyTable of the cycle model, kept in the build folder for the same program, configuration and memory."""
    exact = repr(("warm", program.to_bytes(), config.hash, memory, unstacked)).encode()
    folder = build_root() / "latency"
    path = folder / f"model-{config.name}-{hashlib.sha256(exact).hexdigest()[:20]}.json"
    if path.exists():
        return LatencyTable.load(path)
    alone = sum(op.variants[0]["cycles"] for op in program.ops if op.variants)
    powers = {1 << k for k in range(config.slots.bit_length())} | {config.slots}
    table = measure_latency(None, config, program, memory, unstacked, powers if alone > MOST_CYCLES else None)
    folder.mkdir(parents=True, exist_ok=True)
    table.save(path)
    return table
