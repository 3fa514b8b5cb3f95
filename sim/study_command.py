"""The command `fluidnpu study`: every policy on every point, in parallel, and the page that says what came out."""

import logging
import os
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["study"]

# In the folder of real inputs
TRACE = "traces/azure_llm_conv.csv"
EXITS = "exits/resnet8_three_exits_1000.csv"


def study(
    full: Annotated[
        bool, typer.Option("--full", help="The factorial instead of the named points: days of work.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A few points of every kind.")] = False,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="ADDRESS", help="A Dask scheduler; default: workers of its own.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Workers of its own; default: one per core.", min=1)
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Only this part of the study. Repeat it for several.")
    ] = None,
    timestamps: Annotated[
        list[Path] | None, typer.Option("--timestamps", help="A further file of arrivals. Repeat it for several.")
    ] = None,
    exits: Annotated[
        list[Path] | None,
        typer.Option("--exits", help="A further exit mix: .csv with label, p1, c1, p2, c2, ... Repeat it for several."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", "-r", help="Per point, instead of what the plan says.", min=10)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of page, table and finished points.")] = Path(
        "build/study"
    ),
):
    """Compare schedulers in simulations of the NPU; write build/study/index.html, study.md and results.csv.

    Finished points are kept: a run that was killed continues. ResNet-8 and the timestamps of a real service are part of
    it if the environment variable FLUIDNPU_REAL names the folder with their files.
    """
    from dataclasses import replace

    from .campaign.cases import find_workloads
    from .campaign.files import named_files, with_files
    from .campaign.page import write_study
    from .campaign.plans import make_plan
    from .campaign.runner import Store, measure_cases, run_points
    from .mixes import MIXES, file_mix
    from .study import InputError
    from .traffic import SHAPES, read_times

    if full and quick:
        raise InputError("--full and --quick exclude one another")
    console = Console(highlight=False)
    begin = time.perf_counter()
    with console.status("networks") as status:
        workloads = find_workloads(status.update)
        times = named_files("--timestamps", timestamps or [], SHAPES, _real(TRACE))
        confidences = named_files("--exits", exits or [], MIXES, _real(EXITS))
        traces = {name: read_times(path) for name, path in times.items()}
        mixes = {name: file_mix(path) for name, path in confidences.items()}
        points = make_plan("full" if full else "quick" if quick else "default", workloads, traces, mixes)
        known = dict.fromkeys(point.group for point in points)
        if unknown := [g for g in group or [] if g not in known]:
            raise InputError(f"--group {unknown[0]}: there are {', '.join(known)}")
        points = [p for p in points if not group or p.group in group]
        if requests is not None:
            points = [replace(p, requests=requests) for p in points]
        points = with_files(points, workloads, times, confidences)
    if "resnet8" not in workloads:
        console.print("ResNet-8 is left out: FLUIDNPU_REAL does not name the folder of its files")
    store = Store(out / "points")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with (
        _client(cluster, jobs or os.cpu_count() or 1) as client,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("networks, measured on the cycle model (once)")
        # Workers of its own see the same files; others get what is measured here.
        cases = measure_cases(
            None if cluster else client,
            points,
            workloads,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
        cases = {npu: replace(case, traces=traces, mixes=mixes) for npu, case in cases.items()}
        task = progress.add_task("points", total=len(points))

        def tell(done, total, point):
            progress.update(
                task, completed=done, total=total, description=f"points: {point.group}" if point else "points"
            )

        found, failed = run_points(client, points, cases, store, tell)
    minutes = (time.perf_counter() - begin) / 60
    facts = [
        ("points", f"{len(points):,}"),
        ("requests", f"{sum(f['requests'] for f in found.values()):,}"),
        ("time", f"{minutes:.1f} minutes"),
        ("networks", ", ".join(w.title for w in workloads.values() if w.name in {p.workload for p in points})),
    ]
    with console.status("writing the page"):
        page = write_study(found, cases, out, facts)
    for error, lost in Counter(f"{type(e).__name__}: {e}" for e in failed.values()).items():
        console.print(f"{lost} points failed: {error}", soft_wrap=True)
    console.print(f"{len(found):,} points in {minutes:.1f} minutes. Page: {page}", soft_wrap=True)
    if failed:
        raise typer.Exit(1)


def _real(name):
    """Path of a file among the real inputs, or None."""
    folder = os.environ.get("FLUIDNPU_REAL")
    path = Path(folder or "", name)
    return path if folder and path.exists() else None


@contextmanager
def _client(address, jobs):
    """A Dask client: of a scheduler, or of ``jobs`` worker processes of its own."""
    import dask
    from distributed import Client, LocalCluster

    if address is not None:
        try:
            client = Client(address, timeout=10)
        except OSError as error:
            from .study import InputError

            raise InputError(f"--cluster {address}: no Dask scheduler answers ({error})") from None
        with client:
            yield client
        return
    # A point takes seconds: no worker is idle for long, and nothing is gained by a dashboard
    with dask.config.set({"distributed.worker.daemon": True}):
        with LocalCluster(
            n_workers=jobs, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0,
            silence_logs=logging.ERROR,
        ) as cluster, Client(cluster) as client:  # fmt: skip
            yield client
