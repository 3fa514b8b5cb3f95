"""The command `fluidnpu run`: a few images through a whole network on the RTL."""

from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import get_config

from .options import (
    MODELS,
    Config,
    Memory,
    NetworkArgument,
    ReadLatency,
    RoundingOption,
    Seed,
    Threshold,
    Waves,
    memory_of,
    new_console,
    window_of,
)

__all__ = ["run"]

DIGITS, VIEWS = MODELS / "digits.tflite", MODELS / "digits_views.npz"


def run(
    network: NetworkArgument = DIGITS,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            "-i",
            help=".npz: x, n x h x w x c, int8 or uint8 (128 is subtracted), and labels y. Default: random images, or "
            "held-out views of digits for the digits network.",
        ),
    ] = None,
    first: Annotated[int, typer.Option("--first", help="Index of the first image in the .npz file.", min=0)] = 0,
    count: Annotated[int, typer.Option("--count", help="Number of images.", min=1)] = 1,
    config: Config = "edge",
    rounding: RoundingOption = "litert",
    threshold: Threshold = (0.8,),
    memory: Memory = "ideal",
    read_latency: ReadLatency = 32,
    seed: Seed = 1,
    bare: Annotated[
        bool, typer.Option("--bare", help="Repeat the run in Verilator without Python and compare the speeds.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="JSON file of cycles, seconds and speeds.")] = None,
    waves: Waves = None,
):
    """Send images through the whole network, one after the other, with progress and time left; print what every exit
    says, compare every output with the reference."""
    from .one_by_one import run_images
    from .study import InputError

    if bare and waves:
        raise InputError("--bare and --waves: a run without Python writes no waves")
    if images is None and network == DIGITS:
        images = VIEWS
    run_images(
        get_config(config),
        network,
        images,
        first,
        count,
        rounding=rounding,
        thresholds=threshold,
        memory=memory_of(memory, read_latency),
        waves=window_of(waves),
        console=new_console(),
        seed=seed,
        bare=bare,
        out=out,
    )
