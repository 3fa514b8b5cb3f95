"""Measurements as tables, for the terminal, Markdown and pages alike."""

import csv
import re
from dataclasses import dataclass

from fluidnpu.hw.isa import CAUSES
from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from .formula import CLIENTS
from .measure import READERS, whole_layers

__all__ = ["Table", "causes_text", "layers_table", "percent", "run_name", "runs_table", "write_layers", "write_table"]

WIDE = ("c-tiles as formula", "known elsewhere")
SHOWN_CAUSE = 0.005  # least share of the cycles that is written


@dataclass(frozen=True)
class Table:
    """header : names of columns; rows : tuples of texts; ``total``: the last row is a sum."""

    title: str
    header: tuple
    rows: list
    total: bool = False

    def _right(self, column):
        """Whether a column holds numbers."""
        return all(re.fullmatch(r"[\d,. %x×+\-–/]*", row[column]) for row in self.rows)

    def to_rich(self):
        """For the terminal."""
        table = RichTable(title=self.title, box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
        for i, name in enumerate(self.header):
            table.add_column(name, justify="right" if self._right(i) else "left")
        for i, row in enumerate(self.rows):
            table.add_row(*row, end_section=self.total and i == len(self.rows) - 2)
        return table

    def narrow(self):
        """The table without the columns that a terminal has no room for (WIDE)."""
        kept = [i for i, name in enumerate(self.header) if name not in WIDE]
        header, *rows = (tuple(row[i] for i in kept) for row in (self.header, *self.rows))
        return Table(self.title, header, rows, self.total)

    def transposed(self):
        """Columns as rows; the first column is the header."""
        header, *rows = zip(self.header, *self.rows, strict=True)
        return Table(self.title, header, rows)

    def to_markdown(self):
        """A pipe table, without the title."""
        marks = ["---:" if self._right(i) else "---" for i in range(len(self.header))]
        lines = [self.header, marks, *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def percent(share, digits=1):
    """0.123 -> "12.3 %"."""
    return f"{100 * share:.{digits}f} %"


def causes_text(causes, cycles, compact=False):
    """Shares of the cycles by cause: "array 90.1 %, weights 9.9 %", or "array 90%, weights 10%"."""
    shares = {cause: causes[cause] / max(1, cycles) for cause in CAUSES}
    shown = [(cause, share) for cause, share in shares.items() if share >= SHOWN_CAUSE]
    return ", ".join(f"{cause} {f'{share:.0%}' if compact else percent(share)}" for cause, share in shown)


def run_name(m):
    """What sets a measurement apart from others of its network."""
    cap = m.memory["beats_per_256"]
    memory = "limited memory" if cap else "ideal memory"
    return f"{m.live} live, {memory}{', unstacked' if m.unstacked else ''}"


def layers_table(m, most=None, compact=False):
    """Every layer of a measurement, parts of split layers added up.

    most : only those that lose most cycles, in their order; compact : fits 80 characters, without c-tiles
    """
    layers = all_layers = whole_layers(m)
    if most is not None and len(layers) > most:
        lost = sorted(layers, key=lambda layer: -layer.cycles * (1 - layer.utilisation))[:most]
        layers = [layer for layer in layers if layer in lost]
    rows = [
        (
            layer.name,
            " ".join(layer.modes),
            f"{layer.tiles:,}",
            f"{layer.cycles:,}",
            percent(layer.utilisation) if layer.macs else "",
            f"{layer.ctiles_exact:,}/{layer.ctiles:,}" if layer.ctiles else "",
            causes_text(layer.causes, layer.cycles, compact),
        )
        for layer in layers
    ]
    if len(layers) < len(all_layers):
        others = [layer for layer in all_layers if layer not in layers]
        cycles = sum(layer.cycles for layer in others)
        rows.append((f"({len(others)} others)", "", "", f"{cycles:,}", "", "", ""))
    exact, all_ = (sum(getattr(layer, name) for layer in m.layers) for name in ("ctiles_exact", "ctiles"))
    tiles = sum(layer.tiles for layer in m.layers)
    total = ("all", "", f"{tiles:,}", f"{m.cycles:,}", percent(m.utilisation), f"{exact:,}/{all_:,}")
    rows.append((*total, causes_text(m.causes, m.cycles, compact)))
    header = ("layer", "kr x kd", "tiles", "cycles", "MAC use", "c-tiles as formula", "cycles by cause")
    table = Table(f"{m.network} on {m.config}, {run_name(m)}", header, rows, total=True)
    return table.narrow() if compact else table


def runs_table(measurements):
    """One row per measurement: cycles, utilisation, bytes per client of the bus, bursts and their mean length."""
    rows = []
    for m in measurements:
        client = [f"{m.bytes[name]:,}" for name in (*READERS, "write")]
        bursts = [f"{m.bursts[way]:,} x {m.burst_beats[way]:.1f}" for way in ("read", "write")]
        rows.append((run_name(m), f"{m.cycles:,}", percent(m.utilisation), *client, *bursts))
    header = ("run", "cycles", "MAC use", "weights B", "inputs B", "second operands B", "descriptors B", "exits B")
    header += ("outputs B", "read bursts x beats", "write bursts x beats")
    return Table("bytes per client of the bus; bursts and their mean length in beats", header, rows)


def write_table(table, path):
    """A Table as CSV."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([table.header, *table.rows])


def write_layers(measurements, path):
    """Every layer and part of a layer of every measurement as CSV, numbers unrounded."""
    counts = ("cycles", "macs", "utilisation", "tiles", "ctiles", "ctiles_exact")
    header = ["live", "read_latency", "beats_per_256", "unstacked", "layer", "op", "modes", *counts]
    header += [f"cycles_{cause}" for cause in CAUSES] + [f"{client}_bytes" for client in CLIENTS]
    header += ["macs_per_byte", "read_bursts", "write_bursts", "read_beats", "write_beats"]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for m in measurements:
            run = [m.live, m.memory["read_latency"], m.memory["beats_per_256"], int(m.unstacked)]
            for layer in m.layers:
                row = [*run, layer.name, layer.op, " ".join(layer.modes), *(getattr(layer, name) for name in counts)]
                row += [layer.causes[cause] for cause in CAUSES] + [layer.bytes[client] for client in CLIENTS]
                row += [layer.intensity, *layer.bursts.values(), *layer.beats.values()]
                writer.writerow(row)
