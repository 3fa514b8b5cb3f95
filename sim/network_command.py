"""The command `fluidnpu make-network`: published networks with random weights, to measure speed with."""

from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.nn.zoo import NETWORKS, make_network
from rich.console import Console

__all__ = ["write_network"]


def write_network(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(NETWORKS)}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .tflite file.")],
    exit_after: Annotated[
        list[int], typer.Option("--exit-after", metavar="STAGE", help="Attach an exit behind this stage. Repeat it.")
    ] = (),
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of the weights.", min=0)] = 0,
):
    """Write a network of published shapes, strides and paddings with random int8 weights."""
    from fluidnpu.nn.tflite_reader import parse_network

    data = make_network(name, exits=exit_after, seed=seed)
    network = parse_network(data, str(out))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    Console(highlight=False).print(
        f"{out}: {len(data):,} bytes, {len(network.layers)} layers, {network.macs():,} MACs, {len(network.exits)} "
        f"exit{'s' if len(network.exits) > 1 else ''}",
        soft_wrap=True,
    )
