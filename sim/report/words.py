"""Numbers, names and lists as readers want them."""

import math
import re
from dataclasses import dataclass

__all__ = [
    "count_text",
    "cycles_text",
    "file_name",
    "label_records",
    "names_text",
    "percent_text",
    "request_text",
    "tick_text",
]


_SCALES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))


def count_text(value, digits=3):
    """Three significant digits with k, M or G: 1234 -> "1.23 k", 41 -> "41"."""
    if value is None or not math.isfinite(value):
        return "–"
    value = float(f"{value:.{digits}g}") if abs(value) >= 1000 or value != int(value) else value
    scale, unit = next(((scale, unit) for scale, unit in _SCALES if abs(value) >= scale), (1, ""))
    value /= scale
    if scale == 1 and value == int(value):
        return f"{value:.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}{unit}"


def tick_text(value):
    """For axes, no more digits than needed: 20000 -> "20 k", 0.5 -> "0.5"."""
    for scale, unit in _SCALES:
        if abs(value) >= scale:
            return f"{value / scale:.6g}{unit}"
    return f"{value:.6g}"


def cycles_text(value):
    """A place in time, exactly: "cycle 102,304"."""
    return f"cycle {value:,}"


def percent_text(share, digits=1):
    """0.123 -> "12.3 %"; None -> "–"."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def names_text(names):
    """ "a", "a and b", "a, b and c"."""
    names = [str(name) for name in names]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def request_text(stay):
    """ "request 7"."""
    return f"request {stay.request}"


def file_name(label):
    """A label as part of a file name: letters, digits, dots and hyphens."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label).strip("-") or "run"


@dataclass(frozen=True)
class Label:
    """Name of a record: ``series`` (policy and what sets it apart) within a ``scenario`` (traffic, network, ...)."""

    series: str
    scenario: str
    text: str


def label_records(records):
    """A unique Label per record.

    The scenario is the traffic, with configuration and network where they differ between the records. The series is the
    policy, with the options that differ where that does not suffice, and a number where nothing does.
    """
    names = ["traffic", *(n for n in ("config", "network") if len({getattr(r, n) for r in records}) > 1)]
    scenarios = [", ".join(getattr(r, name) for name in names) for r in records]
    series = [r.policy for r in records]
    for twins in _twins(scenarios, series):
        keys = sorted({key for i in twins for key in records[i].options} - {"command"})
        vary = [key for key in keys if len({repr(records[i].options.get(key)) for i in twins}) > 1]
        for i in twins:
            own = [_option(key, records[i].options[key]) for key in vary if records[i].options.get(key)]
            series[i] = ", ".join([series[i], *own])
    for twins in _twins(scenarios, series):
        for number, i in enumerate(twins, 1):
            series[i] = f"{series[i]} #{number}"
    several = len(set(scenarios)) > 1
    return [
        Label(one, scenario, f"{one}, {scenario}" if several else one)
        for one, scenario in zip(series, scenarios, strict=True)
    ]


def _twins(*columns):
    """Lists of the indices at which all columns are the same, where there are several."""
    found = {}
    for i, key in enumerate(zip(*columns, strict=True)):
        found.setdefault(key, []).append(i)
    return [indices for indices in found.values() if len(indices) > 1]


def _option(key, value):
    return key if value is True else f"{key} {value}"
