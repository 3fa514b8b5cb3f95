"""Exits attached to whole networks: the project's own, small random ones, and real ones where FLUIDNPU_REAL is set."""

import os
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fluidnpu.hw.config import get_config
from fluidnpu.nn import reference
from fluidnpu.nn.attach_exits import attach_exits, split_images
from fluidnpu.nn.compiler import CompileOptions, compile_network
from fluidnpu.nn.exit_places import AttachError, Backbone, find_places, propose_places
from fluidnpu.nn.exits import decide, limit_of
from fluidnpu.nn.tflite_reader import parse_network

from .backbones import digit_images, digits_backbone, residual_backbone, unpacked

pytest.importorskip("sklearn", reason="scikit-learn (extra `exits`) is not installed")

needs_real = pytest.mark.skipif("FLUIDNPU_REAL" not in os.environ, reason="FLUIDNPU_REAL names no folder")


def real(*parts: str) -> Path:
    return Path(os.environ["FLUIDNPU_REAL"], *parts)


def outputs_of(data: bytes, image: np.ndarray) -> list[np.ndarray]:
    """Outputs of a file for one int8 image, by TensorFlow Lite's reference kernels; int8, uint8 ones 128 below."""
    interpreter = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    unsigned = entry["dtype"] == np.uint8
    interpreter.set_tensor(entry["index"], image[None].view(np.uint8) ^ 0x80 if unsigned else image[None])
    interpreter.invoke()
    values = [interpreter.get_tensor(detail["index"])[0] for detail in interpreter.get_output_details()]
    return [(value ^ 0x80).view(np.int8) if unsigned else value for value in values]


def weights_of(data: bytes) -> dict[str, bytes]:
    """Bytes of every constant."""
    model = unpacked(data)
    buffers = [b"" if b.data is None else bytes(b.data) for b in model.buffers]
    return {t.name.decode(): buffers[t.buffer] for t in model.subgraphs[0].tensors if buffers[t.buffer]}


def check_file(backbone: Backbone, result, images: np.ndarray) -> None:
    """A standard file: same constants, same last output, softmax outputs, and the project reads it bit for bit."""
    before, after = weights_of(backbone.data), weights_of(result.data)
    assert {name: after[name] for name in before} == before
    network = parse_network(result.data, "with exits")
    exits = len(result.heads) + 1
    assert len(network.exits) == exits and [s.exit for s in network.sections()] == list(range(exits))
    assert all(section.head for section in network.sections()[:-1])
    assert network.macs() == backbone.macs + sum(head.macs for head in result.heads)
    for image in images[:5]:
        *_, last = outputs_of(result.data, image)
        np.testing.assert_array_equal(last, outputs_of(backbone.data, image)[0])
    tensors = reference.run(network, images)
    logits = [tensors[exit.logits.name][:, 0, 0] for exit in network.exits]
    for image, *ours in zip(images[:5], *logits, strict=False):
        for exit, q, output in zip(network.exits, ours, outputs_of(result.data, image), strict=True):
            if backbone.beta is None:
                np.testing.assert_array_equal(q, output)
            else:
                odds = np.exp(exit.beta * exit.scale * (q.astype(float) - q.max()))
                assert np.abs(odds / odds.sum() - (output.astype(float) + 128) / 256).max() < 0.01


@pytest.fixture(scope="module")
def digits():
    """(Backbone, AttachedExits, held-apart images and labels) of the digits network, two exits."""
    backbone = Backbone(digits_backbone(), "digits")
    images, labels = digit_images(512, 700)
    apart = digit_images(0, 400)
    told = []
    result = attach_exits(
        backbone,
        find_places(backbone, ["stage1b", "stage2b"]),
        images,
        labels,
        *apart,
        status=lambda *said: told.append(said),
    )
    assert ("running the backbone on the images to fit on", 700, 700) in told
    return backbone, result, *apart


def test_digits_file(digits):
    backbone, result, images, _ = digits
    check_file(backbone, result, images)


def test_figures_are_those_of_the_reference_executor(digits):
    """Exits, accuracy and MACs from nn.reference, nn.exits and the network's own sections."""
    backbone, result, images, labels = digits
    network = parse_network(result.data, "with exits")
    tensors = reference.run(network, images)
    cost = []
    for exit in range(3):
        needed = {i for s in network.sections()[: exit + 1] for i in (*s.trunk, *s.head)}
        cost.append(sum(network.layers[i].macs for i in needed))
    for thresholds in ((0.5, 0.5), (0.8, 0.8), (0.6, 0.95)):
        decision = decide(network, tensors, [*(limit_of(t) for t in thresholds), 0])
        outcome = result.measured(thresholds)
        np.testing.assert_array_equal(decision.exit, outcome.taken)
        assert outcome.accuracy == (decision.top == labels).mean()
        assert outcome.macs == pytest.approx(np.mean([cost[e] for e in decision.exit]) / backbone.macs)


def test_exits_are_worth_having(digits):
    """About as good as the exits that were trained with the network (models/README.md), which saw more images."""
    _, result, *_ = digits
    outcome = result.measured((0.8, 0.8))
    assert outcome.macs < 0.75 and outcome.loss < 0.06
    accuracy = [row["accuracy"] for row in result.exits()]
    assert accuracy == sorted(accuracy) and accuracy[0] > 0.5
    assert result.fitted.count == 700 and result.answers.count == 400


def test_calibrated_thresholds(digits):
    _, result, *_ = digits
    outcome = result.calibrated(2.0)
    assert result.fitted.outcome(outcome.thresholds).loss <= 0.02 + 1e-9
    assert outcome.macs < 0.9 and outcome.loss < 0.05
    assert result.calibrated(0.0).macs >= outcome.macs
    with pytest.raises(AttachError, match=r"loss of accuracy -1; it must be 0\.\.100"):
        result.calibrated(-1)


def test_the_result_compiles(digits):
    _, result, *_ = digits
    program = compile_network(result.network, get_config("tiny"), CompileOptions(limits=(limit_of(0.8),) * 3))
    assert len(program.exits) == 3


@pytest.mark.parametrize("softmax, dtype", [(True, "int8"), (False, "int8"), (True, "uint8"), (False, "uint8")])
def test_odd_images_residual_blocks_outputs_without_softmax_and_uint8(softmax, dtype):
    """Labels are what the backbone answers."""
    backbone = Backbone(residual_backbone(softmax=softmax, dtype=dtype), "residual")
    assert backbone.unsigned == (dtype == "uint8")
    rng = np.random.default_rng(2)
    base = rng.integers(-128, 128, (1, 11, 6, 3))
    images = np.clip(base + rng.normal(0, 60, (120, 11, 6, 3)), -128, 127).astype(np.int8)
    network = backbone.network
    labels = reference.run(network, images)[network.exits[0].logits.name][:, 0, 0].argmax(1)
    if len(np.unique(labels)) < 2:
        labels[::3] = (labels[0] + 1) % 4
    result = attach_exits(
        backbone, find_places(backbone, ["inner", "first"]), images[:80], labels[:80], images[80:], labels[80:], size=3
    )
    assert [head.pooling.shape for head in result.heads] == [(3, 3, 8), (3, 3, 8)]
    assert [head.place.label for head in result.heads] == ["first", "inner"]
    check_file(backbone, result, images[80:])


def test_labels_that_do_not_fit():
    backbone = Backbone(digits_backbone(), "digits")
    images, labels = digit_images(0, 20)
    with pytest.raises(AttachError, match=r"labels are 0\.\.10; digits has 10 classes, 0\.\.9"):
        attach_exits(backbone, backbone.places[:1], images, np.arange(20) % 11, images, labels)


def test_split():
    fit, apart = split_images(100, 0.2, 7)
    assert len(fit) == 80 and sorted([*fit, *apart]) == list(range(100))
    np.testing.assert_array_equal(apart, split_images(100, 0.2, 7)[1])
    assert list(apart) != list(split_images(100, 0.2, 8)[1])
    for count, share in ((100, 0.0), (100, 1.0), (3, 0.1), (100, float("nan"))):
        with pytest.raises(AttachError, match=f"{share} of {count} images held apart"):
            split_images(count, share, 1)


# What 10,000 test images give with two linear heads on ResNet-8: left at exits 1, 2, 3, right, share of the MACs.
RESNET8 = {
    0.5: (0.708, 0.223, 0.068, 0.733, 0.519),
    0.8: (0.304, 0.320, 0.375, 0.844, 0.727),
    0.9: (0.165, 0.301, 0.534, 0.863, 0.815),
}


@needs_real
def test_resnet8_on_cifar10():
    """Fitted on 5,000 images, judged on 1,000 others: within 5 points of the known figures."""

    def images_of(name):
        stored = np.load(real("images", name))
        return (stored["x"] ^ 0x80).view(np.int8), stored["y"].astype(np.int64)

    backbone = Backbone(real("models", "resnet8_int8.tflite").read_bytes(), "resnet8")
    places = find_places(backbone, ["model/add/add", "model/add_1/add"])
    assert propose_places(backbone, 2) == places
    apart = images_of("cifar10_test_1000.npz")
    result = attach_exits(backbone, places, *images_of("cifar10_train_5000.npz"), *apart)
    check_file(backbone, result, apart[0][:50])
    assert [head.pooling.shape for head in result.heads] == [(4, 4, 16), (4, 4, 32)]
    for threshold, known in RESNET8.items():
        outcome = result.measured((threshold, threshold))
        found = (*outcome.shares, outcome.accuracy, outcome.macs)
        assert found == pytest.approx(known, abs=0.05), threshold
    calibrated = result.calibrated(1.0)
    assert result.fitted.outcome(calibrated.thresholds).loss <= 0.01
    assert calibrated.loss < 0.025 and calibrated.macs < 0.9
