"""Adds operators and outputs to a network that a .tflite file holds; everything in the file stays as it is.

    net = TfliteEditor(data)
    x = net.average_pool_2d(net.tensor(25), 8, name="pool")
    data = net.edited([net.fully_connected(net.flatten(x), ...)])

Constants keep their bytes, operators their order, tensors their indices; what is new comes behind the old entries.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from .tflite_builder import AlignedBuffer, Tensor
from .tflite_writer import TfliteWriter

__all__ = ["TfliteEditor"]

_DTYPES = {schema.TensorType.INT8: "int8", schema.TensorType.UINT8: "uint8"}


class TfliteEditor(TfliteWriter):
    """A writer that starts with a file's network. ``data``: the bytes of a sane file with one subgraph, one input.

    Operators that are added stand, in the file, right behind the operator that makes what they read. Raises
    ValueError if the network's input is neither int8 nor uint8.
    """

    def __init__(self, data: bytes):
        self._model = schema.ModelT.InitFromPackedBuf(data, 0)
        graph = self._graph = self._model.subgraphs[0]
        kind = graph.tensors[graph.inputs[0]].type
        if kind not in _DTYPES:
            raise ValueError(f"the network's input has type {kind}, it must be int8 or uint8")
        super().__init__(dtype=_DTYPES[kind])
        self._tensors = graph.tensors
        self._buffers = [_aligned(buffer) for buffer in self._model.buffers]
        self._operators = list(graph.operators)
        self._before = len(self._operators)
        for index, code in enumerate(self._model.operatorCodes):
            builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
            self._codes.setdefault((builtin, code.version), index)
        self._names = {tensor.name for tensor in self._tensors}

    def tensor(self, index: int) -> Tensor:
        """An activation of the file, to be read by new operators."""
        t = self._tensors[index]
        scale, zero = t.quantization.scale[0], t.quantization.zeroPoint[0]
        return Tensor(index, tuple(int(n) for n in t.shape), float(scale), int(zero), t.name.decode(errors="replace"))

    def unused_name(self, prefix: str) -> str:
        """``prefix``, with a number behind it if the file has tensors whose names begin like that."""
        taken = [name.decode(errors="replace") for name in self._names if name]
        number, name = 1, prefix
        while any(t == name or t.startswith(f"{name}/") for t in taken):
            number += 1
            name = f"{prefix}_{number}"
        return name

    def _code_index(self, key: tuple[int, int]) -> int:
        if key not in self._codes:
            self._codes[key] = len(self._model.operatorCodes)
            code, version = key
            self._model.operatorCodes.append(
                schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=version)
            )
        return self._codes[key]

    def edited(self, outputs: list[Tensor]) -> bytes:
        """The file with ``outputs`` in front of those that it had; signatures get them too, under their names."""
        model, graph = self._model, self._graph
        graph.operators = self._in_place()
        graph.outputs = [*(tensor.index for tensor in outputs), *(int(i) for i in graph.outputs)]
        model.buffers = self._buffers
        for signature in model.signatureDefs or []:
            signature.outputs = [
                *(schema.TensorMapT(name=tensor.name, tensorIndex=tensor.index) for tensor in outputs),
                *(signature.outputs or []),
            ]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def _in_place(self) -> list[schema.OperatorT]:
        """All operators, the new ones each behind the maker of what they read."""
        order = self._operators[: self._before]
        for operator in self._operators[self._before :]:
            sources = {int(i) for i in operator.inputs}
            at = [n for n, other in enumerate(order) if sources & {int(i) for i in other.outputs}]
            order.insert(max(at, default=-1) + 1, operator)
        return order


def _aligned(buffer: schema.BufferT) -> schema.BufferT:
    if buffer.data is None or len(buffer.data) == 0:
        return buffer
    return AlignedBuffer(data=np.asarray(buffer.data, np.uint8).tobytes())
