"""Random programs in memory for the engine's tests, and what a dealt tile has to look like to its users."""

import zlib

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.isa import DESCRIPTOR_BYTES, EXIT_TABLE_BYTES, PC_INDEX_BITS
from fluidnpu.hw.tile import ADDITION_FIELDS
from fluidnpu.nn.exits import exit_table, top_and_spread
from fluidnpu.sim.engine_layers import Exit, Layer
from fluidnpu.sim.engine_oracle import random_program
from fluidnpu.sim.replay import program_operations

from .descriptors import broken_rule, operation_fields, to_bytes

__all__ = ["Programs", "tile_fragments", "tile_payloads"]

REGION = 1 << 20  # bytes between program regions
TABLES = 1 << 16  # of the exits, in a region


class Programs:
    """One or two random programs: descriptors and exit tables in their regions, logits everywhere else.

    fields : program -> decoded descriptors; operations : the same as the model's; base : byte address of each region
    """

    def __init__(self, rng, config, bad, most_lines):
        self.rng, self.config = rng, config
        numbers = rng.sample(range(config.programs), rng.choice([1, 1, 2]))
        self.operations = {}
        while not self.operations or self.longest_layer() > most_lines:
            self.fields = {n: self.program(bad) for n in numbers}
            self.regions = {n: b"".join(map(to_bytes, fields)) for n, fields in self.fields.items()}
            self.operations = {n: program_operations(raw, len(self.fields[n])) for n, raw in self.regions.items()}
        self.base = [(n + 1) * REGION + rng.randrange(0, 4096, config.bus_bytes) for n in range(config.programs)]
        self.tables = {}  # (program, exit) -> entries

    def longest_layer(self):
        """Most lines of a layer of any program."""
        return max(op.lines for program in self.operations.values() for op in program if isinstance(op, Layer))

    def program(self, bad):
        """Descriptor fields of a random program."""
        fields = []
        for index, op in enumerate(random_program(self.rng, self.rng.randint(1, 4), bad)):
            table = TABLES + op.exit * EXIT_TABLE_BYTES if isinstance(op, Exit) else None
            fields.append(no_field_missing(operation_fields(self.rng, self.config, op, index, table)))
        return fields

    def place(self, address):
        """(program, offset) of a byte address in a program region; (None, 0) elsewhere."""
        for n, base in enumerate(self.base):
            if base <= address < base + REGION // 2:
                return n, address - base
        return None, 0

    def pc_of(self, address):
        """The pc whose descriptor holds a byte address."""
        n, offset = self.place(address)
        return n << PC_INDEX_BITS | offset // DESCRIPTOR_BYTES

    def at(self, pc):
        """Fields of the descriptor at a pc."""
        return self.fields[pc >> PC_INDEX_BITS][pc & ((1 << PC_INDEX_BITS) - 1)]

    def is_bad(self, pc):
        """The operation at this pc breaks a rule, or there is none."""
        n, index = divmod(pc, 1 << PC_INDEX_BITS)
        ops = len(self.fields[n])
        return index >= ops or broken_rule(self.config, self.at(pc), index, ops) is not None

    def read(self, address):
        """The beat at a byte address. Logits are made up from it, with many ties."""
        bus = self.config.bus_bytes
        n, offset = self.place(address)
        if n is None:
            return bytes(zlib.crc32((address + i).to_bytes(4, "little")) % 7 + 250 & 255 for i in range(bus))
        raw = self.regions[n]
        if offset >= TABLES:
            exit, offset = divmod(offset - TABLES, EXIT_TABLE_BYTES)
            raw = self.table(n, exit).astype("<u4").tobytes()
        return raw[offset : offset + bus]

    def table(self, program, exit):
        """Entries of an exit's table."""
        if (program, exit) not in self.tables:
            self.tables[program, exit] = exit_table(self.rng.choice([0.05, 0.5, 2.0]))
        return self.tables[program, exit]

    def decide(self, arena_base, pc):
        """(class, S) of the exit at ``pc`` for the logits in this arena."""
        d = self.at(pc)
        start = arena_base + d["in_offset"]
        raw = b"".join(self.read(start + i) for i in range(0, d["out_channels"], self.config.bus_bytes))
        logits = np.frombuffer(raw, np.int8)[: d["out_channels"]]
        return tuple(int(x) for x in top_and_spread(logits, self.table(pc >> PC_INDEX_BITS, d["exit"])))


def no_field_missing(fields):
    """All fields of a descriptor."""
    return {f.name: 0 for f in isa.DESCRIPTOR_FIELDS} | fields


def tile_fragments(tile, d):
    """(slot, sub-tile, line, row, segment, lines) of a model tile of the layer with descriptor ``d``."""
    flat = [(r, f) for r, subtile in enumerate(tile.subtiles) for f in subtile]
    return [(f.slot, r, f.first, *divmod(f.first, d["nseg"]), f.lines) for r, f in flat]


def tile_payloads(config, tile, d):
    """What array, epilogue and writer are told about a model tile (dicts of Layouts' fields, half and context left
    out): it follows from the descriptor ``d`` and the dealt lines."""
    v, wpb = tile.variant, config.words_per_beat
    stack = {"log2_kr": d[f"log2_kr{v}"], "log2_kd": d[f"log2_kd{v}"]}
    kd = 1 << stack["log2_kd"]
    shorter = d["out_w"] - d["seg_w"] * (d["nseg"] - 1)  # the last segment of a row

    def width(line):
        return shorter if line % d["nseg"] == d["nseg"] - 1 else d["seg_w"]

    lines = [sum(f.lines for f in subtile) for subtile in tile.subtiles]
    rows = [sum(width(f.first + i) for f in subtile for i in range(f.lines)) for subtile in tile.subtiles]
    none = [0] * (config.max_stack - len(lines))

    def take(names):
        return {name: d[name] for name in names.split()}

    array = stack | take("seg_w kh kw sx in_w in_h in_zero out_channels")
    vector, pool = d["op"] != isa.Op.CONV, d["op"] == isa.Op.POOL
    array |= take("maximum twice") | {"vector": vector, "pool": pool}
    array |= {"lines": max(lines), "sub_lines": lines + none}
    array |= {"words": d[f"words{v}"], "pixel_words": 1 if d["in_packed"] else d["in_pixel_beats"] * wpb // kd}
    array |= {"line_words": d["stripe_line_beats"] * wpb // kd}
    post = stack | take("out_channels out_zero clamp_min clamp_max single_rounding average padded_average chunk_beats")
    post |= take("half_up bias multiplier shift") | {"sub_rows": rows + none, "vector": vector, "pool": pool}
    post |= {"words": d[f"words{v}"], "packed": d["out_packed"]}
    post |= take("residual " + " ".join(f.name for f in ADDITION_FIELDS))
    write = take("lines nseg out_offset out_line_beats out_pixel_beats out_channels chunk_beats")
    pixels = wpb if d["out_packed"] else 1  # to a beat
    write |= {"packed": d["out_packed"], "seg_w": d["seg_w"] // pixels, "out_w": d["out_w"] // pixels}
    write |= {"pc": tile.pc, "fragments": len(tile.fragments), "log2_kr": stack["log2_kr"]}
    return array, post, write
