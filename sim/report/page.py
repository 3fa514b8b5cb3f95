"""index.html: the comparison on one page that needs nothing else."""

import base64
import json
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from .figures import promised
from .words import count_text, names_text, percent_text

__all__ = ["COLUMNS", "fill", "headlines", "render_page", "tables"]

MOST_EMBEDDED = 2_000_000  # bytes of timelines inside the page; the others stay beside it

# heading, explanation, key of the metrics, how to write it, whether a small one is good (None: neither)
COLUMNS = (
    ("mean", "cycles from arrival to decision", "mean", count_text, True),
    ("median", "half of the requests are decided within", "p50", count_text, True),
    ("95 %", "95 % of the requests are decided within", "p95", count_text, True),
    ("99 %", "99 % of the requests are decided within", "p99", count_text, True),
    ("SLO missed", "requests not decided by their deadline", "misses", percent_text, True),
    ("in queue", "mean cycles in the host's queue", "waited", count_text, True),
    ("answers", "per million cycles", "throughput", count_text, False),
    ("MAC use", "useful MACs of the array's peak", "utilisation", percent_text, False),
    ("accuracy", "right classes among the answers", "accuracy", percent_text, False),
    ("mean batch", "samples that share a run of a layer", "mean_batch", "{:.2f}".format, None),
    ("merging", "runs of a layer per layer visited; 1.00: all go together", "merging", "{:.2f}".format, None),
)


def tables(labels, metrics, stories):
    """[(scenario, [row, ...]), ...]; a row is a dict: series, answered, preempted, cells = [(text, best), ...]."""
    found = {}
    for label, m, story in zip(labels, metrics, stories, strict=True):
        row = {
            "series": label.series,
            "answered": f"{m['answered']}" if not m["dropped"] else f"{m['answered']} of {m['requests']}",
            "preempted": str(len(story.waits)),
            "metrics": m,
        }
        found.setdefault(label.scenario, []).append(row)
    for rows in found.values():
        for row in rows:
            row["cells"] = [
                ("–" if row["metrics"][key] is None else write(row["metrics"][key]), _best(rows, row, key, small))
                for _, _, key, write, small in COLUMNS
            ]
    return list(found.items())


def _best(rows, row, key, small):
    """This value is the best of its column, and not all are the same."""
    values = [r["metrics"][key] for r in rows if r["metrics"][key] is not None]
    if small is None or row["metrics"][key] is None or min(values) == max(values):
        return False
    return row["metrics"][key] == (min(values) if small else max(values))


def headlines(records, labels, metrics):
    """[(scenario, text), ...] where there is a choice: fluid (or the fastest policy) against the best of the others."""
    sentences = []
    for scenario in dict.fromkeys(label.scenario for label in labels):
        mine = [(lab, r, m) for lab, r, m in zip(labels, records, metrics, strict=True) if lab.scenario == scenario]
        mine = [each for each in mine if each[2]["answered"]]
        if len(mine) < 2:
            continue
        mine.sort(key=lambda each: each[2]["mean"])
        subject = next((each for each in mine if each[1].policy == "fluid"), mine[0])
        other = next(each for each in mine if each is not subject)
        sentences.append((scenario, _compare(subject[0].series, subject[2], other[0].series, other[2], len(mine) > 2)))
    return sentences


def _compare(name, mine, other_name, other, several):
    ratio = other["mean"] / max(mine["mean"], 1)
    against = f"{other_name}, the fastest of the others" if several else other_name
    text = f"{name} decides after {count_text(mine['mean'])} cycles on average, {_times(ratio)} {against}"
    text += f"; 95 % of the decisions take at most {count_text(mine['p95'])} cycles, there {count_text(other['p95'])}"
    if mine["misses"] is not None and other["misses"] is not None:
        text += (
            f". It misses {percent_text(mine['misses'])} of the deadlines, {other_name} {percent_text(other['misses'])}"
        )
    return f"{text}."


def _times(ratio):
    if 0.995 < ratio < 1.005:
        return "as fast as"
    return f"{ratio:.2f}× faster than" if ratio > 1 else f"{1 / ratio:.2f}× slower than"


def common_options(records):
    """(options that all records have in common, list of what is particular to each), without the command."""
    keys = list(dict.fromkeys(key for r in records for key in r.options if key != "command"))
    texts = {key: [json.dumps(r.options.get(key), default=str) for r in records] for key in keys}
    common = {key: values[0] for key, values in texts.items() if len(set(values)) == 1}
    own = [
        {key: texts[key][i] for key in keys if key not in common and key in r.options} for i, r in enumerate(records)
    ]
    return common, own


def commands(records):
    """The commands that made the records, each once, as their options tell."""
    found = dict.fromkeys(str(r.options["command"]) for r in records if r.options.get("command"))
    return list(found)


def data_uri(kind, raw):
    """``raw`` bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(raw).decode()}"


def render_page(records, labels, metrics, stories, pictures, timelines):
    """The page as text.

    pictures : dict of themed SVG: latency, causes, exits
    timelines : per record (themed SVG, file name of the stand-alone picture)
    """
    common, own = common_options(records)
    return fill(
        files(__package__).joinpath("templates/index.html.j2").read_text(),
        title=_title(records),
        facts=_facts(records),
        headlines=headlines(records, labels, metrics),
        columns=COLUMNS,
        tables=tables(labels, metrics, stories),
        pictures=pictures,
        timelines=_embedded(labels, stories, timelines),
        commands=commands(records),
        common=common,
        own=[(label.text, options) for label, options in zip(labels, own, strict=True) if options],
        several=len(records) > 1,
        same_requests=_same_requests(records, labels),
    )


def fill(template, **values):
    """A Jinja template (text) with its values, and with ``css``: the style of all pages."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    css = files(__package__).joinpath("templates/page.css").read_text()
    return environment.from_string(template).render(css=css, **values)


def _same_requests(records, labels):
    """Whether the records of every scenario served requests of the same names, cycles of arrival and deadlines."""
    served = {}
    for record, label in zip(records, labels, strict=True):
        requests = frozenset((r.id, r.arrival, r.deadline) for r in record.results)
        served.setdefault(label.scenario, set()).add(requests)
    return len(records) > len(served) and all(len(sets) == 1 for sets in served.values())


def _title(records):
    networks = names_text(dict.fromkeys(r.network for r in records))
    configs = names_text(dict.fromkeys(r.config for r in records))
    return f"{networks} on {configs}"


def _facts(records):
    """What holds for the whole page, as (name, value)."""
    slos = {promised(r) for r in records}
    facts = [
        ("requests", names_text(sorted({len(r.results) for r in records}))),
        ("policies", names_text(dict.fromkeys(r.policy for r in records))),
        ("traffic", names_text(dict.fromkeys(r.traffic for r in records))),
        ("slots", names_text(sorted({r.slots for r in records}))),
        ("peak", f"{names_text(sorted({r.peak_macs for r in records}))} MACs per cycle"),
    ]
    if None not in slos:
        facts.append(("SLO", f"{names_text(count_text(slo) for slo in sorted(slos))} cycles"))
    return facts


def _embedded(labels, stories, timelines):
    """Per timeline a dict; the most telling one first and open, and only so many inside the page."""
    order = sorted(range(len(labels)), key=lambda i: (-sum(w.merged for w in stories[i].waits) > 0, i))
    best = max(range(len(labels)), key=lambda i: (sum(w.merged for w in stories[i].waits), -i), default=None)
    order.sort(key=lambda i: i != best)
    entries, used = [], 0
    for i in order:
        svg, name = timelines[i]
        used += len(svg)
        inside = used <= MOST_EMBEDDED or not entries
        entries.append({
            "label": labels[i].text, "file": name, "svg": svg if inside else None, "open": i == best,
            "preempted": len(stories[i].waits), "merged": sum(w.merged for w in stories[i].waits),
        })  # fmt: skip
    return entries
