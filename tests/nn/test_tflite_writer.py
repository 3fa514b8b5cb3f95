"""Every operator the writer knows, run by the reference kernels and compared with the same operation in float."""

import math

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fluidnpu.nn.tflite_writer import TfliteWriter, quantise_weights

ACTIVATIONS = {"NONE": lambda x: x, "RELU": lambda x: np.maximum(x, 0), "RELU6": lambda x: np.clip(x, 0, 6)}


def run(model: bytes, *inputs: np.ndarray) -> list[np.ndarray]:
    """Outputs of the network in file order."""
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


def real(values: np.ndarray, tensor) -> np.ndarray:
    """The float numbers that int8 values of `tensor` stand for."""
    return (values.astype(np.float64) - tensor.zero_point) * tensor.scale


def check(values: np.ndarray, tensor, expected: np.ndarray) -> None:
    """int8 `values` of `tensor` are the float `expected`, saturated, within one step."""
    assert values.dtype == np.int8 and values.shape == tensor.shape == expected.shape
    steps = np.clip(expected / tensor.scale + tensor.zero_point, -128, 127)
    assert np.abs(values - steps).max() <= 1.0


def windows(x: np.ndarray, kernel, stride, dilation, padding, fill: float) -> np.ndarray:
    """[H, W, C] to [out_h, out_w, kh, kw, C], by TensorFlow's definition of SAME and VALID, one loop per tap."""
    sizes, before, padded = [], [], []
    for size, taps, step, spread in zip(x.shape, kernel, stride, dilation, strict=False):
        extent = (taps - 1) * spread + 1
        out = math.ceil(size / step) if padding == "SAME" else (size - extent) // step + 1
        total = max((out - 1) * step + extent - size, 0) if padding == "SAME" else 0
        sizes.append(out)
        before.append(total // 2)
        padded.append((total // 2, total - total // 2))
    x = np.pad(x, (*padded, (0, 0)), constant_values=fill)
    result = np.empty((*sizes, *kernel, x.shape[2]))
    for y in range(sizes[0]):
        for z in range(sizes[1]):
            for i in range(kernel[0]):
                for j in range(kernel[1]):
                    result[y, z, i, j] = x[y * stride[0] + i * dilation[0], z * stride[1] + j * dilation[1]]
    return result


def fitting(expected: np.ndarray, rng: np.random.Generator) -> dict:
    """An output quantisation that uses the int8 range and saturates a little at one end."""
    peak = max(np.abs(expected).max(), 1e-3)
    return {"scale": float(peak / rng.integers(90, 160)), "zero_point": int(rng.integers(-30, 31))}


def random_input(net: TfliteWriter, rng: np.random.Generator, shape) -> tuple:
    tensor = net.input(shape, scale=float(rng.uniform(0.005, 0.1)), zero_point=int(rng.integers(-128, 128)))
    return tensor, rng.integers(-128, 128, shape).astype(np.int8)


WINDOWED = [  # kernel, stride, dilation, padding
    ((3, 3), (1, 1), (1, 1), "SAME"),
    ((3, 3), (2, 2), (1, 1), "SAME"),
    ((1, 1), (2, 1), (1, 1), "SAME"),
    ((3, 5), (1, 2), (1, 1), "VALID"),
    ((2, 3), (1, 1), (2, 1), "SAME"),
    ((3, 3), (1, 1), (2, 2), "VALID"),
]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("kernel", "stride", "dilation", "padding"), WINDOWED)
@pytest.mark.parametrize("multiplier", [None, 1, 2], ids=["conv", "depthwise", "depthwise2"])
def test_convolutions(kernel, stride, dilation, padding, activation, multiplier):
    rng = np.random.default_rng(1)
    net = TfliteWriter()
    x, values = random_input(net, rng, (1, 7, 8, 5))
    depthwise = multiplier is not None
    channels = 5 * multiplier if depthwise else 6
    shape = (1, *kernel, channels) if depthwise else (channels, *kernel, 5)
    weights, scales = quantise_weights(rng.normal(size=shape), axis=3 if depthwise else 0)
    bias = rng.integers(-500, 500, channels).astype(np.int32)

    taps = windows(real(values, x)[0], kernel, stride, dilation, padding, fill=0.0)
    if depthwise:
        taps = np.repeat(taps, multiplier, axis=-1)  # output channel c reads input channel c // multiplier
        expected = np.einsum("yxijc,ijc->yxc", taps, weights[0] * scales.astype(float))
    else:
        expected = np.einsum("yxijc,oijc->yxo", taps, weights * scales.astype(float)[:, None, None, None])
    expected = ACTIVATIONS[activation](expected + bias * x.scale * scales)[None]

    add = net.depthwise_conv_2d if depthwise else net.conv_2d
    y = add(
        x, weights, bias, scales, stride=stride, dilation=dilation, padding=padding, activation=activation,
        **fitting(expected, rng),
    )  # fmt: skip
    check(run(net.to_bytes([y]), values)[0], y, expected)


@pytest.mark.parametrize("axis", [None, 0], ids=["per_tensor", "per_channel"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fully_connected(axis, activation):
    rng = np.random.default_rng(2)
    net = TfliteWriter()
    x, values = random_input(net, rng, (1, 37))
    weights, scales = quantise_weights(rng.normal(size=(10, 37)) * rng.uniform(0.1, 1, (10, 1)), axis)
    bias = rng.integers(-500, 500, 10).astype(np.int32)
    expected = real(values, x) @ (weights * scales.astype(float)[:, None]).T + bias * x.scale * scales
    expected = ACTIVATIONS[activation](expected)
    y = net.fully_connected(x, weights, bias, scales, activation=activation, **fitting(expected, rng))
    check(run(net.to_bytes([y]), values)[0], y, expected)


@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(2, None, "VALID"), ((3, 2), (2, 1), "SAME"), (3, 1, "SAME")]
)
@pytest.mark.parametrize("operator", ["average_pool_2d", "max_pool_2d"])
def test_pools(operator, window, stride, padding):
    rng = np.random.default_rng(3)
    net = TfliteWriter()
    x, values = random_input(net, rng, (1, 7, 8, 5))
    y = getattr(net, operator)(x, window, stride=stride, padding=padding)
    pair = (window, window) if isinstance(window, int) else window
    steps = pair if stride is None else (stride, stride) if isinstance(stride, int) else stride
    taps = windows(real(values, x)[0], pair, steps, (1, 1), padding, fill=np.nan)  # taps outside do not count
    expected = (np.nanmean if operator == "average_pool_2d" else np.nanmax)(taps, axis=(2, 3))
    assert (y.scale, y.zero_point) == (x.scale, x.zero_point)
    check(run(net.to_bytes([y]), values)[0], y, expected[None])


def test_mean_add_reshape_softmax_in_one_network():
    """Several inputs, and outputs in the order given rather than that of the operators."""
    rng = np.random.default_rng(4)
    net = TfliteWriter("mixed")
    a, a_values = random_input(net, rng, (1, 4, 6, 5))
    b, b_values = random_input(net, rng, (1, 4, 6, 5))
    a_real, b_real = real(a_values, a), real(b_values, b)
    total = net.add(a, b, **fitting(a_real + b_real, rng))
    relu = net.add(a, b, activation="RELU", **fitting(a_real + b_real, rng))
    mean = net.mean(a)
    rescaled = net.mean(a, keep_dims=True, scale=a.scale / 2, zero_point=3)
    shaped = net.reshape(a, (1, 8, 15))
    softmax = net.softmax(mean)
    outputs = [softmax, shaped, rescaled, mean, relu, total]
    results = run(net.to_bytes(outputs), a_values, b_values)
    power = np.exp(real(results[3], mean))
    check(results[0], softmax, power / power.sum())
    np.testing.assert_array_equal(results[1], a_values.reshape(1, 8, 15))
    check(results[2], rescaled, a_real.mean((1, 2), keepdims=True))
    check(results[3], mean, a_real.mean((1, 2)))
    check(results[4], relu, np.maximum(a_real + b_real, 0))
    check(results[5], total, a_real + b_real)
    assert (softmax.scale, softmax.zero_point) == (1 / 256, -128)


@pytest.mark.parametrize("seed", range(8))
def test_random_early_exit_networks_run(seed):
    """Trunks of random depth with an exit head behind every layer: shapes, order and that every head answers."""
    rng = np.random.default_rng(seed)
    net = TfliteWriter()
    x, values = random_input(net, rng, (1, *(int(n) for n in rng.integers(5, 12, 2)), int(rng.integers(1, 5))))
    outputs, classes = [], int(rng.integers(2, 12))
    for _ in range(int(rng.integers(1, 5))):
        channels = int(rng.integers(1, 20))
        kernel = tuple(int(n) for n in rng.integers(1, 4, 2))
        weights, scales = quantise_weights(rng.normal(size=(channels, *kernel, x.shape[3])), axis=0)
        bias = rng.integers(-200, 200, channels).astype(np.int32)
        stride = int(rng.integers(1, 3)) if min(x.shape[1:3]) > 2 else 1
        x = net.conv_2d(x, weights, bias, scales, scale=0.1, zero_point=-128, stride=stride, activation="RELU")
        pooled = net.mean(x) if rng.integers(2) else net.flatten(net.average_pool_2d(x, x.shape[1:3]))
        matrix, scales = quantise_weights(rng.normal(size=(classes, channels)), axis=None)
        logits = net.fully_connected(pooled, matrix, np.zeros(classes, np.int32), scales, scale=0.2, zero_point=0)
        outputs.append(net.softmax(logits))
    results = run(net.to_bytes(outputs), values)
    for result, output in zip(results, outputs, strict=True):
        assert result.shape == output.shape == (1, classes)
        assert abs((result.astype(int) + 128).sum() - 256) <= classes


def small_network() -> tuple[TfliteWriter, list]:
    net = TfliteWriter("small")
    x = net.input((1, 6, 6, 3), scale=0.5, zero_point=-1)
    weights, scales = quantise_weights(np.random.default_rng(5).normal(size=(4, 3, 3, 3)), axis=0)
    y = net.conv_2d(x, weights, np.arange(4, dtype=np.int32), scales, scale=0.25, zero_point=7, name="first")
    return net, [y, net.mean(y)]


def test_file_layout(tmp_path):
    """Identifier, per-channel quantisation and bias scales as the specification says; constants aligned to 16 bytes."""
    net, outputs = small_network()
    net.save(tmp_path / "small.tflite", outputs)
    data = (tmp_path / "small.tflite").read_bytes()
    assert data == net.to_bytes(outputs) and data[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(data, 0)
    starts = []
    for i in range(model.BuffersLength()):
        content = model.Buffers(i).DataAsNumpy()
        if isinstance(content, np.ndarray):
            starts.append(content.__array_interface__["data"][0] - np.frombuffer(data, np.uint8).ctypes.data)
    assert len(starts) == 3 and all(start % 16 == 0 for start in starts)
    tensors = {t.name.decode(): t for t in schema.ModelT.InitFromObj(model).subgraphs[0].tensors}
    weights, bias = tensors["first/weights"].quantization, tensors["first/bias"].quantization
    assert weights.quantizedDimension == 0 and len(weights.scale) == 4 and not np.any(weights.zeroPoint)
    np.testing.assert_array_equal(bias.scale, np.float32(0.5) * np.asarray(weights.scale, np.float32))
    assert tensors["first"].quantization.zeroPoint[0] == 7


def test_quantise_weights():
    weights = np.array([[0.0, 0.0], [1.27, -0.635], [-2.54, 0.02]])
    quantised, scales = quantise_weights(weights, axis=0)
    np.testing.assert_allclose(scales, [1 / 127, 0.01, 0.02], rtol=1e-6)
    np.testing.assert_array_equal(quantised, [[0, 0], [127, -64], [-127, 1]])
    quantised, scales = quantise_weights(weights, axis=None)
    np.testing.assert_array_equal(quantised, [[0, 0], [64, -32], [-127, 1]])
    assert scales.shape == (1,)


W = np.ones((4, 3, 3, 3), np.int8)
B = np.zeros(4, np.int32)
BAD = {
    "first: weights float64 [4, 3, 3, 3] must be int8 ['any', 'any', 'any', 3]": {"weights": W.astype(float)},
    "first: weights int8 [4, 3, 3, 2] must be int8 ['any', 'any', 'any', 3]": {"weights": W[..., :2]},
    "first: weight -128 must be in -127..127": {"weights": W - np.int8(127) - np.int8(2)},
    "first: bias int64 [4] must be int32 [4]": {"bias": B.astype(np.int64)},
    "first: weight_scale must be 1 or 4 finite numbers above 0": {"weight_scale": [1.0, 2.0]},
    "first: stride 0 must be one number or two, at least 1": {"stride": 0},
    "first: padding 'FULL' must be one of SAME, VALID": {"padding": "FULL"},
    "first: activation 'TANH' must be one of NONE, RELU, RELU6": {"activation": "TANH"},
    "first: a window of 7 pixels must fit in the input's 6": {"dilation": 3, "padding": "VALID"},
    "first: scale 0.0 must be finite and above 0": {"scale": 0.0},
    "first: zero point 128 must be in -128..127": {"zero_point": 128},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_convolution(message):
    net = TfliteWriter()
    x = net.input((1, 6, 6, 3), scale=0.5, zero_point=0)
    arguments = {"weights": W, "bias": B, "weight_scale": 0.1, "scale": 0.1, "zero_point": 0, "name": "first"}
    with pytest.raises(ValueError) as error:
        net.conv_2d(x, **(arguments | BAD[message]))
    assert str(error.value) == message


def test_bad_shapes():
    net = TfliteWriter()
    x = net.input((1, 6, 6, 3), scale=0.5, zero_point=0)
    with pytest.raises(ValueError, match=r"f: input shape \[1, 9, 12\] must be \[batch, features\] or an image"):
        net.fully_connected(net.reshape(x, (1, 9, 12)), W[0, 0], B, 0.1, scale=0.1, zero_point=0, name="f")
    with pytest.raises(ValueError, match=r"c: shapes \[\[1, 6, 6, 3\], \[1, 108\]\] must differ in channels only"):
        net.concatenation([x, net.flatten(x)], name="c")
    with pytest.raises(ValueError, match=r"p: amounts \[\[0, 1\]\] must be 4 pairs of at least 0"):
        net.pad(x, [(0, 1)], name="p")
    with pytest.raises(ValueError, match="r: activation 'TANH' must be one of RELU, RELU6, RELU_N1_TO_1"):
        net.relu(x, "TANH", name="r")
    with pytest.raises(ValueError, match=r"m: input shape \[1, 108\] must be \[batch, height, width, channels\]"):
        net.mean(net.flatten(x), name="m")
    with pytest.raises(ValueError, match=r"r: \[1, 6, 6, 3\] to \[1, 100\] must keep the number of elements"):
        net.reshape(x, (1, 100), name="r")
    with pytest.raises(ValueError, match=r"a: shapes \[1, 6, 6, 3\] and \[1, 108\] must be equal"):
        net.add(x, net.flatten(x), scale=1.0, zero_point=0, name="a")
    with pytest.raises(ValueError, match="d: 4 channels must be a multiple of the input's 3"):
        net.depthwise_conv_2d(x, np.ones((1, 1, 1, 4), np.int8), B, 0.1, scale=1.0, zero_point=0, name="d")
    with pytest.raises(ValueError, match="at least one input, one operator and one output"):
        TfliteWriter().to_bytes([])
