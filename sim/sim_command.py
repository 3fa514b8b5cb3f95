"""The commands `fluidnpu sim` and `fluidnpu report`: serve requests under several policies, show what happened."""

import pickle
from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import get_config

from .options import (
    MODELS,
    Config,
    Images,
    Memory,
    Network,
    ReadLatency,
    Rigid,
    RoundingOption,
    Seed,
    Threshold,
    Unstacked,
    Waves,
    memory_of,
    new_console,
    window_of,
)

__all__ = ["report", "sim"]


def sim(
    config: Config = "edge",
    network: Network = MODELS / "digits.tflite",
    images: Images = MODELS / "digits_views.npz",
    rounding: RoundingOption = "litert",
    arrivals: Annotated[
        list[str],
        typer.Option(
            "--arrivals", "-a", help="poisson, bursts, cameras, or a file of timestamps (one number per line)."
        ),
    ] = ("poisson", "bursts"),
    requests: Annotated[
        int | None, typer.Option("--requests", "-r", help="Of each arrivals. Default: 200, or the whole file.", min=1)
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", help="Requests, as a share of what the NPU can serve in its best batch.")
    ] = 0.8,
    gap: Annotated[
        float | None, typer.Option("--gap", help="Instead of --rate: mean cycles from one request to the next.")
    ] = None,
    burst: Annotated[float, typer.Option("--burst", help="Mean number of requests of a burst.")] = 8.0,
    slo: Annotated[
        float, typer.Option("--slo", help="Promised latency, in multiples of one sample alone. 0: no promise.", min=0)
    ] = 3.0,
    threshold: Threshold = (0.8,),
    policy: Annotated[
        list[str], typer.Option("--policy", "-p", help="serial, adaptive, fluid. Repeat it for several.")
    ] = ("serial", "adaptive", "fluid"),
    seed: Seed = 1,
    memory: Memory = "ideal",
    read_latency: ReadLatency = 32,
    rigid: Rigid = False,
    unstacked: Unstacked = False,
    device: Annotated[
        str, typer.Option("--device", help="rtl: the hardware in Verilator; model: the cycle model, same cycles.")
    ] = "rtl",
    waves: Waves = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the report.")] = Path("build/report"),
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Simulators at a time.", min=1)] = 2,
):
    """Serve requests on the NPU, the same ones under every policy; check every answer; write a report."""
    from fluidnpu.sched.policies import POLICIES

    from .demonstration import demonstrate
    from .study import InputError

    for name in policy:
        if name not in POLICIES:
            raise InputError(f"unknown policy {name!r}; there are {', '.join(POLICIES)}")
    if device not in ("rtl", "model"):
        raise InputError(f"unknown device {device!r}; there are rtl, model")
    if device == "model" and waves:
        raise InputError("--waves: the cycle model has no waves; use --device rtl")
    if rate <= 0 or (gap is not None and gap <= 0):
        raise InputError(f"--rate and --gap must be positive, not {rate if gap is None else gap}")
    records = demonstrate(
        get_config(config),
        network,
        images,
        rounding=rounding,
        arrivals=list(dict.fromkeys(arrivals)),
        count=requests,
        share=rate,
        gap=gap,
        burst=burst,
        slo=slo,
        thresholds=threshold,
        policies=list(dict.fromkeys(policy)),
        seed=seed,
        memory=memory_of(memory, read_latency),
        rigid=rigid,
        unstacked=unstacked,
        waves=window_of(waves),
        folder=out,
        jobs=jobs,
        console=new_console(),
        device=device,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "records.pickle").write_bytes(pickle.dumps(records))
    _write(records, out)


def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder that `fluidnpu sim` wrote.")] = Path("build/report"),
):
    """Write the report of the last `fluidnpu sim` again."""
    from .study import InputError

    path = out / "records.pickle"
    if not path.exists():
        raise InputError(f"{path} is not there; `fluidnpu sim --out {out}` writes it")
    try:
        records = pickle.loads(path.read_bytes())
    except Exception as error:
        raise InputError(f"{path}: no records of this version ({error})") from None
    _write(records, out)


def _write(records, folder):
    from .report import write_report
    from .tables import runs_table

    console = new_console()
    console.print(runs_table(records))
    with console.status("writing the report"):
        index = write_report(records, folder)
    console.print(f"Report: {index}", soft_wrap=True, highlight=False)
