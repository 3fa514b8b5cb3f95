"""The command `fluidnpu study`: a quick study from end to end, its page and its table."""

import csv
import re

import pytest
from fluidnpu.sched.policies import POLICIES
from fluidnpu.sim.campaign.plans import OURS, make_plan
from fluidnpu.sim.campaign.summary import estimate
from fluidnpu.sim.cli import main


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def test_quick_study(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FLUIDNPU_REAL", raising=False)
    assert call("study", "--quick", "--requests", "120", "--jobs", "1", "--out", str(tmp_path)) == 0
    said = capsys.readouterr().out
    assert "ResNet-8 is left out" in said and "index.html" in said
    page = (tmp_path / "index.html").read_text()
    for title in (
        "Targets", "Where batching pays", "Latency, deadlines, goodput", "Ablation", "Ours against the best baseline",
        "The gap to the lower bound", "The price of host latency", "How long a decision takes",
        "What each part of ours is worth",
        "An exit mix that shifts", "Other promises", "Arrivals", "Exit mixes", "Networks, configurations, bandwidth",
        "Several networks at once", "How far to believe it",
    ):  # fmt: skip
        assert title in page, title
    assert page.count("<svg") == 7
    text = (tmp_path / "study.md").read_text()
    assert "| figure | asked | measured | verdict | note |" in text and ">= 2.5x" in text
    assert not re.search(r'(src|href)="http|@import|url\(http', page)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert len(rows) == len(make_plan("quick", ["digits"]))
    assert all(float(row["mean"]) > 0 and row["seed"] for row in rows)


def test_plans_name_every_part():
    names = ["digits", "resnet8", "resnet50"]
    groups = {name: {p.group for p in make_plan(name, names, ["azure"])} for name in ("quick", "default")}
    assert groups["quick"] | {"rtl"} == groups["default"]
    default = make_plan("default", names, ["azure"], ["answers-of-a-gpu"])
    assert len({(p.key, p.group) for p in default}) == len(default)
    for group in groups["default"] - {"check", "rtl"}:
        assert len({p.seed for p in default if p.group == group}) >= 5, group
    assert any(p.policy == OURS and p.arrivals == "azure" for p in default)
    assert any(p.policy == OURS and p.mix == "answers-of-a-gpu" for p in default)
    assert {p.policy for p in default if p.group == "rtl"} == set(POLICIES)
    assert {p.device for p in default if p.group == "headline"} == {"cycles"}
    assert all(p.requests >= 10_000 for p in default if p.group == "policies" and p.load < 1)
    assert {(p.config, p.bandwidth) for p in default if p.workload == "resnet50"} >= {("hub", "half"), ("edge", "full")}


def test_estimates():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.value, found.low) == (2.0, pytest.approx(2 - 4.30 / 3**0.5))
    ratio = estimate([0.5, 2.0], log=True)
    assert ratio.value == pytest.approx(1.0) and ratio.low < 0.1 < 10 < ratio.high
    assert estimate([7.0]).low == 7.0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--quick", "--full"], "--full and --quick exclude one another"),
        (["--quick", "--group", "none"], "--group none: there are headline, ablation, policies"),
        (["--quick", "--timestamps", "nowhere.csv"], "nowhere.csv"),
        (["--quick", "--exits", "nobody.csv"], "exits nobody.csv"),
        (["--quick", "--exits", "easy.csv"], "--exits easy.csv: the name 'easy' is taken (built in)"),
        (["--timestamps", "a/t.csv", "--timestamps", "b/t.csv"], "b/t.csv: the name 't' is taken (a/t.csv)"),
        (["--quick", "--cluster", "tcp://127.0.0.1:9"], "--cluster tcp://127.0.0.1:9: no Dask scheduler answers"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("FLUIDNPU_REAL", raising=False)
    assert call("study", *arguments, "--out", str(tmp_path)) == 2
    assert message in capsys.readouterr().err
