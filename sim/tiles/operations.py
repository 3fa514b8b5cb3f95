"""The operations of programs as the tile model reads them, out of their descriptors."""

from math import ceil

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import Op
from fluidnpu.hw.tile import PARAMETER_BYTES, RMW_DISTANCE

from .state import OPERATION

__all__ = ["FIRST", "FIRST_VECTOR", "combine", "operations_of"]

FIRST, FIRST_VECTOR = 48, 44  # cycles from a tile's last sum to its first line in memory, beside the line's own drain


def operations_of(program, config):
    """Operations of a Program for an NpuConfig: array OPERATION [operations], not calibrated."""
    found = np.zeros(len(program.ops), OPERATION)
    words = np.frombuffer(program.region, "<u4", len(program.ops) * isa.DESCRIPTOR_WORDS)
    for operation, row in zip(found, words.reshape(len(program.ops), -1), strict=True):
        _fill(operation, isa.decode(isa.DESCRIPTOR_FIELDS, row.tolist()), config)
    return found


def combine(parts):
    """Operations of several programs, one after the other, each filled up to the longest: OPERATION [programs * n]."""
    found = np.zeros((len(parts), max(map(len, parts))), OPERATION)
    for row, part in zip(found, parts, strict=True):
        row[: len(part)] = part
    return found.reshape(-1)


def _fill(o, f, config):
    """One operation from its decoded descriptor."""
    o["exit"], o["last"], o["target"] = f["exit"], f["last"], f["target"]
    if f["op"] == Op.JUMP:
        o["kind"] = 1
        return
    if f["op"] == Op.EXIT:
        o["kind"], o["classes"] = 2, f["out_channels"]
        o["logit_beats"] = ceil(f["out_channels"] / config.bus_bytes)
        o["table_beats"] = isa.EXIT_TABLE_BYTES // config.bus_bytes
        return
    for name in "lines nseg kh sy in_h producer_nseg residual seg_w vsel".split():
        o[name] = f[name]
    o["pad"] = f["pad_top"]
    o["producer"] = -1 if f["producer"] == isa.NO_PRODUCER else f["producer"]
    if f["residual"]:
        o["res_producer"] = -1 if f["res_producer"] == isa.NO_PRODUCER else f["res_producer"]
        o["res_nseg"] = f["res_producer_nseg"]
    o["row_beats"], o["out_beats"] = f["stripe_line_beats"], f["out_pixel_beats"]
    o["res_beats"] = f["seg_w"] * min(f["chunk_beats"], f["res_pixel_beats"])
    o["vector"] = f["op"] != Op.CONV
    o["taps"] = f["kh"] * f["kw"] << f["twice"]
    o["narrow"] = RMW_DISTANCE
    for v in range(isa.VARIANTS):
        kr, kd = f[f"log2_kr{v}"], f[f"log2_kd{v}"]
        o["kr"][v] = 1 << kr
        for name in ("max_lines", "stripe_lines", "weight_beats"):
            o[name][v] = f[f"{name}{v}"]
        o["first"][v] = FIRST_VECTOR if o["vector"] else FIRST
        if o["vector"]:
            tap = ceil((1 << kd) / config.words_per_beat)
            block = (
                0
                if f["op"] == Op.POOL
                else o["taps"] * tap + (config.lanes * PARAMETER_BYTES // config.bus_bytes << kd)
            )
            o["full"][v], o["parameters"][v] = f[f"words{v}"], block
            o["drain_cycles"][v] = max(1, config.lanes // config.post_lanes) << kd
            o["drain_beats"][v] = ceil((config.lanes << kd) / config.bus_bytes)
            continue
        cols = max(1, config.pes >> kr + kd)
        o["full"][v], o["part"][v] = divmod(f["out_channels"], cols)
        for last, columns in enumerate((cols, int(o["part"][v]))):
            o["count"][v, last] = o["taps"] * f[f"words{v}"]
            o["words"][v, last] = ceil((columns << kd) / config.words_per_beat)
            o["parameters"][v, last] = ceil(columns * PARAMETER_BYTES / config.bus_bytes)
            o["drain_cycles"][v, last] = ceil(columns / min(config.post_lanes, cols))
            o["drain_beats"][v, last] = ceil(columns / config.bus_bytes)
