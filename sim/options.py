"""Options that several commands have in common, and what becomes of them."""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import CONFIGS
from rich.console import Console

__all__ = [
    "MODELS",
    "Config",
    "Images",
    "Memory",
    "Network",
    "NetworkArgument",
    "ReadLatency",
    "Rigid",
    "RoundingOption",
    "Seed",
    "Threshold",
    "Unstacked",
    "Waves",
    "memory_of",
    "new_console",
    "telling",
    "window_of",
]

MODELS = Path(__file__).resolve().parents[1] / "models"

Config = Annotated[str, typer.Option("--config", "-c", help=f"Size of the NPU: {', '.join(CONFIGS)}.")]
Network = Annotated[
    Path,
    typer.Option("--network", "-n", help=".tflite file, int8 or uint8.", show_default="the digits network"),
]
NetworkArgument = Annotated[
    Path, typer.Argument(help=".tflite file, int8 or uint8, or a name that make-network knows.")
]
Images = Annotated[
    Path,
    typer.Option(
        "--images",
        "-i",
        help=".npz: x, n x h x w x c, int8 as the network takes it or uint8 (128 is subtracted), and labels y.",
        show_default="held-out views of digits",
    ),
]
Threshold = Annotated[
    list[float],
    typer.Option("--threshold", "-t", help="Confidence at which a sample leaves: one for all exits, or one each."),
]
RoundingOption = Annotated[
    str, typer.Option("--rounding", help="Whose kernels to equal: litert (ai-edge-litert), or micro (TFLite Micro).")
]
Seed = Annotated[int, typer.Option("--seed", "-s", help="Of arrivals and of the choice of images.", min=0)]
Waves = Annotated[str | None, typer.Option("--waves", metavar="FIRST:LAST", help="Write a VCD file of these cycles.")]
Memory = Annotated[str, typer.Option("--memory", help="External memory: ideal, or limited (half the bandwidth).")]
ReadLatency = Annotated[int, typer.Option("--read-latency", help="Cycles to the first beat of a read.", min=1)]
Rigid = Annotated[
    bool, typer.Option("--rigid", help="Ablation: nobody joins a running batch, and who exits keeps its place.")
]
Unstacked = Annotated[bool, typer.Option("--unstacked", help="Ablation: the array never stacks its PEs.")]


def memory_of(name, read_latency):
    from .memory import MemorySettings, limited
    from .study import InputError

    if name not in ("ideal", "limited"):
        raise InputError(f"unknown memory {name!r}; there are ideal, limited")
    return MemorySettings(read_latency=read_latency) if name == "ideal" else limited(read_latency=read_latency)


def window_of(text):
    """(first, last) of "FIRST:LAST"; an empty part is open. None of None."""
    from .study import InputError

    if text is None:
        return None
    first, colon, last = text.partition(":")
    try:
        window = int(first or 0), int(last) if last else None
    except ValueError:
        window = None
    if not colon or window is None or window[0] < 0 or (window[1] is not None and window[1] < window[0]):
        raise InputError(f"--waves {text}: it must be FIRST:LAST, two cycles")
    return window


def new_console():
    """Where commands print."""
    return Console(highlight=False)


@contextmanager
def telling(console):
    """A function that shows a line of text: with a spinner; where nobody watches, a line each, but of lines that begin
    alike one in ten seconds."""
    if not console.is_terminal:
        kind, at = None, 0.0

        def tell(text):
            nonlocal kind, at
            first, now = text.split(" ", 1)[0], time.monotonic()
            if first != kind or now >= at + 10:
                kind, at = first, now
                console.print(text, soft_wrap=True)

        yield tell
        return
    with console.status("starting") as status:
        yield status.update
