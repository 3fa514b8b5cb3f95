"""What the exits of every sample decide, known beforehand: studies of time need no tensors."""

from dataclasses import dataclass

import numpy as np

from .cycle.values import NoValues

__all__ = ["Decided", "GivenValues"]

_UNSURE = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Decided:
    """The decisions of a run's samples; the tag of a request is its place in order of arrival.

    confident : int64 [samples], bit e: exit e is confident (the last one always decides)
    top : int64 [samples, exits], the class that each exit says, or None: classes are not known
    image : int64 [samples], which image of the network's own each sample is, or None: it is none of them
    """

    confident: np.ndarray
    top: np.ndarray | None = None
    image: np.ndarray | None = None

    @classmethod
    def at(cls, exit, top=None):
        """Samples that leave at ``exit`` (int [samples]) and would at every later one."""
        exit = np.asarray(exit, np.int64)
        return cls((0xFFFF << exit) & 0xFFFF, top)

    def __call__(self, tag):
        """(mask of confident exits, classes or None) of a sample."""
        return int(self.confident[tag]), None if self.top is None else self.top[tag]

    def taken(self, tag, exits, mask=None):
        """The exit of ``exits`` that a sample takes if only those in ``mask`` are enabled."""
        confident = int(self.confident[tag]) & ((1 << exits) - 1 if mask is None else mask)
        return min((e for e in range(exits - 1) if confident >> e & 1), default=exits - 1)


class GivenValues(NoValues):
    """For `CycleDevice`: the exits decide what `Decided` says. The limits of the program's exits must not be
    LIMIT_NEVER."""

    def __init__(self, decided):
        self._decided = decided

    def answer(self, model, slot, program, exit):
        confident, tops = self._decided(int(model.state.tag[slot]))
        return 0 if tops is None else int(tops[exit]), 0 if confident >> exit & 1 else _UNSURE
