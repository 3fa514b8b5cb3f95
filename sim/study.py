"""A comparison of policies on the RTL or the cycle model: files, measured capacity, runs in parallel."""

import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fluidnpu.nn import reference
from fluidnpu.nn.compiler import CompileOptions
from fluidnpu.nn.exits import decide, limit_of
from fluidnpu.nn.quantize import Kernels
from fluidnpu.nn.tflite_reader import parse_network, read_network
from fluidnpu.nn.zoo import NETWORKS, make_network
from fluidnpu.sched.survival import ExitRates, SurvivalTables

from .answers import expected_answers
from .compiled import compiled_program
from .measured_latency import cached_latency
from .memory import IDEAL
from .npu_build import npu_build
from .session import Setup, serve_trace
from .traffic import arrivals, make_trace
from .verilator import build_root

__all__ = [
    "InputError",
    "Load",
    "limits_of",
    "load_network",
    "load_of",
    "load_program",
    "make_setup",
    "make_traces",
    "read_images",
    "run_study",
]


class InputError(ValueError):
    """A file or an option that cannot be used; the message names it."""


@dataclass(frozen=True)
class Load:
    """What the NPU can do with a network, in cycles.

    alone : one sample through the whole network; served : expected cycles per sample in the best batch, exits included;
    batch : its size
    """

    alone: float
    served: float
    batch: int


def read_images(path, shape):
    """(images int8 [n, h, w, c], labels int64 [n] or None) of an .npz with x and, where known, y.

    x : int8 as the network takes it, or uint8, of which 128 is subtracted; ``shape`` : (h, w, c) that it must have; a
    single channel may be left out. Raises InputError that names the file.
    """
    try:
        content = np.load(path, allow_pickle=False)
        if not isinstance(content, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with content:
            arrays = {name: content[name] for name in content.files if name in ("x", "y")}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"images {path}: not an .npz file of arrays ({error})") from None
    except OSError as error:
        raise InputError(f"images {path}: {error.strerror or error}") from None
    if "x" not in arrays:
        raise InputError(f"images {path}: there is no array x")
    x, y = arrays["x"], arrays.get("y")
    if x.shape[1:] == shape[:2] and shape[2] == 1:
        x = x[..., None]
    if x.dtype not in (np.uint8, np.int8) or x.ndim != 4 or x.shape[1:] != shape or not len(x):
        raise InputError(
            f"images {path}: x is {x.dtype} {list(x.shape)}, it must be uint8 or int8 [at least 1, "
            f"{', '.join(map(str, shape))}]"
        )
    if y is not None and (y.shape != (len(x),) or y.dtype.kind not in "iu"):
        raise InputError(f"images {path}: y is {y.dtype} {list(y.shape)}, it must be whole numbers [{len(x)}]")
    x = (x ^ 0x80).view(np.int8) if x.dtype == np.uint8 else x
    return x, None if y is None else y.astype(np.int64)


def limits_of(thresholds, exits):
    """Limits of ``exits`` exits from confidence thresholds: one for all, or one for each but the last, or for each."""
    thresholds = list(thresholds)
    if len(thresholds) == 1:
        thresholds *= exits
    if len(thresholds) == exits - 1:
        thresholds.append(0.0)
    if len(thresholds) != exits:
        raise InputError(f"{len(thresholds)} thresholds for {exits} exits; give one, {exits - 1} or {exits}")
    return tuple(limit_of(t) for t in thresholds)


def load_network(path, rounding="litert"):
    """Network of a .tflite file, or of nn.zoo by name; InputError if it cannot be read.

    rounding : of nn.tflite_reader.read_network
    """
    if rounding not in tuple(Kernels):
        raise InputError(f"unknown rounding {rounding!r}; there are {', '.join(Kernels)}")
    if str(path) in NETWORKS and not Path(path).exists():
        return parse_network(make_network(str(path)), str(path), rounding)
    try:
        return read_network(path, rounding)
    except OSError as error:
        raise InputError(f"network {path}: {error.strerror or error}") from None


def load_program(config, path, thresholds=(0.8,), rounding="litert", status=None):
    """(Network, Program) of a .tflite file for a configuration, fit for `session.Setup`.

    status : told what takes the time. Raises InputError, CompileError, UnsupportedNetwork.
    """
    network = load_network(path, rounding)
    options = CompileOptions(reuse_arena=False, limits=limits_of(thresholds, len(network.ends)))
    return network, compiled_program(config, network, options, status)


def make_setup(
    config, network, program, *, memory=IDEAL, rigid=False, unstacked=False, trace=False, options=None, status=None,
    device="rtl",
):  # fmt: skip
    """Setup of a compiled network: simulator built, latencies measured or known from an earlier run.

    device : "rtl", or "model" for the cycle model; trace : the simulator can write waves; options : JSON-able, for the
    records; status : function that is told what takes the time. Raises ToolError, BuildError.
    """
    build = npu_build(config, trace=trace, status=status) if device == "rtl" else None
    if status:
        status(f"{config.name}: latency of every operation, measured on the {device} (once)")
    latency = cached_latency(build, config, program, memory, unstacked)
    said = {k: getattr(memory, k) for k in ("read_latency", "write_latency", "beats_per_256", "burst_overhead")}
    said = {"rigid": rigid, "unstacked": unstacked, "memory": said, **(options or {})}
    return Setup(config, build, network, program, latency, memory, rigid, unstacked, said)


def load_of(setup, images, most=256):
    """Load of a Setup: measured cycles, and the exits that the reference takes for the first ``most`` images."""
    tensors = reference.run(setup.network, images[:most])
    taken = decide(setup.network, tensors, setup.limits).exit
    exits = len(setup.program.exits)
    left = np.array([(taken >= e).sum() for e in range(exits)])
    rates = [(taken == e).sum() / left[e] if left[e] else 0.5 for e in range(exits - 1)]
    tables = SurvivalTables.of_program(
        setup.program, setup.config.slots, rates=ExitRates(exits, rates), latency=setup.latency
    )
    per_sample = tables.remaining[0, 1:] / np.arange(1, tables.B + 1)
    batch = int(per_sample.argmin()) + 1
    return Load(float(setup.latency.cycles[:, 1].sum()), float(per_sample.min()), batch)


def make_traces(shapes, rate, images, labels=None, *, count=None, slo=None, seed=1, burst=8.0, options=None):
    """One Trace per shape (traffic.arrivals), each with images of its own.

    rate : requests per cycle; count : requests of each (default: 200, or all of a file); slo : cycles
    """
    traces, skip = [], 0
    for n, shape in enumerate(shapes):
        more = {"burst": burst} if shape == "bursts" else {}
        times = arrivals(shape, rate, count, seed + n, **more)
        said = {"rate_per_megacycle": 1e6 * rate, "slo": slo, "seed": seed, **more, **(options or {})}
        name = shape if not Path(shape).is_file() else Path(shape).name
        traces.append(make_trace(name, times, images, labels, slo=slo, seed=seed, skip=skip, options=said))
        skip += len(times)
    return traces


def run_study(setup, traces, policies, *, jobs=2, progress=None, waves=None, policy_options=None):
    """Serve every trace under every policy; returns the RunRecords, trace by trace.

    Parameters
    ----------
    jobs : simulator processes at a time
    progress : function (policy, trace name, requests answered), called from one thread a few times a second
    waves : function (policy, trace name) -> (path, first cycle, last cycle) of a VCD file
    policy_options : dict policy -> further arguments

    The first run that goes wrong ends the study with its exception; runs that have not begun are not begun.
    """
    expected = {t.name: expected_answers(setup.network, t.images, setup.limits) for t in traces}
    runs = [(trace, policy) for trace in traces for policy in policies]
    folder = build_root() / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="study-", dir=folder) as counts, ThreadPoolExecutor(jobs) as pool:
        files = [Path(counts) / str(n) for n in range(len(runs))]
        futures = [
            pool.submit(
                serve_trace,
                setup,
                trace,
                policy,
                policy_options=(policy_options or {}).get(policy),
                expected=expected[trace.name],
                progress=file,
                waves=waves(policy, trace.name) if waves else None,
            )
            for (trace, policy), file in zip(runs, files, strict=True)
        ]
        try:
            while not all(f.done() for f in futures):
                wait(futures, timeout=0.2)
                for future in futures:
                    if future.done():
                        future.result()
                _tell(progress, runs, files)
            _tell(progress, runs, files)
            return [f.result() for f in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _tell(progress, runs, files):
    """Report how far every run is."""
    if progress:
        for (trace, policy), file in zip(runs, files, strict=True):
            progress(policy, trace.name, file.stat().st_size if file.exists() else 0)
