"""Figure 1: cycles, MAC utilisation and causes of every layer, for some numbers of samples that run together."""

from functools import partial
from itertools import pairwise
from math import ceil

from fluidnpu.hw import isa
from fluidnpu.hw.array.array import Array
from fluidnpu.hw.isa import CAUSES, PC_INDEX_BITS, ArrayEvent, EngineEvent, register_address
from fluidnpu.hw.tile import PARAMETER_BYTES

from ..memory import IDEAL
from ..replay import ENGINE_PORT
from ..rtl_bench import Transaction
from ..simulate import run_in_simulator
from .feeding import prepared

__all__ = ["START_CYCLE", "ctile_formula", "figures_of", "layer_figures", "started_tiles"]

START_CYCLE = 4000  # every run of a figure commits at this cycle, so that runs repeat one another


def started_tiles(events):
    """Tiles in the order in which they ran: dicts with pc, rows, log2_kr, log2_kd, slots, first, last, ctiles.

    first, last : cycles of the first and last MAC row; ctiles : cycles of each c-tile's first row.
    """
    dealt, fragments, waiting, tiles = {}, [], [], []
    for e in events:
        if e["source"] == ENGINE_PORT:
            if e["kind"] == EngineEvent.FRAGMENT:
                fragments.append((int(e["slot"]), int(e["data"]) & 0xFFFF, int(e["data"]) >> 16))
            elif e["kind"] == EngineEvent.DEAL:
                dealt[int(e["line"])] = {"pc": int(e["pc"]), "fragments": fragments, "leader": int(e["slot"])}
                fragments = []
            elif e["kind"] == EngineEvent.START:
                waiting.append(dealt.pop(int(e["line"])))
        elif e["kind"] == ArrayEvent.TILE:
            word = int(e["data"])
            tiles.append(
                waiting.pop(0)
                | {"first": int(e["cycle"]), "rows": word & 0xFFFF, "log2_kr": word >> 16 & 15, "log2_kd": word >> 20}
            )
            tiles[-1]["ctiles"] = [int(e["cycle"])]
        elif e["kind"] == ArrayEvent.CTILE:
            tiles[-1]["ctiles"].append(int(e["cycle"]))
        elif e["kind"] == ArrayEvent.END:
            tiles[-1]["last"] = int(e["cycle"])
    return tiles


def ctile_formula(config, descriptor, tile):
    """Cycles that each c-tile of a tile takes by the array's contract (docs/architecture.md, Array).

    descriptor : decoded fields of the layer; tile : of started_tiles. A step lasts max(rows, RMW distance, beats that
    the weight stream brings meanwhile: the next step's set, in the first step the parameters too), a block of the
    vector path rows * max(taps, drain of a row) or as long as the next block's weights.
    """
    variant = next(
        v
        for v in range(isa.VARIANTS)
        if (descriptor[f"log2_kr{v}"], descriptor[f"log2_kd{v}"]) == (tile["log2_kr"], tile["log2_kd"])
    )
    words, taps = descriptor[f"words{variant}"], descriptor["kh"] * descriptor["kw"] << descriptor["twice"]
    if descriptor["op"] != isa.Op.CONV:
        sub_tiles = len({sub_tile for _, _, sub_tile in tile["fragments"]})
        drain = (sub_tiles << tile["log2_kd"]) * max(1, config.lanes // config.post_lanes)
        rows, beats = tile["rows"] * max(taps, drain), descriptor[f"weight_beats{variant}"] // words
        return [max(rows, beats)] * (words - 1) + [rows - max(0, drain - taps)]  # to the last tap
    cols = config.pes >> (tile["log2_kr"] + tile["log2_kd"])
    widths = [min(cols, descriptor["out_channels"] - c) for c in range(0, descriptor["out_channels"], cols)]
    row = max(tile["rows"], Array.RMW_DISTANCE)
    sets = [ceil((w << tile["log2_kd"]) / config.words_per_beat) for w in widths]
    result = []
    for i, width in enumerate(widths):
        following = sets[i + 1] if i + 1 < len(sets) else 0
        steps = taps * words
        parameters = ceil(width * PARAMETER_BYTES / config.bus_bytes)
        brings = [sets[i]] * (steps - 1) + [following]
        brings[0] += parameters
        result.append(sum(max(row, beats) for beats in brings))
    return result


def layer_figures(build, config, program, images, counts, *, exits, memory=IDEAL):
    """{n: list of rows} for n samples together: one row per layer with cycles, utilisation, causes, c-tiles.

    images : bytes of input tensors, at least max(counts); exits : mask of enabled exits (0: the trunk alone)
    A layer's cycles run from the last MAC of the layer before to its own last MAC (the first layer's from its first).
    """
    arguments = {"program": program, "slots": config.slots, "exits": exits, "memory": memory}
    return {
        n: figures_of(config, program, n, partial(run_in_simulator, build, run_group, images=images[:n], **arguments))
        for n in counts
    }


def figures_of(config, program, live, run):
    """Rows of a group of ``live`` samples. ``run``: called twice, for the same run, with ``samples`` as `run_group`."""
    tiles = started_tiles(run(samples=())["events"])
    ends = {}
    for tile in tiles:
        ends[tile["pc"]] = tile["last"]
    boundaries = [tiles[0]["first"] - 1, *sorted(ends.values())]
    # The second run is the first one again; the counters are copied at the boundaries.
    at = run(samples=boundaries)["counters"]
    mask = (1 << PC_INDEX_BITS) - 1
    rows, before = [], 0
    for pc in sorted(ends, key=ends.get):
        op = program.ops[pc & mask]
        mine = [t for t in tiles if t["pc"] == pc]
        now = boundaries.index(ends[pc])
        cycles = boundaries[now] - boundaries[before]
        descriptor = isa.decode(isa.DESCRIPTOR_FIELDS, _words(program, pc & mask))
        pixels = descriptor["out_w"] * descriptor["out_h"]
        exact = total = 0
        for tile in mine:
            edges = [*tile["ctiles"], tile["last"] + 1]
            spent = [b - a for a, b in pairwise(edges)]
            expected = ctile_formula(config, descriptor, tile)
            exact += sum(s == e for s, e in zip(spent, expected, strict=True))
            total += len(spent)
        rows.append(
            {
                "layer": op.name,
                "cycles": cycles,
                "in_tiles": sum(t["last"] - t["first"] + 1 for t in mine),
                "utilisation": op.macs * live / (cycles * config.peak_macs),
                "useful_macs": op.macs * live,
                "tiles": len(mine),
                "modes": sorted({f"{1 << t['log2_kr']}x{1 << t['log2_kd']}" for t in mine}),
                "ctiles": total,
                "ctiles_exact": exact,
                "causes": {c: at[now][c] - at[before][c] for c in CAUSES},
                "kernel": [descriptor["kh"], descriptor["kw"]],
                "in_channels": op.macs
                // max(1, pixels * descriptor["out_channels"] * descriptor["kh"] * descriptor["kw"]),
            }
        )
        before = now
    return rows


def _words(program, index):
    raw = program.region[index * isa.DESCRIPTOR_BYTES : (index + 1) * isa.DESCRIPTOR_BYTES]
    return [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]


async def run_group(bench, program, slots, images, exits, memory, samples):
    """In the simulator: one group through the program; counters copied in the cycles behind ``samples``."""
    driver = await prepared(bench, program, slots, memory, limits=[isa.LIMIT_NEVER] * len(program.exits))
    for slot, image in enumerate(images):
        await driver.admit(slot, image, slot, runnable=False, exits=exits)
    await bench.wait(START_CYCLE, irq=False)
    await driver.batch((1 << len(images)) - 1)
    latch = register_address("COUNTER_LATCH")
    reads = [register_address("COUNTER_LOW", i) for i in range(len(CAUSES))]
    counters = []
    for cycle in samples:
        begin = Transaction(True, latch, 1, not_before=cycle)
        done = await bench.transact([begin, *(Transaction(False, a, 0) for a in reads)])
        values = dict(zip(CAUSES, (t.data for t in done[1:]), strict=True))
        counters.append(values | {"cycle": sum(values.values())})
    ended = []
    while len(ended) < len(images):
        await bench.wait()
        ended += await driver.completions()
    return {"events": bench.events(), "counters": counters}
