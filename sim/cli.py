"""The ``fluidnpu`` command line."""

import pickle
import sys
from pathlib import Path
from typing import Annotated

import typer
from fluidnpu.hw.config import CONFIGS, get_config
from rich.console import Console

from .attach_command import attach_exits
from .network_command import write_network
from .study_command import study

__all__ = ["app", "main"]

MODELS = Path(__file__).resolve().parents[1] / "models"
app = typer.Typer(
    name="fluidnpu",
    help="An NPU that serves early-exit networks: simulate it, run images on it, compile networks for it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[str, typer.Option("--config", "-c", help=f"Size of the NPU: {', '.join(CONFIGS)}.")]
Network = Annotated[
    Path,
    typer.Option("--network", "-n", help=".tflite file, int8 or uint8.", show_default="the digits network"),
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


@app.command()
def sim(
    config: Config = "edge",
    network: Network = MODELS / "digits.tflite",
    images: Images = MODELS / "digits_views.npz",
    rounding: RoundingOption = "litert",
    arrivals: Annotated[
        list[str],
        typer.Option("--arrivals", "-a", help="poisson, bursts, or a file of timestamps (one number per line)."),
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
        memory=_memory(memory, read_latency),
        rigid=rigid,
        unstacked=unstacked,
        waves=_window(waves),
        folder=out,
        jobs=jobs,
        console=_console(),
        device=device,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "records.pickle").write_bytes(pickle.dumps(records))
    _report(records, out)


@app.command()
def run(
    first: Annotated[int, typer.Argument(help="Index of the first image in the .npz file.", min=0)] = 0,
    count: Annotated[int, typer.Argument(help="Number of images.", min=1)] = 1,
    config: Config = "edge",
    network: Network = MODELS / "digits.tflite",
    images: Images = MODELS / "digits_views.npz",
    rounding: RoundingOption = "litert",
    threshold: Threshold = (0.8,),
    memory: Memory = "ideal",
    read_latency: ReadLatency = 32,
    waves: Waves = None,
):
    """Send a few images through the whole network, one after the other; print what every exit says."""
    from .demonstration import run_images

    run_images(
        get_config(config),
        network,
        images,
        first,
        count,
        rounding=rounding,
        thresholds=threshold,
        memory=_memory(memory, read_latency),
        waves=_window(waves),
        console=_console(),
    )


@app.command("compile")
def compile_(
    network: Annotated[Path, typer.Argument(help="int8 or uint8 .tflite file; outputs are exits, shallow to deep.")],
    config: Config = "edge",
    rounding: RoundingOption = "litert",
    threshold: Threshold = (0.8,),
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Program file. Default: NETWORK-CONFIG.fnp.")] = None,
):
    """Compile a network into a program file; print how its layers are mapped."""
    from fluidnpu.nn.compiler import CompileOptions, compile_network

    from .study import limits_of, load_network
    from .tables import layers_table

    net = load_network(network, rounding)
    program = compile_network(net, get_config(config), CompileOptions(limits=limits_of(threshold, len(net.ends))))
    out = out or Path(f"{network.stem}-{config}.fnp")
    program.save(out)
    console = _console()
    console.print(layers_table(program))
    console.print(
        f"{out}: {len(program.ops)} operations, {len(program.region):,} bytes of descriptors and weights, "
        f"{program.arena_bytes:,} bytes per sample",
        soft_wrap=True,
    )


app.command("attach-exits", context_settings={"allow_extra_args": True})(attach_exits)
app.command("make-network")(write_network)
app.command()(study)


@app.command()
def profile(
    network: Annotated[Path, typer.Argument(help=".tflite file.")],
    config: Config = "edge",
    live: Annotated[list[int], typer.Option("--live", "-l", help="Samples at a time. Repeat it for several.")] = (1, 4),
    memory: Memory = "ideal",
    read_latency: ReadLatency = 32,
    unstacked: Unstacked = False,
):
    """Cycles, MAC utilisation and causes of every layer, exact to the cycle, from the cycle model."""
    from fluidnpu.nn.compiler import CompileOptions, compile_network

    from .bench.profile import profile as profile_layers
    from .bench.profile import profile_table
    from .study import load_network

    npu = get_config(config)
    console = _console()
    with console.status(f"compiling {network.name} for {config}"):
        program = compile_network(load_network(network), npu, CompileOptions())
    for count in live:
        with console.status(f"{count} live"):
            rows = profile_layers(npu, program, count, memory=_memory(memory, read_latency), unstacked=unstacked)
        console.print(profile_table(rows, f"{program.name} on {config}, {count} live, {memory} memory"))


@app.command()
def verilog(
    config: Config = "edge",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; the files go into OUT/CONFIG.")] = Path("build"),
):
    """Write the NPU's Verilog, and a JSON file with its registers, commands, counters and ports."""
    from .generate import write_verilog

    npu = get_config(config)
    with _console().status(f"{config}: generating Verilog"):
        paths = write_verilog(npu, out)
    for path in paths:
        print(path)


@app.command()
def lint(config: Annotated[list[str], typer.Option("--config", "-c", help="Repeat it for several.")] = ("edge",)):
    """Run Verilator's lint over the generated Verilog; warnings are errors."""
    from .lint import lint_verilog
    from .npu_build import cached_verilog

    configs = [get_config(name) for name in config]
    console = _console()
    for npu in configs:
        with console.status(f"{npu.name}: generating and checking Verilog"):
            complaints = lint_verilog(cached_verilog(npu).read_text())
        if complaints:
            sys.stderr.write(complaints)
            raise typer.Exit(1)
        print(f"{npu.name}: no warnings")


@app.command()
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
    _report(records, out)


@app.command()
def bench(
    config: Config = "edge",
    network: Network = MODELS / "digits.tflite",
    images: Images = MODELS / "digits_views.npz",
    moments: Annotated[int, typer.Option("--moments", help="Preemptions to measure.", min=1)] = 500,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("build/bench"),
):
    """Measure the figures of docs/benchmarks.md on the RTL."""
    from .bench import main as bench_main

    bench_main(config, network, images, out, moments, seed)


def _report(records, folder):
    from .report import write_report
    from .tables import runs_table

    console = _console()
    console.print(runs_table(records))
    with console.status("writing the report"):
        index = write_report(records, folder)
    console.print(f"Report: {index}", soft_wrap=True, highlight=False)


def _memory(name, read_latency):
    from .memory import MemorySettings, limited
    from .study import InputError

    if name not in ("ideal", "limited"):
        raise InputError(f"unknown memory {name!r}; there are ideal, limited")
    return MemorySettings(read_latency=read_latency) if name == "ideal" else limited(read_latency=read_latency)


def _window(text):
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


def _console():
    return Console(highlight=False)


def main(arguments=None):
    """Entry point. Exit codes: 0; 1 wrong answers or a simulation that failed; 2 bad input, in one line."""
    from typer.exceptions import TyperException

    try:
        code = app(arguments, prog_name="fluidnpu", standalone_mode=False)
    except TyperException as error:
        code = _complain(error.format_message(), error.exit_code)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not error.filename:
            raise
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        code = _complain(text, 2)
    except (RuntimeError, AssertionError) as error:
        code = _complain(f"{type(error).__name__}: {error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(text, code):
    if text:
        print(f"fluidnpu: {text}", file=sys.stderr)
    return code
