"""The layers that a network is made of: int8 tensors in, int8 tensors out, one sample at a time.

A tensor is an image [h, w, c] (a vector is 1 x 1 x c). Every layer says in its docstring what it computes, bit for
bit; reference.py executes exactly that.
"""

from dataclasses import dataclass, field

import numpy as np

from .quantize import INT8_MAX, INT8_MIN, Rounding

__all__ = ["Add", "Concat", "Conv", "Depthwise", "Layer", "MaxPool", "Mean", "Pad", "Pool", "Tensor", "Window"]

WEIGHT_MAX = 255  # of int16 weights: what a uint8 weight minus a uint8 zero point can be


@dataclass(frozen=True)
class Tensor:
    """int8 image of one sample: real value = scale * (q - zero_point)."""

    name: str
    height: int
    width: int
    channels: int
    scale: float
    zero_point: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    @property
    def quantisation(self) -> tuple[float, int]:
        """(scale, zero_point)."""
        return self.scale, self.zero_point


@dataclass(frozen=True, eq=False)
class Layer:
    """What all layers share. ``name`` is short and unique ("conv3": operator 3 of the file)."""

    name: str
    input: Tensor
    output: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """All tensors that the layer reads, in the order in which reference.run_layer takes them."""
        return (self.input,)

    @property
    def macs(self) -> int:
        """Useful multiply-accumulates of one sample: padded taps count."""
        return 0

    def _same_quantisation(self, *tensors: Tensor) -> None:
        for t in tensors:
            if t.quantisation != self.output.quantisation:
                raise ValueError(
                    f"{self.name}: '{t.name}' has scale and zero point {t.quantisation}, the output has "
                    f"{self.output.quantisation}; they must be equal"
                )

    def _same_channels(self) -> None:
        if self.input.channels != self.output.channels:
            raise ValueError(
                f"{self.name}: {self.input.channels} input channels, {self.output.channels} output channels; they "
                "must be equal"
            )


@dataclass(frozen=True, eq=False)
class Window(Layer):
    """A layer that slides a window of kernel = (kh, kw) over its input.

    Output pixel (y, x) reads input rows y * sy - top .. + kh - 1 and columns x * sx - left .. + kw - 1.
    """

    stride: tuple[int, int] = field(kw_only=True)  # (sy, sx)
    padding: tuple[int, int, int, int] = field(kw_only=True, default=(0, 0, 0, 0))  # top, left, bottom, right
    clamp: tuple[int, int] = field(kw_only=True, default=(INT8_MIN, INT8_MAX))  # least and largest output

    def __post_init__(self) -> None:
        top, left, bottom, right = self.padding
        if min(self.padding) < 0:
            raise ValueError(f"{self.name}: padding {self.padding} must not be negative")
        for what, size, out, k, s, pad in (
            ("height", self.input.height, self.output.height, self.kernel[0], self.stride[0], top + bottom),
            ("width", self.input.width, self.output.width, self.kernel[1], self.stride[1], left + right),
        ):
            if k < 1 or s < 1 or size + pad < k or (size + pad - k) // s + 1 != out:
                raise ValueError(
                    f"{self.name}: output {what} {out} does not follow from input {size}, padding {pad}, "
                    f"kernel {k}, stride {s}"
                )

    @property
    def kernel(self) -> tuple[int, int]:
        """(kh, kw)."""
        raise NotImplementedError


def _check_parameters(layer: "Conv | Depthwise") -> None:
    """bias, multiplier, shift int32 [out_channels]; int16 weights within +-WEIGHT_MAX."""
    for what in ("bias", "multiplier", "shift"):
        a = getattr(layer, what)
        if a.dtype != np.int32 or a.shape != (layer.output.channels,):
            raise ValueError(f"{layer.name}: {what} must be int32 [{layer.output.channels}]")
    if layer.weights.dtype == np.int16 and np.abs(layer.weights.astype(np.int32)).max() > WEIGHT_MAX:
        raise ValueError(f"{layer.name}: int16 weights must be within -{WEIGHT_MAX}..{WEIGHT_MAX}")


@dataclass(frozen=True, eq=False)
class Conv(Window):
    """Convolution or fully connected layer:

        acc = bias[o] + sum over taps of (x - input.zero_point) * weights[o, ky, kx, c]
        y   = clamp(requantise(acc, multiplier[o], shift[o], rounding) + output.zero_point)

    A tap outside of the image reads the input zero point. The reader guarantees that no accumulator, shifted left
    by ``shift`` if positive, leaves the int32 range. Weights are int16 only where a uint8 weight minus its zero point
    does not fit int8 (they are within +-255).
    """

    weights: np.ndarray = field(kw_only=True)  # int8 or int16 [out_channels, kh, kw, in_channels]
    bias: np.ndarray = field(kw_only=True)  # int32 [out_channels], without the input zero point
    multiplier: np.ndarray = field(kw_only=True)  # int32 [out_channels]
    shift: np.ndarray = field(kw_only=True)  # int32 [out_channels], positive: left
    rounding: Rounding = field(kw_only=True, default=Rounding.DOUBLE)
    useful: int | None = field(kw_only=True, default=None)  # MACs, if weights were filled up with zeros

    def __post_init__(self) -> None:
        w, outs, ins = self.weights, self.output.channels, self.input.channels
        if w.dtype not in (np.int8, np.int16) or w.ndim != 4 or (w.shape[0], w.shape[3]) != (outs, ins):
            raise ValueError(
                f"{self.name}: weights are {w.dtype} {list(w.shape)}, they must be int8 or int16 "
                f"[{outs}, kh, kw, {ins}]"
            )
        _check_parameters(self)
        super().__post_init__()

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weights.shape[1], self.weights.shape[2]

    @property
    def macs(self) -> int:
        return self.output.height * self.output.width * self.weights.size if self.useful is None else self.useful


@dataclass(frozen=True, eq=False)
class Depthwise(Window):
    """Depthwise convolution: Conv whose output channel o reads input channel o // depth_multiplier alone.

    acc = bias[o] + sum over taps of (x[o // depth_multiplier] - input.zero_point) * weights[o, ky, kx]
    """

    weights: np.ndarray = field(kw_only=True)  # int8 or int16 [out_channels, kh, kw]
    bias: np.ndarray = field(kw_only=True)  # the rest as in Conv
    multiplier: np.ndarray = field(kw_only=True)
    shift: np.ndarray = field(kw_only=True)
    rounding: Rounding = field(kw_only=True, default=Rounding.DOUBLE)
    useful: int | None = field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        w, outs, ins = self.weights, self.output.channels, self.input.channels
        if w.dtype not in (np.int8, np.int16) or w.ndim != 3 or w.shape[0] != outs:
            raise ValueError(
                f"{self.name}: weights are {w.dtype} {list(w.shape)}, they must be int8 or int16 [{outs}, kh, kw]"
            )
        if outs % ins:
            raise ValueError(f"{self.name}: {outs} output channels must be a multiple of the input's {ins}")
        _check_parameters(self)
        super().__post_init__()

    @property
    def depth_multiplier(self) -> int:
        """Output channels per input channel."""
        return self.output.channels // self.input.channels

    @property
    def kernel(self) -> tuple[int, int]:
        return self.weights.shape[1], self.weights.shape[2]

    @property
    def macs(self) -> int:
        return self.output.height * self.output.width * self.weights.size if self.useful is None else self.useful


@dataclass(frozen=True, eq=False)
class _Pooling(Window):
    """A window over each channel for itself; input and output have the same channels, scale and zero point."""

    window: tuple[int, int] = field(kw_only=True)  # (kh, kw)

    def __post_init__(self) -> None:
        self._same_channels()
        self._same_quantisation(self.input)
        super().__post_init__()

    @property
    def kernel(self) -> tuple[int, int]:
        return self.window


@dataclass(frozen=True, eq=False)
class Pool(_Pooling):
    """Average pool: y = clamp(average(sum of the taps inside the image, their number)).

    Rounds half away from zero; with ``half_up`` half upwards, which is what uint8 networks do whose values are never
    negative.
    """

    half_up: bool = field(kw_only=True, default=False)


@dataclass(frozen=True, eq=False)
class MaxPool(_Pooling):
    """Largest of the taps inside the image: y = clamp(max(taps)). A padded tap never wins."""


@dataclass(frozen=True, eq=False)
class Pad(Window):
    """Border of a constant: y = x inside of the image, ``value`` outside. Window (1, 1), stride (1, 1), no clamp.

    The reader folds borders of the zero point into the padding of the convolutions that read them; what is left is
    what a pool reads, what leaves the network, and borders of another value.
    """

    stride: tuple[int, int] = field(kw_only=True, default=(1, 1))
    value: int = field(kw_only=True)

    def __post_init__(self) -> None:
        self._same_channels()
        self._same_quantisation(self.input)
        if self.stride != (1, 1) or self.clamp != (INT8_MIN, INT8_MAX) or not INT8_MIN <= self.value <= INT8_MAX:
            raise ValueError(
                f"{self.name}: stride {self.stride}, clamp {self.clamp}, value {self.value}; a Pad has stride (1, 1), "
                f"no clamp and a value within {INT8_MIN}..{INT8_MAX}"
            )
        super().__post_init__()

    @property
    def kernel(self) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True, eq=False)
class Mean(Layer):
    """Mean over the whole image: y = clamp(requantise(sum + bias, multiplier, shift, rounding) + output.zero_point).

    bias is -input.zero_point * height * width and the multiplier holds 1 / (height * width).
    """

    bias: int
    multiplier: int
    shift: int
    rounding: Rounding = Rounding.DOUBLE
    clamp: tuple[int, int] = (INT8_MIN, INT8_MAX)

    @property
    def kernel(self) -> tuple[int, int]:
        """(kh, kw): the image."""
        return self.input.height, self.input.width


@dataclass(frozen=True, eq=False)
class Add(Layer):
    """Sum of two tensors of one shape, each with its own scale:

        a = requantise((input - input.zero_point) << 20, *left)
        b = requantise((other - other.zero_point) << 20, *right)
        y = clamp(requantise(a + b, *result) + output.zero_point)                  all of them round twice

    left, right and result are (multiplier, shift), shift <= 0: TensorFlow Lite's factors input.scale / twice,
    other.scale / twice and twice / (2**20 * output.scale) with twice = 2 * max(input.scale, other.scale).
    """

    other: Tensor = field(kw_only=True)
    left: tuple[int, int] = field(kw_only=True)
    right: tuple[int, int] = field(kw_only=True)
    result: tuple[int, int] = field(kw_only=True)
    clamp: tuple[int, int] = field(kw_only=True, default=(INT8_MIN, INT8_MAX))

    def __post_init__(self) -> None:
        for t in (self.input, self.other):
            if t.shape != self.output.shape:
                raise ValueError(
                    f"{self.name}: '{t.name}' is {list(t.shape)}, the sum is {list(self.output.shape)}; they must be "
                    "equal"
                )
        for what in ("left", "right", "result"):
            multiplier, shift = getattr(self, what)
            if not 0 <= multiplier < 1 << 31 or not -31 <= shift <= 0:
                raise ValueError(
                    f"{self.name}: {what} is ({multiplier}, {shift}), allowed are multipliers 0..2**31 - 1 and shifts "
                    "-31..0"
                )

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.input, self.other

    @property
    def kernel(self) -> tuple[int, int]:
        """(1, 1): one pixel at a time."""
        return 1, 1


@dataclass(frozen=True, eq=False)
class Concat(Layer):
    """Tensors of one height, width, scale and zero point, one behind the other along the channels.

    ``input`` is parts[0].
    """

    parts: tuple[Tensor, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        if not self.parts or self.parts[0] is not self.input:
            raise ValueError(f"{self.name}: a Concat has at least one part, and the first one is its input")
        self._same_quantisation(*self.parts)
        for t in self.parts:
            if t.shape[:2] != self.output.shape[:2]:
                raise ValueError(
                    f"{self.name}: '{t.name}' is {t.height} x {t.width}, the output is {self.output.height} x "
                    f"{self.output.width}; they must be equal"
                )
        if sum(t.channels for t in self.parts) != self.output.channels:
            raise ValueError(
                f"{self.name}: parts of {[t.channels for t in self.parts]} channels do not make {self.output.channels}"
            )

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.parts

    @property
    def offsets(self) -> tuple[int, ...]:
        """First output channel of each part."""
        return tuple(sum(t.channels for t in self.parts[:i]) for i in range(len(self.parts)))
