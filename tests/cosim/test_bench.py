"""The benchmarks measure what they say, on tiny."""

import numpy as np
import pytest
from fluidnpu.hw.array.array import Array
from fluidnpu.hw.isa import CAUSES, DESCRIPTOR_FIELDS, Op
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.exits import limit_of
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.bench.ablation import ablation
from fluidnpu.sim.bench.feeding import packed
from fluidnpu.sim.bench.layers import ctile_formula, layer_figures
from fluidnpu.sim.bench.preemption import preemption_latencies
from fluidnpu.sim.bench.profile import profile
from fluidnpu.sim.cli import MODELS


@pytest.fixture(scope="module")
def digits(tiny):
    config, _ = tiny
    network = read_network(MODELS / "digits.tflite")
    program = compile_network(network, config, CompileOptions(limits=(limit_of(0.8),) * 3))
    with np.load(MODELS / "digits_views.npz") as views:
        return program, packed(program, views["x"][:4])


def test_layers_account_for_every_cycle(tiny, digits):
    config, build = tiny
    program, images = digits
    rows = layer_figures(build, config, program, images, (2,), exits=0)[2]
    layers = dict.fromkeys(r["layer"].partition(".")[0] for r in rows if r["useful_macs"])  # without numbers of parts
    assert list(layers) == ["conv0", "conv1", "conv6", "conv7", "conv12", "conv13", "fc15"]
    for row in rows:
        assert abs(sum(row["causes"][c] for c in CAUSES) - row["cycles"]) <= 8  # the copy's own delay, in and out
        assert 0 <= row["utilisation"] <= 1 and row["ctiles_exact"] <= row["ctiles"]
    wide = [r for r in rows if r["kernel"] == [3, 3] and r["in_channels"] >= 16]
    assert len(wide) >= 5 and sum(r["ctiles_exact"] for r in wide) > 0.5 * sum(r["ctiles"] for r in wide)


@pytest.mark.parametrize("live", [1, 3])
def test_profile_is_what_the_rtl_does(tiny, digits, live):
    """The cycle model's figures of every layer."""
    config, build = tiny
    program, images = digits
    measured = layer_figures(build, config, program, images, (live,), exits=0)[live]
    modelled = profile(config, program, live)
    for rtl, model in zip(measured, modelled, strict=True):
        causes = rtl.pop("causes"), model.pop("causes")
        assert rtl == model
        assert max(abs(causes[0][c] - causes[1][c]) for c in CAUSES) <= 8  # the copy's own delay
    with pytest.raises(ValueError, match=r"5 samples at a time: tiny has slots for 1..4"):
        profile(config, program, 5)


def test_formula_of_a_c_tile(tiny):
    config, _ = tiny
    fields = {f.name: 0 for f in DESCRIPTOR_FIELDS}
    fields |= {"op": Op.CONV, "kh": 3, "kw": 3, "out_channels": 12, "words0": 2}
    tile = {"rows": 20, "log2_kr": 0, "log2_kd": 0}
    # 18 steps of 20 rows; 8 columns: 8 weight beats and 16 parameter beats in the first step; then 4 columns
    assert ctile_formula(config, fields, tile) == [24 + 17 * 20, 18 * 20]
    short = {"rows": 1, "log2_kr": 0, "log2_kd": 0}
    least = max(1, Array.RMW_DISTANCE)
    assert ctile_formula(config, fields, short) == [24 + 16 * 8 + max(least, 4), 12 + 16 * 4 + least]
    # two words of 9 taps; with four sub-tiles a row is drained in 8 cycles, of 4 taps it waits for them
    fields |= {"op": Op.DEPTHWISE, "log2_kr0": 2, "weight_beats0": 50}
    tile = {"rows": 5, "log2_kr": 2, "log2_kd": 0, "fragments": [(0, 1, n) for n in range(4)]}
    assert ctile_formula(config, fields, tile) == [5 * 9, 5 * 9]
    fields |= {"op": Op.POOL, "kh": 2, "kw": 2, "weight_beats0": 0}
    assert ctile_formula(config, fields, tile) == [5 * 8, 5 * 8 - 4]


def test_ablation_and_preemption(tiny, digits):
    config, build = tiny
    program, images = digits
    rows = ablation(build, config, program, images)
    cycles = {(r["rigid"], r["unstacked"]): r["cycles"] for r in rows}
    assert cycles[False, False] < cycles[True, True] and max(r["speedup"] for r in rows) > 1
    latencies = preemption_latencies(build, config, program, images, moments=2)
    assert len(latencies) == 2 and (latencies > 0).all()
