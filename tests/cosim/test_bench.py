"""The benchmarks measure what they say, on tiny: the cycle model's figures are what the RTL does."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.array.array import Array
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, Op
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.exits import limit_of
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.bench.ablation import ablation
from fluidnpu.sim.bench.feeding import packed
from fluidnpu.sim.bench.formula import ctile_formula
from fluidnpu.sim.bench.group import ModelDiffers, check_on_rtl, run_group
from fluidnpu.sim.bench.measure import LAST_WRITES, measure
from fluidnpu.sim.bench.preemption import preemption_latencies
from fluidnpu.sim.memory import limited
from fluidnpu.sim.options import MODELS


@pytest.fixture(scope="module")
def digits(tiny):
    config, _ = tiny
    network = read_network(MODELS / "digits.tflite")
    program = compile_network(network, config, CompileOptions(limits=(limit_of(0.8),) * 3))
    with np.load(MODELS / "digits_views.npz") as views:
        return program, packed(program, views["x"][:4])


@pytest.mark.parametrize(
    "live, options", [(1, {}), (3, {"memory": limited()}), (2, {"exits": 7}), (4, {"unstacked": True})]
)
def test_measurements_are_what_the_rtl_does(tiny, digits, live, options):
    """Every event in its cycle, every counter wherever a layer ends: else measure raises ModelDiffers."""
    config, build = tiny
    program, _ = digits
    m = measure(config, program, live, build=build, **options)
    assert m.rtl and m.live == live and sum(layer.cycles for layer in m.layers) == m.cycles
    layers = dict.fromkeys(layer.name.partition(".")[0] for layer in m.layers if layer.macs)
    heads = ["fc4", "fc10"] if "exits" in options else []
    trunk = ["conv0", "conv1", "conv6", "conv7", "conv12", "conv13", "fc15"]
    assert sorted(layers) == sorted([*trunk, *heads]) and m.layers[-1].name == LAST_WRITES
    wide = [layer for layer in m.layers if layer.kernel == (3, 3) and layer.in_channels >= 16]
    assert len(wide) >= 5
    if not options:
        assert sum(layer.ctiles_exact for layer in wide) > 0.5 * sum(layer.ctiles for layer in wide)


def test_a_difference_is_an_error(tiny, digits):
    """The RTL runs with a faster memory than the model believes."""
    config, build = tiny
    program, _ = digits
    run = run_group(config, program, 1)
    check_on_rtl(build, config, program, 1, run)
    region = bytearray(program.region)
    region[-4096:] = bytes(4096)  # other weights cost the same
    check_on_rtl(build, config, replace(program, region=bytes(region)), 1, run)
    with pytest.raises(ModelDiffers, match="digits on tiny, 2 live: first difference"):
        check_on_rtl(_Slower(build), config, program, 2, run_group(config, program, 2))


class _Slower:
    """A simulator whose run is another one: the tests' stand-in for hardware that the model does not describe."""

    def __init__(self, build):
        self._build = build
        self.name = build.name

    def run(self, module, **options):
        import pickle
        from pathlib import Path

        folder = Path(options["directory"])
        call = pickle.loads((folder / "call.pickle").read_bytes())
        call["arguments"]["memory"] = replace(call["arguments"]["memory"], read_latency=33)
        (folder / "call.pickle").write_bytes(pickle.dumps(call))
        return self._build.run(module, **options)


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
    tile = {"rows": 5, "log2_kr": 2, "log2_kd": 0, "fragments": [(0, 0, 1, n) for n in range(4)]}
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
