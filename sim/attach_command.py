"""The command `fluidnpu attach-exits`: an early-exit network out of a backbone and labelled images."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["attach_exits"]

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the table


def attach_exits(
    context: typer.Context,
    backbone: Annotated[Path, typer.Argument(help="int8 or uint8 .tflite classifier with one output.")],
    at: Annotated[
        list[str],
        typer.Option(
            "--at",
            metavar="TENSOR...",
            help="Tensors to attach exits to, each by its name, a part of it, or its number; or auto.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option("--data", help=".npz to fit on: x, n x h x w x c, uint8 (128 is subtracted) or int8; labels y."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .tflite file with exits; figures go to OUT.json.")],
    test: Annotated[
        Path | None, typer.Option("--test", help=".npz to judge on. Default: a part of --data, held apart.")
    ] = None,
    held_out: Annotated[float, typer.Option("--held-out", help="Share of --data to judge on, without --test.")] = 0.2,
    exits: Annotated[int, typer.Option("--exits", help="How many exits --at auto proposes.", min=1)] = 2,
    pool: Annotated[int, typer.Option("--pool", help="A head sees at most POOL x POOL averages.", min=1)] = 4,
    calibrate: Annotated[
        float | None,
        typer.Option(
            "--calibrate", metavar="LOSS", help="Find thresholds that save most at this loss of accuracy, in points."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Of what is held apart.", min=0)] = 1,
):
    """Attach early exits to a backbone: fit a head at each tensor, write a network with one output per exit.

    Prints and stores (OUT.json) exit rates, accuracy and share of the MACs over thresholds, on images held apart from
    the fitting.
    """
    from fluidnpu.nn.attach_exits import attach_exits as attach
    from fluidnpu.nn.exit_places import AttachError, Backbone, find_places, propose_places

    from .exit_tables import exits_table, outcomes_table, places_table
    from .study import InputError

    console = Console(highlight=False)
    at = [*at, *context.args]  # the command takes "--at A B" as well as "--at A --at B"
    try:
        net = Backbone(backbone.read_bytes(), str(backbone))
    except OSError as error:
        raise InputError(f"backbone {backbone}: {error.strerror or error}") from None
    if "auto" in at and len(at) > 1:
        raise InputError("--at auto cannot be mixed with tensors")
    if calibrate is not None and not 0 <= calibrate <= 100:
        raise AttachError(f"--calibrate {calibrate}; it must be 0..100 percentage points")
    places = propose_places(net, exits) if "auto" in at else find_places(net, at)
    if "auto" in at:
        console.print(places_table(net, places))
    images, labels, test_images, test_labels = _data(net, data, test, held_out, seed)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        tasks = {}

        def status(what, done, total):
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        result = attach(net, places, images, labels, test_images, test_labels, size=pool, seed=seed, status=status)
        for task in tasks.values():
            progress.update(task, total=progress.tasks[task].completed)
    outcomes = [result.measured([t] * len(places)) for t in THRESHOLDS]
    said = {
        "backbone": str(backbone),
        "network": str(out),
        "seed": seed,
        "images": {"fitted": len(labels), "held_apart": len(test_labels)},
        "backbone_macs": net.macs,
        "exits": result.exits(),
        "thresholds": [outcome.as_dict() for outcome in outcomes],
    }
    console.print(exits_table(result))
    console.print(outcomes_table(outcomes))
    if calibrate is not None:
        outcome = result.calibrated(calibrate)
        said["calibrated"] = {
            "loss": calibrate / 100,
            "on_fitted_images": result.fitted.outcome(outcome.thresholds).as_dict(),
            "held_apart": outcome.as_dict(),
        }
        console.print(f"Fewest MACs at a loss of at most {calibrate:g} points on the {len(labels):,} fitted images:")
        console.print(outcomes_table([outcome]))
        console.print("  " + " ".join(f"--threshold {t:g}" for t in outcome.thresholds), soft_wrap=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(result.data)
    figures = out.with_suffix(".json")
    figures.write_text(json.dumps(said, indent=1) + "\n")
    console.print(f"{out}: {len(result.data):,} bytes, {len(places) + 1} exits; figures in {figures}", soft_wrap=True)


def _data(net, data, test, held_out, seed):
    """(images, labels) to fit on and (images, labels) to judge on."""
    from fluidnpu.nn.attach_exits import split_images

    images, labels = _labelled(data, net)
    if test is not None:
        return images, labels, *_labelled(test, net)
    fit, apart = split_images(len(labels), held_out, seed)
    return images[fit], labels[fit], images[apart], labels[apart]


def _labelled(path, net):
    from .study import InputError, read_images

    images, labels = read_images(path, net.network.input.shape)
    if labels is None:
        raise InputError(f"images {path}: there is no array y; exits need labels")
    return images, labels
