"""The command `fluidnpu bench`: the figures of docs/benchmarks.md, or those of any network."""

from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import get_config

from .options import MODELS, Config, Seed, Unstacked, new_console

__all__ = ["bench"]


def bench(
    network: Annotated[
        Path | None,
        typer.Argument(
            help=".tflite file, or a name that make-network knows. Default: everything in docs/benchmarks.md.",
            show_default=False,
        ),
    ] = None,
    config: Config = "edge",
    live: Annotated[
        list[int], typer.Option("--live", "-l", help="With NETWORK: samples at a time. Repeat it for several.")
    ] = (1, 4),
    memory: Annotated[
        str,
        typer.Option("--memory", help="With NETWORK: ideal memory, limited (half the bandwidth), or both."),
    ] = "both",
    unstacked: Unstacked = False,
    rtl: Annotated[
        bool, typer.Option("--rtl", help="Do the same on the RTL, fail if the cycle model says anything else.")
    ] = False,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", help="Without NETWORK: only workloads, layers, ablation, preemption or speed."),
    ] = None,
    moments: Annotated[int, typer.Option("--moments", help="Without NETWORK: preemptions to measure.", min=1)] = 500,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("build/bench"),
):
    """Cycles, MAC utilisation, causes and bus traffic of every layer, exact to the cycle, with pictures and tables."""
    from .bench.main import bench_all
    from .bench.network import MEMORIES, bench_network
    from .npu_build import npu_build
    from .report.words import file_name
    from .rtl_progress import CycleProgress
    from .study import InputError, load_network

    console = new_console()
    npu = get_config(config)
    if network is None:
        bench_all(npu, MODELS, out, console, parts=part, rtl=rtl, moments=moments, seed=seed)
        return
    if memory not in (*MEMORIES, "both"):
        raise InputError(f"unknown memory {memory!r}; there are {', '.join(MEMORIES)}, both")
    if wrong := [n for n in live if not 1 <= n <= npu.slots]:
        raise InputError(f"--live {wrong[0]}: {npu.name} has slots for 1..{npu.slots}")
    net = load_network(network)
    build = npu_build(npu, status=console.print) if rtl else None
    folder = out / file_name(f"{network.stem}-{config}")
    memories = MEMORIES if memory == "both" else {memory: MEMORIES[memory]}

    def progress(cycles):
        return CycleProgress(console, f"{net.name} on {config}", cycles)

    bench_network(npu, net, live, memories, folder, console, unstacked=unstacked, build=build, progress=progress)
