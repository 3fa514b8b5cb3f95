"""Files that get new operators keep everything that they had."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from fluidnpu.nn.tflite_editor import TfliteEditor
from fluidnpu.nn.tflite_writer import TfliteWriter

from .backbones import digit_images, digits_backbone, packed, residual_backbone, unpacked


def edited(data: bytes, tensor: str) -> bytes:
    """The file with a pool of a feature map as another output."""
    net = TfliteEditor(data)
    names = [t.name.decode() for t in unpacked(data).subgraphs[0].tensors]
    x = net.average_pool_2d(net.tensor(names.index(tensor)), 2, padding="SAME", name="pooled")
    weights = np.arange(-12, 12).reshape(2, 12).astype(np.int8)[:, : x.shape[3]]
    if x.shape[3] == 8:
        x = net.conv_2d(
            x, weights.reshape(2, 1, 1, -1), np.ones(2, np.int32), 0.5, scale=1.0, zero_point=0, name="more"
        )
    return net.edited([x])


@pytest.mark.parametrize("data, tensor", [(digits_backbone(), "stage1b"), (residual_backbone(), "first")])
def test_everything_is_still_there(data, tensor):
    before, after = unpacked(data), unpacked(edited(data, tensor))
    old, new = before.subgraphs[0], after.subgraphs[0]
    for a, b in zip(before.buffers, after.buffers, strict=False):
        assert (a.data is None) == (b.data is None)
        if a.data is not None:
            assert bytes(a.data) == bytes(b.data)
    for a, b in zip(old.tensors, new.tensors, strict=False):
        assert (a.name, list(a.shape), a.type, a.buffer) == (b.name, list(b.shape), b.type, b.buffer)
        for what in ("scale", "zeroPoint"):
            np.testing.assert_array_equal(getattr(a.quantization, what), getattr(b.quantization, what))
    kept = [op for op in new.operators if max(op.outputs) < len(old.tensors)]
    for a, b in zip(old.operators, kept, strict=True):
        assert list(a.inputs) == list(b.inputs) and list(a.outputs) == list(b.outputs)
        assert (a.opcodeIndex, a.builtinOptionsType) == (b.opcodeIndex, b.builtinOptionsType)
    assert list(new.outputs)[1:] == list(old.outputs) and list(new.inputs) == list(old.inputs)


def test_new_operators_stand_behind_what_they_read():
    graph = unpacked(edited(residual_backbone(), "first")).subgraphs[0]
    names = [graph.tensors[op.outputs[0]].name.decode() for op in graph.operators]
    assert names == ["first", "pooled", "more", "inner", "sum", "last", "mean", "logits", "classes"]


def test_constants_are_aligned():
    data = edited(residual_backbone(), "first")
    for buffer in unpacked(data).buffers:
        if buffer.data is not None and np.any(buffer.data) and data.count(bytes(buffer.data)) == 1:
            assert data.index(bytes(buffer.data)) % 16 == 0


def test_signatures_name_the_new_outputs():
    data = edited(digits_backbone(signature=True), "stage1b")
    runner = Interpreter(model_content=data).get_signature_runner()
    image = digit_images(0, 1)[0]
    answer = runner(image=image)
    assert set(answer) == {"digit", "pooled"} and answer["pooled"].shape == (1, 8, 8, 16)


def test_names_that_are_taken():
    net = TfliteEditor(digits_backbone())
    assert net.unused_name("exit1") == "exit1_2" and net.unused_name("stage") == "stage"


def test_float_networks_are_refused():
    writer = TfliteWriter()
    x = writer.input((1, 4), scale=1.0, zero_point=0)
    model = unpacked(writer.to_bytes([writer.softmax(x)]))
    model.subgraphs[0].tensors[0].type = 0
    with pytest.raises(ValueError, match="the network's input has type 0, it must be int8 or uint8"):
        TfliteEditor(packed(model))
