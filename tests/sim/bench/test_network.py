"""`fluidnpu bench NETWORK`: files, tables and pictures of any network."""

import csv
import re

import pytest
from fluidnpu.sim.bench.network import MEMORIES, bench_network
from fluidnpu.sim.bench.pages import Section, markdown, write_page
from fluidnpu.sim.bench.results import Results
from fluidnpu.sim.bench.tables import Table
from fluidnpu.sim.cli import main
from fluidnpu.sim.options import MODELS

NETWORK = str(MODELS / "digits.tflite")


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


def test_everything_is_written(tmp_path, capsys):
    assert call("bench", NETWORK, "--config", "tiny", "--live", 1, "--live", 3, "--out", tmp_path) == 0
    said = capsys.readouterr().out
    folder = tmp_path / "digits-tiny"
    with open(folder / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    runs = {(row["live"], row["beats_per_256"]) for row in rows}
    assert runs == {("1", "0"), ("1", "128"), ("3", "0"), ("3", "128")}
    with open(folder / "runs.csv", newline="") as file:
        totals = list(csv.DictReader(file))
    assert [row["run"] for row in totals] == [
        f"{live} live, {memory} memory" for live in (1, 3) for memory in ("ideal", "limited")
    ]
    ideal = [row for row in rows if row["live"] == "3" and row["beats_per_256"] == "0"]
    cycles = sum(int(row["cycles"]) for row in ideal)
    assert f"{cycles:,}" == totals[2]["cycles"] and f"{cycles:,}" in said
    causes = [key for key in rows[0] if key.startswith("cycles_")]
    assert len(causes) == 8 and all(sum(int(row[c]) for c in causes) == int(row["cycles"]) for row in rows)
    page = (folder / "index.html").read_text()
    assert page.count("<svg") == 4  # bars and roofline for each number of samples, both memories side by side
    assert not re.search(r'(src|href)="(?!#)', page)  # needs no other file
    for name in ("1-live-causes", "3-live-roofline"):
        assert (folder / f"{name}.png").stat().st_size > 10_000 and "<svg" in (folder / f"{name}.svg").read_text()


def test_one_memory_and_a_name_of_the_zoo(tmp_path, capsys):
    arguments = ("--config", "tiny", "--live", 1, "--memory", "limited", "--out", tmp_path)
    assert call("bench", "fc-2048-1000", *arguments) == 0
    assert "limited memory" in capsys.readouterr().out
    with open(tmp_path / "fc-2048-1000-tiny" / "runs.csv", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["1 live, limited memory"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([NETWORK, "--live", "9"], "--live 9: edge has slots for 1..8"),
        ([NETWORK, "--memory", "slow"], "unknown memory 'slow'; there are ideal, limited, both"),
        (["no.tflite"], "network no.tflite: No such file or directory"),
        (["--part", "all"], "unknown part 'all'; there are workloads, layers, ablation, preemption, speed"),
    ],
)
def test_bad_input(arguments, message, capsys, tmp_path):
    assert call("bench", *arguments, "--out", tmp_path) == 2
    assert message in capsys.readouterr().err


def test_the_two_memories():
    assert list(MEMORIES) == ["ideal", "limited"] and bench_network.__doc__
    assert MEMORIES["limited"].beats_per_256 == 128 and MEMORIES["limited"].burst_overhead == 2


def test_tables_and_pages(tmp_path):
    table = Table("sizes", ("name", "bytes"), [("a", "1,000"), ("b", "2 x 3.5")])
    assert table.to_markdown() == "| name | bytes |\n| --- | ---: |\n| a | 1,000 |\n| b | 2 x 3.5 |\n"
    assert table.transposed().header == ("name", "a", "b") and table.narrow() == table
    wide = Table("", ("workload", "known elsewhere", "verdict"), [("a", "b", "c")])
    assert wide.narrow() == Table("", ("workload", "verdict"), [("a", "c")])
    section = Section("Figures", "measure --them", ["A text with <angles>."], [table], ["p.svg"])
    assert Section.of_dict(section.as_dict()) == section
    text = markdown([section])
    assert text.startswith("## Figures\n\n    measure --them\n\nA text") and "sizes:" in text and "p.svg" not in text
    (tmp_path / "p.svg").write_text('<?xml version="1.0"?><svg width="10pt" height="5pt" viewBox="0 0 10 5"></svg>')
    page = write_page(tmp_path / "page.html", "Title", ["intro"], [section]).read_text()
    assert 'viewBox="0 0 10 5"' in page and "&lt;angles&gt;" in page and "<td>2 x 3.5</td>" in page


def test_results_keep_the_other_parts(tmp_path):
    Results(tmp_path).put("speed", [Section("Speed")], {"ratio": 1})
    again = Results(tmp_path, fresh=False)
    again.put("workloads", [Section("Workloads")], {})
    assert [s.title for s in again.sections()] == ["Workloads", "Speed"]
    text = (tmp_path / "benchmarks.md").read_text()
    assert text.index("## Workloads") < text.index("## Speed")
    fresh = Results(tmp_path)
    assert fresh.sections() == []
