"""TensorFlow Lite's own reference kernels (ai-edge-litert, BUILTIN_REF) on many images, any tensor of the file.

About 0.3 ns per MAC and image: 4 ms for ResNet-8, a second for ResNet-50.
"""

from collections.abc import Callable, Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

__all__ = ["run_litert"]


def run_litert(
    model: bytes,
    images: np.ndarray,
    tensors: Sequence[int],
    reduce: Callable[[int, np.ndarray], np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[np.ndarray]:
    """The tensors with these indices for every image: one array [n, ...] each, without the file's batch dimension.

    images : [n, h, w, c] of the input's type, for a file with one input of batch 1
    reduce : function (position in ``tensors``, value [...]) of what is kept of a tensor, called for every image
    progress : told the number of images that are done
    """
    interpreter = Interpreter(
        model_content=model,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    kept: list[list[np.ndarray]] = [[] for _ in tensors]
    for n, image in enumerate(images, start=1):
        interpreter.set_tensor(entry["index"], image.reshape(entry["shape"]))
        interpreter.invoke()
        for position, index in enumerate(tensors):
            value = interpreter.get_tensor(index)[0]
            kept[position].append(reduce(position, value) if reduce else value)
        if progress:
            progress(n)
    return [np.array(values) for values in kept]
