"""The shipped network models/digits.tflite on the shipped held-out views, and the tools that made both."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from fluidnpu.nn.digits_data import (
    DIGITS,
    HELD_OUT_DIGITS,
    ViewRecipe,
    Views,
    held_out_views,
    load_digit_images,
    make_views,
    split_digits,
)
from fluidnpu.nn.intervals import wilson_interval
from fluidnpu.nn.train_digits import (
    THRESHOLD,
    evaluate,
    exit_logits,
    macs_to_exit,
    report,
    train,
)

MODELS = Path(__file__).resolve().parents[2] / "models"
NETWORK = MODELS / "digits.tflite"


@pytest.fixture(scope="module")
def views() -> Views:
    return Views.load(MODELS / "digits_views.npz")


@pytest.fixture(scope="module")
def logits(views) -> list[np.ndarray]:
    return exit_logits(NETWORK, views.model_inputs())


def test_accuracy_and_exit_shares(views, logits):
    """The promise: at least 88 % right at threshold 0.8, no exit below 15 %, on at least 2,000 held-out views."""
    result = evaluate(logits, views.labels)
    print(report(result, views.digits))
    assert len(views) >= 2000 and THRESHOLD == 0.8
    assert result.accuracy >= 0.88 and result.interval[0] >= 0.88
    assert min(result.shares) >= 0.15 and sum(result.shares) == pytest.approx(1)
    assert result.exit_accuracy[0] < result.exit_accuracy[1] < result.exit_accuracy[2]


def test_readme_states_what_is_measured(views, logits):
    text = (MODELS / "README.md").read_text()
    for line in report(evaluate(logits, views.labels), views.digits).splitlines():
        assert line in text


def test_views_are_held_out(views):
    training, held_out = split_digits()
    assert len(training) == DIGITS - HELD_OUT_DIGITS and len(held_out) == HELD_OUT_DIGITS
    np.testing.assert_array_equal(np.sort(np.concatenate([training, held_out])), np.arange(DIGITS))
    np.testing.assert_array_equal(np.unique(views.digits), held_out)
    assert len(np.unique(views.images.reshape(len(views), -1), axis=0)) == len(views)
    assert views.model_inputs().dtype == np.int8
    np.testing.assert_array_equal(views.model_inputs().astype(int) + 128, views.images)


def test_views_can_be_made_again(views):
    """Same seeds, same views; another machine's cosine may round a pixel differently."""
    pytest.importorskip("sklearn", reason="scikit-learn (extra `exits`) is not installed")
    again = held_out_views()
    np.testing.assert_array_equal(again.labels, views.labels)
    np.testing.assert_array_equal(again.digits, views.digits)
    np.testing.assert_array_equal(again.labels, load_digit_images()[1][views.digits])
    difference = np.abs(again.images.astype(int) - views.images)
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3


def test_network_is_a_standard_three_output_file(views):
    """Operators, output order and quantisation; MACs counted from the tensor shapes equal macs_to_exit()."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(NETWORK.read_bytes(), 0))
    codes = [code.builtinCode for code in graph.operatorCodes]
    graph = graph.subgraphs[0]
    name = {value: key for key, value in vars(schema.BuiltinOperator).items() if not key.startswith("_")}
    operators = [name[codes[op.opcodeIndex]] for op in graph.operators]
    assert operators.count("CONV_2D") == 6
    assert operators.count("SOFTMAX") == operators.count("FULLY_CONNECTED") == 3
    assert {"AVERAGE_POOL_2D", "MEAN", "RESHAPE"} < set(operators)

    macs, counted = 0, []
    for op, operator in zip(graph.operators, operators, strict=True):
        if operator in ("CONV_2D", "FULLY_CONNECTED"):
            weights, output = graph.tensors[op.inputs[1]].shape, graph.tensors[op.outputs[0]].shape
            macs += int(np.prod(weights)) * int(np.prod(output[1:-1]))
        if operator == "SOFTMAX":
            counted.append(macs)
            assert op.outputs[0] == graph.outputs[len(counted) - 1]
    assert counted == macs_to_exit() and 2_000_000 <= macs <= 3_000_000

    interpreter = Interpreter(str(NETWORK), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    (source,), exits = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["shape"].tolist() == [1, 32, 32, 1] and source["dtype"] == np.int8
    assert [detail["name"] for detail in exits] == ["exit1", "exit2", "exit3"]
    assert all(detail["quantization"] == (1 / 256, -128) for detail in exits)


def test_other_kernels_agree(views, logits):
    """The default kernels of ai-edge-litert round differently here and there, and decide the same."""
    interpreter = Interpreter(str(NETWORK))
    interpreter.allocate_tensors()
    same = []
    for i, x in enumerate(views.model_inputs()[:200]):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x[None])
        interpreter.invoke()
        for detail, values in zip(interpreter.get_output_details(), logits, strict=True):
            same.append(interpreter.get_tensor(detail["index"])[0].argmax() == values[i].argmax())
    assert np.mean(same) > 0.97


def test_exit_rule():
    """Leaves at the first confident exit; the last exit takes the rest, right or wrong."""
    sure, unsure = [9.0, 0.0, 0.0], [0.5, 0.0, 0.0]
    first = np.array([sure, unsure, unsure, unsure])
    second = np.array([unsure, sure, unsure, unsure])
    third = np.array([unsure, unsure, sure, unsure])
    result = evaluate([first, second, third], np.array([0, 0, 0, 1]))
    assert result.exits.tolist() == [0, 1, 2, 2] and result.right.tolist() == [True, True, True, False]
    assert result.shares == (0.25, 0.25, 0.5) and result.accuracy == 0.75
    border = np.log([[8.0, 1.0, 1.0]])  # probability 0.8: "at least" the threshold, up to rounding
    assert evaluate([border + 1e-9 * np.eye(3)[:1], border], np.array([0])).exits.tolist() == [0]
    assert evaluate([border - 1e-9 * np.eye(3)[:1], border], np.array([0])).exits.tolist() == [1]


def test_intervals():
    """50 of 100: Wilson gives 0.404 to 0.596; four identical views of a digit are worth one."""
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(100, 100)[1] == pytest.approx(1.0)
    answers = np.tile(np.arange(100) % 2, 4).astype(float)
    result = evaluate([np.stack([answers, 1 - answers], 1)], np.zeros(400, int))
    low, high = result.digit_interval(np.tile(np.arange(100), 4))
    assert (low, high) == pytest.approx(wilson_interval(50, 100), abs=0.02)


def test_views_of_a_plain_recipe():
    """Without rotation, shift or noise the digit lies in the middle, as large as the scale says."""
    recipe = ViewRecipe(0.0, (3.0, 3.0), 0.0, (0.5, 0.5), (0.1, 0.1), (0.0, 0.0))
    full = make_views(np.ones((2, 8, 8), np.float32), np.random.default_rng(0), recipe)[..., 0]
    assert full.shape == (2, 32, 32) and full.dtype == np.uint8
    np.testing.assert_array_equal(full, full[:, ::-1, ::-1])
    assert full[0, 16, 16] == 153 and full[0, 0, 0] == 26  # 255 * (0.1 + 0.5) and 255 * 0.1
    ink = (full[0].astype(float) - 26) / (153 - 26)
    assert ink.sum() == pytest.approx((8 * 3) ** 2, rel=0.01)
    images = np.random.default_rng(1).uniform(size=(5, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(*(make_views(images, np.random.default_rng(7)) for _ in range(2)))


def test_bad_views_files(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 32, 32, 1), np.uint8), y=np.zeros(2, np.uint8))
    with pytest.raises(ValueError, match=r"a\.npz: views file lacks digit"):
        Views.load(tmp_path / "a.npz")
    Views(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2), np.zeros(2)).save(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b\.npz: x must be uint8 \(2, 32, 32, 1\)"):
        Views.load(tmp_path / "b.npz")


def test_training_is_reproducible(tmp_path):
    """A very short training: the file runs, and the same seed gives the same bytes."""
    pytest.importorskip("torch", reason="PyTorch, which only training needs, is not installed")
    images, labels = load_digit_images()
    networks = [train(images[:128], labels[:128], epochs=2, seed=seed) for seed in (3, 3, 4)]
    assert networks[0] == networks[1] != networks[2]
    (tmp_path / "short.tflite").write_bytes(networks[0])
    values = exit_logits(tmp_path / "short.tflite", np.zeros((2, 32, 32, 1), np.int8))
    assert [v.shape for v in values] == [(2, 10)] * 3
