"""The .tflite reader: what it makes of good files, and what it says about all others."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fluidnpu.nn.graph import Conv, Mean, Pool
from fluidnpu.nn.tflite_reader import UnsupportedNetwork, parse_network, read_network
from fluidnpu.nn.tflite_writer import TfliteWriter

SEED = 411


def constants(rng, *shape):
    """Weights, bias, one scale."""
    return rng.integers(-127, 128, shape).astype(np.int8), rng.integers(-99, 99, shape[0]).astype(np.int32), 0.01


def three_exits() -> bytes:
    """conv0 - [mean1 fc2] - conv3 - [pool5 (flatten) fc7 softmax8] - pool9 (flatten) fc11 softmax12; a dead conv4."""
    rng, net = np.random.default_rng(SEED), TfliteWriter("three exits")
    q = {"scale": 0.5, "zero_point": -3}
    x = net.input((1, 8, 6, 2), scale=0.5, zero_point=-128, name="image")
    x = net.conv_2d(x, *constants(rng, 4, 3, 3, 2), **q, activation="RELU", name="first")
    early = net.fully_connected(net.mean(x), *constants(rng, 10, 4), **q, name="early")
    x = net.conv_2d(x, *constants(rng, 5, 2, 3, 4), **q, stride=(2, 1), activation="RELU6", name="second")
    net.conv_2d(x, *constants(rng, 5, 1, 1, 5), **q, name="dead")
    head = net.flatten(net.average_pool_2d(x, (2, 3)), name="flat")
    middle = net.softmax(net.fully_connected(head, *constants(rng, 10, 20), **q, name="middle"), beta=0.5, name="p1")
    x = net.average_pool_2d(x, (3, 5), stride=(2, 2), padding="SAME", name="last pool")
    logits = net.fully_connected(net.flatten(x), *constants(rng, 10, 30), **q, name="logits")
    return net.to_bytes([early, middle, net.softmax(logits, name="p2")])


def edited(edit, data: bytes | None = None) -> bytes:
    """three_exits() after ``edit(model, graph)`` changed the unpacked flatbuffer."""
    model = schema.ModelT.InitFromPackedBuf(data or three_exits(), 0)
    edit(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tensor(graph, name: str) -> schema.TensorT:
    return next(t for t in graph.tensors if t.name == name.encode())


def test_layers_and_exits(tmp_path):
    path = tmp_path / "three.tflite"
    path.write_bytes(three_exits())
    network = read_network(path)
    assert network.name == "three"
    assert network.input.shape == (8, 6, 2)
    assert [layer.name for layer in network.layers] == [
        "conv0", "mean1", "fc2", "conv3", "pool5", "fc7", "pool9", "fc11",
    ]  # fmt: skip
    assert [exit.logits.name for exit in network.exits] == ["early", "middle", "logits"]
    assert [exit.output for exit in network.exits] == ["early", "p1", "p2"]
    assert [exit.beta for exit in network.exits] == [1.0, 0.5, 1.0]
    assert {(exit.classes, exit.scale, exit.zero_point) for exit in network.exits} == {(10, 0.5, -3)}
    assert network.aliases["flat"] == "average_pool_2d_5"
    first, mean, _, second, _, middle, pool, _ = network.layers
    assert isinstance(first, Conv) and isinstance(mean, Mean) and isinstance(pool, Pool)
    assert (first.kernel, first.stride, first.padding, first.clamp) == ((3, 3), (1, 1), (1, 1, 1, 1), (-3, 127))
    assert (second.kernel, second.stride, second.padding, second.clamp) == ((2, 3), (2, 1), (0, 1, 0, 1), (-3, 9))
    assert (pool.kernel, pool.stride, pool.padding) == ((3, 5), (2, 2), (0, 1, 1, 2))
    # 8 x 6 x 4 outputs of 18 taps; 4 x 6 x 5 of 24
    assert (first.macs, second.macs, mean.macs, pool.macs) == (3456, 2880, 0, 0)
    assert middle.kernel == (2, 2) and middle.output.shape == (1, 1, 10) and middle.macs == 200
    assert middle.rounding == "single" and first.rounding == "double"


def test_fully_connected_rounding_is_an_option():
    layers = parse_network(three_exits(), "n", rounding="micro").layers
    assert {layer.rounding for layer in layers if isinstance(layer, Conv)} == {"double"}
    with pytest.raises(ValueError, match="rounding is 'once', it must be one of litert, micro"):
        parse_network(three_exits(), "n", rounding="once")


def test_multipliers_follow_the_specification():
    conv = parse_network(three_exits(), "n").layers[0]
    real = 0.5 * float(np.float32(0.01)) / 0.5
    np.testing.assert_allclose(conv.multiplier * 2.0 ** (conv.shift - 31.0), real, rtol=2**-31)
    assert (conv.multiplier >= 1 << 30).all()


def test_reshapes_that_keep_every_byte_disappear():
    rng, net = np.random.default_rng(SEED), TfliteWriter()
    q = {"scale": 0.5, "zero_point": 0}
    x = net.input((1, 12), scale=1.0, zero_point=0)
    x = net.fully_connected(x, *constants(rng, 18, 12), **q)
    x = net.reshape(net.reshape(x, (1, 1, 1, 18)), (18,))
    x = net.fully_connected(net.reshape(x, (1, 18)), *constants(rng, 18, 18), **q)
    x = net.conv_2d(net.reshape(x, (1, 1, 1, 18)), *constants(rng, 10, 1, 1, 18), **q)
    x = net.conv_2d(net.reshape(net.flatten(x), (1, 1, 1, 10)), *constants(rng, 10, 3, 3, 10), **q)
    network = parse_network(net.to_bytes([net.softmax(net.flatten(x))]), "n")
    assert [layer.name for layer in network.layers] == ["fc0", "fc4", "conv6", "conv9"]


def test_tensors_of_one_name_stay_apart():
    def rename(model, graph):
        for t in graph.tensors:
            t.name = b"same"

    network = parse_network(edited(rename), "n")
    assert len(network.tensors) == 9
    assert [t.scale for t in network.tensors.values()] == [
        t.scale for t in parse_network(three_exits(), "n").tensors.values()
    ]


# --- refusals ---------------------------------------------------------------------------------------------------------


def set_tensor(name, **fields):
    def edit(model, graph):
        for key, value in fields.items():
            setattr(tensor(graph, name), key, value)

    return edit


def set_quantization(name, **fields):
    def edit(model, graph):
        for key, value in fields.items():
            setattr(tensor(graph, name).quantization, key, value)

    return edit


def set_options(operator, **fields):
    def edit(model, graph):
        for key, value in fields.items():
            setattr(graph.operators[operator].builtinOptions, key, value)

    return edit


def set_operator(operator, **fields):
    def edit(model, graph):
        for key, value in fields.items():
            setattr(graph.operators[operator], key, value)

    return edit


def set_graph(**fields):
    def edit(model, graph):
        for key, value in fields.items():
            setattr(graph, key, value)

    return edit


def cut_data(name):
    def edit(model, graph):
        model.buffers[tensor(graph, name).buffer].data = np.zeros(3, np.uint8)

    return edit


def set_axes(axes):
    def edit(model, graph):
        model.buffers[tensor(graph, "mean_1/axes").buffer].data = np.array(axes, "<i4").view(np.uint8)

    return edit


def quantization(scale, zero_point):
    return schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])


def set_outputs(*names):
    """Without softmax operators, outputs by name."""

    def edit(model, graph):
        graph.operators = [op for op in graph.operators if not isinstance(op.builtinOptions, schema.SoftmaxOptionsT)]
        graph.outputs = [graph.tensors.index(tensor(graph, name)) for name in names]

    return edit


def swap_outputs(order):
    def edit(model, graph):
        graph.outputs = [graph.outputs[i] for i in order]

    return edit


OPERATORS = "ADD, AVERAGE_POOL_2D, CONCATENATION, CONV_2D, DEPTHWISE_CONV_2D, DEQUANTIZE, EXPAND_DIMS, FULLY_CONNECTED"
REFUSED = {
    # name: (edit, pieces of the message after the file name)
    "unknown operator": (
        lambda model, graph: setattr(model.operatorCodes[0], "builtinCode", schema.BuiltinOperator.MUL),
        ["operator 0 MUL", "'first'", "unsupported operator; supported: " + OPERATORS],
    ),
    "operator number": (
        lambda model, graph: setattr(model.operatorCodes[0], "builtinCode", 9999),
        ["operator 0 9999", OPERATORS],
    ),
    "two subgraphs": (lambda model, graph: model.subgraphs.append(graph), ["2 subgraphs; supported: 1 subgraph"]),
    "version": (lambda model, graph: setattr(model, "version", 2), ["schema version 2"]),
    "no outputs": (set_outputs(), ["no outputs"]),
    "two inputs": (set_graph(inputs=[0, 0]), ["2 inputs; supported: 1 input"]),
    "input out of range": (set_graph(inputs=[99]), ["input of the network is tensor 99"]),
    "input as output": (set_outputs("image"), ["tensor 0 'image'", "the input is an output"]),
    "output never made": (set_outputs("first/weights"), ["tensor 1 'first/weights'", "not made by"]),
    "outputs swapped": (swap_outputs([1, 0, 2]), ["'p1', 'early'", "shallow to deep"]),
    "outputs equal": (set_outputs("early", "logits", "logits"), ["two outputs show the same logits"]),
    "float input": (set_tensor("image", type=schema.TensorType.FLOAT32), ["'image'", "type FLOAT32", "int8 tensors"]),
    "uint8 tensor": (
        set_tensor("logits", type=schema.TensorType.UINT8, quantization=quantization(0.5, 3)),
        ["'logits'", "input INT8, output UINT8; supported: operators of one type"],
    ),
    "int16 logits": (set_tensor("early", type=schema.TensorType.INT16), ["FULLY_CONNECTED", "'early'", "type INT16"]),
    "no scale": (set_tensor("image", quantization=None), ["'image'", "scales ()"]),
    "negative scale": (set_quantization("first", scale=[-1.0]), ["'first'", "positive scales"]),
    "scale not a number": (set_quantization("first", scale=[float("nan")]), ["'first'", "positive scales"]),
    "zero point": (set_quantization("first", zeroPoint=[200]), ["'first'", "zero points (200,)"]),
    "batch": (set_tensor("image", shape=[2, 8, 6, 2]), ["'image'", "shape [2, 8, 6, 2]", "batch 1"]),
    "rank": (set_tensor("image", shape=[1, 8, 12]), ["'image'", "shape [1, 8, 12]", "[1, h, w, c]"]),
    "dynamic": (set_tensor("image", shapeSignature=[-1, -1, 6, 2]), ["'image'", "dynamic shape [-1, -1, 6, 2]"]),
    "empty": (set_tensor("image", shape=[1, 0, 6, 2]), ["'image'", "dimensions of at least 1"]),
    "variable": (set_tensor("second", isVariable=True), ["'second'", "without state"]),
    "buffer": (set_tensor("second", buffer=1000), ["'second'", "buffer 1000"]),
    "weights zero point": (set_quantization("first/weights", zeroPoint=[1]), ["'first/weights'", "zero points 0"]),
    "scale count": (
        set_quantization("first/weights", scale=[1.0] * 3, zeroPoint=[0] * 3),
        ["operator 0 CONV_2D", "'first/weights'", "3 scales", "one per output channel (4)"],
    ),
    "scale axis": (
        set_quantization("first/weights", scale=[1.0] * 4, zeroPoint=[0] * 4, quantizedDimension=3),
        ["'first/weights'", "scales along dimension 3"],
    ),
    "weights type": (set_tensor("first/weights", type=schema.TensorType.INT4), ["'first/weights'", "INT4"]),
    "weights computed": (set_tensor("first/weights", buffer=0), ["'first/weights'", "computed INT8", "constant INT8"]),
    "weights short": (cut_data("first/weights"), ["'first/weights'", "3 bytes of data for shape [4, 3, 3, 2]"]),
    "groups": (set_tensor("first/weights", shape=[2, 3, 3, 4]), ["'first/weights'", "whole groups of channels"]),
    "bias type": (set_tensor("first/bias", type=schema.TensorType.INT64), ["'first/bias'", "INT64", "constant INT32"]),
    "accumulator": (set_quantization("first", scale=[1e-9]), ["operator 0 CONV_2D", "accumulators may reach"]),
    "dilation": (set_options(0, dilationHFactor=0), ["'first'", "dilation (0, 1)", "dilation of at least 1"]),
    "stride": (set_options(0, strideW=0), ["operator 0 CONV_2D", "stride (1, 0)"]),
    "padding": (set_options(0, padding=7), ["operator 0 CONV_2D", "padding 7; supported: SAME, VALID"]),
    "activation": (set_options(0, fusedActivationFunction=4), ["'first'", "activation TANH; supported: NONE, RELU"]),
    "shape": (set_options(0, padding=1), ["'first'", "shape [1, 8, 6, 4], expected height and width [6, 4]"]),
    "no options": (
        set_operator(0, builtinOptions=None, builtinOptionsType=0),
        ["operator 0 CONV_2D", "options missing"],
    ),
    "inputs missing": (set_operator(0, inputs=[0]), ["operator 0 CONV_2D", "supported: 2..3 inputs"]),
    "input optional": (set_operator(0, inputs=[-1, 1, 2]), ["operator 0 CONV_2D"]),
    "operand": (set_operator(0, inputs=[0, 1, 77]), ["an input of operator 0 is tensor 77"]),
    "order": (lambda model, graph: graph.operators.reverse(), ["not made by an earlier operator"]),
    "made twice": (set_operator(3, outputs=[3]), ["tensor 3 'first'"]),
    "shuffled weights": (set_options(2, weightsFormat=1), ["operator 2 FULLY_CONNECTED", "default format"]),
    "matrix": (set_tensor("early/weights", shape=[20, 2]), ["2 FULLY_CONNECTED", "'early/weights'", "whole input"]),
    "mean axes": (set_axes([1, 3]), ["operator 1 MEAN", "axes [1, 3]", "axes 1 and 2"]),
    "pool scale": (set_quantization("average_pool_2d_5", scale=[0.7]), ["operator 5 AVERAGE_POOL_2D", "keep them"]),
    "pool window": (set_options(5, filterHeight=0), ["operator 5 AVERAGE_POOL_2D", "kernel (0, 3)"]),
    "reshape scale": (set_quantization("flat", scale=[0.7]), ["operator 6 RESHAPE", "'flat'", "keep every byte"]),
    "softmax beta": (set_options(8, beta=-1.0), ["operator 8 SOFTMAX", "'p1'", "beta -1.0"]),
    "softmax inside": (swap_outputs([0, 2]), ["operator 8 SOFTMAX", "'p1'", "last operator of an exit"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_file_operator_tensor_and_what_is_supported(case):
    edit, pieces = REFUSED[case]
    with pytest.raises(UnsupportedNetwork) as error:
        parse_network(edited(edit), "folder/bad.tflite")
    message = str(error.value)
    assert message.startswith("folder/bad.tflite") and "; supported: " in message and "\n" not in message
    for piece in pieces:
        assert piece in message


def writer_case(build) -> bytes:
    rng, net = np.random.default_rng(SEED), TfliteWriter()
    x = net.input((1, 4, 4, 4), scale=0.5, zero_point=0, name="image")
    x = build(net, x, rng, {"scale": 0.5, "zero_point": 0})
    return net.to_bytes([net.softmax(x)])


SHAPES = {
    "exit is an image": (lambda net, x, rng, q: net.average_pool_2d(x, 2), "softmax over one vector"),
    "image reshaped": (
        lambda net, x, rng, q: net.mean(net.reshape(net.relu(x), (1, 2, 8, 4))),
        r"shape \[1, 2, 8, 4\] reshaped from \[1, 4, 4, 4\]; supported: flattening reshapes",
    ),
    "softmax inside": (
        lambda net, x, rng, q: net.fully_connected(net.softmax(net.mean(x)), *constants(rng, 3, 4), **q),
        "SOFTMAX is not at an output",
    ),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_are_refused(case):
    build, message = SHAPES[case]
    with pytest.raises(UnsupportedNetwork, match=message):
        parse_network(writer_case(build), "n")


def test_damaged_files_give_the_same_clean_error():
    data, rng = three_exits(), np.random.default_rng(SEED)
    for length in (0, 3, 8, 100, *rng.integers(9, len(data), 60)):
        with pytest.raises(UnsupportedNetwork, match=r"^cut\.tflite"):
            parse_network(data[:length], "cut.tflite")
    for _ in range(400):
        damaged = bytearray(data)
        for place in rng.integers(8, len(data), rng.integers(1, 12)):
            damaged[place] = rng.integers(256)
        try:
            parse_network(bytes(damaged), "hit.tflite")  # a changed weight is still a network
        except UnsupportedNetwork as error:
            assert str(error).startswith("hit.tflite")
    with pytest.raises(UnsupportedNetwork, match=r"text\.md: not a \.tflite file"):
        parse_network(b"# a text file, not a flatbuffer", "text.md")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_network(tmp_path / "none.tflite")
