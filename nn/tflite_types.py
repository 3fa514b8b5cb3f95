"""Operators that change shapes, types or scales and no more: RESHAPE and its like, QUANTIZE, DEQUANTIZE.

One function per operator, as tflite_operators.py describes them.
"""

from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from .quantize import INT8_MAX, INT8_MIN
from .rescale import rescaled
from .tflite_file import Operator, enum_name

if TYPE_CHECKING:
    from .tflite_reader import Reader

__all__ = ["dequantize", "quantize", "reshape", "shape_arithmetic"]


def reshape(r: "Reader", op: Operator) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: another name for the same bytes. The output tensor has the new shape."""
    x, _ = r.ends(op, 1, 2)
    out = op.outputs[0]
    image = r.image(op, x)
    r.check_data(op, out)
    if out.size != x.size or (out.scales, out.zero_points) != (x.scales, x.zero_points):
        r.file.fail(f"{list(x.shape)} to {list(out.shape)}, or other scales", "reshapes that keep every byte", op, out)
    if out.data is not None or out.index in r.made:
        r.file.fail("a constant, or made twice", "tensors made once", op, out)
    r.reshape_input(out)
    image = r.image(op, x)
    r.made[out.index] = image
    r.aliases[r.unique_name(out)] = image.name


def shape_arithmetic(r: "Reader", op: Operator) -> None:
    """SHAPE, STRIDED_SLICE, PACK, as converters compute the shape of a RESHAPE with them: shapes are fixed here."""
    for out in op.outputs:
        if out.type != schema.TensorType.INT32:
            r.file.fail(f"{op.name} of {enum_name(schema.TensorType, out.type)}", "of shapes, INT32", op, out)


def quantize(r: "Reader", op: Operator) -> None:
    """QUANTIZE of the float32 input, which leaves the int8 input; or from one scale and type to others."""
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    if x is r.float_input:
        r.input = r.new_tensor(op, out)
        return
    if x.index in r.softmax:
        r.softmax[out.index] = r.softmax[x.index]
        return
    image = r.image(op, x)
    made = r.new_tensor(op, out, image.shape, other_type=True)
    if out.size != x.size:
        r.file.fail(f"shape {list(out.shape)} from {list(x.shape)}", "consistent shapes", op, out)
    if made.quantisation == image.quantisation:
        r.made[out.index] = image
        r.aliases[made.name] = image.name
        return
    factor = image.scale / made.scale
    layer = rescaled(f"quantize{op.index}", image, made, (INT8_MIN, INT8_MAX), factor)
    if layer is None:
        r.file.fail(f"scale {image.scale} becomes {made.scale}", "scales of about the same size", op, out)
    r.layers.append(layer)


def dequantize(r: "Reader", op: Operator) -> None:
    """DEQUANTIZE of an output: the network ends with the int8 tensor in front of it."""
    (x,) = r.ends(op, 1, 1)
    out = op.outputs[0]
    if not r.is_output(out):
        r.file.fail("DEQUANTIZE is not at an output", "DEQUANTIZE as the last operator", op, out)
    if x.index in r.softmax:
        r.softmax[out.index] = r.softmax[x.index]
    else:
        r.made[out.index] = r.image(op, x)
