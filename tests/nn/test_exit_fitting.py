"""Classifiers of exit heads on made-up features."""

import sys

import numpy as np
import pytest
from fluidnpu.nn.exit_fitting import fit_classifier, log_softmax, soften
from fluidnpu.nn.exit_places import AttachError

sklearn = pytest.importorskip("sklearn", reason="scikit-learn (extra `exits`) is not installed")


def made_up(classes=4, features=12, count=600, seed=0, scale=20.0):
    """(int8 features [n, f], labels [n], real logits [n, classes]) of a noisy linear problem."""
    rng = np.random.default_rng(seed)
    x = np.clip(np.rint(rng.normal(0, scale, (count, features))), -128, 127)
    logits = x @ rng.normal(0, 3 / scale / np.sqrt(features), (features, classes))
    odds = np.exp(log_softmax(logits))
    labels = np.array([rng.choice(classes, p=p) for p in odds])
    return x.astype(np.int8), labels, logits


def test_it_finds_the_classes():
    x, labels, logits = made_up()
    fit = fit_classifier(x, labels, soften(logits), seed=1)
    assert fit.weights.shape == (4, 12) and fit.bias.shape == (4,) and fit.held_out.shape == (600, 4)
    agree = ((x @ fit.weights.T + fit.bias).argmax(1) == logits.argmax(1)).mean()
    assert agree > 0.95
    loss = -log_softmax(logits)[np.arange(600), labels].mean()  # of the truth
    assert loss - 0.05 < fit.loss < loss + 0.05


def test_held_out_logits_are_of_other_images():
    """Labels that no feature explains: a classifier that had seen them would do better than chance."""
    rng = np.random.default_rng(3)
    x, labels = rng.integers(-128, 128, (300, 100)).astype(np.int8), rng.integers(0, 5, 300)
    fit = fit_classifier(x, labels, np.full((300, 5), 0.2), seed=1)
    assert abs((fit.held_out.argmax(1) == labels).mean() - 0.2) < 0.1


def test_the_better_teacher_wins():
    x, labels, logits = made_up(count=200)
    assert fit_classifier(x, labels, soften(logits), seed=1).learns == "backbone"
    nonsense = soften(np.random.default_rng(5).normal(0, 5, logits.shape))
    assert fit_classifier(x, labels, nonsense, seed=1).learns == "labels"


def test_as_sure_as_it_is_right_or_a_little_more():
    """Within one standard error of the best log-loss, on the sure side."""
    x, labels, logits = made_up(count=2000)
    fit = fit_classifier(x, labels, soften(logits), seed=1)
    sure = np.exp(log_softmax(fit.held_out)).max(1).mean()
    right = (fit.held_out.argmax(1) == labels).mean()
    assert 0 < sure - right < 0.08


def test_two_classes_and_a_class_without_images():
    x, labels, logits = made_up(classes=2)
    fit = fit_classifier(x, labels, np.eye(2)[labels], seed=1)
    assert ((x @ fit.weights.T + fit.bias).argmax(1) == logits.argmax(1)).mean() > 0.95
    x, labels, _ = made_up(classes=3)
    teacher = np.concatenate([np.eye(3)[labels], np.zeros((600, 1))], 1)
    fit = fit_classifier(x, labels, teacher, seed=1)
    assert fit.weights.shape == (4, 12) and (fit.held_out.argmin(1) == 3).all()


def test_bad_data(monkeypatch):
    x, labels, logits = made_up(count=40)
    with pytest.raises(AttachError, match="7 images to fit on; at least 8"):
        fit_classifier(x[:7], labels[:7], soften(logits[:7]), seed=1)
    with pytest.raises(AttachError, match="the same for every image"):
        fit_classifier(np.ones_like(x), labels, soften(logits), seed=1)
    with pytest.raises(AttachError, match="have label 2; a classifier needs at least two classes"):
        fit_classifier(x, np.full(40, 2), soften(logits), seed=1)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(
        AttachError, match=r"needs scikit-learn, which is not installed: pip install 'fluidnpu\[exits\]'"
    ):
        fit_classifier(x, labels, soften(logits), seed=1)
