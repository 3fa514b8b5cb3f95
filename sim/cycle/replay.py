"""The cycle model in the place of the RTL in a run that is over: same register accesses in the same cycles."""

import numpy as np
from fluidnpu.hw.isa import EngineEvent, register_address

from .device import ACCEPTED, PERFORMED, SAMPLED
from .model import CycleModel
from .registers import RegisterFile

__all__ = ["Replayed", "first_difference", "replay_run"]

_SLOT_TABLE = register_address("SLOT_STATE")  # the registers from here on
_FIELDS = ("cycle", "source", "kind", "slot", "pc", "line", "data", "data2")


class Replayed:
    """What the model did: ``events`` (as RtlBench.events), ``counters`` of the last COUNTER_LATCH, ``model``;
    ``wrong_reads``: (cycle, address, RTL's value, model's) of reads of the slot table that differ."""

    def __init__(self, model, events, counters, wrong_reads):
        self.model, self.events, self.counters, self.wrong_reads = model, events, counters, wrong_reads


def replay_run(config, settings, memory, transactions, events):
    """Run the model through a run of the RTL; returns Replayed.

    config, settings : NpuConfig, MemorySettings of the run
    memory : uint8 array with the programs in their places
    transactions : every register access of the RTL's run (RtlBench.transactions)
    events : its events (RtlBench.events), which give the decisions of its exits and the end of the run
    """
    decided = events[(events["source"] == 0) & (events["kind"] == EngineEvent.EXIT_RESULT)]
    answers = iter([(int(e["data"]) & 0xFFFF, int(e["data2"])) for e in decided])
    model = CycleModel(config, settings, memory, lambda *_: next(answers))
    registers = RegisterFile(model)
    counters, wrong = {}, []
    for t in transactions:
        address, accepted = int(t["address"]), int(t["accepted"])
        if not t["write"]:
            if address >= _SLOT_TABLE:
                _, value = registers.read(accepted + SAMPLED - ACCEPTED, address)
                if value != int(t["data"]):
                    wrong.append((accepted, address, int(t["data"]), value))
            continue
        registers.write(accepted + PERFORMED - ACCEPTED, address, int(t["data"]))
        if address == register_address("COUNTER_LATCH"):
            counters = dict(registers.latched)
    model.run(max(model.cycle, int(events["cycle"].max()) + 1))
    return Replayed(model, model.events(), counters, wrong)


def first_difference(rtl, model):
    """None if two lists of events are equal, else (RTL's event, model's) at the first difference, None where one has
    ended. Events of a cycle may come in any order."""
    rows = []
    for events in (rtl, model):
        ordered = events[np.lexsort((events["source"], events["cycle"]))]
        rows.append(np.stack([ordered[name].astype(np.int64) for name in _FIELDS], axis=1))
    a, b = rows
    both = min(len(a), len(b))
    wrong = np.flatnonzero((a[:both] != b[:both]).any(axis=1))
    if not len(wrong) and len(a) == len(b):
        return None
    i = wrong[0] if len(wrong) else both
    return tuple(dict(zip(_FIELDS, r[i].tolist(), strict=True)) if i < len(r) else None for r in rows)
