"""`fluidnpu run`: images through a whole network on the RTL of tiny, beside the run without Python."""

import io
import json

import numpy as np
import pytest
from fluidnpu.nn.zoo import make_network
from fluidnpu.sim import one_by_one
from fluidnpu.sim.answers import WrongAnswer
from fluidnpu.sim.memory import IDEAL
from fluidnpu.sim.one_by_one import run_images
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.study import InputError, load_program
from rich.console import Console


def run(config, network, images, first, count, **options):
    console = Console(file=io.StringIO(), width=200)
    options = {"rounding": "litert", "thresholds": [0.8], "memory": IDEAL, "waves": None} | options
    record, speed = run_images(config, network, images, first, count, console=console, **options)
    return record, speed, console.file.getvalue()


def test_beside_the_run_without_python(tiny, tmp_path):
    config, _ = tiny
    out = tmp_path / "new" / "run.json"
    images = MODELS / "digits_views.npz"
    record, speed, text = run(config, MODELS / "digits.tflite", images, 3, 2, bare=True, out=out)
    assert speed.same and speed.cycles > record.cycles and speed.python_cycles < 0.01
    assert [r.id for r in record.results] == [0, 1] and all(r.ok and r.exit == 2 for r in record.results)
    with np.load(images) as views:
        assert record.labels == {0: int(views["y"][3]), 1: int(views["y"][4])}
    assert "Every class, S and logit equals the integer reference" in text and "k cycles/s" in text
    said = json.loads(out.read_text())
    assert len(said["cycles"]) == 2 and said["speed"]["ratio"] == speed.ratio and said["network"] == "digits"


def test_random_images_of_a_network_without_labels(tiny, tmp_path):
    config, _ = tiny
    path = tmp_path / "kws.tflite"
    path.write_bytes(make_network("ds-cnn", exits=(1,)))
    record, speed, text = run(config, path, None, 0, 1, seed=4)
    assert speed is None and record.labels == {} and "image" in text
    assert "cycles to simulate" in text  # where nobody watches a bar


def test_wrong_answers_and_other_runs_are_errors(tiny, monkeypatch):
    config, _ = tiny
    images = MODELS / "digits_views.npz"
    with pytest.raises(InputError, match="2048 images, number 2048 is not among them"):
        run(config, MODELS / "digits.tflite", images, 2047, 2)

    def other_weights(*arguments):
        network, program = load_program(*arguments)
        layer = next(layer for layer in network.layers if hasattr(layer, "weights"))
        object.__setattr__(layer, "weights", -layer.weights)
        return network, program

    monkeypatch.setattr(one_by_one, "load_program", other_weights)
    with pytest.raises(WrongAnswer, match="differ from the reference"):
        run(config, MODELS / "digits.tflite", images, 0, 1)
