"""Random tiles for the stripe loader's tests, and what their stripes must hold, from the definition of a layer."""

from dataclasses import dataclass, field

import numpy as np
from fluidnpu.hw.isa import NO_PRODUCER, make_pc
from fluidnpu.hw.tile import Layouts

__all__ = ["ARENA", "ARENA_BYTES", "Banks", "Tile", "arenas", "random_tile"]

ARENA, ARENA_BYTES = 0x20000, 0x10000
PAGE = 4096


def arenas(config, seed):
    """Contents of every slot's arena."""
    return np.random.default_rng(seed).integers(0, 256, (config.slots, ARENA_BYTES), dtype=np.uint8)


@dataclass
class Tile:
    """A dealt tile: descriptor fields, stack mode and fragments (dicts of Layouts.fragment)."""

    layer: dict
    log2_kr: int
    log2_kd: int
    program: int
    half: int
    fragments: list = field(default_factory=list)

    @property
    def producer_pc(self):
        return make_pc(self.program, self.layer["producer"] & 0x3FFF)

    def rows(self, config):
        """(slot, image row, address, beats) of every read, in order."""
        d = self.layer
        reads = []
        for f in self.fragments:
            wanted = {(f["row"] + i) * d["sy"] - d["pad_top"] + k for i in range(f["lines"]) for k in range(d["kh"])}
            left, right = 0, d["in_w"]
            if d["nseg"] > 1:
                x = f["seg"] * d["seg_w"] * d["sx"] - d["pad_left"]
                left, right = max(0, x), min(d["in_w"], x + d["stripe_pixels"])
            for y in sorted(wanted):
                if 0 <= y < d["in_h"] and right > left:
                    at = y * d["in_line_beats"] + left * d["in_pixel_beats"]
                    addr = ARENA + f["slot"] * ARENA_BYTES + d["in_offset"] + at * config.bus_bytes
                    reads.append((f["slot"], y, addr, (right - left) * d["in_pixel_beats"]))
        return reads

    def need(self, y):
        """Position that the slot's done position must have passed for row y; None: none."""
        d = self.layer
        if d["producer"] == NO_PRODUCER:
            return None
        return self.producer_pc, (y + 1) * d["producer_nseg"] - 1


def random_tile(rng, config, **fixed):
    """A tile that obeys the rules of a descriptor; ``fixed`` sets fields before the others are chosen."""
    while True:
        tile = _attempt(rng, config, fixed)
        if tile:
            return tile


def _attempt(rng, config, fixed):
    stack = config.max_stack.bit_length() - 1
    log2_kr = rng.randint(0, stack)
    log2_kd = rng.randint(0, stack - log2_kr)
    kd = 1 << log2_kd
    d = {
        "kh": rng.randint(1, 4),
        "kw": rng.randint(1, 4),
        "sy": rng.randint(1, 5),
        "sx": rng.randint(1, 3),
        "in_w": rng.randint(1, 12),
        "in_h": rng.randint(1, 14),
        "in_pixel_beats": kd * rng.randint(1, 3),
        "producer": rng.choice((NO_PRODUCER, rng.randrange(100))),
        "producer_nseg": rng.randint(1, 3),
    }
    d.update(fixed)
    d["pad_top"], d["pad_left"] = rng.randrange(d["kh"]), rng.randrange(d["kw"])
    d["out_h"] = rng.randint(1, (d["in_h"] + d["pad_top"] - 1) // d["sy"] + 1)
    d["out_w"] = rng.randint(1, (d["in_w"] + d["pad_left"] - 1) // d["sx"] + 1)
    d["in_line_beats"] = d["in_w"] * d["in_pixel_beats"] + kd * rng.choice((0, 0, rng.randint(0, 9)))
    d["in_offset"] = rng.randrange(PAGE) // config.bus_bytes * config.bus_bytes
    if rng.randrange(2) and d["out_w"] > 1 and not fixed:
        d["seg_w"] = rng.randint(1, d["out_w"] - 1)
        d["nseg"] = -(-d["out_w"] // d["seg_w"])
        d["stripe_pixels"] = (d["seg_w"] - 1) * d["sx"] + d["kw"] + rng.randrange(2)
        d["stripe_line_beats"] = d["stripe_pixels"] * d["in_pixel_beats"]
    else:
        d["seg_w"], d["nseg"], d["stripe_pixels"] = d["out_w"], 1, d["in_w"]
        d["stripe_line_beats"] = d["in_line_beats"]
    d["lines"] = d["out_h"] * d["nseg"]
    if d["in_offset"] + d["in_h"] * d["in_line_beats"] * config.bus_bytes > ARENA_BYTES:
        return None

    tile = Tile(d, log2_kr, log2_kd, rng.randrange(config.programs), rng.randrange(2))
    stripe_lines = (config.bank_beats * config.max_stack >> log2_kr) // d["stripe_line_beats"]
    most = 1 if d["nseg"] > 1 else min(config.max_lines, config.rows // d["seg_w"])
    for r in range(1 << log2_kr):
        used, lines = 0, 0
        while len(tile.fragments) < config.fragments and rng.random() < (0.7 if lines else 0.9):
            line = rng.randrange(d["lines"])
            row, seg = divmod(line, d["nseg"])
            room = min(most - lines, d["lines"] - line)
            more = (stripe_lines - used - d["kh"]) // min(d["sy"], d["kh"])
            if room < 1 or more < 0:
                break
            n = rng.randint(1, min(room, more + 1))
            slot = rng.randrange(config.slots)
            tile.fragments.append({"slot": slot, "sub_tile": r, "line": line, "row": row, "seg": seg, "lines": n})
            used += d["kh"] + (n - 1) * min(d["sy"], d["kh"])
            lines += n
    return tile if tile.fragments else None


class Banks:
    """Physical banks and line tables as the loader's writes leave them, read the way the array reads them."""

    def __init__(self, config):
        self.config = c = config
        self.layouts = Layouts(config)
        self.beats = np.zeros((2, c.max_stack, c.bank_beats, c.bus_bytes), np.uint8)
        self.written = np.zeros((2, c.max_stack, c.bank_beats), int)
        self.lines = {}  # (half, bank, index) -> line
        self.line_writes = 0

    def fill(self, half, banks, address, bits):
        assert banks and banks & (banks - 1) == 0, "one bank per beat"
        bank = banks.bit_length() - 1
        self.beats[half, bank, address] = np.frombuffer(bits.to_bytes(self.config.bus_bytes, "little"), np.uint8)
        self.written[half, bank, address] += 1

    def line_write(self, half, banks, index, line):
        self.line_writes += 1
        for bank in range(self.config.max_stack):
            if banks >> bank & 1:
                self.lines[half, bank, index] = line

    def check(self, tile, contents, bad=()):
        """Every operand of every line of the tile is what the layer's definition says; nothing else was written."""
        c, d = self.config, tile.layer
        kd, stack = 1 << tile.log2_kd, c.max_stack.bit_length() - 1
        pixel_beats = d["in_pixel_beats"] // kd
        pixel_words = pixel_beats * c.words_per_beat
        line_words = d["stripe_line_beats"] // kd * c.words_per_beat
        wrap = 1 << self.layouts.word_address
        counts = {}
        for f in tile.fragments:
            for i in range(f["lines"]):
                index = counts.get(f["sub_tile"], 0)
                counts[f["sub_tile"]] = index + 1
                y_top = (f["row"] + i) * d["sy"] - d["pad_top"]
                x_left = f["seg"] * d["seg_w"] * d["sx"] - d["pad_left"]
                width = min(d["seg_w"], d["out_w"] - f["seg"] * d["seg_w"])
                for g in range(c.max_stack):
                    if g >> (stack - tile.log2_kr) != f["sub_tile"]:
                        continue
                    line = self.lines.get((tile.half, g, index))
                    assert line is not None and line[1:] == (y_top, x_left, width), (line, y_top, x_left, width)
                    base = line[0]
                    assert base == self.lines[tile.half, f["sub_tile"] << (stack - tile.log2_kr), index][0]
                for depth in range(kd):
                    words = self._stack(tile, f["sub_tile"], depth)
                    for ky in range(d["kh"]):
                        y = y_top + ky
                        if not 0 <= y < d["in_h"]:
                            continue
                        for ix in range(max(0, x_left), min(d["in_w"], x_left + (width - 1) * d["sx"] + d["kw"])):
                            at = (base + ky * line_words + (ix - x_left) * pixel_words) % wrap
                            got = words[at : at + pixel_words].reshape(pixel_beats, c.bus_bytes)
                            start = d["in_offset"] + (y * d["in_line_beats"] + ix * d["in_pixel_beats"]) * c.bus_bytes
                            pixel = contents[f["slot"], start : start + d["in_pixel_beats"] * c.bus_bytes]
                            expected = pixel.reshape(pixel_beats, kd, c.bus_bytes)[:, depth]
                            good = [
                                ARENA + f["slot"] * ARENA_BYTES + start + (n * kd + depth) * c.bus_bytes not in bad
                                for n in range(pixel_beats)
                            ]
                            assert (got[good] == expected[good]).all(), (f, y, ix, depth)
        assert self.line_writes == sum(counts.values())
        assert self.written.max() == 1 or not tile.rows(c), "a beat of a stripe is written once"
        assert self.written.sum() == sum(beats for _, _, _, beats in tile.rows(c))
        assert not self.written[1 - tile.half].any()

    def _stack(self, tile, r, depth):
        """Words of a stack: its banks one after the other, in the order of the mid bits."""
        c = self.config
        stack = c.max_stack.bit_length() - 1
        mids = range(1 << (stack - tile.log2_kr - tile.log2_kd))
        groups = [r << (stack - tile.log2_kr) | mid << tile.log2_kd | depth for mid in mids]
        return np.concatenate([self.beats[tile.half, g] for g in groups]).reshape(-1, c.lanes)
