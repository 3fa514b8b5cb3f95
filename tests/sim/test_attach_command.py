"""The command `fluidnpu attach-exits` on the digits network."""

import json

import numpy as np
import pytest
from fluidnpu.nn.tflite_reader import read_network
from fluidnpu.sim.cli import main
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.study import limits_of

from ..nn.backbones import digit_images, digits_backbone


def call(*arguments):
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return end.value.code


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Folder with the digits backbone and a few labelled images."""
    folder = tmp_path_factory.mktemp("attach")
    (folder / "backbone.tflite").write_bytes(digits_backbone())
    for name, first, count in (("train", 512, 300), ("test", 0, 100)):
        images, labels = digit_images(first, count)
        np.savez(folder / f"{name}.npz", x=images.view(np.uint8) ^ 0x80, y=labels)
    np.savez(folder / "unlabelled.npz", x=images)
    np.savez(folder / "odd.npz", x=np.zeros((9, 28, 28, 1), np.uint8), y=np.zeros(9, int))
    return folder


def test_from_backbone_to_thresholds(files, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn (extra `exits`) is not installed")
    out = files / "made" / "exits.tflite"
    arguments = ["attach-exits", files / "backbone.tflite", "--at", "stage1b", "stage2b", "--data", files / "train.npz"]
    assert call(*arguments, "--test", files / "test.npz", "-o", out, "--calibrate", 5) == 0
    printed = capsys.readouterr().out
    said = json.loads(out.with_suffix(".json").read_text())
    assert said["images"] == {"fitted": 300, "held_apart": 100}
    assert [row["index"] for row in said["exits"]] == [6, 19, 37]
    assert [row["thresholds"] for row in said["thresholds"]][5] == [0.8, 0.8]
    thresholds = said["calibrated"]["held_apart"]["thresholds"]
    assert " ".join(f"--threshold {t:g}" for t in thresholds) in printed
    network = read_network(out)
    assert list(limits_of(thresholds, len(network.exits)))[:2] == said["calibrated"]["held_apart"]["limits"]
    for word in ("exit 3", "right", "lost", "MACs", "±", "100 images held apart"):
        assert word in printed


def test_auto_and_a_part_held_apart(files, capsys):
    pytest.importorskip("sklearn", reason="scikit-learn (extra `exits`) is not installed")
    out = files / "auto.tflite"
    arguments = ["attach-exits", files / "backbone.tflite", "--at", "auto", "--exits", 1, "--data", files / "train.npz"]
    assert call(*arguments, "-o", out, "--held-out", 0.25, "--pool", 2) == 0
    printed = capsys.readouterr().out
    assert "Places for exits in backbone.tflite" in printed and "stage3b" in printed
    said = json.loads(out.with_suffix(".json").read_text())
    assert said["images"] == {"fitted": 225, "held_apart": 75}
    assert said["exits"][0]["pooled"] == [2, 2, 32]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"backbone": "no.tflite"}, "backbone no.tflite: No such file or directory"),
        ({"backbone": MODELS / "digits.tflite"}, "has 3 outputs ('exit1', 'exit2', 'exit3'); a backbone has 1"),
        ({"backbone": __file__}, "not a .tflite file"),
        ({"--at": "stage9"}, "there is no tensor 'stage9'; feature maps: 3 'stage1a'"),
        ({"--at": "exit3/mean"}, "is no feature map"),
        ({"--data": "no.npz"}, "images no.npz: No such file or directory"),
        ({"--data": "unlabelled.npz"}, "there is no array y; exits need labels"),
        ({"--test": "odd.npz"}, "x is uint8 [9, 28, 28, 1], it must be uint8 or int8 [at least 1, 32, 32, 1]"),
        ({"--held-out": "1.5"}, "1.5 of 300 images held apart"),
        ({"--calibrate": "-2"}, "--calibrate -2.0; it must be 0..100 percentage points"),
    ],
)
def test_bad_input_is_one_line(files, changes, message, capsys, monkeypatch):
    monkeypatch.chdir(files)
    options = {"--at": "stage1b", "--data": "train.npz", "-o": "none.tflite", **changes}
    backbone = options.pop("backbone", "backbone.tflite")
    assert call("attach-exits", backbone, *(x for pair in options.items() for x in pair)) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert not (files / "none.tflite").exists()


def test_auto_stands_alone(files, capsys):
    arguments = ["attach-exits", files / "backbone.tflite", "--at", "auto", "--at", "stage1b"]
    assert call(*arguments, "--data", files / "train.npz", "-o", files / "none.tflite") == 2
    assert "--at auto cannot be mixed with tensors" in capsys.readouterr().err
