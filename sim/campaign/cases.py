"""Networks of the study, compiled, measured and calibrated once per configuration, bandwidth and mode."""

import hashlib
import os
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.zoo import make_network
from fluidnpu.sched.latency import LatencyTable
from fluidnpu.sched.survival import ExitRates, SurvivalTables

from ..memory import MemorySettings
from ..mixes import ExitMix, answers_mix, mix_of
from ..study import InputError, limits_of, load_network, load_program, read_images
from ..timed_npu import TimedNpu
from ..verilator import build_root

__all__ = ["BANDWIDTHS", "Case", "Workload", "build_case", "find_workloads"]

BANDWIDTHS = {"full": 0, "half": 128}  # beats per 256 cycles each way; 0: one per cycle
THRESHOLD = 0.8
MOST_IMAGES = 1000
MOST_MACS = 1_000_000_000  # of a network whose stack modes are chosen by the cycle model
MOST_REGION = 1 << 20  # bytes of a program region that go to workers: larger ones end behind the descriptors
REAL = "FLUIDNPU_REAL"  # environment variable: folder of real networks, images and traces
MODELS = Path(__file__).parent.parent.parent / "models"


@dataclass(frozen=True)
class Workload:
    """A network of the study. network : .tflite; images : .npz, or None: its exit mix is a parameter"""

    name: str
    network: Path
    images: Path | None
    title: str


@dataclass(frozen=True, eq=False)
class Case:
    """A workload on an NPU, as workers need it.

    npu : TimedNpu; without weights if they are large, and then for the tile model only
    pool : ExitMix of the network's own answers, or None
    alone : cycles of one sample through the whole stacked network
    rigid_capacity : samples per cycle of the rigid, unstacked NPU in its best batch, or None: not measured
    stacked : latencies of the NPU in stacked mode
    images : path of the images that ``pool`` has the answers to, or None
    traces : timestamps (traffic.read_times) of the files that points name as arrivals
    mixes : ExitMix of the files that points name as mix
    """

    npu: TimedNpu
    pool: ExitMix | None
    alone: float
    rigid_capacity: float | None
    stacked: LatencyTable
    images: Path | None = None
    traces: dict = field(default_factory=dict)
    mixes: dict = field(default_factory=dict)

    def mix(self, name):
        """ExitMix of that name."""
        exits, known = len(self.npu.programs[0].exits), self.mixes.get(name)
        if known is None:
            return mix_of(name, exits, self.pool, THRESHOLD)
        if known.exits != exits:
            raise InputError(f"exit mix {name} has {known.exits} exits, the network has {exits}")
        return known

    def tables(self, rates, stacked=False):
        """SurvivalTables of this NPU, or of the same in stacked mode, that begin with these exit rates."""
        program = self.npu.programs[0]
        latency = self.stacked if stacked else self.npu.latencies[0]
        start = ExitRates(len(program.exits), rates)
        return SurvivalTables.of_program(program, self.npu.config.slots, rates=start, latency=latency)

    def capacity(self, reference, rates):
        """Samples per cycle: "rigid", or "fluid" with these exit rates."""
        if reference == "rigid":
            if self.rigid_capacity is None:
                raise InputError("the capacity of the rigid NPU was not measured for this case")
            return self.rigid_capacity
        tables = self.tables(rates, stacked=True)
        return float((np.arange(1, tables.B + 1) / tables.remaining[0, 1:]).max())


def find_workloads(status=None):
    """dict name -> Workload of the networks that are there; ResNet-8 needs the environment variable FLUIDNPU_REAL.

    status : told what takes time
    """
    folder = build_root() / "study" / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    found = [Workload("digits", MODELS / "digits.tflite", MODELS / "digits_views.npz", "digits, 3 exits")]
    real = Path(os.environ.get(REAL, ""))
    backbone = real / "models/resnet8_int8.tflite"
    if os.environ.get(REAL) and backbone.exists():
        path = folder / "resnet8.tflite"
        if not path.exists():
            (status or print)("ResNet-8: fitting two exits (once, about a minute)")
            path.write_bytes(_with_exits(backbone, real / "images"))
        found.append(Workload("resnet8", path, real / "images/cifar10_test_1000.npz", "ResNet-8, 3 exits"))
    path = folder / "resnet50.tflite"
    if not path.exists():
        path.write_bytes(make_network("resnet50", exits=(2, 3)))
    found.append(Workload("resnet50", path, None, "ResNet-50 at 224 x 224, 3 exits"))
    return {w.name: w for w in found}


def _with_exits(backbone, images):
    """Bytes of the network that `fluidnpu attach-exits --at auto` makes of the backbone."""
    from fluidnpu.nn.attach_exits import attach_exits
    from fluidnpu.nn.exit_places import Backbone, propose_places

    net = Backbone(backbone.read_bytes(), str(backbone))
    shape = net.network.input.shape
    sets = [read_images(images / f"cifar10_{name}.npz", shape) for name in ("train_5000", "test_1000")]
    return attach_exits(net, propose_places(net, 2), *sets[0], *sets[1]).data


def build_case(workload, config_name, bandwidth, unstacked, rigid=False):
    """Case of a Workload; measured on the cycle model, or kept from an earlier time.

    rigid : the capacity of the rigid, unstacked NPU is needed
    """
    if bandwidth not in BANDWIDTHS:
        raise InputError(f"bandwidth {bandwidth!r}; there are {', '.join(BANDWIDTHS)}")
    modes = (bandwidth, unstacked, rigid)
    exact = repr((workload.network.read_bytes(), get_config(config_name), modes, _sources())).encode()
    folder = build_root() / "study" / "cases"
    path = folder / f"{workload.name}-{config_name}-{hashlib.sha256(exact).hexdigest()[:20]}.pickle"
    if path.exists():
        return pickle.loads(path.read_bytes())
    config = get_config(config_name)
    network, program = _compiled(workload, config)
    memory = MemorySettings(beats_per_256=BANDWIDTHS[bandwidth])
    stacked = TimedNpu.build(config, (program,), memory=memory)
    flat = TimedNpu.build(config, (program,), memory=memory, unstacked=True) if unstacked or rigid else None
    pool = None
    if workload.images is not None:
        images, labels = read_images(workload.images, network.input.shape)
        labels = None if labels is None else labels[:MOST_IMAGES]
        pool = answers_mix(network, [e.limit for e in program.exits], images[:MOST_IMAGES], labels)
    light = program
    if len(program.region) > MOST_REGION:
        light = replace(program, region=program.region[: isa.DESCRIPTOR_BYTES * len(program.ops)])
    case = Case(
        npu=replace(flat if unstacked else stacked, programs=(light,)),
        pool=pool,
        alone=float(stacked.latencies[0].cycles[:, 1].sum()),
        rigid_capacity=None if flat is None else float((1 / flat.latencies[0].per_sample()).max()),
        stacked=stacked.latencies[0],
        images=workload.images,
    )
    folder.mkdir(parents=True, exist_ok=True)
    _keep(path, pickle.dumps(case))
    return case


def _compiled(workload, config):
    """(Network, Program); the stack modes of large networks are chosen by the compiler's estimate, in seconds."""
    network = load_network(workload.network)
    if network.macs() <= MOST_MACS:
        return load_program(config, workload.network, (THRESHOLD,))
    limits = limits_of((THRESHOLD,), len(network.ends))
    return network, compile_network(network, config, CompileOptions(reuse_arena=False, limits=limits))


def _keep(path, content):
    """Write a file that others never see in part."""
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _sources():
    """Digest of the code that a case depends on."""
    root = Path(__file__).parent.parent.parent
    digest = hashlib.sha256()
    for folder in ("hw", "nn", "sim/cycle", "sim/tiles"):
        for file in sorted((root / folder).rglob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()
