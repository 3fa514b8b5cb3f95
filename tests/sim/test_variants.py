"""Chosen variants against every fixed stack mode, by the cycle model, for every layer and number of live samples."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.random_network import RandomNetwork
from fluidnpu.nn.tflite_reader import parse_network, read_network
from fluidnpu.nn.zoo import make_network
from fluidnpu.sim.cli import MODELS
from fluidnpu.sim.timing import operation_ends

LONG = bool(os.environ.get("FLUIDNPU_LONG"))
FIELDS = {f.name: f for f in isa.DESCRIPTOR_FIELDS}
# A table has four variants, and a layer's remainder goes by the table of fewer samples: what one number of samples
# gains another one may lose. So much of a layer's cycles per sample, over all numbers of them together, or so many
# cycles where it is short; and so much for a single number, where there are few.
TOGETHER, SINGLE, CYCLES = 0.01, 0.05, 150


def random_network(seed):
    """Convolutions of random geometry, a pool, a sum."""
    rng = np.random.default_rng(seed)
    net = RandomNetwork("random", rng)
    x = net.input(*rng.integers(9, 25, 2).tolist(), int(rng.choice([1, 3, 16])))
    for _ in range(3):
        x = net.conv(x, int(rng.choice([8, 16, 24, 48, 64])), int(rng.choice([1, 3, 5])), int(rng.choice([1, 1, 2])))
        y = net.depthwise(x) if rng.random() < 0.5 else net.conv(x, x.channels, 3)
        x = net.add(x, y) if rng.random() < 0.5 else y
    net.classify(x, 10, "exit1")
    return parse_network(net.to_bytes(), f"random{seed}")


def network_of(name):
    if name.startswith("random"):
        return random_network(int(name.removeprefix("random")))
    if name == "digits":
        return read_network(MODELS / "digits.tflite")
    if name == "ds-cnn":
        return parse_network(make_network(name), name)
    if "FLUIDNPU_REAL" not in os.environ:
        pytest.skip("FLUIDNPU_REAL names no folder")
    return read_network(Path(os.environ["FLUIDNPU_REAL"], "models", f"{name}.tflite"))


def put(row, name, value):
    field = FIELDS[name]
    row[field.word] &= ~np.uint32(((1 << field.width) - 1) << field.lsb)
    row[field.word] |= np.uint32(value << field.lsb)


def weight_beats(config, d, log2_kr, log2_kd, words):
    """Length of a weight stream, from docs/architecture.md, "Array: order and time" and "The vector path"."""
    kd, wpb, bus = 1 << log2_kd, config.bus_bytes // config.lanes, config.bus_bytes
    taps = d["kh"] * d["kw"] << d["twice"]
    if d["op"] == isa.Op.POOL:
        return 0
    if d["op"] == isa.Op.DEPTHWISE:
        return words * (taps * -(-kd // wpb) + kd * config.lanes * 16 // bus)
    cols, total = config.pes >> log2_kr + log2_kd, 0
    for first in range(0, d["out_channels"], cols):
        used = min(cols, d["out_channels"] - first)
        total += taps * words * -(-used * kd // wpb) + -(-used * 16 // bus)
    return total


def forced_rows(config, row, macs_words):
    """{(log2_kr, log2_kd): descriptors with that stack mode alone, one per number of lines} of a layer's descriptor."""
    d, found = isa.decode(isa.DESCRIPTOR_FIELDS, row), {}
    out_beats = -(-d["out_channels"] // config.bus_bytes)
    vector = d["op"] != isa.Op.CONV
    for mode in np.ndindex(config.max_stack.bit_length(), config.max_stack.bit_length()):
        kr, kd = 1 << mode[0], 1 << mode[1]
        if kr * kd > config.max_stack or d["in_pixel_beats"] % kd or d["stripe_line_beats"] % kd:
            continue
        cols, chunk = config.pes // (kr * kd), d["chunk_beats"]
        if vector and out_beats % kd:
            continue
        if chunk < d["out_pixel_beats"] and (chunk % kd if vector else chunk * config.bus_bytes % cols):
            continue
        stripe_lines = config.bank_beats * config.max_stack // kr // d["stripe_line_beats"]
        most = 1 if d["nseg"] > 1 else min(config.max_lines, config.rows // d["seg_w"])
        pixels = config.words_per_beat if d["out_packed"] else 1  # of a staged beat
        most = min(most, config.stage_beats * pixels // (kr * d["seg_w"] * chunk))
        if stripe_lines < d["kh"] or most < 1:
            continue
        wpb = config.words_per_beat
        words = (out_beats if vector else d["in_pixel_beats"]) * wpb // kd if kd > 1 else macs_words
        beats = weight_beats(config, d, *mode, words)
        for lines in range(1, most + 1):
            forced = row.copy()
            for v in range(isa.VARIANTS):
                for name, value in (("log2_kr", mode[0]), ("log2_kd", mode[1]), ("max_lines", lines),
                                    ("stripe_lines", min(stripe_lines, 0xFFFF)), ("words", words),
                                    ("weight_beats", beats)):  # fmt: skip
                    put(forced, f"{name}{v}", value)
            found.setdefault(mode, []).append((lines, forced))
    return found


def excesses(config, network, counts, tilings):
    """[(cycles above a fixed mode, cycles of the layer, layer, live, mode, lines)] over layers, ``counts`` and modes.

    A fixed mode has one number of lines for all counts, like a compiler that knows but one mode: the one with the least
    cycles per sample over ``counts``. tilings : most numbers of lines that are tried, spread over all of them
    """
    program = compile_network(network, config, CompileOptions(timing=operation_ends, max_tile_cycles=1 << 20))
    size = isa.DESCRIPTOR_BYTES * len(program.ops)
    rows = np.frombuffer(program.region[:size], "<u4").reshape(len(program.ops), -1)
    trunk = [i for i, op in enumerate(program.ops) if op.variants and op.head < 0]
    found = []
    for at, i in enumerate(trunk):
        d = isa.decode(isa.DESCRIPTOR_FIELDS, rows[i])
        words = d["words0"] if d["op"] == isa.Op.CONV else -(-d["out_channels"] // config.lanes)
        before = trunk[max(0, at - 2) : at]
        stop = trunk[at + 2] if at + 2 < len(trunk) else len(program.ops) - 1
        behind = trunk[at + 1] if at + 1 < len(trunk) else None

        def ends(row, live, i=i, first=(before or [i])[0], stop=stop):
            table = rows.copy()
            table[i] = row
            return operation_ends(config, table, program.arena_bytes, live, first, stop)

        chosen = {n: ends(rows[i], n) for n in counts}
        for mode, choices in forced_rows(config, rows[i], words).items():
            some = {choices[k * (len(choices) - 1) // max(1, tilings - 1)][0] for k in range(tilings)}
            fixed = {k: {n: ends(row, n)[behind] for n in counts} for k, row in choices if k in some}
            lines = min(fixed, key=lambda k: sum(fixed[k][n] / n for n in counts))
            for n in counts:
                own = chosen[n][i] - max((chosen[n][k] for k in before), default=0)
                excess = chosen[n][behind] - fixed[lines][n]
                found.append((excess, own, program.ops[i].name, n, mode, lines))
    return found


CASES = [("digits", "tiny"), ("random1", "tiny"), ("random2", "edge"), ("resnet8_int8", "edge")]
MORE = [(n, c) for n in ("resnet8_int8", "digits", "ds-cnn", "random3", "random4", "random5", "random6")
        for c in ("tiny", "edge", "gemmini16", "hub")]  # fmt: skip


@pytest.mark.parametrize("name, config", MORE + CASES if LONG else CASES)
def test_no_fixed_stack_mode_is_better(name, config):
    config = get_config(config)
    counts = range(1, config.slots + 1) if LONG else (1, config.slots // 2, config.slots)
    found = excesses(config, network_of(name), counts, tilings=8 if LONG else 3)
    together = Counter(), Counter()
    for excess, own, layer, n, mode, _ in found:
        together[0][layer, mode] += excess / n
        together[1][layer, mode] += own / n
    wrong = [(e, *key) for key, e in together[0].items() if e > max(TOGETHER * together[1][key], CYCLES)]
    if not LONG:
        wrong += [f for f in found if f[0] > max(SINGLE * f[1], CYCLES)]
    assert not wrong, sorted(wrong, reverse=True)[:10]
    assert min(f[0] for f in found) < 0 < len({f[4] for f in found} - {(0, 0)})
