"""Descriptors for tests: legal ones around random operations, and the rules of docs/isa.md as plain Python."""

from math import ceil

from fluidnpu.hw import isa
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, LAYERS, NO_PRODUCER, VARIANTS, Op
from fluidnpu.hw.tile import PARAMETER_BYTES, VECTOR_TAPS
from fluidnpu.sim.engine_layers import Exit, Jump, Layer

__all__ = [
    "LAST_INDEX",
    "breaches",
    "broken_rule",
    "exit_fields",
    "jump_fields",
    "layer_fields",
    "operation_fields",
    "stream_beats",
    "to_bytes",
]

LAST_INDEX = (1 << isa.PC_INDEX_BITS) - 1


def to_bytes(fields):
    """The bytes of a descriptor."""
    words = isa.encode(DESCRIPTOR_FIELDS, fields, isa.DESCRIPTOR_WORDS, "descriptor")
    return b"".join(word.to_bytes(4, "little") for word in words)


def stream_beats(config, d, v):
    """Beats of the weight stream of variant ``v``, counted c-tile by c-tile (docs/architecture.md)."""
    kd = 1 << d[f"log2_kd{v}"]
    cols = config.pes >> (d[f"log2_kr{v}"] + d[f"log2_kd{v}"])
    visits = d["kh"] * d["kw"] * (1 + d["twice"])
    if d["op"] == Op.POOL:
        return 0
    if d["op"] == Op.DEPTHWISE:
        parameters = kd * config.lanes * PARAMETER_BYTES // config.bus_bytes
        return d[f"words{v}"] * (visits * ceil(kd / config.words_per_beat) + parameters)
    beats = 0
    for first in range(0, d["out_channels"], cols):
        used = min(cols, d["out_channels"] - first)
        steps = visits * d[f"words{v}"]
        beats += steps * ceil(used * kd / config.words_per_beat) + ceil(used * PARAMETER_BYTES / config.bus_bytes)
    return beats


def broken_rule(config, d, index, ops):
    """The first rule of docs/isa.md that the decoded descriptor breaks, or None. index, ops: its place, the program."""
    bus = config.bus_bytes
    if index >= LAST_INDEX:
        return "index"
    if d["op"] == Op.EXIT:
        if not 1 <= d["out_channels"] <= isa.MAX_CLASSES:
            return "classes"
        if d["exit"] >= config.exits:
            return "exit number"
        return "exit alignment" if d["in_offset"] % bus or d["bias"] % bus else None
    if d["op"] == Op.JUMP:
        return None if index < d["target"] < ops and d["target"] <= LAST_INDEX else "target"
    if d["op"] not in LAYERS:
        return "op"
    counted = (
        "in_w in_h out_w out_h lines out_channels kh kw sy sx nseg seg_w in_pixel_beats out_pixel_beats chunk_beats"
    ).split()
    pool = d["op"] == Op.POOL
    whole = d["nseg"] == 1
    window = d["in_w"] if whole else (d["seg_w"] - 1) * d["sx"] + d["kw"]
    in_packed, out_packed = _pixels_to_a_beat(config, d)
    rules = {
        "counted": all(d[name] for name in counted),
        "image": max(d[name] for name in ("in_w", "in_h", "out_w", "out_h")) <= 4095,
        "pixel words": d["in_pixel_beats"] * config.words_per_beat < 1024,
        "residual": not d["residual"] or _legal_residual(config, d, index),
        "clamp": d["clamp_min"] <= d["clamp_max"],
        "maximum": not d["maximum"] or (pool and not d["average"]),
        "half_up": not d["half_up"] or d["average"],
        "twice": not d["twice"] or not pool,
        "taps": d["op"] != Op.DEPTHWISE or d["kh"] * d["kw"] * (1 + d["twice"]) <= VECTOR_TAPS,
        "padded": not d["padded_average"] or (pool and d["average"] and d["kh"] * d["kw"] <= isa.RECIPROCAL_MAX),
        "alignment": d["in_offset"] % bus == 0 and d["out_offset"] % bus == 0,
        "lines": d["lines"] == d["out_h"] * d["nseg"],
        "segments": (d["nseg"] - 1) * d["seg_w"] < d["out_w"] <= d["nseg"] * d["seg_w"] and d["seg_w"] <= config.rows
        and (not whole or d["seg_w"] == d["out_w"]),
        "rows": ceil(d["in_w"] / in_packed) * d["in_pixel_beats"] <= d["in_line_beats"]
        and d["out_w"] / out_packed * d["out_pixel_beats"] <= d["out_line_beats"],
        "packed": not (d["in_packed"] or d["out_packed"])
        or (d["op"] == Op.CONV and whole and config.words_per_beat > 1),
        "in_packed": not d["in_packed"] or d["in_pixel_beats"] == 1,
        "out_packed": not d["out_packed"]
        or (d["out_pixel_beats"] == 1 and d["out_channels"] <= config.lanes and d["out_w"] % out_packed == 0),
        "channels": d["out_channels"] <= bus * d["out_pixel_beats"],
        "producer": d["producer"] == NO_PRODUCER or (d["producer"] < index and d["producer_nseg"] > 0),
        "stripe": window <= d["stripe_pixels"]
        and ceil(d["stripe_pixels"] / in_packed) * d["in_pixel_beats"] <= d["stripe_line_beats"],
    }  # fmt: skip
    for name, kept in rules.items():
        if not kept:
            return name
    return next((rule for v in range(VARIANTS) if (rule := _broken_variant(config, d, v))), None)


def _pixels_to_a_beat(config, d):
    """(of the input, of the output)"""
    return tuple(config.words_per_beat if d[name] else 1 for name in ("in_packed", "out_packed"))


def _legal_residual(config, d, index):
    bus = config.bus_bytes
    packed = _pixels_to_a_beat(config, d)[1]
    return (
        d["res_offset"] % bus == 0
        and 0 < d["out_w"] / packed * d["res_pixel_beats"] <= d["res_line_beats"]
        and (packed == 1 or d["res_pixel_beats"] == 1)
        and d["out_channels"] <= bus * d["res_pixel_beats"]
        and (d["res_producer"] == NO_PRODUCER or (d["res_producer"] < index and d["res_producer_nseg"] > 0))
        and all(-31 <= d[f"add_{which}shift"] <= 0 for which in ("left_", "right_", ""))
        and d["add_clamp_min"] <= d["add_clamp_max"]
    )


def _broken_variant(config, d, v):
    kr, kd = 1 << d[f"log2_kr{v}"], 1 << d[f"log2_kd{v}"]
    most, stripes, words = d[f"max_lines{v}"], d[f"stripe_lines{v}"], d[f"words{v}"]
    if kr * kd > config.max_stack:
        return f"stack {v}"
    cols = config.pes // (kr * kd)
    chunk = min(d["chunk_beats"], d["out_pixel_beats"])
    vector = d["op"] != Op.CONV
    in_packed, out_packed = _pixels_to_a_beat(config, d)
    rules = {
        "max_lines": 1 <= most <= config.max_lines and (d["nseg"] == 1 or most == 1),
        "tile rows": most * d["seg_w"] <= config.rows,
        "stripe_lines": stripes >= d["kh"],
        "bank": stripes * d["stripe_line_beats"] * kr <= config.bank_beats * config.max_stack,
        "staging": kr * most * d["seg_w"] / out_packed * chunk <= config.stage_beats,
        "depth": d["in_pixel_beats"] % kd == 0 and d["stripe_line_beats"] % kd == 0,
        "words": 1 <= words <= d["in_pixel_beats"] * config.words_per_beat // in_packed // kd,
        "blocks": not vector or ceil(words / config.words_per_beat) * kd == ceil(d["out_channels"] / config.bus_bytes),
        "chunk": chunk == d["out_pixel_beats"] or (chunk % kd if vector else chunk * config.bus_bytes % cols) == 0,
        "weights": d[f"weights{v}"] % config.bus_bytes == 0,
        "weight_beats": d[f"weight_beats{v}"] == stream_beats(config, d, v),
    }
    return next((f"{name} {v}" for name, kept in rules.items() if not kept), None)


def breaches(config, d, index):
    """(rule, changed fields): each breaks the named rule of a legal layer ``d`` at ``index``, and few others."""
    bus, segments = config.bus_bytes, d["nseg"]
    counted = "in_w in_h out_w out_h lines out_channels kh kw sy sx nseg seg_w in_pixel_beats out_pixel_beats"
    yield from ((f"{name} zero", {name: 0}) for name in (*counted.split(), "chunk_beats"))
    yield from ((f"{name} is 4096", {name: 4096}) for name in ("in_w", "in_h", "out_w", "out_h"))
    yield "op", {"op": 6}
    yield "pixel words", {"in_pixel_beats": 1024 // config.words_per_beat}
    yield "residual of no pixels", {"residual": 1, "res_pixel_beats": 0}
    if d["residual"]:
        yield "res_offset", {"res_offset": d["res_offset"] + bus // 2}
        row = d["out_w"] // _pixels_to_a_beat(config, d)[1]
        yield "residual rows overlap", {"res_line_beats": row * d["res_pixel_beats"] - 1}
        few = (d["out_channels"] - 1) // bus
        yield "residual channels", {"res_pixel_beats": few, "out_channels": few * bus + 1}
        yield "res_producer", {"res_producer": index, "res_producer_nseg": 1}
        yield "res_producer_nseg", {"res_producer": 0, "res_producer_nseg": 0}
        yield from (
            (f"add_{which}shift", {f"add_{which}shift": n}) for which in ("left_", "right_", "") for n in (1, -32)
        )
        yield "add clamp", {"add_clamp_min": 1, "add_clamp_max": 0}
    yield "clamp", {"clamp_min": 5, "clamp_max": 4}
    yield "padded without average", {"op": Op.POOL, "average": 0, "padded_average": 1}
    if d["op"] == Op.POOL:
        yield "maximum of an average", {"maximum": 1, "average": 1}
        yield "half_up without average", {"average": 0, "padded_average": 0, "half_up": 1}
        yield "pool twice", {"twice": 1}
    else:
        yield "maximum", {"maximum": 1}
    if d["op"] == Op.DEPTHWISE:
        yield "taps", {"kw": VECTOR_TAPS // d["kh"] + 1}
        yield "taps, twice", {"kw": VECTOR_TAPS // d["kh"] // 2 + 1, "twice": 1}
    yield "in_offset", {"in_offset": d["in_offset"] + bus // 2}
    yield "out_offset", {"out_offset": d["out_offset"] + 1}
    yield "lines", {"lines": d["lines"] + 1}
    yield "an empty segment", {"out_w": (segments - 1) * d["seg_w"]}
    yield "segments too short", {"out_w": segments * d["seg_w"] + 1, "out_line_beats": 65535}
    yield "seg_w", {"seg_w": config.rows + 1}
    packed = _pixels_to_a_beat(config, d)
    yield "input rows overlap", {"in_line_beats": ceil(d["in_w"] / packed[0]) * d["in_pixel_beats"] - 1}
    yield "output rows overlap", {"out_line_beats": ceil(d["out_w"] / packed[1]) * d["out_pixel_beats"] - 1}
    yield "output channels", {"out_channels": d["out_pixel_beats"] * bus + 1}
    yield "producer", {"producer": index, "producer_nseg": 1}
    yield "producer_nseg", {"producer": 0, "producer_nseg": 0}
    pixels_in = packed[0]
    yield "stripe line", {"stripe_line_beats": ceil(d["stripe_pixels"] / pixels_in) * d["in_pixel_beats"] - 1}
    for name in ("in_packed", "out_packed"):
        if d["op"] != Op.CONV or segments > 1 or config.words_per_beat == 1:
            yield f"{name} here", {name: 1}
    yield "packed pixels of two beats", {"in_packed": 1, "in_pixel_beats": 2}
    yield "packed pixels of two beats", {"out_packed": 1, "out_pixel_beats": 2}
    yield "packed channels", {"out_packed": 1, "out_pixel_beats": 1, "out_channels": config.lanes + 1}
    yield "packed row of half a beat", {"out_packed": 1, "out_pixel_beats": 1, "out_w": config.words_per_beat + 1}
    if segments > 1:
        yield "stripe pixels", {"stripe_pixels": d["stripe_pixels"] - 1}
    else:
        yield "stripe pixels", {"stripe_pixels": d["in_w"] - 1}
    for v in range(isa.VARIANTS):
        kr, kd = 1 << d[f"log2_kr{v}"], 1 << d[f"log2_kd{v}"]
        yield f"stack {v}", {f"log2_kr{v}": (2 * config.max_stack // kd).bit_length() - 1}
        yield f"kd {v}", {f"log2_kd{v}": (2 * config.max_stack // kr).bit_length() - 1}
        yield f"a huge stack {v}", {f"log2_kr{v}": 15, f"log2_kd{v}": 15}
        yield f"no lines {v}", {f"max_lines{v}": 0}
        yield f"max_lines {v}", {f"max_lines{v}": config.max_lines + 1}
        yield f"rows {v}", {f"max_lines{v}": min(255, config.rows // d["seg_w"] + 1)}
        yield f"stripe_lines {v}", {f"stripe_lines{v}": d["kh"] - 1}
        bank = config.bank_beats * config.max_stack // kr // d["stripe_line_beats"]
        yield f"bank {v}", {f"stripe_lines{v}": min(65535, bank + 1)}
        yield f"weights {v}", {f"weights{v}": d[f"weights{v}"] + bus // 2}
        yield f"weight_beats {v}", {f"weight_beats{v}": d[f"weight_beats{v}"] + 1}
        if d[f"weight_beats{v}"]:
            yield f"fewer weight_beats {v}", {f"weight_beats{v}": d[f"weight_beats{v}"] - 1}
        if segments > 1:
            yield f"lines of segments {v}", {f"max_lines{v}": 2}
        words = d["in_pixel_beats"] * config.words_per_beat // pixels_in // kd
        yield f"no words {v}", {f"words{v}": 0}
        if words < 1023:
            yield f"words {v}", {f"words{v}": words + 1}
        if d["op"] != Op.CONV:
            yield f"blocks {v}", {f"words{v}": d[f"words{v}"] + config.words_per_beat}


def _aligned(rng, bus, high=1 << 20):
    return rng.randrange(0, high, bus)


def layer_fields(rng, config, layer, index):
    """Fields of a legal descriptor of ``layer`` (an engine_layers.Layer), everything else about it random.

    Row stacking beyond ``max_stack`` is cut to it, as the model does.
    """
    bus, bank = config.bus_bytes, config.bank_beats * config.max_stack
    used = [layer.variants[min(v, len(layer.variants) - 1)] for v in range(VARIANTS)]
    op = rng.choice([Op.CONV, Op.CONV, Op.CONV, Op.POOL, Op.POOL, Op.DEPTHWISE])
    pool, vector = op == Op.POOL, op != Op.CONV
    padded = pool and rng.random() < 0.3
    kr = [min(v.kr, config.max_stack) for v in used]
    room = min(bank // r // v.stripe_lines for r, v in zip(kr, used, strict=True))
    if not room:
        raise ValueError(f"a stripe of {max(v.stripe_lines for v in used)} lines does not fit {config.name}")
    kd = [rng.choice([1 << k for k in range((config.max_stack // r).bit_length())]) for r in kr]
    packs = not vector and layer.nseg == 1 and config.words_per_beat > 1 and rng.random() < 0.5
    if max(kd) > room or packs:
        kd = [1] * VARIANTS
    in_pixel = 1 if packs else max(kd) * rng.randint(1, max(1, min(4, room // max(kd))))
    seg_w = rng.randint(1, min(4, config.rows // max(v.max_lines for v in used)))
    out_w = seg_w if layer.nseg == 1 else (layer.nseg - 1) * seg_w + rng.randint(1, seg_w)
    pixels = max(1, min(12, room // in_pixel))  # of a stripe line
    kw, sx = rng.randint(1, 3), rng.randint(1, 2)
    in_w = rng.randint(1, pixels)
    if layer.nseg > 1:
        while (seg_w - 1) * sx + kw > pixels:
            seg_w, kw = max(1, seg_w - 1), max(1, kw - 1)
        out_w = (layer.nseg - 1) * seg_w + rng.randint(1, seg_w)
        in_w = rng.randint(1, 40)
    stripe_pixels = in_w if layer.nseg == 1 else (seg_w - 1) * sx + kw
    stripe_line = stripe_pixels * in_pixel + max(kd) * rng.choice([0, 0, 1])
    if stripe_line > room:
        stripe_line = stripe_pixels * in_pixel
    channel_beats = max(kd) * rng.randint(1, in_pixel // max(kd))  # of a vector layer
    out_pixel = channel_beats if vector else rng.randint(1, 4)
    if max(r * v.max_lines for r, v in zip(kr, used, strict=True)) * seg_w * out_pixel > config.stage_beats:
        out_pixel = channel_beats = 1
        kd = [1] * VARIANTS if vector else kd
    cols = config.pes // min(r * d for r, d in zip(kr, kd, strict=True))
    unit, whole = (1, max(kd)) if vector else (bus, cols)
    chunks = [c for c in range(1, out_pixel + 2) if c >= out_pixel or c * unit % whole == 0]
    channels = rng.randint(bus * (channel_beats - 1) + 1, bus * channel_beats)
    if not vector:
        channels = rng.randint(1, bus * out_pixel)
    padded &= layer.kh * kw <= isa.RECIPROCAL_MAX
    low = rng.randint(-128, 127)
    d = {f.name: 0 for f in DESCRIPTOR_FIELDS} | {
        "op": op,
        "single_rounding": rng.getrandbits(1), "average": int(padded or (pool and rng.getrandbits(1))),
        "maximum": 0, "half_up": 0, "twice": int(not pool and rng.random() < 0.2),
        "padded_average": int(padded), "producer_nseg": layer.producer_nseg, "nseg": layer.nseg,
        "producer": layer.producer, "in_offset": _aligned(rng, bus), "in_w": in_w, "in_h": layer.in_h,
        "in_line_beats": in_w * in_pixel + rng.randint(0, 2), "in_pixel_beats": in_pixel,
        "out_offset": _aligned(rng, bus), "out_w": out_w, "out_h": layer.lines // layer.nseg,
        "out_line_beats": out_w * out_pixel + rng.randint(0, 2), "out_pixel_beats": out_pixel,
        "kh": layer.kh, "kw": kw, "sy": layer.sy, "sx": sx, "pad_top": layer.pad_top, "pad_left": rng.randint(0, 2),
        "seg_w": seg_w, "lines": layer.lines, "out_channels": channels,
        "in_zero": rng.randint(-128, 127), "out_zero": rng.randint(-128, 127),
        "clamp_min": low, "clamp_max": rng.randint(low, 127), "chunk_beats": rng.choice(chunks),
        "vsel": sum(v << 2 * n for n, v in enumerate(layer.vsel)),
        "stripe_pixels": stripe_pixels, "stripe_line_beats": stripe_line,
        "bias": rng.randint(-1 << 31, (1 << 31) - 1), "multiplier": rng.getrandbits(32),
        "shift": rng.randint(-128, 127),
    }  # fmt: skip
    if d["average"]:
        d["half_up"] = rng.getrandbits(1)
    elif pool:
        d["maximum"] = rng.getrandbits(1)
    if packs:
        d |= _packing(rng, config, d)
    if layer.residual is not None:
        d |= _residual_fields(rng, config, d, layer.residual)
    for v, variant in enumerate(used):
        d |= {
            f"log2_kr{v}": kr[v].bit_length() - 1,
            f"log2_kd{v}": kd[v].bit_length() - 1,
            f"max_lines{v}": variant.max_lines,
            f"stripe_lines{v}": variant.stripe_lines,
            f"weights{v}": _aligned(rng, bus),
            f"words{v}": 1 if d["in_packed"] else rng.randint(1, in_pixel * config.words_per_beat // kd[v]),
        }
        if vector:
            words = channel_beats // kd[v] * config.words_per_beat
            d[f"words{v}"] = words - rng.randrange(config.words_per_beat)
        d[f"weight_beats{v}"] = stream_beats(config, d, v)
    rule = broken_rule(config, d, index, 1 << isa.PC_INDEX_BITS)
    assert rule is None, f"the test's own descriptor breaks {rule}: {d}"
    return d


def _packing(rng, config, d):
    """Changes that make packed pixels of input and output, where that can be."""
    changes = {"in_packed": int(rng.random() < 0.8)}
    width = d["out_w"] // config.words_per_beat * config.words_per_beat
    if width and rng.random() < 0.8:
        changes |= {"out_packed": 1, "out_pixel_beats": 1, "out_channels": rng.randint(1, config.lanes)}
        changes |= {"out_w": width, "seg_w": width, "chunk_beats": 1}
    return changes


def _residual_fields(rng, config, d, residual):
    """Fields of a legal residual addition; ``residual``: producer and its lines per row."""
    pixel = 1 if d["out_packed"] else ceil(d["out_channels"] / config.bus_bytes) + rng.choice([0, 0, 1])
    low = rng.randint(-128, 127)
    fields = {"residual": 1, "res_offset": _aligned(rng, config.bus_bytes), "res_pixel_beats": pixel}
    fields |= {"res_line_beats": d["out_w"] * pixel + rng.randint(0, 2)}
    fields |= {"res_producer": residual[0], "res_producer_nseg": residual[1]}
    fields |= {"add_zero": rng.randint(-128, 127), "add_clamp_min": low, "add_clamp_max": rng.randint(low, 127)}
    for which in ("left_", "right_", ""):
        fields |= {f"add_{which}multiplier": rng.getrandbits(31), f"add_{which}shift": rng.randint(-31, 0)}
    return fields | {f"add_{side}_zero": rng.randint(-128, 127) for side in ("left", "right")}


def exit_fields(rng, config, exit, last, classes=None, table=None):
    """Fields of an EXIT."""
    bus = config.bus_bytes
    return {
        "op": Op.EXIT,
        "exit": exit,
        "last": int(last),
        "out_channels": classes or rng.randint(1, 40),
        "in_offset": _aligned(rng, bus),
        "bias": _aligned(rng, bus) if table is None else table,
    }


def jump_fields(exit, target):
    """Fields of a JUMP."""
    return {"op": Op.JUMP, "exit": exit, "target": target}


def operation_fields(rng, config, op, index, table=None):
    """Fields of a descriptor of any engine_layers operation; a Bad one breaks a rule."""
    if isinstance(op, Layer):
        return layer_fields(rng, config, op, index)
    if isinstance(op, Exit):
        return exit_fields(rng, config, op.exit, op.last, table=table)
    if isinstance(op, Jump):
        return jump_fields(op.exit, op.target)
    return rng.choice([{"op": 0}, {"op": 15}, {"op": Op.CONV}, {"op": Op.JUMP}, {"op": Op.EXIT, "out_channels": 1025}])
