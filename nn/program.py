"""A compiled network: the program file, what it needs of the host, and where its tensors are.

File: a fixed header (magic, version, ISA version, configuration hash, CRC-32 of the rest, lengths), metadata as JSON,
and the image of the program region (descriptors, weight streams, tables).
"""

import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from fluidnpu.hw import isa

__all__ = ["FoldedInput", "OpInfo", "Program", "ProgramError", "ProgramExit", "TensorPlace"]

_MAGIC = b"FNPUPROG"
_VERSION = 2
_HEADER = struct.Struct(
    "<8sIIIIII"
)  # magic, version, ISA version, configuration hash, CRC, metadata bytes, region bytes


class ProgramError(ValueError):
    """A program file that is damaged or does not fit; the message names the file or what does not fit."""


@dataclass(frozen=True)
class TensorPlace:
    """A tensor in the arena: NHWC, ``channels`` padded to whole beats, rows ``line_beats`` apart.

    packed : pixels to a beat; more than one: ``channels`` are padded to a word, and rows to whole beats
    """

    name: str
    offset: int  # bytes from the arena base
    height: int
    width: int
    channels: int
    pixel_beats: int
    line_beats: int
    packed: int = 1

    def pixel_bytes(self, bus_bytes):
        """From one pixel to the next."""
        return self.pixel_beats * bus_bytes // self.packed


@dataclass(frozen=True)
class FoldedInput:
    """How an image [h, w, c] becomes the input tensor: window columns (and rows) folded into channels.

    Pixel (y, x) of the input tensor holds, channels last, the taps (ky, kx) of kernel rows 0..fold_h-1 and columns
    0..fold_w-1 at image position (y * sy + ky - top, x * sx + kx - left); a tap outside of the image is ``zero``.
    Without folding fold_h = fold_w = sy = sx = 1 and the padding is 0.
    """

    height: int
    width: int
    channels: int
    fold_h: int = 1
    fold_w: int = 1
    sy: int = 1
    sx: int = 1
    top: int = 0
    left: int = 0
    zero: int = 0

    @property
    def shape(self):
        """(h, w, c) of an image."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class ProgramExit:
    """An exit: index of its EXIT operation, logits tensor, classes, quantisation, and the limit to start with."""

    op: int
    logits: str
    classes: int
    scale: float
    zero_point: int
    beta: float
    limit: int = isa.LIMIT_NEVER


@dataclass(frozen=True)
class OpInfo:
    """What reports want to know of an operation. ``tensor``: that it writes; ``macs``: useful MACs of one sample;
    ``exit``: of EXIT and JUMP; ``tile_cycles``, ``load_beats``: of its longest tile, over all variants."""

    name: str
    op: str
    tensor: str = ""
    macs: int = 0
    exit: int = -1
    head: int = -1  # exit whose head it belongs to, -1: trunk
    tile_cycles: int = 0
    load_beats: int = 0
    variants: list = field(default_factory=list)  # {"kr", "kd", "max_lines"} for 1, 2, ... live samples


@dataclass(frozen=True, eq=False)
class Program:
    """A program for one configuration.

    exits : of a network without exits its one end, which decides nothing but that the sample has ended
    outputs : names of the tensors that the network is run for; they are there when a sample has run through
    region : bytes of the program region; operation i at isa.DESCRIPTOR_BYTES * i
    arena_bytes : memory that a sample needs
    """

    name: str
    config_name: str
    config_hash: int
    bus_bytes: int
    arena_bytes: int
    input: FoldedInput
    input_tensor: str
    tensors: dict
    exits: tuple
    outputs: tuple
    ops: tuple
    region: bytes

    @property
    def has_no_exits(self):
        """The network does not classify: what counts are its outputs."""
        end = self.exits[-1]
        place = self.tensors[end.logits]
        return (place.height, place.width, place.channels) != (1, 1, end.classes)

    # --- images and tensors -----------------------------------------------------------------------------------

    def pack_input(self, image):
        """int8 image [h, w, c] as the bytes of the input tensor (uint8 [n]); ProgramError for another shape."""
        f = self.input
        image = np.asarray(image)
        if image.shape != f.shape or image.dtype != np.int8:
            raise ProgramError(
                f"{self.name}: image is {image.dtype} {list(image.shape)}, it must be int8 "
                f"[{f.height}, {f.width}, {f.channels}]"
            )
        place = self.tensors[self.input_tensor]
        below = max(0, (place.height - 1) * f.sy + f.fold_h - f.top - f.height)
        right = max(0, (place.width - 1) * f.sx + f.fold_w - f.left - f.width)
        padded = np.pad(image, ((f.top, below), (f.left, right), (0, 0)), constant_values=f.zero)
        taps = [
            padded[ky : ky + (place.height - 1) * f.sy + 1 : f.sy, kx : kx + (place.width - 1) * f.sx + 1 : f.sx]
            for ky in range(f.fold_h)
            for kx in range(f.fold_w)
        ]
        return self.pack(self.input_tensor, np.concatenate(taps, axis=-1))

    def pack(self, name, values):
        """int8 [h, w, c] as the bytes of a tensor's region (padding channels are zero)."""
        place = self.tensors[name]
        line = place.line_beats * self.bus_bytes
        out = np.zeros((place.height, line), np.uint8)
        pixels = np.zeros((place.height, place.width, place.pixel_bytes(self.bus_bytes)), np.int8)
        pixels[..., : place.channels] = values
        out[:, : pixels.shape[1] * pixels.shape[2]] = pixels.reshape(place.height, -1).view(np.uint8)
        return out.reshape(-1)

    def unpack(self, name, arena):
        """Tensor [h, w, c] int8 out of the bytes of an arena (uint8)."""
        place = self.tensors[name]
        line = place.line_beats * self.bus_bytes
        raw = np.asarray(arena[place.offset : place.offset + place.height * line]).reshape(place.height, line)
        pixels = raw[:, : place.width * place.pixel_bytes(self.bus_bytes)]
        pixels = pixels.reshape(place.height, place.width, place.pixel_bytes(self.bus_bytes))
        return pixels[..., : place.channels].view(np.int8)

    # --- file -------------------------------------------------------------------------------------------------

    def to_bytes(self):
        """The program file."""
        meta = {k: v for k, v in asdict(self).items() if k != "region"}
        text = json.dumps(meta, separators=(",", ":")).encode()
        crc = zlib.crc32(text + self.region)
        header = _HEADER.pack(_MAGIC, _VERSION, isa.ISA_VERSION, self.config_hash, crc, len(text), len(self.region))
        return header + text + self.region

    @classmethod
    def from_bytes(cls, raw, source="program"):
        """Read a program file; ProgramError that says what is wrong with ``source``."""
        if len(raw) < _HEADER.size or raw[:8] != _MAGIC:
            raise ProgramError(f"{source}: not a fluidnpu program file")
        _, version, isa_version, config_hash, crc, meta_bytes, region_bytes = _HEADER.unpack_from(raw)
        if version != _VERSION or isa_version != isa.ISA_VERSION:
            raise ProgramError(
                f"{source}: file version {version}, ISA version {isa_version}; this software reads {_VERSION} and "
                f"{isa.ISA_VERSION}"
            )
        body = raw[_HEADER.size :]
        if len(body) != meta_bytes + region_bytes:
            raise ProgramError(
                f"{source}: {len(body)} bytes behind the header, it announces {meta_bytes + region_bytes}"
            )
        if zlib.crc32(body) != crc:
            raise ProgramError(f"{source}: checksum mismatch, the file is damaged")
        meta = json.loads(body[:meta_bytes])
        meta["input"] = FoldedInput(**meta["input"])
        meta["tensors"] = {name: TensorPlace(**place) for name, place in meta["tensors"].items()}
        meta["outputs"] = tuple(meta["outputs"])
        meta["exits"] = tuple(ProgramExit(**e) for e in meta["exits"])
        meta["ops"] = tuple(OpInfo(**op) for op in meta["ops"])
        if meta["config_hash"] != config_hash:
            raise ProgramError(f"{source}: header and metadata disagree on the configuration")
        return cls(**meta, region=bytes(body[meta_bytes:]))

    def save(self, path):
        """Write the program file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path):
        """Read a program file."""
        return cls.from_bytes(Path(path).read_bytes(), str(path))
