"""Operators that change shapes, types or scales: QUANTIZE and DEQUANTIZE at the ends, shapes computed in the file."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fluidnpu.nn.graph import Conv, Depthwise, UnsupportedNetwork
from fluidnpu.nn.reference import run
from fluidnpu.nn.tflite_reader import parse_network
from fluidnpu.nn.tflite_writer import TfliteWriter
from reference_kernels import interpreter_of, kernels_of

IN, OUT = {"scale": 0.5, "zero_point": -3}, {"scale": 0.25, "zero_point": 7}


def conv(net, x):
    rng = np.random.default_rng(1)
    weights = rng.integers(-127, 128, (4, 3, 3, x.shape[3])).astype(np.int8)
    return net.conv_2d(x, weights, np.arange(4, dtype=np.int32), 0.002, **OUT)


def test_float_input_and_output():
    net = TfliteWriter()
    x = net.quantize(net.float_input((1, 5, 5, 2), name="pixels"), **IN, name="image")
    y = net.softmax(net.flatten(net.average_pool_2d(conv(net, x), 5)))
    data = net.to_bytes([net.dequantize(y, name="probabilities")])
    network = parse_network(data, "n")
    assert network.input.name == "image" and network.input.shape == (5, 5, 2)
    (exit,) = network.exits
    assert exit.output == "probabilities" and exit.beta == 1.0
    values = np.random.default_rng(2).integers(-128, 128, (5, 5, 2)).astype(np.int8)
    ours = run(network, values)
    pixels = ((values.astype(np.float32) + 3) * np.float32(0.5))[None]
    interpreter = interpreter_of(data)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    theirs = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    for name in ours:
        np.testing.assert_array_equal(ours[name].ravel(), interpreter.get_tensor(theirs[name]).ravel(), err_msg=name)


def test_uint8_ends_of_an_int8_network():
    net = TfliteWriter(dtype="uint8")
    x = net.input((1, 5, 5, 2), scale=0.5, zero_point=125)
    net.dtype = "int8"
    y = conv(net, net.quantize(x, **IN, name="image"))
    last = net.quantize(y, scale=0.3, zero_point=100, dtype="uint8", name="last")
    data = net.to_bytes([last])
    network = parse_network(data, "n")
    assert [type(layer) for layer in network.layers] == [Conv, Depthwise]  # the first QUANTIZE changes nothing
    image = np.random.default_rng(3).integers(-128, 128, (5, 5, 2)).astype(np.int8)
    ours, theirs = run(network, image), kernels_of(interpreter_of(data), image)
    for name in (*ours, *network.aliases):
        np.testing.assert_array_equal(ours[network.aliases.get(name, name)].ravel(), theirs[name].ravel())


def test_squeeze():
    net = TfliteWriter()
    x = net.input((1, 5, 5, 2), **IN)
    network = parse_network(net.to_bytes([net.softmax(net.squeeze(net.average_pool_2d(x, 5)))]), "n")
    assert network.exits[0].classes == 2


def computed_shape(type):
    """A flattening as Keras converts it, its new shape computed by SHAPE, STRIDED_SLICE and PACK."""
    net = TfliteWriter()
    x = net.input((1, 4, 4, 2), **IN)
    flat = net.flatten(x)
    y = net.fully_connected(flat, np.ones((3, 32), np.int8), np.zeros(3, np.int32), 0.01, **OUT)
    model = schema.ModelT.InitFromPackedBuf(net.to_bytes([y]), 0)
    graph = model.subgraphs[0]
    steps = (schema.BuiltinOperator.SHAPE, schema.BuiltinOperator.STRIDED_SLICE, schema.BuiltinOperator.PACK)
    source = 0
    for n, code in enumerate(steps):
        model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1))
        graph.tensors.append(schema.TensorT(shape=[4], type=type, buffer=0, name=f"shape{n}"))
        graph.operators.insert(
            n,
            schema.OperatorT(
                opcodeIndex=len(model.operatorCodes) - 1, inputs=[source], outputs=[len(graph.tensors) - 1]
            ),
        )
        source = len(graph.tensors) - 1
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_computed_shapes_are_left_out():
    assert len(parse_network(computed_shape(schema.TensorType.INT32), "n").layers) == 1
    with pytest.raises(UnsupportedNetwork, match=r"operator 0 SHAPE, .*: SHAPE of INT64; supported: of shapes, INT32"):
        parse_network(computed_shape(schema.TensorType.INT64), "n")


def test_what_is_refused():
    net = TfliteWriter()
    x = net.float_input((1, 5, 5, 2))
    a, b = net.quantize(x, **IN), net.quantize(x, **OUT)
    with pytest.raises(UnsupportedNetwork, match="tensor 0 'input': type FLOAT32; supported: int8 or uint8"):
        parse_network(net.to_bytes([net.add(a, b, **OUT)]), "n")
    net = TfliteWriter()
    x = net.dequantize(net.relu(net.input((1, 5, 5, 2), **IN)), name="real")
    with pytest.raises(UnsupportedNetwork, match="1 DEQUANTIZE, tensor 2 'real': DEQUANTIZE is not at an output"):
        parse_network(net.to_bytes([net.relu(x)]), "n")
    net = TfliteWriter()
    y = net.quantize(net.relu(net.input((1, 5, 5, 2), **IN)), scale=1e-9, zero_point=0)
    with pytest.raises(UnsupportedNetwork, match=r"1 QUANTIZE, .*: scale 0.5 becomes .*; supported: scales of about"):
        parse_network(net.to_bytes([y]), "n")
