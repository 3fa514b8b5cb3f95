"""Program files: what is written is read, damage is named; images and tensors in and out of an arena."""

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.nn.program import FoldedInput, OpInfo, Program, ProgramError, ProgramExit, TensorPlace


def program(**changes):
    fields = {
        "name": "small",
        "config_name": "tiny",
        "config_hash": 0x1234,
        "bus_bytes": 8,
        "arena_bytes": 400,
        "input": FoldedInput(2, 3, 1),
        "input_tensor": "x",
        "tensors": {"x": TensorPlace("x", 8, 2, 3, 1, 1, 3), "y": TensorPlace("y", 64, 2, 2, 9, 2, 5)},
        "exits": (ProgramExit(1, "y", 9, 0.25, -3, 1.0, isa.LIMIT_ALWAYS),),
        "outputs": ("y",),
        "ops": (OpInfo("conv", "CONV", macs=7, variants=[{"kr": 2}]), OpInfo("exit0", "EXIT", exit=0)),
        "region": bytes(range(256)) * 2,
    }
    return Program(**(fields | changes))


def same(a, b):
    return all(getattr(a, name) == getattr(b, name) for name in Program.__dataclass_fields__)


def test_file(tmp_path):
    p = program()
    p.save(tmp_path / "p.npu")
    assert same(Program.load(tmp_path / "p.npu"), p)
    assert same(Program.from_bytes(p.to_bytes()), p)


def test_damaged_files(tmp_path):
    raw = program().to_bytes()

    def changed(at, value):
        return raw[:at] + bytes([value]) + raw[at + 1 :]

    for bad, message in (
        (b"", "not a fluidnpu program"),
        (b"PK" + raw[2:], "not a fluidnpu program"),
        (changed(8, 9), f"file version 9, ISA version {isa.ISA_VERSION}; this software reads 2 and {isa.ISA_VERSION}"),
        (changed(12, 7), "file version 2, ISA version 7"),
        (raw[:-1], "bytes behind the header, it announces"),
        (changed(len(raw) - 1, 0), "checksum mismatch"),
        (changed(40, 0), "checksum mismatch"),
        (changed(16, 0x35), "header and metadata disagree on the configuration"),
    ):
        with pytest.raises(ProgramError, match=f"^net.npu: .*{message}"):
            Program.from_bytes(bad, "net.npu")
    (tmp_path / "p.npu").write_bytes(raw[:-1])
    with pytest.raises(ProgramError, match=r"p\.npu: "):
        Program.load(tmp_path / "p.npu")


def test_tensors_in_an_arena():
    p, rng = program(), np.random.default_rng(0)
    values = rng.integers(-128, 128, (2, 2, 9)).astype(np.int8)
    packed = p.pack("y", values)
    assert packed.shape == (2 * 5 * 8,) and packed.dtype == np.uint8
    rows = packed.reshape(2, 40)
    assert rows[1, 16:25].view(np.int8).tolist() == values[1, 1].tolist()  # pixel 1 of row 1
    assert not rows[:, 32:].any() and not rows[:, 9:16].any()  # behind the row, behind the channels
    arena = np.zeros(400, np.uint8)
    arena[64 : 64 + 80] = packed
    np.testing.assert_array_equal(p.unpack("y", arena), values)


def test_images():
    p = program()
    image = np.array([[[1], [2], [3]], [[-4], [-5], [-6]]], np.int8)
    packed = p.pack_input(image).reshape(6, 8)
    assert packed[:, 0].view(np.int8).tolist() == [1, 2, 3, -4, -5, -6] and not packed[:, 1:].any()
    for wrong in (image[:1], image.astype(np.int16), image[..., 0]):
        with pytest.raises(ProgramError, match=r"small: image is .*, it must be int8 \[2, 3, 1\]"):
            p.pack_input(wrong)


@pytest.mark.parametrize("fold", [(1, 3, 1, 2, 0, 1), (3, 2, 2, 1, 1, 0), (2, 2, 2, 2, 0, 0), (3, 3, 1, 1, 1, 1)])
def test_folded_images(fold):
    """Every tap of every pixel, one at a time."""
    fold_h, fold_w, sy, sx, top, left = fold
    h, w, c, zero = 5, 7, 2, -9
    rng = np.random.default_rng(2)
    image = rng.integers(-128, 128, (h, w, c)).astype(np.int8)
    rows, columns = (h + top - fold_h) // sy + 1, (w + left - fold_w) // sx + 2  # the last window leaves the image
    channels = fold_h * fold_w * c
    beats = -(-channels // 8)
    p = program(
        input=FoldedInput(h, w, c, *fold, zero=zero),
        tensors={"x": TensorPlace("x", 0, rows, columns, channels, beats, columns * beats)},
    )
    got = p.unpack("x", p.pack_input(image))
    for y in range(rows):
        for x in range(columns):
            taps = [(y * sy + ky - top, x * sx + kx - left) for ky in range(fold_h) for kx in range(fold_w)]
            inside = [0 <= iy < h and 0 <= ix < w for iy, ix in taps]
            want = [image[t] if there else [zero] * c for t, there in zip(taps, inside, strict=True)]
            assert got[y, x].tolist() == np.concatenate(want).tolist(), (y, x)
