"""Figures of a served run, from its RunRecord alone."""

from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
from fluidnpu.hw.isa import CAUSES, PC_INDEX_BITS, Code, EngineEvent, Opcode

from .engine_oracle import merging
from .replay import ENGINE_PORT

__all__ = ["CAUSE_MEANING", "Metrics", "TraceSummary", "measure", "summarise"]

_INDEX_MASK = (1 << PC_INDEX_BITS) - 1
CAUSE_MEANING = {
    "array": "multiply-accumulating",
    "vector": "pooling, depthwise",
    "weights": "waits for weights",
    "activations": "waits for activations",
    "dependency": "waits for the layer before",
    "output": "waits for the output",
    "control": "waits for a decision or a tile",
    "idle": "no sample",
}


@dataclass(frozen=True)
class TraceSummary:
    """What the engine did, from its events.

    starts : pc of every started tile, in order; None where no sample was live before it
    visits : (sample, operation) pairs with a started tile; runs : started tiles in a row at one operation
    preemptions : first tiles of samples that took the array from a live sample further on
    tenures : operations started for every admitted sample: dict (slot, n-th sample of that slot) -> set of pc
    first_admit, last_retire : cycles; of the first accepted ADMIT, of the last tile whose writes are all answered
    """

    starts: list
    visits: int
    runs: int
    preemptions: int
    tenures: dict
    first_admit: int
    last_retire: int


def summarise(events):
    """TraceSummary of a run's trace events."""
    live, tenure, visits = set(), Counter(), {}
    starts, fragments, dealt, fresh = [], [], None, True
    group, place = set(), 0  # (slot, n-th sample) and operation of the last started tile
    preemptions, first, last = 0, None, 0
    engine = events[events["source"] == ENGINE_PORT]
    columns = (engine[name].tolist() for name in ("cycle", "kind", "slot", "pc", "line", "data"))
    for cycle, kind, slot, pc, line, data in zip(*columns, strict=True):
        match kind:
            case EngineEvent.COMMAND if data == Opcode.ADMIT and line == Code.NONE:
                tenure[slot] += 1
                fresh |= not live
                live.add(slot)
                first = cycle if first is None else first
            case EngineEvent.FRAGMENT:
                fragments.append((slot, pc))
            case EngineEvent.DEAL:
                dealt, fragments = (pc, fragments), []
            case EngineEvent.REVOKE:
                dealt = None
            case EngineEvent.START:
                pc, members = dealt[0], {(member, tenure[member]) for member, _ in dealt[1]}
                ahead = any(s in live and tenure[s] == n for s, n in group - members)
                preemptions += ahead and place > pc and any(member not in visits for member in members)
                group, place = members, pc
                starts += [None, pc] if fresh else [pc]
                fresh = False
                for member, at in dealt[1]:
                    visits.setdefault((member, tenure[member]), set()).add(at)
            case EngineEvent.RETIRE:
                last = cycle
            case EngineEvent.EXIT_RESULT if data >> 16 & 1:
                live.discard(slot)
            case EngineEvent.RELEASE:
                live.discard(slot)
    runs = sum(pc is not None and (i == 0 or starts[i - 1] != pc) for i, pc in enumerate(starts))
    return TraceSummary(starts, sum(map(len, visits.values())), runs, preemptions, visits, first or 0, last)


@dataclass(frozen=True)
class Metrics:
    """Latencies are cycles from arrival to decision, of the answered requests; percentiles by nearest rank.

    requests, answered, dropped : numbers
    mean, p50, p95, p99, longest : latencies; waited : mean cycles in the host's queue
    misses : share of the requests with a deadline that were not decided by then (a dropped one is a miss); None
        without deadlines
    accuracy : share of right classes among the answered requests whose class is known, or None
    exits : share of the answered requests per exit
    mean_batch : samples that share a run of a layer (visits of a layer by a sample per run of a layer)
    merging : runs of a layer per layer visited, busy period by busy period; 1.00: all went through together
    preemptions : times that a new sample took the array from samples further on
    turns : the NPU's own counter "preemptions": also samples that catch up after a later decision at an exit
    revocations, tiles : counted by the NPU
    utilisation : useful MACs / (peak * cycles from first read to last write response)
    causes : share of the cycles per cause (isa.CAUSES), exclusive
    throughput : answers per million cycles; cycles : of the run
    beats : of external memory, per answered request
    """

    requests: int
    answered: int
    dropped: int
    mean: float
    p50: float
    p95: float
    p99: float
    longest: float
    waited: float
    misses: float | None
    accuracy: float | None
    exits: tuple
    mean_batch: float
    merging: float
    preemptions: int
    turns: int
    revocations: int
    tiles: int
    utilisation: float
    causes: dict
    throughput: float
    cycles: int
    beats: float

    def as_dict(self):
        """JSON-able."""
        return asdict(self) | {"exits": list(self.exits)}


def _useful_macs(record, trace):
    """MACs that answers needed: what an answered sample ran up to the exit that it took."""
    seen, useful = Counter(), 0
    for r in record.results:
        if r.admitted is None:
            continue
        seen[r.slot] += 1  # a slot's samples complete in the order in which they came
        if r.ok:
            end = max((i for i, head in enumerate(record.heads) if head == r.exit), default=len(record.macs))
            indices = {pc & _INDEX_MASK for pc in trace.tenures.get((r.slot, seen[r.slot]), ())}
            useful += sum(record.macs[i] for i in indices if i <= end)
    return useful


def measure(record):
    """Metrics of a RunRecord."""
    answered = [r for r in record.results if r.ok]
    latency = np.array([r.latency for r in answered] or [0])
    p50, p95, p99 = np.percentile(latency, [50, 95, 99], method="inverted_cdf").tolist()
    due = [r for r in record.results if r.deadline is not None]
    known = [r for r in answered if r.id in record.labels]
    exits = Counter(r.exit for r in answered)
    count = max(len(answered), 1)
    trace = summarise(record.events)
    counters = record.counters
    causes = {cause: counters.get(f"cycles_{cause}", 0) for cause in CAUSES}
    total = max(sum(causes.values()), 1)
    span = record.last_write - record.first_read
    return Metrics(
        requests=len(record.results),
        answered=len(answered),
        dropped=len(record.results) - len(answered),
        mean=float(latency.mean()),
        p50=p50,
        p95=p95,
        p99=p99,
        longest=float(latency.max()),
        waited=float(np.mean([r.waited for r in answered] or [0])),
        misses=sum(not r.met for r in due) / len(due) if due else None,
        accuracy=sum(r.top == record.labels[r.id] for r in known) / len(known) if known else None,
        exits=tuple(exits[e] / count for e in range(max([*exits, max(record.heads, default=0)]) + 1)),
        mean_batch=trace.visits / max(trace.runs, 1),
        merging=merging(trace.starts),
        preemptions=trace.preemptions,
        turns=counters.get("preemptions", 0),
        revocations=counters.get("revocations", 0),
        tiles=counters.get("tiles", 0),
        utilisation=_useful_macs(record, trace) / (record.peak_macs * span) if span > 0 else 0.0,
        causes={cause: cycles / total for cause, cycles in causes.items()},
        throughput=1e6 * len(answered) / max(record.cycles, 1),
        cycles=record.cycles,
        beats=sum(v for k, v in counters.items() if k.endswith("_beats")) / count,
    )
