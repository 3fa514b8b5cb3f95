"""Serves one trace under one policy, on the RTL in one simulator process or on the cycle model, and checks everything
that the NPU did.

Every answer is compared bit for bit with the integer reference (exit, class, S, and the logits of every exit that the
sample passed), and every action of the engine with the engine model (sim.replay).
"""

import time
from dataclasses import dataclass, field

from fluidnpu.hw.config import NpuConfig
from fluidnpu.nn.graph import Network
from fluidnpu.nn.program import Program
from fluidnpu.sched.driver import Driver
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.policies import make_policy
from fluidnpu.sched.serving import serve
from fluidnpu.sched.survival import SurvivalTables

from .answers import WrongAnswer, check_answers, expected_answers, visited_exits
from .cycle.device import CycleDevice, run_now
from .cycle.values import ReferenceValues
from .engine_model import ModelViolation
from .memory import IDEAL, MemorySettings
from .metrics import summarise
from .record import RunRecord
from .replay import program_operations, replay
from .rtl_bench import NEVER
from .rtl_device import RtlDevice, accepted_commands
from .rtl_progress import reporting
from .simulate import run_in_simulator
from .speed import facts_of
from .verilator import Build

__all__ = ["Setup", "memory_bytes_for", "serve_trace"]

PAGE = 4096


@dataclass(frozen=True, eq=False)
class Setup:
    """What the runs of a comparison have in common.

    config : the NPU
    build : its simulator; None: the cycle model, whose values come from the reference (sim.cycle)
    network, program : compiled with ``CompileOptions(reuse_arena=False, limits=...)``, so that the logits of every exit
        are still in memory when a sample leaves
    latency : LatencyTable for policies that plan (None: the compiler's estimates)
    memory : behaviour of the external memory; rigid, unstacked : mode bits of the NPU
    """

    config: NpuConfig
    build: Build | None
    network: Network
    program: Program
    latency: LatencyTable | None = None
    memory: MemorySettings = IDEAL
    rigid: bool = False
    unstacked: bool = False
    options: dict = field(default_factory=dict)

    @property
    def limits(self):
        """Limit of each exit."""
        return tuple(e.limit for e in self.program.exits)


def memory_bytes_for(program, slots):
    """Bytes of external memory that a program and the arenas of all slots need, in whole pages."""
    pages = -(-len(program.region) // PAGE) + slots * -(-program.arena_bytes // PAGE)
    return (pages + 1) * PAGE


def serve_trace(
    setup, trace, policy, *, policy_options=None, expected=None, progress=None, waves=None, timeout=None, keep=None,
    ticks=None, recording=None,
):  # fmt: skip
    """Serve ``trace`` (traffic.Trace) under the named policy; returns the RunRecord.

    The NPU runs rigid if the setup or the policy's exit handling wants it.

    Parameters
    ----------
    setup : Setup
    policy_options : further arguments of the policy
    expected : `expected_answers` of the trace, if they are known
    progress : path of a file that grows by one byte per answered request
    waves : (path, first cycle, last cycle) of a VCD file; the build must have trace=True
    timeout : seconds of real time; keep : folder for the simulator's log
    ticks : of an rtl_progress.CycleProgress; recording : file for `speed.run_bare`, on the RTL

    Raises WrongAnswer if an answer or the order of the work is not what the reference and the engine model say; the
    simulator's own errors (SimulationError, ProtocolError, WatchdogError, ServingError, DriverError) pass through.
    """
    masks = {r.id: r.exits for r in trace.requests if r.exits is not None}
    if expected is None:
        expected = expected_answers(setup.network, trace.images, setup.limits, masks)
    arguments = {
        "program": setup.program,
        "slots": setup.config.slots,
        "requests": trace.requests,
        "policy": policy,
        "policy_options": policy_options or {},
        "latency": setup.latency,
        "memory": setup.memory,
        "rigid": setup.rigid,
        "unstacked": setup.unstacked,
        "progress": None if progress is None else str(progress),
    }
    if setup.build is None:
        run = _serve_on_model(setup, **arguments)
    else:
        waves = None if waves is None else (str(waves[0]), *waves[1:])
        options = {"timeout": timeout, "keep": keep, "recording": recording}
        shown = {"waves": waves, "ticks": ticks, "facts": recording is not None}
        run = run_in_simulator(setup.build, serve_in_simulator, **options, **shown, **arguments)
    where = f"{setup.config.name}, {policy}, {trace.name}"
    try:
        _check(setup, trace, expected, run)
    except (WrongAnswer, ModelViolation) as error:
        raise WrongAnswer(f"{where}: {error}") from error
    summary = summarise(run["events"])
    return RunRecord(
        policy=policy,
        traffic=trace.name,
        config=setup.config.name,
        network=setup.network.name,
        results=run["results"],
        decisions=run["decisions"],
        events=run["events"],
        counters=run["counters"],
        cycles=max(r.completed for r in run["results"]),
        labels=trace.labels,
        operations=tuple(op.name for op in setup.program.ops),
        macs=tuple(op.macs for op in setup.program.ops),
        heads=tuple(op.exit if op.op == "EXIT" else op.head for op in setup.program.ops),
        slots=setup.config.slots,
        peak_macs=setup.config.peak_macs,
        first_read=summary.first_admit,
        last_write=summary.last_retire,
        seconds=run["seconds"],
        wakes=run["wakes"],
        facts=run["facts"],
        options={"bus_bytes": setup.config.bus_bytes, **setup.options, **trace.options},
    )


async def serve_in_simulator(bench, *, memory, waves, ticks, facts, program, slots, requests, **arguments):
    """The part of `serve_trace` that runs in the simulator's process; returns what the NPU did."""
    size = memory_bytes_for(program, slots)
    await bench.start(memory, memory_bytes=size, watchdog=_patience(program, requests))
    if waves is not None:
        bench.waves(waves[0], waves[1], NEVER if waves[2] is None else waves[2])
    with reporting(bench, ticks):
        served = await _serve(RtlDevice(bench), size, program, slots, requests, **arguments)
        await bench.wait(bench.cycle() + memory.write_latency + 100, irq=False)  # the last tiles' retirements
    return served | {
        "facts": facts_of(bench) if facts else {},
        "events": bench.events(),
        "transactions": bench.transactions(),
        "seconds": bench.seconds(),
        "wakes": bench.wakes(),
    }


def _serve_on_model(setup, *, memory, program, slots, requests, **arguments):
    """The same on the cycle model."""
    begin = time.perf_counter()
    size = memory_bytes_for(program, slots)
    values = ReferenceValues([(program, setup.network)])
    device = CycleDevice(setup.config, memory, size, values, watchdog=_patience(program, requests))
    served = run_now(_serve(device, size, program, slots, requests, **arguments))
    device.finish(memory.write_latency + 100)
    return served | {
        "facts": {},
        "events": device.events(),
        "transactions": device.transactions(),
        "seconds": time.perf_counter() - begin,
        "wakes": device.wakes,
    }


async def _serve(
    device, size, program, slots, requests, *, policy, policy_options, latency, rigid, unstacked, progress
):  # fmt: skip
    """Serve ``requests`` on any Device whose external memory has ``size`` bytes."""
    driver = Driver(device, memory_bytes=size)
    chosen = make_policy(policy, SurvivalTables.of_program(program, slots, latency=latency), **policy_options)
    rigid = rigid or chosen.rigid
    await driver.start(rigid=rigid, unstacked=unstacked)
    await driver.load_program(program)
    first, now = min(r.arrival for r in requests), await device.cycle()
    if first < now:
        raise ValueError(f"the first request arrives at cycle {first}, the NPU is set up at cycle {now}")
    masks = {r.id: r.exits for r in requests}
    decisions, tensors = [], {}
    with open(progress, "ab", buffering=0) if progress else _Nowhere() as ticks:

        def keep_logits(result):
            if result.ok:
                arena = driver.slots[result.slot]
                raw = device.read_memory(arena.base, program.arena_bytes)
                tensors[result.id] = {
                    e: program.unpack(program.exits[e].logits, raw)[0, 0, : program.exits[e].classes].copy()
                    for e in visited_exits(result.exit, len(program.exits), masks[result.id])
                }
                if program.has_no_exits:
                    tensors[result.id] = {name: program.unpack(name, raw).copy() for name in program.outputs}
            ticks.write(b".")

        results = await serve(driver, requests, chosen, decisions=decisions, on_result=keep_logits)
    counters = await driver.counters()
    return {"results": results, "decisions": decisions, "tensors": tensors, "counters": counters, "rigid": rigid}


class _Nowhere:
    """A file that forgets."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def write(self, _):
        pass


def _patience(program, requests):
    """Cycles within which the run must end: far more than one sample after the other takes."""
    alone = sum(op.variants[0]["cycles"] for op in program.ops if op.variants) + 1000 * len(program.exits)
    return max(r.arrival for r in requests) + 50 * alone * (len(requests) + 4)


def _check(setup, trace, expected, run):
    """Answers against the reference; the engine's actions against the model; completions against the answers."""
    results = run["results"]
    missing = {r.id for r in trace.requests} ^ {r.id for r in results}
    if missing or len(results) != len(trace.requests):
        raise WrongAnswer(f"{len(results)} results for {len(trace.requests)} requests, not matched: {sorted(missing)}")
    early = {id for d in run["decisions"] if d.kind == "leave" for id in d.requests}
    check_answers(results, run["tensors"], expected, early)
    played = replay(
        setup.config,
        {0: program_operations(setup.program.region, len(setup.program.ops))},
        accepted_commands(run["transactions"]),
        run["events"],
        rigid=run["rigid"],
        unstacked=setup.unstacked,
    )
    ended = [c for c in played.completions if c.status.name in ("OK", "CANCELLED", "FAILED")]
    model = sorted((c.status.name.lower(), c.slot, c.exit, c.top, c.spread, c.stamp) for c in ended)
    found = sorted((r.status, r.slot, r.exit, r.top, r.spread, r.stamp) for r in results if r.slot is not None)
    if model != found:
        different = [pair for pair in zip(model, found, strict=False) if pair[0] != pair[1]][:1]
        raise WrongAnswer(
            f"{len(model)} completions in the trace, {len(found)} in the host; (status, slot, exit, class, S, stamp): "
            f"first difference {different}"
        )
    for e in range(len(setup.program.exits)):
        count, answers = run["counters"][f"exits_{e}"], sum(r.ok and r.exit == e for r in results)
        if count != answers:
            raise WrongAnswer(f"counter exits_{e} says {count}, there are {answers} answers of that exit")
