"""Which tensors are packed, and that a program says the same of them everywhere."""

from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw.config import get_config
from fluidnpu.hw.isa import DESCRIPTOR_FIELDS, DESCRIPTOR_WORDS, decode
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter

HUB = get_config("hub")  # two words of 16 bytes to a beat
Q = {"scale": 0.05, "zero_point": 3}


class _Net:
    """A writer of small networks; weights do not matter."""

    def __init__(self, h, w, c):
        self.net = TfliteWriter("packing")
        self.x = self.net.input((1, h, w, c), scale=0.02, zero_point=-5)

    def conv(self, x, channels, kernel=3, **options):
        weights = np.ones((channels, kernel, kernel, x.shape[3]), np.int8)
        return self.net.conv_2d(x, weights, np.zeros(channels, np.int32), 0.01, **Q, padding="SAME", **options)

    def program(self, *outputs, config=HUB):
        network = parse_network(self.net.to_bytes(outputs), "packing")
        return compile_network(network, config, CompileOptions(fold="none", reuse_arena=False))


def packed(program):
    """Channels of the packed tensors, in order."""
    return [p.channels for p in program.tensors.values() if p.packed > 1]


def descriptors(program):
    words = np.frombuffer(program.region, "<u4")[: len(program.ops) * DESCRIPTOR_WORDS].reshape(-1, DESCRIPTOR_WORDS)
    return [decode(DESCRIPTOR_FIELDS, w) for w in words]


def test_a_chain_of_convolutions():
    """The image and narrow tensors; not the wide one, not the output."""
    n = _Net(8, 6, 3)
    y = n.conv(n.conv(n.conv(n.x, 16), 17), 12)
    program = n.program(n.conv(y, 8))
    assert packed(program) == [3, 16, 12]
    ops = descriptors(program)[:4]
    assert [(d["in_packed"], d["out_packed"]) for d in ops] == [(1, 1), (1, 0), (0, 1), (1, 0)]
    place = program.tensors[program.input_tensor]
    assert (place.pixel_beats, place.line_beats, place.packed) == (1, 3, 2)
    assert [d["in_line_beats"] for d in ops] == [3, 3, 6, 3] and ops[0]["out_line_beats"] == 3
    assert packed(n.program(n.conv(y, 8), config=get_config("gemmini16"))) == []


def test_bytes_of_a_packed_tensor():
    """Words one behind the other, rows padded to whole beats."""
    n = _Net(2, 5, 3)
    program = n.program(n.conv(n.x, 8))
    image = np.arange(30).reshape(2, 5, 3).astype(np.int8)
    raw = program.pack_input(image)
    assert raw.size == 2 * 3 * 32
    words = np.zeros((2, 6, 16), np.uint8)
    words[:, :5, :3] = image
    np.testing.assert_array_equal(raw, words.ravel())
    arena = np.zeros(program.arena_bytes, np.uint8)
    at = program.tensors[program.input_tensor].offset
    arena[at : at + raw.size] = raw
    np.testing.assert_array_equal(program.unpack(program.input_tensor, arena), image)


@pytest.mark.parametrize(("width", "expected"), [(6, [3, 16]), (5, [3])])
def test_written_rows_are_whole_beats(width, expected):
    n = _Net(4, width, 3)
    assert packed(n.program(n.conv(n.conv(n.x, 16), 32))) == expected


def test_other_readers_keep_whole_beats():
    """What a pool reads or makes, and what is added to that; the part of a joined tensor that lies in it."""
    n = _Net(8, 8, 3)
    y = n.conv(n.x, 16)
    pool = n.net.max_pool_2d(y, (2, 2), stride=(1, 1), padding="SAME", activation="NONE")
    assert packed(n.program(n.conv(n.net.add(n.conv(y, 16), pool, **Q), 8))) == [3]
    n = _Net(8, 8, 3)
    y, z = n.conv(n.x, 16), n.conv(n.x, 16)
    assert packed(n.program(n.conv(n.net.concatenation([y, z]), 8))) == [3, 16]  # the second part is copied


def test_second_operand_and_sum_are_packed_together():
    n = _Net(8, 8, 3)
    y = n.conv(n.x, 16)
    program = n.program(n.conv(n.net.add(n.conv(n.conv(y, 16), 16), y, **Q), 8))
    assert packed(program) == [3, 16, 16, 16]
    (d,) = [d for d in descriptors(program) if d["residual"]]
    assert d["out_packed"] and d["res_line_beats"] == d["out_line_beats"] == 4


def test_segments_keep_whole_beats():
    """Rows wider than a tile's rows are cut; a row that is not has no need to be."""
    n = _Net(4, 300, 3)
    assert packed(n.program(n.conv(n.conv(n.x, 16), 8))) == []
    config = replace(HUB, rows=512, max_lines=64)
    assert packed(n.program(n.conv(n.conv(n.x, 16), 8), config=config)) == [3, 16]
