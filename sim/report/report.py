"""Writes a report: numbers, trace, pictures and the page that shows them."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg

from .figures import causes_figure, exits_figure, latency_figure
from .page import render_page
from .perfetto import write_trace
from .reader import read_story
from .results import metrics_of, write_results
from .style import RC, themed
from .timeline import draw_timeline, timeline_title
from .words import file_name, label_records

__all__ = ["svg_text", "write_report"]

PNG_DPI = 130


def write_report(records, folder) -> Path:
    """Write the report of some RunRecords into ``folder`` (made if need be); returns the path of index.html.

    index.html : the comparison on one page that loads nothing from elsewhere
    results.json : options, metrics, counters and requests per record (results.write_results)
    trace.json : all records for ui.perfetto.dev (perfetto)
    timeline.svg, timeline.png : who ran when; with several records timeline-<policy>-<traffic>.svg and .png

    Raises ValueError without records, StoryError for trace events that do not belong together.
    """
    records = list(records)
    if not records:
        raise ValueError("a report needs at least one record")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    labels = label_records(records)
    stories = [read_story(record) for record in records]
    metrics = [metrics_of(record) for record in records]
    write_results(records, [label.text for label in labels], metrics, stories, folder / "results.json")
    write_trace(stories, [label.text for label in labels], folder / "trace.json")
    timelines = []
    names = _file_names(labels)
    for story, label, name in zip(stories, labels, names, strict=True):
        with rc_context({**RC, "svg.hashsalt": name}):
            figure = draw_timeline(story, timeline_title(story, label.text))
            FigureCanvasAgg(figure).print_figure(folder / f"{name}.png", dpi=PNG_DPI)
            svg = svg_text(figure)
        (folder / f"{name}.svg").write_text(svg)
        timelines.append((themed(svg), f"{name}.svg"))
    pictures = {
        "latency": lambda: latency_figure(records, labels),
        "causes": lambda: causes_figure(records, labels, metrics),
        "exits": lambda: exits_figure(records, labels),
    }
    drawn = {}
    for name, draw in pictures.items():
        with rc_context({**RC, "svg.hashsalt": name}):
            drawn[name] = themed(svg_text(draw()))
    page = folder / "index.html"
    page.write_text(render_page(records, labels, metrics, stories, drawn, timelines))
    return page


def svg_text(figure):
    """A figure as SVG text, the same for the same figure."""
    text = io.StringIO()
    FigureCanvasAgg(figure).print_figure(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _file_names(labels):
    """A file name without suffix per label."""
    if len(labels) == 1:
        return ["timeline"]
    names = [f"timeline-{file_name(label.text)}" for label in labels]
    return [f"{name}-{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]
