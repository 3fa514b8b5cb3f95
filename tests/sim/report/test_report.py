"""write_report: files, numbers, and a page that needs nothing but itself."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from fluidnpu.sim.report import write_report
from fluidnpu.sim.report.page import headlines
from fluidnpu.sim.report.results import REQUEST_COLUMNS, metrics_of
from fluidnpu.sim.report.words import count_text, file_name, label_records, names_text, percent_text, tick_text
from report_runs import Script, merging_run, world_run

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects attributes and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags, self.words = [], [], [], []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *a) for a in attrs]

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> in {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    records = [merging_run(policy=p, traffic=t) for t in ("poisson", "bursts") for p in ("serial", "fluid")]
    records[0].options["command"] = "fluidnpu serve --policy <all>"
    return write_report(records, folder)


def test_files(report):
    names = {path.name for path in report.parent.iterdir()}
    timelines = {
        f"timeline-{p}-{t}.{k}" for p in ("serial", "fluid") for t in ("poisson", "bursts") for k in ("svg", "png")
    }
    assert names == {"index.html", "results.json", "trace.json"} | timelines


def test_results(report):
    document = json.loads((report.parent / "results.json").read_text())
    assert document["columns"] == list(REQUEST_COLUMNS)
    assert [r["label"] for r in document["records"]] == [
        "serial, poisson", "fluid, poisson", "serial, bursts", "fluid, bursts",
    ]  # fmt: skip
    record = document["records"][1]
    assert record["trace"] == {"tiles": 10, "preempted": 1, "merges": 1, "revoked": 0}
    assert record["options"] == {"seed": 1}
    assert record["metrics"]["answered"] == 2 and record["counters"]["tiles"] == 0
    rows = [dict(zip(document["columns"], row, strict=True)) for row in record["requests"]]
    assert [(r["id"], r["exit"], r["met"], r["status"]) for r in rows] == [("a", 0, True, "ok"), ("b", 1, False, "ok")]
    assert rows[0]["latency"] == rows[0]["stamp"] - rows[0]["arrival"]


def test_page_is_self_contained(report):
    text = report.read_text()
    page = Page(text)
    assert len(text) < 3_000_000
    assert not {"link", "script", "iframe", "object", "base"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "srcset", "href", "xlink:href", "action", "data"):
            local = re.fullmatch(r"(results|trace)\.json|timeline[\w.-]*", value)
            assert value.startswith(("#", "data:image/png;base64,")) or (tag == "a" and local), (tag, name, value[:80])
    assert not re.search(r"https?://|@import|//cdn", text)
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)\"']*)", text))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert {v.split("#")[1].rstrip(")") for _, n, v in page.attributes if n == "clip-path"} <= set(ids)


def test_page_tells_it_all(report):
    page = Page(report.read_text())
    text = " ".join(page.words)
    for word in ("serial", "fluid", "poisson", "bursts", "SLO missed", "Perfetto", "Terms", "stack mode", "seed = 1"):
        assert word in text
    assert "fluidnpu serve --policy <all>" in text
    assert page.tags.count("svg") == 3 + 4
    assert page.tags.count("details") == 4 and sum(n == "open" for _, n, _ in page.attributes) == 1


def test_one_record(tmp_path):
    index = write_report([merging_run()], tmp_path / "new" / "folder")
    assert index == tmp_path / "new" / "folder" / "index.html"
    assert (index.parent / "timeline.svg").exists() and (index.parent / "timeline.png").exists()
    assert "timeline-" not in index.read_text()


def test_the_same_twice(tmp_path):
    for folder in ("one", "two"):
        write_report([merging_run()], tmp_path / folder)
    for name in ("index.html", "results.json", "trace.json", "timeline.svg"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_without_records(tmp_path):
    with pytest.raises(ValueError, match="at least one record"):
        write_report([], tmp_path)


def test_nothing_answered_and_strange_names(tmp_path):
    s = Script()
    s.admit(0, "<script>")
    record = s.record(policy="a<b>&c", options={"path": "<x>", "rate": float("nan")})
    text = write_report([record], tmp_path).read_text()
    assert "<script>" not in text and "<x>" not in text and "a<b>" not in text
    assert json.loads((tmp_path / "results.json").read_text())["records"][0]["options"]["rate"] is None


def test_random_world(tmp_path, monkeypatch):
    Page(write_report([world_run(monkeypatch, 7)[0]], tmp_path).read_text())


def test_headlines():
    records = [merging_run(policy=p) for p in ("serial", "fluid")]
    labels = label_records(records)
    metrics = [metrics_of(r) for r in records]
    metrics[0] |= {"mean": 3000.0, "misses": 0.5}
    metrics[1] |= {"mean": 2000.0, "misses": 0.25}
    ((scenario, text),) = headlines(records, labels, metrics)
    assert scenario == "poisson"
    assert text.startswith("fluid decides after 2.00 k cycles on average, 1.50× faster than serial;")
    assert text.endswith("It misses 25.0 % of the deadlines, serial 50.0 %.")
    metrics[1]["mean"] = 6000.0
    assert "2.00× slower than serial" in headlines(records, labels, metrics)[0][1]


def test_labels():
    run = merging_run()
    variants = [run, replace(run, options={"seed": 2}), replace(run, policy="serial"), replace(run, policy="serial")]
    assert [label.text for label in label_records(variants)] == [
        "fluid, seed 1", "fluid, seed 2", "serial #1", "serial #2",
    ]  # fmt: skip
    rigid = [replace(run, options={"rigid": r}, config=c) for c in ("tiny", "edge") for r in (False, True)]
    assert [label.text for label in label_records(rigid)] == [
        "fluid, poisson, tiny", "fluid, rigid, poisson, tiny", "fluid, poisson, edge", "fluid, rigid, poisson, edge",
    ]  # fmt: skip


def test_words():
    assert [count_text(v) for v in (0, 41, 1234, 99_960, 1.5e6, 2e9, None, 0.25)] == [
        "0", "41", "1.23 k", "100 k", "1.50 M", "2.00 G", "–", "0.250",
    ]  # fmt: skip
    assert [tick_text(v) for v in (0, 0.5, 20000, 1.25e6)] == ["0", "0.5", "20 k", "1.25 M"]
    assert [percent_text(v) for v in (None, 0.123)] == ["–", "12.3 %"]
    assert [names_text(v) for v in ([], ["a"], "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert file_name("fluid, seed 1/poisson") == "fluid-seed-1-poisson"
