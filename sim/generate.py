"""Verilog of a configuration, and a JSON file that says everything a user of the Verilog needs."""

import json
from dataclasses import asdict
from pathlib import Path

from amaranth.back import verilog
from amaranth.lib.wiring import In, Signature
from fluidnpu.hw import isa
from fluidnpu.hw.npu import Npu, npu_members

__all__ = ["describe", "generate_verilog", "write_verilog"]


def generate_verilog(config):
    """Verilog text of the NPU (module ``npu``, clock ``clk``, synchronous reset ``rst``); the same text every time."""
    return verilog.convert(Npu(config), name="npu", emit_src=False, strip_internal_attrs=True)


def _ports(signature, prefix=""):
    """Ports as Amaranth names them: members of interfaces joined by two underscores."""
    ports = []
    for name, member in signature.members.items():
        if member.is_port:
            width = member.shape.size if hasattr(member.shape, "size") else member.shape
            width = width if isinstance(width, int) else width.width
            ports.append({"name": prefix + name, "width": width, "direction": "in" if member.flow == In else "out"})
        else:
            ports += _ports(member.signature, f"{prefix}{name}__")  # already flipped where it is an input
    return ports


def _fields(fields):
    return [asdict(f) for f in fields]


def describe(config):
    """What software needs to know, as JSON-able data: configuration, registers, commands, counters, ports."""
    clock = [{"name": n, "width": 1, "direction": "in"} for n in ("clk", "rst")]
    return {
        "configuration": {
            **asdict(config),
            "words_per_beat": config.words_per_beat,
            "group_pes": config.group_pes,
            "bank_beats": config.bank_beats,
            "stage_beats": config.stage_beats,
            "peak_macs": config.peak_macs,
            "hash": config.hash,
        },
        "isa_version": isa.ISA_VERSION,
        "registers": [asdict(r) for r in isa.REGISTERS],
        "commands": {op.name: {"opcode": int(op), "fields": _fields(f)} for op, f in isa.COMMANDS.items()},
        "completion": {"words": isa.COMPLETION_WORDS, "fields": _fields(isa.COMPLETION_FIELDS)},
        "descriptor": {"words": isa.DESCRIPTOR_WORDS, "fields": _fields(isa.DESCRIPTOR_FIELDS)},
        "status": {s.name: int(s) for s in isa.Status},
        "codes": {c.name: int(c) for c in isa.Code},
        "counters": list(isa.COUNTERS),
        "events": {
            "engine": {e.name: int(e) for e in isa.EngineEvent},
            "array": {e.name: int(e) for e in isa.ArrayEvent},
        },
        "ports": clock + _ports(Signature(npu_members(config))),
    }


def write_verilog(config, folder="build"):
    """Write npu.v and npu.json into ``folder``/<configuration>; returns their paths."""
    place = Path(folder) / config.name
    place.mkdir(parents=True, exist_ok=True)
    source, sidecar = place / "npu.v", place / "npu.json"
    source.write_text(generate_verilog(config))
    sidecar.write_text(json.dumps(describe(config), indent=1) + "\n")
    return source, sidecar
