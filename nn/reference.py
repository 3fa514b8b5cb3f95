"""Integer reference executor: what every tensor of a network must be, bit for bit.

Equal to the reference kernels of TensorFlow Lite (ai-edge-litert, BUILTIN_REF). Sums run in float64 matrix products,
which are exact here: |x - zero_point| < 2**8, |w| < 2**8 and fewer than 2**37 taps stay below 2**53.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .graph import Add, Concat, Conv, Depthwise, Layer, MaxPool, Mean, Network, Pad, Pool, Window
from .quantize import ADD_SHIFT, INT8_MIN, Rounding, average, requantise, requantise_and_clamp

__all__ = ["run", "run_layer"]

# Images at a time: bounds the memory of the im2col matrices, which live as float64.
_CHUNK_BYTES = 64 << 20


def _padded(x: np.ndarray, padding: tuple[int, int, int, int], value: int = 0) -> np.ndarray:
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def _windows(x: np.ndarray, layer: Window, outside: int = 0) -> np.ndarray:
    """View [n, out_h, out_w, c, kh, kw] of x [n, h, w, c], padded with ``outside``."""
    sy, sx = layer.stride
    return sliding_window_view(_padded(x, layer.padding, outside), layer.kernel, axis=(1, 2))[:, ::sy, ::sx]


def _conv(layer: Conv, x: np.ndarray) -> np.ndarray:
    out, kh, kw, channels = layer.weights.shape
    centred = x.astype(np.float64) - layer.input.zero_point  # so that padding is zero
    rows = _windows(centred, layer).reshape(-1, channels * kh * kw)
    weights = layer.weights.transpose(3, 1, 2, 0).reshape(-1, out).astype(np.float64)
    acc = (rows @ weights).astype(np.int64) + layer.bias
    y = requantise_and_clamp(acc, layer.multiplier, layer.shift, layer.rounding, layer.output.zero_point, layer.clamp)
    return y.reshape(len(x), *layer.output.shape)


def _depthwise(layer: Depthwise, x: np.ndarray) -> np.ndarray:
    sy, sx = layer.stride
    out_h, out_w, _ = layer.output.shape
    padded = _padded(x.astype(np.int64) - layer.input.zero_point, layer.padding)
    padded = np.repeat(padded, layer.depth_multiplier, axis=3)  # output channel o reads o // depth_multiplier
    acc = np.broadcast_to(layer.bias.astype(np.int64), (len(x), *layer.output.shape)).copy()
    for ky, kx in np.ndindex(*layer.kernel):
        taps = padded[:, ky : ky + (out_h - 1) * sy + 1 : sy, kx : kx + (out_w - 1) * sx + 1 : sx]
        acc += taps * layer.weights[:, ky, kx]
    return requantise_and_clamp(
        acc, layer.multiplier, layer.shift, layer.rounding, layer.output.zero_point, layer.clamp
    )


def _pool(layer: Pool, x: np.ndarray) -> np.ndarray:
    total = _windows(x.astype(np.int64), layer).sum((-2, -1))
    inside = _windows(np.ones((1, *layer.input.shape[:2], 1), np.int64), layer).sum((-2, -1))
    return np.clip(average(total, inside, layer.half_up), *layer.clamp).astype(np.int8)


def _max_pool(layer: MaxPool, x: np.ndarray) -> np.ndarray:
    return np.clip(_windows(x, layer, INT8_MIN).max((-2, -1)), *layer.clamp).astype(np.int8)


def _pad(layer: Pad, x: np.ndarray) -> np.ndarray:
    return _padded(x, layer.padding, layer.value)


def _mean(layer: Mean, x: np.ndarray) -> np.ndarray:
    acc = x.sum((1, 2), dtype=np.int64, keepdims=True) + layer.bias
    return requantise_and_clamp(
        acc, layer.multiplier, layer.shift, layer.rounding, layer.output.zero_point, layer.clamp
    )


def _add(layer: Add, x: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = (
        requantise((v.astype(np.int64) - tensor.zero_point) << ADD_SHIFT, *factor)
        for v, tensor, factor in ((x, layer.input, layer.left), (other, layer.other, layer.right))
    )
    return requantise_and_clamp(a + b, *layer.result, Rounding.DOUBLE, layer.output.zero_point, layer.clamp)


def _concat(layer: Concat, *parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts, axis=3)


_EXECUTORS = {
    Add: _add,
    Concat: _concat,
    Conv: _conv,
    Depthwise: _depthwise,
    MaxPool: _max_pool,
    Mean: _mean,
    Pad: _pad,
    Pool: _pool,
}


def _im2col_bytes(layer: Layer) -> int:
    """Bytes of one sample's float64 matrix in _conv."""
    return 8 * layer.macs // layer.output.channels


def run_layer(layer: Layer, *inputs: np.ndarray) -> np.ndarray:
    """Output int8 [n, h, w, c] of one layer from its inputs int8 [n, h, w, c], in the order of ``layer.inputs``."""
    images = max(1, _CHUNK_BYTES // max(1, _im2col_bytes(layer)))
    execute = _EXECUTORS[type(layer)]
    parts = [execute(layer, *(x[i : i + images] for x in inputs)) for i in range(0, len(inputs[0]), images)]
    return np.concatenate(parts) if parts else np.empty((0, *layer.output.shape), np.int8)


def run(network: Network, image: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors by name, int8 [h, w, c], of one image int8 [h, w, c]; with a batch [n, h, w, c] in, [n, h, w, c].

    Every layer runs, the heads of all exits included; ``exits.decide`` tells which of them a sample would take.
    Raises ValueError for an image of another type or shape.
    """
    image = np.asarray(image)
    if image.dtype != np.int8 or image.shape[-3:] != network.input.shape or image.ndim not in (3, 4):
        raise ValueError(
            f"{network.name}: image is {image.dtype} {list(image.shape)}, it must be int8 "
            f"{list(network.input.shape)}, with or without a leading batch"
        )
    single = image.ndim == 3
    tensors = {network.input.name: image[None] if single else image}
    for layer in network.layers:
        tensors[layer.output.name] = run_layer(layer, *(tensors[t.name] for t in layer.inputs))
    return {name: x[0] for name, x in tensors.items()} if single else tensors
