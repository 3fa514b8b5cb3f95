"""What ``fluidnpu sim`` does: a study with everything shown that goes on."""

from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .options import telling
from .replay import ENGINE_PORT
from .study import load_of, load_program, make_setup, make_traces, read_images, run_study

__all__ = ["demonstrate"]


def demonstrate(
    config, network, images, *, rounding, arrivals, count, share, gap, burst, slo, thresholds, policies, seed, memory,
    rigid, unstacked, waves, folder, jobs, console, device="rtl",
):  # fmt: skip
    """Serve the same traces under every policy; returns the RunRecords, trace by trace.

    network, images : paths; rounding : of study.load_network; share : of the capacity, gap : cycles between requests
    (instead of share); slo : multiples of one sample's latency, 0 for none; waves : (first, last) cycle or None;
    device : rtl or model. The other parameters: study.
    """
    options = {"thresholds": list(thresholds)}
    with telling(console) as tell:
        net, program = load_program(config, network, thresholds, rounding, tell)
        x, y = read_images(images, net.input.shape)
        common = {"count": count, "seed": seed, "burst": burst}
        make_traces(arrivals, 1.0, x, y, **common)  # what is wrong with them is found before the simulator is built
        setup = make_setup(
            config, net, program, memory=memory, rigid=rigid, unstacked=unstacked, trace=waves is not None,
            options=options, status=tell, device=device,
        )  # fmt: skip
        load = load_of(setup, x)
        rate = share / load.served if gap is None else 1 / gap
        promise = round(slo * load.alone) if slo else None
        options = {"capacity_share": rate * load.served, "alone": load.alone}
        traces = make_traces(arrivals, rate, x, y, slo=promise, options=options, **common)
    console.print(
        f"One sample alone takes {load.alone:,.0f} cycles through all layers of {setup.network.name} on {config.name}. "
        f"With exits, batches of {load.batch} need {load.served:,.0f} cycles per sample. "
        f"A request every {1 / rate:,.0f} cycles is {100 * rate * load.served:.0f}% of that"
        + (f"; promised latency {promise:,} cycles." if promise else "."),
    )
    if waves:
        Path(folder).mkdir(parents=True, exist_ok=True)

    def waves_of(policy, traffic):
        return Path(folder) / f"waves-{policy}-{Path(traffic).stem}.vcd", *waves

    with _Bars(console, traces, policies) as bars:
        records = run_study(
            setup, traces, policies, jobs=jobs, progress=bars.show, waves=waves_of if waves else None
        )  # fmt: skip
    answers = sum(len(r.results) for r in records)
    actions = sum(int((r.events["source"] == ENGINE_PORT).sum()) for r in records)
    console.print(
        f"All {answers} answers equal the integer reference bit for bit, "
        f"all {actions:,} actions of the engine are those of its model."
    )
    if waves:
        console.print(f"Waves: {Path(folder)}/waves-*.vcd", soft_wrap=True)
    return records


class _Bars:
    """A progress bar per run."""

    def __init__(self, console, traces, policies):
        self.progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        width = max(len(t.name) for t in traces)
        self.tasks = {
            (policy, trace.name): self.progress.add_task(
                f"{trace.name:{width}}  {policy}", total=len(trace.requests), start=False
            )
            for trace in traces
            for policy in policies
        }

    def __enter__(self):
        self.progress.start()
        return self

    def __exit__(self, *_):
        self.progress.stop()

    def show(self, policy, traffic, count):
        task = self.tasks[policy, traffic]
        if count and not self.progress.tasks[task].started:
            self.progress.start_task(task)
        self.progress.update(task, completed=count)
