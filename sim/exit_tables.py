"""What `fluidnpu attach-exits` prints: places, exits, outcomes of thresholds."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

__all__ = ["exits_table", "outcomes_table", "places_table"]


def places_table(backbone, chosen):
    """All places of a Backbone; * the chosen ones."""
    table = _table(f"Places for exits in {Path(backbone.name).name}, {backbone.macs:,} MACs")
    for name in ("tensor", "name", "shape", "MACs", "nothing in vain"):
        table.add_column(name, justify="left" if name == "name" else "right", overflow="fold")
    for place in backbone.places:
        mark = " *" if place in chosen else "  "
        table.add_row(
            f"{place.index}{mark}",
            place.label,
            "x".join(map(str, place.tensor.shape)),
            _percent(place.macs / backbone.macs),
            "yes" if place.cut else "no",
            style="bold" if place in chosen else None,
        )
    return table


def exits_table(result):
    """One row per exit of an AttachedExits: what it reads and how good it is on all held-apart images."""
    rows = result.exits()
    title = f"Exits, on {result.answers.count:,} images held apart; MACs with the heads on the way"
    table = _table(title)
    for name in ("exit", "tensor", "pooled", "learns from", "C", "MACs", "share", "right"):
        table.add_column(name, justify="left" if name == "learns from" else "right")
    for number, row in enumerate(rows, start=1):
        head = "pooled" in row
        table.add_row(
            str(number),
            str(row["index"]),
            "x".join(map(str, row["pooled"])) if head else "-",
            row["learns"] if head else "-",
            f"{row['strength']:.3g}" if head else "-",
            f"{row['macs']:,}",
            _percent(row["macs_share"]),
            _with_interval(row["accuracy"], row["accuracy_interval"]),
        )
    return table


def outcomes_table(outcomes):
    """One row per Outcome: who leaves where, accuracy, loss against the backbone, share of its MACs; 95 % intervals."""
    exits = len(outcomes[0].shares)
    table = _table("Thresholds: where images leave and what that costs; in %, with 95 % intervals")
    table.add_column("threshold", justify="right", overflow="fold")
    for e in range(exits):
        table.add_column(f"exit {e + 1}", justify="right")
    for name in ("right", "lost", "MACs"):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        said = outcome.as_dict()
        thresholds = [f"{t:g}" for t in outcome.thresholds]
        shares = zip(said["left_at_exit"], said["left_at_exit_interval"], strict=True)
        table.add_row(
            thresholds[0] if len(set(thresholds)) == 1 else " ".join(thresholds),
            *(_with_interval(share, interval) for share, interval in shares),
            _with_interval(said["accuracy"], said["accuracy_interval"]),
            _with_interval(said["loss"], said["loss_interval"]),
            _with_interval(said["macs_share"], said["macs_share_interval"]),
        )
    return table


def _table(title):
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def _percent(share):
    return f"{100 * share:.1f}%"


def _with_interval(share, interval):
    low, high = interval
    return f"{100 * share:.1f} ±{50 * (high - low):.1f}"
