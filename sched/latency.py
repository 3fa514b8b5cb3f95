"""How long a layer takes for how many live samples: measured, or estimated by the mapping's cost functions."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["DECISION_CYCLES", "LatencyTable", "estimate_latency"]

# An EXIT operation without its logits: drain of the head's last line, reads, and the decision's own pipeline.
DECISION_CYCLES = 100


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """T[l][b]: cycles of operation ``l`` of a program for ``b`` live samples in one group.

    cycles : array [operations, slots + 1]; column 0 is zero
    names : of the operations
    source : where the numbers come from, for reports
    """

    cycles: np.ndarray
    names: tuple = ()
    source: str = "given"

    def __post_init__(self):
        table = np.array(self.cycles, float)
        if table.ndim != 2 or min(table.shape) < 1 or table.shape[1] < 2:
            raise ValueError(f"latency table is {list(table.shape)}, it must be [operations, slots + 1]")
        if not np.isfinite(table).all() or (table < 0).any() or table[:, 0].any():
            raise ValueError("latency table: cycles must be finite and not negative, and those of 0 samples zero")
        if self.names and len(self.names) != len(table):
            raise ValueError(f"latency table: {len(self.names)} names for {len(table)} operations")
        object.__setattr__(self, "cycles", table)

    @property
    def operations(self):
        return self.cycles.shape[0]

    @property
    def slots(self):
        """Most live samples."""
        return self.cycles.shape[1] - 1

    def per_sample(self):
        """T[l][b] / b summed over the operations, for b = 1..slots: flat means batching does not pay."""
        return self.cycles[:, 1:].sum(0) / np.arange(1, self.slots + 1)

    def save(self, path):
        """Write as JSON."""
        content = {"source": self.source, "names": list(self.names), "cycles": self.cycles.tolist()}
        Path(path).write_text(json.dumps(content) + "\n")

    @classmethod
    def load(cls, path):
        """Read what `save` wrote; ValueError that names the file for anything else."""
        try:
            content = json.loads(Path(path).read_text())
            return cls(np.array(content["cycles"], float), tuple(content["names"]), content["source"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a latency table: {error}") from None


def estimate_latency(program, slots, exits=None):
    """LatencyTable of a program from the cycles that its compiler estimated (OpInfo.variants[b-1]["cycles"]).

    An EXIT takes the samples one after the other, `DECISION_CYCLES` plus its classes each; a JUMP takes no time.
    Beyond the estimates' last number of samples the growth of the last step goes on.

    exits : mask of enabled exits; the head of a disabled one takes no time (default: all)
    """
    last = len(program.exits) - 1
    table = np.zeros((len(program.ops), slots + 1))
    for i, op in enumerate(program.ops):
        head = op.exit if op.op == "EXIT" else op.head
        if exits is not None and 0 <= head < last and not exits >> head & 1:
            continue
        if op.op == "EXIT":
            table[i] = (DECISION_CYCLES + program.exits[op.exit].classes) * np.arange(slots + 1)
        elif op.variants:
            known = [v["cycles"] for v in op.variants[:slots]]
            step = known[-1] - known[-2] if len(known) > 1 else known[-1]
            known += [known[-1] + step * n for n in range(1, slots + 1 - len(known))]
            table[i, 1:] = known
    return LatencyTable(table, tuple(op.name for op in program.ops), f"estimate for {program.config_name}")
