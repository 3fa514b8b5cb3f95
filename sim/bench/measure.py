"""Figures of one group's way through a network: cycles, MAC utilisation, causes, bus traffic, layer by layer.

A layer's cycles run from the last MAC of the layer before (the first one's from the commit) to its own last MAC; then
the last outputs are written. All of them add up to the cycles from the commit to the last write response.
"""

from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from fluidnpu.hw.isa import CAUSES, PC_INDEX_BITS

from ..memory import IDEAL
from .formula import CLIENTS, ctile_formula, descriptor_of, layer_beats
from .group import check_on_rtl, run_group

__all__ = ["LAST_WRITES", "READERS", "Layer", "Measurement", "figures_of", "measure", "whole_layers"]

READERS = ("weight", "stripe", "residual", "descriptor", "exit")
LAST_WRITES = "(last writes)"
CTILES = ("ctiles", "ctiles_exact")


@dataclass(frozen=True)
class Layer:
    """One layer, or what comes behind the last.

    cycles, causes : of its time; macs : useful ones, of all samples; utilisation : of the array's peak
    bytes : dict of formula.CLIENTS, what the layer itself needs, whenever it was moved
    bursts, beats : dicts read and write, on the bus in its time, whosoever they are
    modes : stack modes of its tiles; ctiles_exact : c-tiles that cost exactly their formula
    """

    name: str
    op: str
    cycles: int
    macs: int
    utilisation: float
    causes: dict
    bytes: dict
    bursts: dict
    beats: dict
    modes: list
    tiles: int
    ctiles: int
    ctiles_exact: int
    kernel: tuple
    in_channels: int

    @property
    def intensity(self):
        """MACs per byte of the busier direction of the bus."""
        reads = sum(self.bytes[client] for client in CLIENTS if client != "write")
        return self.macs / max(1, reads, self.bytes["write"])


@dataclass(frozen=True)
class Measurement:
    """A group of ``live`` samples of a network on a configuration.

    cycles : from the commit to the last write response; utilisation : useful MACs / (peak * cycles)
    bytes : dict of READERS and "write"; bursts, burst_beats : dicts read and write: number, mean length
    memory : dict of its settings; rtl : the RTL did the same, event by event
    """

    network: str
    config: str
    live: int
    memory: dict
    unstacked: bool
    cycles: int
    macs: int
    utilisation: float
    causes: dict
    bytes: dict
    bursts: dict
    burst_beats: dict
    layers: list
    rtl: bool = False

    def as_dict(self):
        """JSON-able."""
        return asdict(self)


def measure(config, program, live, *, exits=0, memory=IDEAL, unstacked=False, build=None, progress=None):
    """Measurement of a group on the cycle model.

    exits : mask of the exits whose heads are computed; build : simulator on which the same is done, else
    group.ModelDiffers; progress : function (cycles) -> rtl_progress.CycleProgress for that.
    """
    way = {"exits": exits, "memory": memory, "unstacked": unstacked}
    run = run_group(config, program, live, **way)
    if build is not None and progress is not None:
        with progress(run.end) as shown:
            check_on_rtl(build, config, program, live, run, progress=shown, **way)
    elif build is not None:
        check_on_rtl(build, config, program, live, run, **way)
    return figures_of(config, program, live, run, memory=memory, unstacked=unstacked, rtl=build is not None)


def figures_of(config, program, live, run, *, memory=IDEAL, unstacked=False, rtl=False):
    """Measurement of a group.GroupRun."""
    spans = [_span(a, b) for a, b in pairwise(run.counters)]
    edges = [run.begin, *run.ends.values(), run.end]
    times = [b - a for a, b in pairwise(edges)]
    layers = [
        _layer(config, program, live, pc, [t for t in run.tiles if t["pc"] == pc], cycles, span)
        for pc, cycles, span in zip(run.ends, times, spans, strict=False)
    ]
    layers.append(Layer(LAST_WRITES, "", times[-1], 0, 0.0, *_traffic(spans[-1], None), [], 0, 0, 0, (0, 0), 0))
    total, cycles = _span(run.counters[0], run.counters[-1]), run.end - run.begin
    causes, _, bursts, beats = _traffic(total, None)
    macs = sum(layer.macs for layer in layers)
    said = ("read_latency", "write_latency", "beats_per_256", "burst_overhead")
    return Measurement(
        network=program.name,
        config=config.name,
        live=live,
        memory={name: getattr(memory, name) for name in said},
        unstacked=unstacked,
        cycles=cycles,
        macs=macs,
        utilisation=macs / (config.peak_macs * cycles),
        causes=causes,
        bytes={client: total[f"{client}_beats"] * config.bus_bytes for client in (*READERS, "write")},
        bursts=bursts,
        burst_beats={way: beats[way] / max(1, bursts[way]) for way in bursts},
        layers=layers,
        rtl=rtl,
    )


def whole_layers(m):
    """Layers of a Measurement, parts of a layer that the compiler has split (name.part) added up; in their order."""
    groups = {}
    for layer in m.layers:
        groups.setdefault(layer.name.partition(".")[0], []).append(layer)
    return [_sum(name, parts, m.macs / (m.utilisation * m.cycles)) for name, parts in groups.items()]


def _sum(name, parts, peak):
    if len(parts) == 1:
        return parts[0]
    counts = {field: sum(getattr(p, field) for p in parts) for field in ("cycles", "macs", "tiles", *CTILES)}
    dicts = {
        field: {key: sum(getattr(p, field)[key] for p in parts) for key in getattr(parts[0], field)}
        for field in ("causes", "bytes", "bursts", "beats")
    }
    modes = sorted({mode for p in parts for mode in p.modes})
    utilisation = counts["macs"] / (counts["cycles"] * peak)
    biggest = max(parts, key=lambda p: p.macs)
    return replace(biggest, name=name, modes=modes, utilisation=utilisation, **counts, **dicts)


def _span(before, after):
    return {name: after[name] - before[name] for name in after}


def _traffic(span, own):
    """(causes, bytes, bursts, beats) of a span of counters; own : bytes of a layer, None for no layer."""
    causes = {cause: span[f"cycles_{cause}"] for cause in CAUSES}
    bursts = {"read": span["read_bursts"], "write": span["write_bursts"]}
    beats = {"read": sum(span[f"{reader}_beats"] for reader in READERS), "write": span["write_beats"]}
    return causes, own or dict.fromkeys(CLIENTS, 0), bursts, beats


def _layer(config, program, live, pc, tiles, cycles, span):
    op, descriptor = program.ops[pc & (1 << PC_INDEX_BITS) - 1], descriptor_of(program, pc)
    spent = [b - a for t in tiles for a, b in pairwise([*t["ctiles"], t["last"] + 1])]
    expected = [cycles for t in tiles for cycles in ctile_formula(config, descriptor, t)]
    beats = layer_beats(config, descriptor, tiles, live)
    window = descriptor["out_w"] * descriptor["out_h"] * descriptor["kh"] * descriptor["kw"]
    causes, bytes_, bursts, moved = _traffic(span, {client: n * config.bus_bytes for client, n in beats.items()})
    return Layer(
        name=op.name,
        op=op.op,
        cycles=cycles,
        macs=op.macs * live,
        utilisation=op.macs * live / (cycles * config.peak_macs),
        causes=causes,
        bytes=bytes_,
        bursts=bursts,
        beats=moved,
        modes=sorted({f"{1 << t['log2_kr']}x{1 << t['log2_kd']}" for t in tiles}),
        tiles=len(tiles),
        ctiles=len(spent),
        ctiles_exact=sum(s == e for s, e in zip(spent, expected, strict=True)),
        kernel=(descriptor["kh"], descriptor["kw"]),
        in_channels=op.macs // max(1, window * descriptor["out_channels"]),
    )
