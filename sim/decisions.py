"""What the exits of every sample decide, known beforehand: studies of time need no tensors."""

from dataclasses import dataclass

import numpy as np
from fluidnpu.hw.isa import SPREAD_NONE

from .cycle.values import NoValues

__all__ = ["Decided", "GivenValues"]


@dataclass(frozen=True, eq=False)
class Decided:
    """The decisions of a run's samples; the tag of a request is its place in order of arrival.

    confident : int64 [samples], bit e: exit e is confident (the last one always decides)
    top : int64 [samples, exits], the class that each exit says, or None: classes are not known
    image : int64 [samples], which image of the network's own each sample is, or None: it is none of them
    spread : int64 [samples, exits], S of each exit, at most the program's limit where it is confident and above where
        not; or None: not known, a host then sees 0 and `SPREAD_NONE`
    """

    confident: np.ndarray
    top: np.ndarray | None = None
    image: np.ndarray | None = None
    spread: np.ndarray | None = None

    @classmethod
    def at(cls, exit, top=None):
        """Samples that leave at ``exit`` (int [samples]) and would at every later one."""
        exit = np.asarray(exit, np.int64)
        return cls((0xFFFF << exit) & 0xFFFF, top)

    def mask(self, tag):
        """Exits that are confident of a sample, bit e: exit e."""
        return int(self.confident[tag])

    def answer(self, tag, exit):
        """(class, S) that a host sees of a sample at an exit."""
        unknown = 0 if self.confident[tag] >> exit & 1 else SPREAD_NONE
        top = 0 if self.top is None else int(self.top[tag][exit])
        return top, unknown if self.spread is None else int(self.spread[tag][exit])

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
        return self._decided.answer(int(model.state.tag[slot]), int(exit))
