"""The parts of a .tflite file that all operators share: tensors, constants, operator entries, the file itself.

All constants are stored 16-byte aligned, as the schema demands.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

__all__ = ["RANGES", "AlignedBuffer", "Op", "Tensor", "TfliteBuilder"]

Op = schema.BuiltinOperator
OptionsKind = schema.BuiltinOptions

TYPES = {
    "int8": schema.TensorType.INT8,
    "uint8": schema.TensorType.UINT8,
    "int32": schema.TensorType.INT32,
    "float32": schema.TensorType.FLOAT32,
}

RANGES = {"int8": (-128, 127), "uint8": (0, 255)}  # of activations

# The operator versions that introduced int8 (FULLY_CONNECTED 12: per-channel weights).
VERSIONS = {
    Op.ADD: 2,
    Op.AVERAGE_POOL_2D: 2,
    Op.CONCATENATION: 2,
    Op.CONV_2D: 3,
    Op.DEQUANTIZE: 2,
    Op.DEPTHWISE_CONV_2D: 3,
    Op.FULLY_CONNECTED: 4,
    Op.MAX_POOL_2D: 2,
    Op.MEAN: 2,
    Op.PAD: 2,
    Op.PADV2: 2,
    Op.QUANTIZE: 2,
    Op.RELU: 2,
    Op.RELU6: 2,
    Op.RELU_N1_TO_1: 1,
    Op.RESHAPE: 1,
    Op.SOFTMAX: 2,
    Op.SQUEEZE: 1,
}


@dataclass(frozen=True)
class Tensor:
    """An activation of the network being written: its index in the file, shape and quantisation."""

    index: int
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    name: str


class AlignedBuffer(schema.BufferT):
    """A constant whose bytes start at a multiple of 16: the object API itself ignores the schema's force_align."""

    def Pack(self, builder):
        builder.StartVector(1, len(self.data), 16)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        data = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


class TfliteBuilder:
    """Collects tensors and operators of one network.

    Parameters: ``description`` of the file; ``dtype`` of the activations, "int8" or "uint8".
    """

    def __init__(self, description: str = "", dtype: str = "int8"):
        if dtype not in RANGES:
            raise ValueError(f"dtype {dtype!r} must be one of {', '.join(RANGES)}")
        self.description, self.dtype = description, dtype
        self._tensors: list[schema.TensorT] = []
        self._buffers: list[schema.BufferT] = [schema.BufferT()]  # buffer 0 means "no data"
        self._codes: dict[tuple[int, int], int] = {}
        self._operators: list[schema.OperatorT] = []
        self._inputs: list[int] = []

    # ---- tensors

    def input(self, shape, *, scale: float, zero_point: int, name: str = "input") -> Tensor:
        """An input of the network, NHWC for images."""
        tensor = self._activation(name, tuple(int(n) for n in shape), scale, zero_point)
        self._inputs.append(tensor.index)
        return tensor

    def float_input(self, shape, *, name: str = "input") -> Tensor:
        """A float32 input, to be quantised first."""
        shape = tuple(int(n) for n in shape)
        tensor = Tensor(self._tensor(name, shape, "float32"), shape, 1.0, 0, name)
        self._inputs.append(tensor.index)
        return tensor

    def _activation(self, name: str, shape: tuple[int, ...], scale: float, zero_point: int, dtype=None) -> Tensor:
        if not shape or min(shape) < 1:
            raise ValueError(f"{name}: shape {list(shape)} must have sizes of at least 1")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"{name}: scale {scale} must be finite and above 0")
        low, high = RANGES[dtype or self.dtype]
        if not low <= zero_point <= high:
            raise ValueError(f"{name}: zero point {zero_point} must be in {low}..{high}")
        scale = float(np.float32(scale))
        index = self._tensor(name, shape, dtype or self.dtype, [scale], [int(zero_point)])
        return Tensor(index, shape, scale, int(zero_point), name)

    def _tensor(self, name, shape, type_name, scale=None, zero_point=None, axis=0, buffer=0) -> int:
        quantization = schema.QuantizationParametersT()
        if scale is not None:
            quantization.scale = [float(s) for s in scale]
            quantization.zeroPoint = list(zero_point)
            quantization.quantizedDimension = axis
        tensor = schema.TensorT(
            shape=list(shape), type=TYPES[type_name], buffer=buffer, name=name, quantization=quantization
        )
        tensor.hasRank = True
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _constant(self, name: str, array: np.ndarray, scale=None, axis: int = 0, zero_point: int = 0) -> int:
        data = array.astype(array.dtype.newbyteorder("<")).tobytes()
        self._buffers.append(AlignedBuffer(data=data))
        zeros = None if scale is None else [zero_point] * len(scale)
        return self._tensor(name, array.shape, array.dtype.name, scale, zeros, axis, len(self._buffers) - 1)

    def _weights(self, name, x, weights, bias, weight_scale, weight_zero_point, *, shape, axis) -> tuple[int, int]:
        """Add checked weights and bias; `shape` has None where any size will do, `axis` holds the output channels."""
        weights, bias = np.asarray(weights), np.asarray(bias)
        scales = np.atleast_1d(np.asarray(weight_scale, np.float32))
        fits = weights.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, weights.shape, strict=True)
        )
        if weights.dtype != self.dtype or not fits:
            wanted = [("any" if n is None else n) for n in shape]
            raise ValueError(f"{name}: weights {weights.dtype} {list(weights.shape)} must be {self.dtype} {wanted}")
        if self.dtype == "int8" and weights.min() < -127:
            raise ValueError(f"{name}: weight -128 must be in -127..127")
        high = 0 if self.dtype == "int8" else RANGES[self.dtype][1]
        if not 0 <= weight_zero_point <= high:
            raise ValueError(f"{name}: weight_zero_point {weight_zero_point} must be in 0..{high}")
        channels = weights.shape[axis]
        if bias.dtype != np.int32 or bias.shape != (channels,):
            raise ValueError(f"{name}: bias {bias.dtype} {list(bias.shape)} must be int32 [{channels}]")
        most = (1,) if self.dtype == "uint8" else (channels,)  # uint8 has no scales per channel
        if scales.shape not in ((1,), most) or not (np.isfinite(scales) & (scales > 0)).all():
            raise ValueError(f"{name}: weight_scale must be 1 or {most[0]} finite numbers above 0")
        bias_scale = (np.float32(x.scale) * scales).astype(np.float32)
        return (
            self._constant(f"{name}/weights", weights, scales, axis, weight_zero_point),
            self._constant(f"{name}/bias", bias, bias_scale),
        )

    # ---- operators

    def _operator(self, code: int, inputs: list[int], output: Tensor, options, version: int = 0) -> Tensor:
        key = (code, version or VERSIONS[code])
        kind = "NONE" if options is None else type(options).__name__.removesuffix("T")
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._code_index(key),
                inputs=inputs,
                outputs=[output.index],
                builtinOptionsType=getattr(OptionsKind, kind),
                builtinOptions=options,
            )
        )
        return output

    def _code_index(self, key: tuple[int, int]) -> int:
        """Index of (operator, version) among the file's operator codes."""
        return self._codes.setdefault(key, len(self._codes))

    def _name(self, given: str | None, operator: str) -> str:
        return given or f"{operator}_{len(self._operators)}"

    # ---- file

    def to_bytes(self, outputs: list[Tensor]) -> bytes:
        """The .tflite file, its outputs in the order given."""
        if not self._inputs or not self._operators or not outputs:
            raise ValueError("a network must have at least one input, one operator and one output")
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=self._inputs,
            outputs=[tensor.index for tensor in outputs],
            operators=self._operators,
            name="main",
        )
        codes = [
            schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=version)
            for code, version in self._codes
        ]
        model = schema.ModelT(
            version=3, operatorCodes=codes, subgraphs=[subgraph], buffers=self._buffers, description=self.description
        )
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def save(self, path: Path | str, outputs: list[Tensor]) -> None:
        """Write `to_bytes(outputs)` to `path`."""
        Path(path).write_bytes(self.to_bytes(outputs))
