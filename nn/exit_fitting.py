"""Fits the linear classifier of an exit head: what it learns, how strongly it is held back, how sure it is.

Every choice is made on parts of the data held apart from the fitting (cross-validation), by the log-loss of the labels:

* What a head learns: the labels, or what the backbone itself answers, softened (Hinton et al. 2015, distillation; Zhang
  et al. 2019 for exits). The second is the better teacher where the backbone is good and images are few.
* Strength: the C of scikit-learn's LogisticRegression, on features of mean 0 and deviation 1.
* Sharpness: the factor on the logits, an inverse temperature. Among those whose log-loss is within one standard error
  of the best (Breiman's rule) the head takes the largest: the data cannot tell them apart, and a sure head leaves
  earlier.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .exit_places import AttachError

__all__ = ["Fit", "fit_classifier", "log_softmax", "soften"]

STRENGTHS = tuple(10.0 ** (n / 2) for n in range(-5, 5))  # of C, the weakest first: 0.003 .. 100
SHARPNESSES = np.exp(np.linspace(np.log(0.2), np.log(8.0), 120))
FOLDS = 4
TEMPERATURE = 3.0  # that softens what the backbone answers
LEAST_SHARE = 0.02  # classes below are left out of a soft answer
ITERATIONS, TOLERANCE = 100, 1e-3  # of the optimiser; the last digits do not matter to held-out accuracy
MISSING = 20.0  # a class that no image shows stands this far below the lowest of the others


@dataclass(frozen=True, eq=False)
class Fit:
    """A linear classifier: logits = features @ weights.T + bias.

    weights float64 [classes, features], bias [classes], both for raw features and sharpness included. held_out [n,
    classes]: logits of every image by a classifier that has not seen it. learns: "labels" or "backbone".
    """

    weights: np.ndarray
    bias: np.ndarray
    held_out: np.ndarray
    learns: str
    strength: float
    sharpness: float
    loss: float  # held-out log-loss, in nats


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithm of the softmax over the last axis; float64."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def soften(logits: np.ndarray) -> np.ndarray:
    """What the backbone teaches: softmax [n, classes] of its real logits at a higher temperature."""
    return np.exp(log_softmax(np.asarray(logits, np.float64) / TEMPERATURE))


def fit_classifier(
    features: np.ndarray,
    labels: np.ndarray,
    teacher: np.ndarray,
    seed: int,
    progress: Callable[[], None] | None = None,
) -> Fit:
    """The best Fit of features [n, f] to labels [n].

    teacher : `soften`ed answers of the backbone [n, classes]; progress : called after every classifier. Raises
    AttachError without scikit-learn, with fewer images than folds or features that never change.
    """
    count = len(teacher)
    if count < 2 * FOLDS:
        raise AttachError(f"{count} images to fit on; at least {2 * FOLDS} are needed")
    if len(np.unique(labels)) < 2:
        raise AttachError(f"all images to fit on have label {labels[0]}; a classifier needs at least two classes")
    values = np.asarray(features, np.float64)
    mean, deviation = values.mean(0), values.std(0)
    if not deviation.any():
        raise AttachError("the features are the same for every image; there is nothing to classify")
    # A feature that moves by less than a step of its int8 tensor would get a huge weight for its rounding noise.
    deviation = np.maximum(deviation, 1.0)
    scaled = ((values - mean) / deviation).astype(np.float32)
    with _one_thread():
        return _best_fit(scaled, mean, deviation, labels, teacher, seed, progress)


def _best_fit(scaled, mean, deviation, labels, teacher, seed, progress) -> Fit:
    """`fit_classifier` on features of mean 0."""
    count, classes = teacher.shape
    folds = np.array_split(np.random.default_rng(seed).permutation(count), FOLDS)
    best = None
    for learns, targets in (("labels", np.eye(classes)[labels]), ("backbone", teacher)):
        before = np.inf
        for strength, logits in _path(scaled, targets, folds, progress):
            loss, sharpness = _sharpen(logits, labels)
            if loss >= before:
                break  # over the strength the loss has one minimum
            before = loss
            if best is None or loss < best[3]:
                best = learns, targets, strength, loss, sharpness, logits
    learns, targets, strength, loss, sharpness, logits = best
    weights, bias = _fit(_classifier(strength), scaled, targets)
    weights = sharpness * weights / deviation
    return Fit(weights, sharpness * bias - weights @ mean, sharpness * logits, learns, strength, sharpness, loss)


def _path(scaled, targets, folds, progress):
    """(strength, held-out logits [n, classes]) for rising strengths; each classifier starts from the one before."""
    classifiers = [_classifier(1.0, warm_start=True) for _ in folds]
    for strength in STRENGTHS:
        logits = np.zeros(targets.shape)
        for fold, classifier in zip(folds, classifiers, strict=True):
            rest = np.ones(len(targets), bool)
            rest[fold] = False
            classifier.C = strength
            weights, bias = _fit(classifier, scaled[rest], targets[rest])
            logits[fold] = scaled[fold] @ weights.T + bias
            if progress:
                progress()
        yield strength, logits


def _one_thread():
    """The products are so small that threads wait for one another, on a busy machine for minutes."""
    _classifier(1.0)  # the limit holds for libraries that are loaded, and threadpoolctl comes with scikit-learn
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def _classifier(strength, warm_start=False):
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise AttachError(
            "fitting exit heads needs scikit-learn, which is not installed: pip install 'fluidnpu[exits]'"
        ) from None
    return LogisticRegression(C=strength, max_iter=ITERATIONS, tol=TOLERANCE, warm_start=warm_start)


def _fit(classifier, features, targets) -> tuple[np.ndarray, np.ndarray]:
    """Weights [classes, features] and bias [classes] for targets [n, classes], each a distribution.

    An image stands in the data once for every class that it may be, with that weight.
    """
    kept = np.where(targets >= np.minimum(LEAST_SHARE, targets.max(1, keepdims=True)), targets, 0.0)
    kept /= kept.sum(1, keepdims=True)
    image, label = np.nonzero(kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged: the strength is chosen by the result
        classifier.fit(features[image], label, sample_weight=kept[image, label])
    coefficients, intercept = classifier.coef_, classifier.intercept_
    if len(classifier.classes_) == 2 and len(coefficients) == 1:  # one difference of two logits
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weights = np.zeros((targets.shape[1], features.shape[1]))
    bias = np.full(targets.shape[1], intercept.min() - MISSING)
    weights[classifier.classes_], bias[classifier.classes_] = coefficients, intercept
    return weights, bias


def _sharpen(logits, labels) -> tuple[float, float]:
    """(least log-loss over the sharpness, largest sharpness within one standard error of it)."""
    rows = np.arange(len(labels))
    losses = np.array([-log_softmax(s * logits)[rows, labels] for s in SHARPNESSES])  # [sharpnesses, n]
    mean = losses.mean(1)
    best = int(mean.argmin())
    error = losses[best].std() / np.sqrt(len(labels))
    return float(mean[best]), float(SHARPNESSES[np.nonzero(mean <= mean[best] + error)[0].max()])
