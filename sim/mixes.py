"""At which exit samples leave: what a network says of images, a file of confidences, or given shares.

An `ExitMix` holds a pool of samples whose decisions at every exit are known, and the chance of each to be drawn, which
may change in the course of a run. The same seed draws the same samples for every policy.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fluidnpu.hw.isa import MAX_CLASSES
from fluidnpu.nn import reference
from fluidnpu.nn.exits import ONE, exit_table, limit_of, logits_of, top_and_spread

from .decisions import Decided

__all__ = ["MIXES", "SYNTHETIC", "ExitMix", "MixError", "answers_mix", "file_mix", "mix_of", "shares_mix"]

SYNTHETIC = {"easy": (0.7, 0.2, 0.1), "hard": (0.1, 0.2, 0.7)}  # shares of the first, middle and last exit
ANSWERS = "answers"  # what the network itself decides on its images
SHIFT = "shift"  # easy in the first half of a run, hard in the second
MIXES = (ANSWERS, *SYNTHETIC, SHIFT)


class MixError(ValueError):
    """A mix that cannot be made; the message names the file or the value."""


@dataclass(frozen=True, eq=False)
class ExitMix:
    """A pool of samples.

    confident : int64 [n], bit e: exit e is confident; exits : number of exits
    top : int64 [n, exits] classes that the exits say, label : int64 [n] true classes; or None
    spread : int64 [n, exits], S of the exits; or None
    shares : float [phases, exits]: chance to leave at each exit, phase by phase of equal length; None: as in the pool
    of_images : the pool's samples are the network's images, in their order
    """

    confident: np.ndarray
    exits: int
    top: np.ndarray | None = None
    label: np.ndarray | None = None
    shares: np.ndarray | None = None
    of_images: bool = False
    spread: np.ndarray | None = None

    @property
    def taken(self):
        """Exit that each sample of the pool takes, int64 [n]."""
        bits = self.confident[:, None] >> np.arange(self.exits - 1) & 1
        return np.where(bits.any(1), bits.argmax(1), self.exits - 1)

    def rates(self, phase=None):
        """P(exit at e | alive at e) for all exits but the last; ``phase``: of that phase alone."""
        if self.shares is None:
            shares = np.bincount(self.taken, minlength=self.exits) / len(self.confident)
        else:
            shares = self.shares.mean(0) if phase is None else self.shares[phase]
        left = np.cumsum(shares[::-1])[::-1]
        return [float(shares[e] / left[e]) if left[e] > 0 else 0.5 for e in range(self.exits - 1)]

    def draw(self, count, seed):
        """(Decided, labels int64 [count] or None) of a run's samples."""
        random = np.random.default_rng([seed, 0xE817])
        if self.shares is None:
            chosen = random.integers(len(self.confident), size=count)
        else:
            phase = np.arange(count) * len(self.shares) // max(count, 1)
            edges = np.cumsum(self.shares, 1)[phase]
            exit = np.minimum((random.random(count)[:, None] >= edges).sum(1), self.exits - 1)
            where = [np.flatnonzero(self.taken == e) for e in range(self.exits)]
            places = random.random(count)
            chosen = np.array([where[e][int(p * len(where[e]))] for e, p in zip(exit, places, strict=True)], int)
        top, spread = (None if values is None else values[chosen] for values in (self.top, self.spread))
        image = chosen if self.of_images else None
        return Decided(self.confident[chosen], top, image, spread), None if self.label is None else self.label[chosen]


def answers_mix(network, limits, images, labels=None):
    """The network's own answers to images int8 [n, h, w, c], by the integer reference."""
    parts = [reference.run(network, images[i : i + 100]) for i in range(0, len(images), 100)]
    tops, spreads = [], []
    for e in network.ends:
        logits = np.concatenate([logits_of(e, tensors) for tensors in parts])
        top, spread = top_and_spread(logits, exit_table(e.scale, e.beta))
        tops.append(top), spreads.append(spread)
    spread = np.stack(spreads, 1).astype(np.int64)
    confident = ((spread <= np.asarray(limits, np.int64)).astype(np.int64) << np.arange(len(limits))).sum(1)
    labels = None if labels is None else np.asarray(labels, np.int64)
    return ExitMix(confident, len(limits), np.stack(tops, 1).astype(np.int64), labels, of_images=True, spread=spread)


def file_mix(path, exits=None, threshold=0.8):
    """A .csv file with columns label, p1, c1, p2, c2, ...: class and confidence of every exit, a sample per line.

    S is 2^16 / confidence, on the side of the threshold's limit that the confidence is on.

    exits : that the network has; default: as many as the file
    """
    try:
        with open(path, newline="") as file:
            table = csv.DictReader(file)
            rows, names = list(table), table.fieldnames or ()
        exits = exits or sum(name[:1] == "c" and name[1:].isdigit() for name in names) or 1
        classes = np.array([[int(r[f"p{e + 1}"]) for e in range(exits)] for r in rows])
        confidences = np.array([[float(r[f"c{e + 1}"]) for e in range(exits)] for r in rows])
        label = np.array([int(r["label"]) for r in rows])
    except OSError as error:
        raise MixError(f"exits {path}: {error.strerror or error}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise MixError(f"exits {path}: columns label, p1, c1 .. p{exits}, c{exits} are needed ({error})") from None
    if not len(rows):
        raise MixError(f"exits {path}: there is no sample")
    sure, limit = confidences >= threshold, limit_of(threshold)
    spread = (ONE / np.maximum(confidences, 1 / MAX_CLASSES)).astype(np.int64)
    spread = np.where(sure, np.minimum(spread, limit), np.maximum(spread, limit + 1))
    return ExitMix((sure.astype(np.int64) << np.arange(exits)).sum(1), exits, classes, label, spread=spread)


def shares_mix(shares, pool=None):
    """Given shares per exit, one tuple or one per phase. ``pool``: ExitMix to draw from, so that classes are known."""
    table = np.atleast_2d(np.array(shares, float))
    exits = table.shape[1]
    if (table < 0).any() or not np.allclose(table.sum(1), 1):
        raise MixError(f"exit shares {shares}: each at least 0, and 1 together")
    if pool is not None:
        missing = [e for e in range(exits) if table[:, e].any() and not (pool.taken == e).any()]
        if pool.exits != exits or missing:
            raise MixError(f"exit shares {shares}: the pool has {pool.exits} exits, nobody leaves at {missing}")
        return ExitMix(pool.confident, exits, pool.top, pool.label, table, pool.of_images, pool.spread)
    return ExitMix(Decided.at(np.arange(exits)).confident, exits, shares=table)


def mix_of(name, exits, pool=None, threshold=0.8):
    """The mix of a name: "answers" (the pool's own), "easy", "hard", "shift", a .csv file, or shares as "0.3,0.3,0.4".

    Named shares have a first, a middle and a last exit: further ones divide the middle's share.
    """
    if name == ANSWERS:
        if pool is None:
            raise MixError("exit mix 'answers': the network has no images to answer")
        return pool
    if name == SHIFT:
        return shares_mix([_spread(SYNTHETIC[k], exits) for k in ("easy", "hard")], pool)
    if name in SYNTHETIC:
        return shares_mix(_spread(SYNTHETIC[name], exits), pool)
    if Path(name).suffix == ".csv":
        return file_mix(name, exits, threshold)
    try:
        shares = [float(part) for part in name.split(",")]
    except ValueError:
        shares = []
    if len(shares) != exits:
        raise MixError(f"exit mix {name!r}: neither {', '.join(MIXES)} nor a .csv file nor {exits} shares")
    return shares_mix(shares, pool)


def _spread(shares, exits):
    first, middle, last = shares
    if exits == 1:
        return (1.0,)
    if exits == 2:
        return (first + middle / 2, last + middle / 2)
    return (first, *[middle / (exits - 2)] * (exits - 2), last)
