"""The reference kernels of ai-edge-litert, and the comparison of every tensor with them."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fluidnpu.nn.reference import run
from fluidnpu.nn.tflite_reader import parse_network

__all__ = ["check", "compare", "interpreter_of", "kernels_of", "shifted"]


def interpreter_of(data: bytes) -> Interpreter:
    """The reference kernels of one network."""
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    return interpreter


def kernels_of(interpreter: Interpreter, image: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors by name, as the reference kernels compute them from one image int8.

    Those of uint8 networks get, and their tensors lose, an offset of 128.
    """
    (entry,) = interpreter.get_input_details()
    interpreter.set_tensor(entry["index"], shifted(image, np.int8, entry["dtype"]).reshape(entry["shape"]))
    interpreter.invoke()
    tensors = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details() if d["name"]}
    return {name: shifted(x, np.uint8, np.int8) if x.dtype == np.uint8 else x for name, x in tensors.items()}


def shifted(x: np.ndarray, source: type, target: type) -> np.ndarray:
    """int8 as the uint8 that is 128 more, or back; x itself if the types are equal."""
    return x if source == target else (x.view(np.uint8) ^ 0x80).view(target)


def check(data: bytes, rng: np.random.Generator, images: int = 2) -> int:
    """Compare every tensor of the network in ``data`` on random images; the number of values compared."""
    network = parse_network(data, "random.tflite")
    batch = rng.integers(-128, 128, (images, *network.input.shape)).astype(np.int8)
    batch[0] = rng.choice([-128, 127], network.input.shape)  # extremes
    ours = run(network, batch)
    assert set(ours) == set(network.tensors)
    compared, interpreter = 0, interpreter_of(data)
    for i in range(images):
        theirs = kernels_of(interpreter, batch[i])
        compared += compare(network, ours, theirs, i)
    return compared


def compare(network, ours, theirs, image: int) -> int:
    """Every tensor of image number ``image`` with the interpreter's; the number of values compared."""
    compared = 0
    for name in (*ours, *network.aliases):
        if "#rows" in name or "#part" in name:
            continue  # between two layers of one operator, in no file
        mine = ours[network.aliases.get(name, name)][image]
        assert mine.dtype == np.int8
        np.testing.assert_array_equal(mine.ravel(), theirs[name].ravel(), err_msg=f"{name}, image {image}")
        compared += mine.size
    return compared
