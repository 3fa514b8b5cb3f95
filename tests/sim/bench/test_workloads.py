"""Goals and their verdicts, explanations of what is missed, workloads that are left out."""

import io
import json

import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import CAUSES
from fluidnpu.sim.bench.goals import bench_workloads
from fluidnpu.sim.bench.judgement import REAL, bus_of, judge, network_of, rest_of
from fluidnpu.sim.bench.measure import Layer, Measurement
from fluidnpu.sim.bench.results import Results
from fluidnpu.sim.bench.workloads import WORKLOADS, Goal, Workload, fully_connected_bound
from fluidnpu.sim.study import InputError
from rich.console import Console


def layer(name, macs, **causes):
    """A layer of an array of 100 MACs per cycle."""
    causes = dict.fromkeys(CAUSES, 0) | causes
    cycles, no = sum(causes.values()), {"weight": 0, "stripe": 0, "residual": 0, "write": 0}
    counts = {"read": 0, "write": 0}
    use = macs / (100 * cycles)
    return Layer(name, "CONV", cycles, macs, use, causes, no, counts, counts, ["1x1"], 1, 1, 1, (1, 1), 1)


def measurement(*layers, live=1, **more):
    cycles, macs = sum(x.cycles for x in layers), sum(x.macs for x in layers)
    causes = {c: sum(x.causes[c] for x in layers) for c in CAUSES}
    fields = dict(network="n", config="edge", live=live, memory={"beats_per_256": 0, "read_latency": 32})
    fields |= dict(unstacked=False, cycles=cycles, macs=macs, utilisation=macs / (100 * cycles), causes=causes)
    fields |= dict(bytes={"weight": 0, "write": 0}, bursts={"read": 0, "write": 0}, burst_beats={"read": 0, "write": 0})
    return Measurement(**(fields | {"layers": list(layers)} | more))


@pytest.mark.parametrize(
    "at_least, value, verdict",
    [
        (True, 0.89, "miss"),
        (True, 0.90, "hit"),
        (True, 0.95, "hit, stretch too"),
        (False, 0.96, "miss"),
        (False, 0.91, "miss"),
        (False, 0.90, "hit"),
    ],
)
def test_verdicts(at_least, value, verdict):
    goal = Goal("x", None, 0.90, 0.95 if at_least else None, at_least=at_least)
    assert goal.verdict(value) == verdict


def test_what_eats_the_rest():
    m = measurement(
        layer("a", 6000, array=80, weights=20),  # 20 cycles busy without useful MACs
        layer("b.0", 4000, array=40, dependency=60),
        layer("b.1", 1000, array=10, dependency=30),
    )
    text = rest_of(m, 0.5)
    assert text.startswith("240 cycles, 110 at peak; dependency 37.5 % (b 90); ")
    assert "array busy without useful MACs (padding, unused columns) 8.3 % (a 20)" in text
    assert "weights 8.3 % (a 20)" in text and text.endswith("The target needs 20 cycles less")


def test_what_the_bus_moves():
    m = measurement(
        layer("a", 100, weights=50), bytes={"weight": 16 * 30, "stripe": 16 * 8, "exit": 0, "write": 16 * 9}
    )
    assert bus_of(m) == "50 cycles with 1 live; the bus reads in weight 30, stripe 8 of them, in 12 it does not"


def test_judge():
    slow, fast = measurement(layer("a", 5000, array=50, idle=50)), measurement(layer("a", 5000, array=50, idle=25))
    goals = (
        Goal("MAC utilisation", lambda runs: runs["ideal"].utilisation, 0.6, 0.7),
        Goal("gain", lambda runs: runs["slow"].cycles / runs["ideal"].cycles, 1.4, share=False),
    )
    workload = Workload("key", "title", "net", "edge", {}, goals, "elsewhere")
    first, second = judge(workload, {"ideal": fast, "slow": slow, "limited": slow})
    assert first["verdict"] == "hit" and first["texts"] == ["60.0 %", "70.0 %", "66.7 %"] and first["rest"] == ""
    assert second["verdict"] == "miss" and second["texts"] == ["1.40x", "", "1.33x"] and "idle 33.3 %" in second["rest"]


def test_bound_of_the_fully_connected_layer():
    """2048 int8 weights, a bias and a multiplier of four bytes and a shift of one for each of 1000 outputs."""
    assert fully_connected_bound(get_config("hub"), 2048, 1000) == (2048 * 1000 + 9 * 1000) / 32


def test_every_row_of_the_table_is_there():
    goals = {(w.title, w.config, g.figure): (g.target, g.stretch) for w in WORKLOADS for g in w.goals}
    assert goals["ResNet-8, 1 live", "edge", "MAC utilisation"] == (0.86, 0.89)
    assert goals["ResNet-8, 4 live", "edge", "MAC utilisation"] == (0.92, 0.94)
    assert goals["ResNet-8, 4 live", "hub", "MAC utilisation"] == (0.75, 0.80)
    assert goals["ResNet-8, 4 live", "hub", "gain by stacking"] == (3.5, None)
    assert goals["ResNet-50 224x224, 1 live", "gemmini16", "MAC utilisation"] == (0.92, 0.95)
    assert goals["ResNet-50 224x224, 1 live", "gemmini16", "cost of latency 100"] == (0.02, None)
    assert goals["DS-CNN, 4 live", "gemmini16", "MAC utilisation"] == (0.60, 0.70)
    assert goals["MobileNetV1 224x224, 1 live", "gemmini16", "MAC utilisation"] == (0.75, 0.80)
    assert len(goals) == 9
    (connected,) = (w for w in WORKLOADS if w.network == "fc-2048-1000")
    assert [way["live"] for name, way in connected.runs.items() if name.startswith("live")] == list(range(1, 17))


def test_without_real_networks(monkeypatch, tmp_path):
    """What needs a file is left out and said to be; what has a stand-in is measured with it; results are written."""
    monkeypatch.delenv(REAL, raising=False)
    by_key = {w.key: w for w in WORKLOADS}
    network, why = network_of(by_key["resnet8-hub-4"])
    assert network is None and why.startswith("left out: FLUIDNPU_REAL is not set")
    console = Console(file=io.StringIO(), width=200)
    chosen = (by_key["resnet8-hub-4"], by_key["dscnn-gemmini16-4"])
    rows = bench_workloads(Results(tmp_path / "bench"), console, workloads=chosen)
    assert [r["verdict"] for r in rows[:2]] == ["left out"] * 2 and rows[2]["measured"] > 0.6
    text = (tmp_path / "bench" / "benchmarks.md").read_text()
    assert "ResNet-8, 4 live on hub: left out: FLUIDNPU_REAL is not set" in text
    assert "same shapes with random weights" in text and "1 of 3 targets are hit" in text
    assert text.count("left out") == 3 and "DS-CNN on gemmini16 | 4 live, limited memory" in text
    numbers = json.loads((tmp_path / "bench" / "results.json").read_text())["parts"]["workloads"]["data"]
    assert numbers["runs"]["dscnn-gemmini16-4"]["ideal"]["cycles"] == rows[2]["cycles"]
    folder = tmp_path / "bench" / "dscnn-gemmini16-4"
    kinds = {path.name for path in folder.iterdir()}
    assert kinds >= {"index.html", "layers.csv", "runs.csv", "4-live-causes.svg", "4-live-roofline.png"}
    monkeypatch.setenv(REAL, str(tmp_path))
    with pytest.raises(InputError, match=r"there is no models/resnet8_int8\.tflite"):
        network_of(by_key["resnet8-hub-4"])
