"""Checked access to a .tflite file: operators and tensors, with errors that say where.

The flatbuffer is unpacked with the generated schema of ai-edge-litert. A damaged file can make that code fail in any
way or hand out any number, so everything the reader uses passes through here and is checked once.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .graph import UnsupportedNetwork

__all__ = ["Operator", "TfliteFile", "TfliteTensor", "enum_name"]

_IDENTIFIER = b"TFL3"
_VERSION = 3
_DTYPES = {
    schema.TensorType.INT8: np.dtype("int8"),
    schema.TensorType.UINT8: np.dtype("uint8"),
    schema.TensorType.INT32: np.dtype("<i4"),
}


def enum_name(enum: type, value: int) -> str:
    """Name of a schema constant, or its number if it has none."""
    return next((k for k, v in vars(enum).items() if v == value and not k.startswith("_")), str(value))


@dataclass(frozen=True, eq=False)
class TfliteTensor:
    """A tensor entry. ``data`` (constants only) has the tensor's shape; scales are float32 values, empty if none."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: int  # schema.TensorType
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int  # quantized dimension
    data: np.ndarray | None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator entry; absent optional inputs are None."""

    index: int
    code: int  # schema.BuiltinOperator
    inputs: tuple[TfliteTensor | None, ...]
    outputs: tuple[TfliteTensor, ...]
    options: object  # the schema's options table, or None

    @property
    def name(self) -> str:
        return enum_name(schema.BuiltinOperator, self.code)


class TfliteFile:
    """One .tflite file with one subgraph.

    Parameters: ``data``, the bytes; ``name``, what errors call the file. Members: ``tensors``, ``operators``,
    ``inputs`` and ``outputs``. Raises UnsupportedNetwork for anything that is not a whole, sane .tflite file.
    """

    def __init__(self, data: bytes, name: str):
        self.name = name
        if data[4:8] != _IDENTIFIER:
            self.fail("not a .tflite file", f"flatbuffers with identifier {_IDENTIFIER.decode()}")
        try:
            self._unpack(schema.ModelT.InitFromPackedBuf(data, 0))
        except UnsupportedNetwork:
            raise
        except Exception as error:  # generated code raises whatever the damage leads it to
            self.fail(f"damaged or truncated ({type(error).__name__})", "whole .tflite files")

    def _unpack(self, model: schema.ModelT) -> None:
        if model.version != _VERSION:
            self.fail(f"schema version {model.version}", f"version {_VERSION}")
        if len(model.subgraphs or ()) != 1:
            self.fail(f"{len(model.subgraphs or ())} subgraphs", "1 subgraph")
        graph = model.subgraphs[0]
        self._buffers = model.buffers or []
        self.tensors = [self._tensor(i, t) for i, t in enumerate(graph.tensors or [])]
        self.inputs = self._select(graph.inputs, "input of the network")
        self.outputs = self._select(graph.outputs, "output of the network")
        self.operators = [self._operator(i, op, model.operatorCodes) for i, op in enumerate(graph.operators or [])]

    @classmethod
    def open(cls, path: str | Path) -> "TfliteFile":
        """Read a file from disk. Raises OSError if that fails."""
        return cls(Path(path).read_bytes(), str(path))

    def fail(
        self, problem: str, supported: str, operator: Operator | None = None, tensor: TfliteTensor | None = None
    ) -> None:
        """Raise UnsupportedNetwork: file, operator, tensor, problem, what is supported."""
        where = [self.name]
        if operator is not None:
            where.append(f"operator {operator.index} {operator.name}")
        if tensor is not None:
            where.append(f"tensor {tensor.index} '{tensor.name}'")
        raise UnsupportedNetwork(f"{', '.join(where)}: {problem}; supported: {supported}")

    def _select(self, indices, what: str, optional: bool = False) -> tuple[TfliteTensor | None, ...]:
        selected = []
        for i in () if indices is None else indices:
            if optional and i == -1:
                selected.append(None)
            elif 0 <= i < len(self.tensors):
                selected.append(self.tensors[i])
            else:
                self.fail(f"{what} is tensor {i} of {len(self.tensors)}", "whole .tflite files")
        return tuple(selected)

    def _operator(self, index: int, op: schema.OperatorT, codes: list) -> Operator:
        if not 0 <= op.opcodeIndex < len(codes or ()):
            self.fail(f"operator {index} has code {op.opcodeIndex} of {len(codes or ())}", "whole .tflite files")
        code = codes[op.opcodeIndex]
        return Operator(
            index,
            max(code.builtinCode, code.deprecatedBuiltinCode),  # old files have the deprecated field only
            self._select(op.inputs, f"an input of operator {index}", optional=True),
            self._select(op.outputs, f"an output of operator {index}"),
            op.builtinOptions,
        )

    def _tensor(self, index: int, t: schema.TensorT) -> TfliteTensor:
        name = (t.name or b"").decode(errors="replace") or f"tensor{index}"
        shape = tuple(int(n) for n in (() if t.shape is None else t.shape))
        quantization = t.quantization or schema.QuantizationParametersT()
        scales = () if quantization.scale is None else tuple(float(s) for s in quantization.scale)
        zeros = () if quantization.zeroPoint is None else tuple(int(z) for z in quantization.zeroPoint)
        bare = TfliteTensor(index, name, shape, t.type, scales, zeros, quantization.quantizedDimension, None)
        if any(n < 1 for n in shape):
            self.fail(f"shape {list(shape)}", "dimensions of at least 1", tensor=bare)
        if t.shapeSignature is not None and any(n < 0 for n in t.shapeSignature[1:]):
            self.fail(f"dynamic shape {[int(n) for n in t.shapeSignature]}", "fixed shapes, batch 1", tensor=bare)
        if t.sparsity is not None or t.isVariable:
            self.fail("sparse or variable tensor", "dense tensors without state", tensor=bare)
        if len(zeros) != len(scales) or not all(s > 0 and math.isfinite(s) for s in scales):
            self.fail("damaged quantization parameters", "positive scales, one zero point each", tensor=bare)
        if not 0 <= t.buffer < len(self._buffers):
            self.fail(f"buffer {t.buffer} of {len(self._buffers)}", "whole .tflite files", tensor=bare)
        buffer = self._buffers[t.buffer]
        if buffer.offset > 1 or buffer.size > 1:
            self.fail("data outside of the flatbuffer", "files below 2 GB with their data inside", tensor=bare)
        if buffer.data is None or len(buffer.data) == 0:
            return bare
        data = np.asarray(buffer.data, np.uint8)
        dtype = _DTYPES.get(t.type)
        if dtype is None:
            return bare  # refused by the operator that wants its data
        if len(data) != bare.size * dtype.itemsize:
            self.fail(f"{len(data)} bytes of data for shape {list(shape)}", "whole .tflite files", tensor=bare)
        data = data.view(dtype).reshape(shape)
        data.flags.writeable = False
        return TfliteTensor(index, name, shape, t.type, scales, zeros, bare.axis, data)
