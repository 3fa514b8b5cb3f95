"""Runs the benchmarks, prints them, and writes build/bench/: results.json, benchmarks.md, pictures."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.exits import limit_of
from fluidnpu.nn.tflite_reader import read_network
from rich.console import Console

from ..memory import IDEAL
from ..npu_build import cached_verilog, npu_build
from ..speed import measure_speed
from ..verilator import build as verilator_build
from .ablation import ablation
from .feeding import packed
from .layers import layer_figures
from .pictures import draw_layers, draw_preemption
from .preemption import overhead_bound, preemption_bound, preemption_latencies
from .tables import markdown

__all__ = ["main"]

LIVE = (1, 2, 4, 8)
ABLATION_IMAGES = 64
MOMENTS = 500
THRESHOLD = 0.8


def main(config_name="edge", network_file=None, images_file=None, folder="build/bench", moments=MOMENTS, seed=1):
    """Measure every figure for one configuration; returns the results, which also go to ``folder``."""
    models = Path(__file__).resolve().parents[2] / "models"
    console = Console()
    config = get_config(config_name)
    network = read_network(Path(network_file or models / "digits.tflite"))
    program = compile_network(network, config, CompileOptions(limits=(limit_of(THRESHOLD),) * len(network.ends)))
    with np.load(images_file or models / "digits_views.npz") as views:
        images = packed(program, views["x"][:ABLATION_IMAGES])
    with console.status("building the simulator") as status:
        build = npu_build(config, status=status.update)
        results = {"config": config.name, "network": network.name, "memory": asdict(IDEAL), "threshold": THRESHOLD}
        live = [n for n in LIVE if n <= config.slots]
        everything = (1 << len(network.ends)) - 1
        for key, exits in (("layers_trunk", 0), ("layers_with_heads", everything)):
            status.update(f"layers, {'heads jumped over' if exits == 0 else 'every head computed'}")
            results[key] = layer_figures(build, config, program, images, live, exits=exits)
        status.update("rigid / fluid x unstacked / stacked")
        results["ablation"] = ablation(build, config, program, images)
        status.update(f"preemption at {moments} random moments")
        latencies = preemption_latencies(build, config, program, images, moments, seed)
        alone = sum(row["cycles"] for row in results["layers_trunk"][1])
        results["preemption"] = {
            "moments": moments,
            "seed": seed,
            "cycles": [int(c) for c in latencies],
            "network_cycles": alone,
            "bound": preemption_bound(config, program),
            "longest_tile": max(op.tile_cycles for op in program.ops),
            "longest_load": max(op.load_beats for op in program.ops),
            "overhead": overhead_bound(config, IDEAL),
        }
        status.update("speed of the co-simulation beside a bare Verilator run")
        bare = verilator_build(config.name, cached_verilog(config), data_bytes=config.bus_bytes, bare=True)
        speed = measure_speed(
            build,
            bare,
            "fluidnpu.sim.bench.ablation:run_images",
            program=program,
            slots=config.slots,
            images=images,
            memory=IDEAL,
            rigid=False,
            unstacked=False,
        )
        results["speed"] = speed.as_dict()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / "results.json").write_text(json.dumps(results, indent=1, default=int) + "\n")
    text = markdown(results)
    (target / "benchmarks.md").write_text(text)
    draw_layers(results, target / "layers.png")
    draw_preemption(results, target / "preemption.png")
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written: {target}/results.json, benchmarks.md, layers.png, preemption.png")
    return results
