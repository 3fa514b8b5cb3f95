"""Variant tables chosen by a cycle model: each layer in its place, for every number of live samples.

A layer is timed in a window of the program: the layer before it, whose last tile its own loads run beside, the layer
itself, and the next one, which waits for its lines. What counts is the cycle in which the next one ends.
"""

from collections.abc import Callable
from itertools import combinations
from typing import Protocol

import numpy as np
from fluidnpu.hw import isa

from .estimate import VariantTable, array_cycles, deal, layer_cycles, legal_variants
from .mapping import weight_beats
from .operations import Draft
from .variant_tables import variant_values

__all__ = ["TimedTables", "Timing"]

TURNS = 2  # over all layers: each is timed among what the others have become
BEFORE = 1  # layers of a window in front of the timed one
WORTH = 0.002  # of a layer's cycles: what saves less is not tried, and no reason for one variant more
REGRET = 100  # weight of the square of what a table is slower than the best variant alone, relative
LONG = 200_000  # cycles of a layer from which on times cost so much that one turn is enough
WORTH_LONG = 0.01  # what is worth a try then
FAR = 0.15  # of a layer's cycles: a stack mode that is so much slower for n samples is not tried for more
POOL = 10  # variants of which a layer's table is put together, more if there are as many best ones
MANY_TILES = 4  # of one sample: further samples make no difference to the choice
_WEIGHTS_AT = 1 << 28  # where weight streams lie while times are taken: only their lengths matter
_APART = 4096  # bytes: a burst ends there
_DATA = frozenset(  # descriptor fields that no time depends on
    "in_offset out_offset res_offset bias multiplier shift in_zero out_zero clamp_min clamp_max single_rounding "
    "half_up add_left_multiplier add_right_multiplier add_multiplier add_left_shift add_right_shift add_shift "
    "add_zero add_left_zero add_right_zero add_clamp_min add_clamp_max".split()
)


class Timing(Protocol):
    """What a cycle model does for the compiler."""

    def __call__(
        self, config, descriptors: np.ndarray, arena_bytes: int, live: int, first: int, stop: int, exits: int
    ) -> dict[int | None, int]:
        """Cycle of the last MAC of every operation that ran, and of the last write (None), counted from the start.

        descriptors : uint32 [operations, isa.DESCRIPTOR_WORDS]; ``live`` samples start together at operation
        ``first``, all before it being written, and end in front of ``stop``; exits : mask of those enabled, nobody
        leaves there
        """


class TimedTables:
    """Chooses the tables of a draft. ``tables``: dict operation -> VariantTable to begin with; ``status``: told which
    layer is timed."""

    def __init__(self, config, draft: Draft, tables, timing: Timing, status: Callable[[str], None] | None = None):
        self.config, self.draft, self.timing, self.status = config, draft, timing, status
        self.tables = dict(tables)
        operations = draft.operations
        rows = [isa.encode(isa.DESCRIPTOR_FIELDS, o.values, isa.DESCRIPTOR_WORDS, o.step.name) for o in operations]
        self._plain = np.array(rows, np.uint32)
        self._weights, at = {}, _WEIGHTS_AT
        for i in draft.layers:
            self._weights[i] = at
            geometry = operations[i].geometry
            longest = max(weight_beats(config, geometry, v) for v in legal_variants(config, geometry, draft.longest)[1])
            at += longest * config.bus_bytes
            at += -at % _APART
        self._windows, self._signatures, self._words, self._known, self._rooms = {}, {}, {}, {}, {}

    def chosen(self):
        """dict operation -> VariantTable."""
        layers = self.draft.layers
        for turn in range(TURNS):
            alike = {}  # layers of one geometry between neighbours of one geometry get one table
            for number, i in enumerate(layers, 1):
                if turn and self._long(i):
                    continue
                if self.status:
                    name = self.draft.operations[i].step.name
                    self.status(f"timing {name}, layer {number} of {len(layers)}, turn {turn + 1} of {TURNS}")
                first, _, stop, _ = self._window(i)
                key = (i - first, *(self._signature(k, first) for k in range(first, stop)))
                if key not in alike:
                    alike[key] = self._layer_table(i)
                self.tables[i] = alike[key]
        return self.tables

    def _long(self, i):
        """Timing it again costs more than it can bring."""
        table, slots = self.tables[i].by_candidates, self.config.slots
        return array_cycles(self.config, self.draft.operations[i].geometry, table, slots) >= LONG

    def first_cycles(self):
        """Cycles per sample of the layers that read the image and the one behind, summed over all live counts."""
        image = self.draft.fold.rewritten.network.input.name
        first = [i for i in self.draft.layers if self.draft.operations[i].step.layer.input.name == image]
        for i in first:
            self.tables[i] = self._layer_table(i)
        return sum(self.cycles(first[-1], self.tables[first[-1]], n) / n for n in self._counts())

    # --- measuring ------------------------------------------------------------------------------------------------

    def _path(self, i):
        """Layers on a sample's way through layer ``i``: the trunk, or the trunk up to a head and the head."""
        heads = {k: self.draft.operations[k].step.head for k in self.draft.layers}
        return [k for k, head in heads.items() if head == heads[i] or (head < 0 and (heads[i] < 0 or k < i))]

    def _window(self, i):
        """(first operation, layer behind or None, operation at which the samples end, mask of enabled exits)."""
        if i not in self._windows:
            path, head = self._path(i), self.draft.operations[i].step.head
            at = path.index(i)
            behind = path[at + 1] if at + 1 < len(path) else None
            stop = (i if behind is None else behind) + 1
            self._windows[i] = path[max(0, at - BEFORE)], behind, stop, 1 << head if head >= 0 else 0
        return self._windows[i]

    def _ends(self, i, table, live):
        """Of the window of layer ``i`` if it had this table."""
        first, _, stop, exits = self._window(i)
        tables = self.tables | {i: table}
        key = (
            live,
            exits,
            *((self._signature(k, first), self._used(k, tables.get(k), live)) for k in range(first, stop)),
        )
        if key not in self._known:
            words = self._plain.copy()
            for k in range(first, stop):
                if k in tables:
                    words[k] |= self._variant_words(k, tables[k])
            ends = self.timing(self.config, words, self.draft.arena_bytes, live, first, stop, exits)
            self._known[key] = {k if k is None else k - first: cycle for k, cycle in ends.items()}
        return {k if k is None else k + first: cycle for k, cycle in self._known[key].items()}

    def _signature(self, k, first):
        """What the times of operation ``k`` depend on in a window from ``first`` on, wherever that lies."""
        if (k, first) not in self._signatures:
            values = {n: int(v) for n, v in self.draft.operations[k].values.items() if n not in _DATA}
            for name in ("producer", "res_producer", "target"):
                if name in values:  # what was made before the window is there
                    values[name] = max(values[name] - first, -1) if values[name] != isa.NO_PRODUCER else -1
            self._signatures[k, first] = tuple(sorted(values.items()))
        return self._signatures[k, first]

    def _used(self, k, table, live):
        """What matters of a table: the variants of the numbers of candidates that ``live`` samples come down to."""
        if table is None:
            return None
        left, used, chosen = (self.draft.operations[k].geometry.lines(self.config),) * live, [], table.by_candidates
        while left:
            variant = chosen[len(left) - 1]
            used.append((len(left), variant))
            _, left = deal(variant, left)
        return tuple(dict.fromkeys(used))

    def _variant_words(self, k, table):
        if (k, table) not in self._words:
            self._words[k, table] = self._encoded(k, table)
        return self._words[k, table]

    def _encoded(self, k, table):
        values = variant_values(self.config, self.draft.operations[k].geometry, table)
        values |= {f"weights{v}": self._weights[k] for v in range(isa.VARIANTS)}
        name = self.draft.operations[k].step.name
        return np.array(isa.encode(isa.DESCRIPTOR_FIELDS, values, isa.DESCRIPTOR_WORDS, name), np.uint32)

    def cycles(self, i, table, live):
        """Cycles until the window of layer ``i`` ends for ``live`` samples if it had this table."""
        return self._ends(i, table, live)[self._window(i)[1]]

    # --- choosing -------------------------------------------------------------------------------------------------

    def _layer_table(self, i):
        """The best table of layer ``i`` while all other layers keep theirs."""
        flat, options = legal_variants(self.config, self.draft.operations[i].geometry, self.draft.longest)
        alone, best = {}, None  # live -> {variant: cycles if it is the only one}
        for n in self._counts():
            if n > 2 and self._tiles(i, best, options) >= MANY_TILES:
                break
            alone[n] = self._search(i, n, options, best)
            best = min(alone[n], key=lambda v: (alone[n][v], v))
            if n > 1:  # the more samples, the less they differ: stack modes that are far behind stay there
                near = {_mode(v) for v, c in alone[n].items() if c - alone[n][best] <= FAR * self._rooms[i, n]}
                options = [v for v in options if _mode(v) in near]
        members = self._members(i, alone, flat)
        return self._arranged(i, members, alone)

    def _members(self, i, alone, flat):
        """The few variants, the first one unstacked, of which the best for each number of samples costs least."""
        least = {n: min(costs.values()) for n, costs in alone.items()}
        excess = {}
        for n, costs in alone.items():
            for v, cycles in costs.items():
                excess[v] = min(excess.get(v, float("inf")), (cycles - least[n]) / self._rooms[i, n])
        pool = []  # first what is best for some number of samples, if equal one that takes many
        for n in sorted(alone, reverse=True):
            best = [v for v, cycles in alone[n].items() if cycles == least[n]]
            if not any(v in pool for v in best):
                pool.append(max(best, key=lambda v: (v.max_lines, v)))
        others = sorted(excess.keys() - set(pool), key=lambda v: (excess[v], v))
        pool += others[: max(0, POOL - len(pool))]

        def cost(v, n):
            if v not in alone[n]:
                alone[n][v] = self.cycles(i, _uniform(self.config, v), n)
            return (alone[n][v] - least[n]) / self._rooms[i, n]

        found = []
        for base in [v for v in pool if v in flat] or [self.tables[i].variants[0]]:
            rest = [v for v in pool if v != base]
            for more in (m for size in range(isa.VARIANTS) for m in combinations(rest, size)):
                total = sum(min(cost(v, n) for v in (base, *more)) for n in alone)
                found.append((total + WORTH * len(alone) * len(more), len(more), base, *more))
        return min(found)[2:]

    def _arranged(self, i, members, alone):
        """Table of these variants.

        The remainder of a layer goes by the choice for fewer candidates, so that this costs many samples too: each
        choice is changed as long as that saves something over all numbers of samples.
        """
        measured = sorted(alone)

        def table_of(selection):
            """With the choice for the next smaller number where none was made."""
            at = [sum(m <= n for m in measured[: len(selection)]) - 1 for n in range(1, self.config.slots + 1)]
            return VariantTable(members, tuple(selection[k] for k in at))

        def excess(selection, n):
            table = table_of(selection)
            value = (self.cycles(i, table, n) - min(alone[n].values())) / self._rooms[i, n]
            return value + REGRET * max(0.0, value) ** 2

        selection = []
        for n in measured:
            tries = [(excess((*selection, v), n), v) for v in range(len(members))]
            selection.append(min(tries)[1])
        best = tuple(selection)
        cost = sum(excess(best, n) for n in measured)
        starts = [best, *((v,) * len(measured) for v in range(len(members)))]
        cost, best = min((sum(excess(s, n) for n in measured), s) for s in starts)
        changed = True
        while changed:
            changed = False
            for at in range(len(measured)):
                for v in range(len(members)):
                    other = (*best[:at], v, *best[at + 1 :])
                    total = sum(excess(other, n) for n in measured)
                    if total < cost - WORTH:
                        cost, best, changed = total, other, True
        return table_of(best)

    def _counts(self):
        """Numbers of samples that are measured: all up to 8, above every other one."""
        return [n for n in range(1, self.config.slots + 1) if n <= 8 or n % 2 == 0]

    def _tiles(self, i, likely, options):
        """Least tiles of one sample in the stack mode of ``likely``."""
        most = max(v.max_lines << v.log2_kr for v in options if _mode(v) == _mode(likely))
        return self.draft.operations[i].geometry.lines(self.config) / most

    def _search(self, i, n, options, likely):
        """{variant: cycles} of the variants that may be the best one for ``n`` samples, each used alone."""
        config, geometry = self.config, self.draft.operations[i].geometry
        modes = {}
        for v in options:
            modes.setdefault(_mode(v), []).append(v)
        found, room = {}, float("inf")  # cycles that the array may need in a variant that is worth a try

        def promising(v):
            cycles = array_cycles(config, geometry, (v,) * n, n)
            return cycles < (1 - (WORTH if cycles < LONG else WORTH_LONG)) * room

        def measure(v):
            nonlocal room
            if v not in found:
                found[v] = self.cycles(i, _uniform(config, v), n)
                room = min(room, self._room(i, v, n))
            return found[v]

        def climb(at, mode):
            """Measure numbers of lines around mode[at] until both neighbours are slower."""
            while True:
                near = [
                    k for k in (at - 1, at, at + 1) if 0 <= k < len(mode) and (mode[k] in found or promising(mode[k]))
                ]
                to = min(near, key=lambda k: (measure(mode[k]), k != at), default=at)
                if to == at:
                    return
                at = to

        starts = sorted(min((layer_cycles(config, geometry, (v,) * n, n), v) for v in mode) for mode in modes.values())
        starts = [likely] * (likely is not None) + [v for _, v in starts]
        for v in starts:
            if promising(v):
                mode = modes[_mode(v)]
                climb(mode.index(v), mode)
        self._rooms[i, n] = room
        return found

    def _room(self, i, v, n):
        """Cycles of layer ``i`` and of what the layer behind waits, with one variant alone: if the array needs as many,
        another one is no better."""
        ends = self._ends(i, _uniform(self.config, v), n)
        first, behind, _, _ = self._window(i)
        before = max((ends[k] for k in self._path(i) if first <= k < i), default=0)
        if behind is None:
            return max(1, ends[None] - before)
        geometry = self.draft.operations[behind].geometry
        then = array_cycles(self.config, geometry, self.tables[behind].by_candidates, n)
        return max(1, ends[behind] - before - then)


def _mode(variant):
    """Its stack mode."""
    return variant.log2_kr, variant.log2_kd


def _uniform(config, variant):
    """The table of one variant alone."""
    return VariantTable((variant,), (0,) * config.slots)
