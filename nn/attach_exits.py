"""Makes an early-exit network of a backbone: runs it over labelled images, fits a head per exit, writes, measures.

    result = attach_exits(Backbone(data, name), places, images, labels)
    Path("out.tflite").write_bytes(result.data)
    result.measured([0.8, 0.8]).accuracy

What is measured is the written file, by TensorFlow Lite's reference kernels, on images that no head has seen; exit
decisions are those of the exit unit (nn/exits.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .exit_fitting import fit_classifier, soften
from .exit_heads import Head, Pooling, add_heads, quantise_head
from .exit_places import AttachError, Backbone, Place
from .exit_thresholds import Answers, Outcome, calibrate
from .exits import exit_table, top_and_spread
from .graph import Exit, Network
from .intervals import wilson_interval
from .litert import run_litert
from .quantize import Kernels
from .tflite_file import TfliteFile
from .tflite_reader import Reader

__all__ = ["POOLED_SIZE", "AttachedExits", "attach_exits", "split_images"]

POOLED_SIZE = 4  # height and width, at most, of what a head's classifier sees

Status = Callable[[str, int, int | None], None]  # (what is being done, done, of how many)


@dataclass(frozen=True, eq=False)
class AttachedExits:
    """An early-exit network and what is known about it.

    data: the .tflite file; network: what this project reads in it. answers: of the written file on held-apart images.
    fitted: of the heads on the images they were fitted on, each image judged by a classifier that has not seen it.
    """

    backbone: Backbone
    heads: tuple[Head, ...]
    data: bytes
    network: Network
    answers: Answers
    fitted: Answers

    def measured(self, thresholds: Sequence[float]) -> Outcome:
        """Outcome on the held-apart images; one threshold per attached exit."""
        return self.answers.outcome(thresholds)

    def calibrated(self, loss: float) -> Outcome:
        """Outcome on the held-apart images for thresholds that were searched on the fitted ones.

        loss : accuracy, in percentage points, that the network may lose against the backbone. Raises AttachError.
        """
        if not 0 <= loss <= 100:
            raise AttachError(f"loss of accuracy {loss}; it must be 0..100 percentage points")
        return self.measured(calibrate(self.fitted, loss / 100))

    def exits(self) -> list[dict]:
        """What is known of every exit, shallow to deep, the backbone's own last; for tables and JSON."""
        rows = []
        for head in self.heads:
            rows.append(
                {
                    "tensor": head.place.name,
                    "index": head.place.index,
                    "shape": list(head.place.tensor.shape),
                    "pooled": list(head.pooling.shape),
                    "head_macs": head.macs,
                    "learns": head.fit.learns,
                    "strength": head.fit.strength,
                    "sharpness": head.fit.sharpness,
                    "held_out_log_loss": head.fit.loss,
                }
            )
        last = self.backbone.network.exits[0].logits
        rows.append({"tensor": last.name, "index": self.backbone.logits, "shape": list(last.shape)})
        for e, row in enumerate(rows):
            right, count = self.answers.right[e], self.answers.count
            row["macs"] = int(self.answers.macs[e])
            row["macs_share"] = float(self.answers.macs[e] / self.answers.backbone_macs)
            row["accuracy"] = float(right.mean())
            row["accuracy_interval"] = wilson_interval(int(right.sum()), count)
        return rows


def split_images(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to fit on and of ``share`` of them held apart, drawn by ``seed``. Raises AttachError."""
    apart = round(count * share) if 0 < share < 1 else 0
    if not 0 < apart < count:
        raise AttachError(f"{share} of {count} images held apart; it must leave images on both sides, 0 < share < 1")
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[apart:]), np.sort(order[:apart])


def attach_exits(
    backbone: Backbone,
    places: Sequence[Place],
    images: np.ndarray,
    labels: np.ndarray,
    apart_images: np.ndarray,
    apart_labels: np.ndarray,
    *,
    size: int = POOLED_SIZE,
    seed: int = 1,
    status: Status | None = None,
) -> AttachedExits:
    """Attach an exit at every place (shallow to deep), fit on images int8 [n, h, w, c], judge on the other images.

    uint8 backbones take the images as int8 too, 128 below. size : of `exit_heads.Pooling`; seed : of the folds;
    status : told what is going on. Raises AttachError, UnsupportedNetwork.
    """
    status = status or (lambda what, done, total: None)
    for values in (labels, apart_labels):
        _check_labels(backbone, values)
    pools = [Pooling(place, size) for place in places]
    *features, logits = _run(
        backbone, images, [p.index for p in places], pools, status, "running the backbone on the images to fit on"
    )
    last = backbone.network.exits[0]
    teacher = soften((logits.astype(np.float64) - last.zero_point) * last.scale * last.beta)
    heads = []
    for number, (place, pool, values) in enumerate(zip(places, pools, features, strict=True), start=1):
        fitted = []

        def progress(what=f"fitting exit {number} of {len(places)}: classifiers", fitted=fitted):
            fitted.append(1)
            status(what, len(fitted), None)

        fit = fit_classifier(values, labels, teacher, seed, progress)
        heads.append(quantise_head(place, pool, fit, values, last.beta))
    data = add_heads(backbone, heads)
    network, indices = _read(data, backbone.name)
    macs = _macs_by_exit(network)
    fitted = _answers([*(head.held_out for head in heads), logits], network.exits, labels, macs, backbone.macs)
    judged = _measure(backbone, data, indices, apart_images, status)
    answers = _answers(judged, network.exits, apart_labels, macs, backbone.macs)
    return AttachedExits(backbone, tuple(heads), data, network, answers, fitted)


def _check_labels(backbone: Backbone, labels: np.ndarray) -> None:
    if labels.min() < 0 or labels.max() >= backbone.classes:
        raise AttachError(
            f"labels are {labels.min()}..{labels.max()}; {backbone.name} has {backbone.classes} classes, "
            f"0..{backbone.classes - 1}"
        )


def _signed(values: np.ndarray) -> np.ndarray:
    """int8 activations as they are, uint8 ones 128 below."""
    return (values ^ 0x80).view(np.int8) if values.dtype == np.uint8 else values


def _raw(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    """Images as the file takes them."""
    return images.view(np.uint8) ^ 0x80 if backbone.unsigned else images


def _run(backbone, images, tensors, pools, status, what) -> list[np.ndarray]:
    """Pooled features int8 [n, f] of every tensor, then the backbone's logits int8 [n, classes]."""

    def reduce(position: int, value: np.ndarray) -> np.ndarray:
        value = _signed(value)
        return pools[position](value[None])[0] if position < len(pools) else value.reshape(-1)

    return run_litert(
        backbone.data,
        _raw(backbone, images),
        [*tensors, backbone.logits],
        reduce,
        lambda done: status(what, done, len(images)),
    )


def _read(data: bytes, name: str) -> tuple[Network, list[int]]:
    """(network, file index of every exit's logits) of a file."""
    file = TfliteFile(data, name)
    reader = Reader(file, Kernels.LITERT)
    network = reader.network()
    return network, [reader.softmax.get(tensor.index, (tensor,))[0].index for tensor in file.outputs]


def _measure(backbone, data, indices, images, status) -> list[np.ndarray]:
    """Logits int8 [n, classes] of every exit of the written file, whose last ones are the backbone's own."""
    raw = _raw(backbone, images)
    outputs = [tensor.index for tensor in backbone.file.outputs]
    runs = []
    for what, model, tensors in (
        ("running the backbone on the images held apart", backbone.data, [backbone.logits, *outputs]),
        ("running the network with exits on them", data, [*indices, *outputs]),
    ):
        runs.append(
            run_litert(
                model,
                raw,
                tensors,
                lambda position, value: _signed(value).reshape(-1),
                lambda done, what=what: status(what, done, len(raw)),
            )
        )
    before, after = runs
    for a, b in zip(before, after[len(indices) - 1 :], strict=True):
        if not np.array_equal(a, b):
            raise RuntimeError("the network with exits answers otherwise than its backbone; nothing was written")
    return after[: len(indices)]


def _macs_by_exit(network: Network) -> np.ndarray:
    """Useful MACs int64 [exits] of a sample that leaves at each exit: the trunk up to there, all heads on the way."""
    sections = [sum(network.layers[i].macs for i in (*section.trunk, *section.head)) for section in network.sections()]
    return np.cumsum(sections)


def _answers(logits, exits: Sequence[Exit], labels, macs, backbone_macs) -> Answers:
    found = [top_and_spread(q, exit_table(e.scale, e.beta)) for q, e in zip(logits, exits, strict=True)]
    right = np.array([top == labels for top, _ in found])
    return Answers(right, np.array([spread for _, spread in found]), macs, backbone_macs)
