"""What docs/architecture.md says that a tile costs and a layer reads: to compare with what was measured."""

from math import ceil

from fluidnpu.hw import isa
from fluidnpu.hw.array.array import Array
from fluidnpu.hw.isa import PC_INDEX_BITS
from fluidnpu.hw.tile import PARAMETER_BYTES

__all__ = ["CLIENTS", "ctile_formula", "descriptor_of", "layer_beats", "variant_of"]

CLIENTS = ("weight", "stripe", "residual", "write")  # of the bus, as far as layers use them


def descriptor_of(program, pc):
    """Decoded fields of the operation at ``pc``."""
    first = (pc & (1 << PC_INDEX_BITS) - 1) * isa.DESCRIPTOR_BYTES
    raw = program.region[first : first + isa.DESCRIPTOR_BYTES]
    words = [int.from_bytes(raw[i : i + 4], "little") for i in range(0, len(raw), 4)]
    return isa.decode(isa.DESCRIPTOR_FIELDS, words)


def variant_of(descriptor, tile):
    """Number of a variant with the stack mode of a tile (of group.started_tiles)."""
    mode = tile["log2_kr"], tile["log2_kd"]
    return next(v for v in range(isa.VARIANTS) if (descriptor[f"log2_kr{v}"], descriptor[f"log2_kd{v}"]) == mode)


def ctile_formula(config, descriptor, tile):
    """Cycles that each c-tile of a tile takes by the array's contract (docs/architecture.md, Array).

    descriptor : decoded fields of the layer; tile : of started_tiles. A step lasts max(rows, RMW distance, beats that
    the weight stream brings meanwhile: the next step's set, in the first step the parameters too), a block of the
    vector path rows * max(taps, drain of a row) or as long as the next block's weights.
    """
    variant = variant_of(descriptor, tile)
    words, taps = descriptor[f"words{variant}"], descriptor["kh"] * descriptor["kw"] << descriptor["twice"]
    if descriptor["op"] != isa.Op.CONV:
        sub_tiles = len({sub_tile for *_, sub_tile in tile["fragments"]})
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


def layer_beats(config, descriptor, tiles, live):
    """dict of CLIENTS -> beats that the layer itself needs of the bus, whenever they were moved.

    tiles : those of the layer, of which none was dealt in vain; live : samples that went through it. Weights once per
    tile; of every fragment the input rows of its windows inside the image; second operands and outputs once.
    """
    d = descriptor
    stripes = sum(_fragment_beats(config, d, first, lines) for t in tiles for _, first, lines, _ in t["fragments"])
    pixels = d["out_w"] // (config.words_per_beat if d["out_packed"] else 1)
    written = live * pixels * d["out_h"] * ceil(d["out_channels"] / config.bus_bytes)
    return {
        "weight": sum(d[f"weight_beats{variant_of(d, t)}"] for t in tiles),
        "stripe": stripes,
        "residual": written if d["residual"] else 0,
        "write": written,
    }


def _fragment_beats(config, d, first, lines):
    """Beats of the input rows that ``lines`` lines read, each once (hw/load/fragment_window.py)."""
    row, segment = divmod(first, d["nseg"])
    tops = [(row + n) * d["sy"] - d["pad_top"] for n in range(lines)]
    rows = {y for top in tops for y in range(top, top + d["kh"]) if 0 <= y < d["in_h"]}
    pixels = ceil(d["in_w"] / config.words_per_beat) if d["in_packed"] else d["in_w"]
    if d["nseg"] > 1:
        left = segment * d["seg_w"] * d["sx"] - d["pad_left"]
        pixels = max(0, min(d["in_w"], left + d["stripe_pixels"]) - max(0, left))
    return len(rows) * pixels * d["in_pixel_beats"]
