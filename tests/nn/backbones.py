"""Backbones to attach exits to: the digits network with its last output only, and small random ones."""

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from fluidnpu.nn.digits_data import Views
from fluidnpu.nn.tflite_writer import TfliteWriter

MODELS = Path(__file__).resolve().parents[2] / "models"


def unpacked(data: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def packed(model: schema.ModelT) -> bytes:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def digits_backbone(signature: bool = False) -> bytes:
    """models/digits.tflite without its first two exits, optionally with a signature as TensorFlow's converter adds."""
    model = unpacked((MODELS / "digits.tflite").read_bytes())
    graph = model.subgraphs[0]
    names = [tensor.name.decode() for tensor in graph.tensors]
    graph.operators = [op for op in graph.operators if not names[op.outputs[0]].startswith(("exit1", "exit2"))]
    graph.outputs = graph.outputs[-1:]
    if signature:
        inputs, outputs = (
            [schema.TensorMapT(name=name, tensorIndex=int(tensors[0]))]
            for name, tensors in (("image", graph.inputs), ("digit", graph.outputs))
        )
        model.signatureDefs = [
            schema.SignatureDefT(inputs=inputs, outputs=outputs, signatureKey="serving_default", subgraphIndex=0)
        ]
    return packed(model)


def digit_images(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(images int8 [n, 32, 32, 1], labels int64 [n]) of the shipped views."""
    views = Views.load(MODELS / "digits_views.npz")
    return views.model_inputs()[first : first + count], views.labels[first : first + count].astype(np.int64)


def residual_backbone(seed: int = 0, shape=(11, 6, 3), classes: int = 4, softmax: bool = True, dtype="int8") -> bytes:
    """A small random network with a residual block, an odd image and a second convolution inside it."""
    rng = np.random.default_rng(seed)
    net = TfliteWriter("random residual", dtype)
    zero = 128 * (dtype == "uint8")  # what uint8 numbers have more than int8 ones
    x = net.input((1, *shape), scale=0.02, zero_point=zero - 3)

    def drawn(*shape):
        weights = rng.integers(-127, 128, shape)
        return (weights + zero).astype(dtype)

    def conv(x, channels, name, **window):
        weights = drawn(channels, 3, 3, x.shape[3])
        bias = rng.integers(-500, 500, channels).astype(np.int32)
        factor = 1 / (70 * np.sqrt(9 * x.shape[3]))
        window |= {"weight_zero_point": zero, "activation": "RELU", "name": name}
        return net.conv_2d(x, weights, bias, factor, scale=x.scale, zero_point=zero - 5, **window)

    a = conv(x, 8, "first")
    b = conv(a, 8, "inner")
    c = net.add(a, b, scale=0.03, zero_point=zero - 10, name="sum")
    d = conv(c, 12, "last", stride=2)
    pooled = net.mean(d, name="mean")
    logits = net.fully_connected(
        pooled,
        drawn(classes, 12),
        np.zeros(classes, np.int32),
        0.02,
        scale=0.05,
        zero_point=zero + 3,
        weight_zero_point=zero,
        name="logits",
    )
    return net.to_bytes([net.softmax(logits, beta=0.5, name="classes") if softmax else logits])
