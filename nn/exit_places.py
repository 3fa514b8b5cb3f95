"""Where exit heads can be attached to a backbone: its feature maps, what each costs to reach, a proposal by MACs."""

from collections.abc import Sequence
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from .graph import Network, Tensor
from .quantize import Kernels
from .tflite_file import TfliteFile, TfliteTensor
from .tflite_reader import Reader

__all__ = ["AttachError", "Backbone", "Place", "find_places", "propose_places"]

LATEST = 0.95  # share of the MACs behind which no exit is proposed: it would save next to nothing


class AttachError(ValueError):
    """Exits that cannot be attached; the message names tensor, file or data, and what is possible."""


@dataclass(frozen=True)
class Place:
    """A feature map of the backbone: file tensor ``index`` and ``name``, as images ``tensor``.

    macs: useful MACs of all layers that it needs; layers: their number. cut: all that comes later reads nothing
    earlier than this tensor, so that a sample that leaves here has computed nothing in vain.
    """

    index: int
    name: str
    tensor: Tensor
    macs: int
    layers: int
    cut: bool

    @property
    def label(self) -> str:
        """Short name: the last of the names that a converter joins with ';'."""
        return self.name.rpartition(";")[2]


class Backbone:
    """A single-output classifier in a .tflite file.

    Members: data, file, network (exits: one), places (shallow to deep), logits (file index of the tensor that the exit
    decision reads), beta (of the file's own SOFTMAX, None without). Raises AttachError, UnsupportedNetwork.
    """

    def __init__(self, data: bytes, name: str):
        self.data, self.file = data, TfliteFile(data, name)
        if len(self.file.outputs) != 1:
            names = ", ".join(f"'{tensor.name}'" for tensor in self.file.outputs) or "none"
            raise AttachError(f"{name} has {len(self.file.outputs)} outputs ({names}); a backbone has 1, its classes")
        reader = Reader(self.file, Kernels.LITERT)
        self.network: Network = reader.network()
        output = self.file.outputs[0]
        if not self.network.exits:
            raise AttachError(
                f"{name}: output '{output.name}' has shape {list(output.shape)}; a backbone ends in a vector of classes"
            )
        logits, beta = reader.softmax.get(output.index, (output, None))
        self.logits, self.beta = logits.index, beta
        self.places = self._places(reader.made)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def classes(self) -> int:
        return self.network.exits[0].classes

    @property
    def macs(self) -> int:
        """Useful MACs of one sample."""
        return self.network.macs()

    @property
    def input(self) -> TfliteTensor:
        """The file's input tensor."""
        return self.file.inputs[0]

    @property
    def unsigned(self) -> bool:
        """The file's activations are uint8."""
        return self.input.type == schema.TensorType.UINT8

    def _places(self, made: dict[int, Tensor]) -> tuple[Place, ...]:
        """Every [1, h, w, c] tensor that a layer makes, but for the logits."""
        network = self.network
        needs = _needs(network)
        makers = {layer.output.name: i for i, layer in enumerate(network.layers)}
        logits = network.exits[0].logits.name
        places = []
        for index, image in made.items():
            entry = self.file.tensors[index]
            maker = makers.get(image.name)
            if maker is None or image.name == logits or entry.shape != (1, *image.shape):
                continue
            before = needs[maker]
            early = {network.input.name, *(network.layers[i].output.name for i in before)} - {image.name}
            cut = not any(
                tensor.name in early
                for i, layer in enumerate(network.layers)
                if i not in before
                for tensor in layer.inputs
            )
            macs = sum(network.layers[i].macs for i in before)
            places.append(Place(index, entry.name, image, macs, len(before), cut))
        return tuple(sorted(places, key=lambda place: (place.layers, place.macs)))


def _needs(network: Network) -> list[frozenset[int]]:
    """For every layer the layers that its output needs, itself among them."""
    needs: dict[str, frozenset[int]] = {network.input.name: frozenset()}
    result = []
    for i, layer in enumerate(network.layers):
        result.append(frozenset({i}).union(*(needs[tensor.name] for tensor in layer.inputs)))
        needs[layer.output.name] = result[-1]
    return result


def find_places(backbone: Backbone, wanted: Sequence[str]) -> tuple[Place, ...]:
    """The places that ``wanted`` names, shallow to deep.

    A tensor is named by its name, its number in the file, or a part of its name that no other feature map has: one of
    the names that ';' separates, else any. Raises AttachError.
    """
    places = [_find(backbone, text) for text in wanted]
    if not places:
        raise AttachError(f"{backbone.name}: no tensor to attach an exit to; {_candidates(backbone)}")
    for n, place in enumerate(places):
        if place in places[:n]:
            raise AttachError(f"tensor {place.index} '{place.label}' is named twice; one exit per tensor")
    return tuple(sorted(places, key=lambda place: (place.layers, place.macs)))


def _find(backbone: Backbone, text: str) -> Place:
    by_index = {place.index: place for place in backbone.places}
    everything = backbone.file.tensors
    exact = [tensor.index for tensor in everything if tensor.name == text]
    if not exact and text.isdecimal() and int(text) < len(everything):
        exact = [int(text)]
    if exact:
        found = [by_index[i] for i in exact if i in by_index]
        if not found:
            tensor = everything[exact[0]]
            raise AttachError(
                f"tensor {tensor.index} '{tensor.name}' {list(tensor.shape)} is no feature map "
                f"({_why_not(backbone, tensor)}); {_candidates(backbone)}"
            )
        return found[0]
    parts = [place for place in backbone.places if text in place.name.split(";")]
    anywhere = [place for place in backbone.places if text and text in place.name]
    found = parts if len(parts) == 1 else anywhere
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{place.index} '{place.label}'" for place in found)
        raise AttachError(f"{backbone.name}: '{text}' fits {len(found)} tensors: {names}; name one by its number")
    raise AttachError(f"{backbone.name}: there is no tensor '{text}'; {_candidates(backbone)}")


def _why_not(backbone: Backbone, tensor: TfliteTensor) -> str:
    if tensor.data is not None:
        return "a constant"
    if tensor.index == backbone.input.index:
        return "the input"
    if tensor.index in (backbone.logits, backbone.file.outputs[0].index):
        return "the backbone's own output"
    return "it must be [1, height, width, channels], made by a layer that is not folded into another"


def _candidates(backbone: Backbone) -> str:
    return "feature maps: " + ", ".join(
        f"{place.index} '{place.label}' {list(place.tensor.shape)} after {place.macs / backbone.macs:.1%} of the MACs"
        for place in backbone.places
    )


def propose_places(backbone: Backbone, count: int) -> tuple[Place, ...]:
    """``count`` places that divide the backbone's MACs most evenly, shallow to deep.

    Only places where nothing has been computed in vain count, if there are enough of them. The n-th exit takes, of the
    places behind the exit before, the nearest to n/(count+1) of the MACs. Raises AttachError.
    """
    inner = [place for place in backbone.places if 0 < place.macs <= LATEST * backbone.macs]
    places = [place for place in inner if place.cut]
    if len(places) < count:
        places = inner
    if not 1 <= count <= len(places):
        raise AttachError(f"{backbone.name}: {count} exits; there are places for 1 to {len(places)}")
    choice, first = [], 0
    for n in range(count):
        aim, last = (n + 1) / (count + 1) * backbone.macs, len(places) - (count - 1 - n)  # the others need a place too
        best = min(range(first, last), key=lambda i: abs(places[i].macs - aim))
        choice.append(places[best])
        first = best + 1
    return tuple(choice)
