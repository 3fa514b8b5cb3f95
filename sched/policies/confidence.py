"""Exit rates by confidence: S of the last head that a sample passed says how near it was to leaving there.

S of a head's samples is put into `BANDS` bands that hold equally many of them; for each head and band the rates of the
later heads are learned from completions. A sample then has survival tables of its own band. (Our definition.)
"""

from bisect import bisect_right, insort
from collections import Counter

from fluidnpu.sched.survival import ExitRates

from .foresight import Foresight

__all__ = ["BANDS", "Confidence", "NoConfidence"]

BANDS = 4
SAMPLES = 256  # S of a head that the limits between its bands are taken from, the latest ones
LEAST = 32  # of them before there are bands
CHECKED = 8  # samples of a band after which its tables are looked at again
WEIGHT = 8.0  # samples that the rates of all bands together count in those of a band


class _Head:
    """What has been seen of the samples that passed one head of a program."""

    def __init__(self, exits):
        self._latest, self._sorted = [], []
        self.limits = []  # between the bands, ascending
        self.bands = [ExitRates(exits, weight=WEIGHT) for _ in range(BANDS)]
        self.news = [0] * BANDS  # samples of a band since its rates were compared with those of its tables
        # of a band (SurvivalTables or None: the program's, Foresight, rates that they follow); None: to be made
        self.views = [None] * BANDS

    def band(self, spread):
        """Band of S, 0: nearest to the limit; None: there are no bands yet."""
        return bisect_right(self.limits, spread) if self.limits else None

    def see(self, spread):
        """A sample passed the head with this S."""
        self._latest.append(spread)
        insort(self._sorted, spread)
        if len(self._latest) > SAMPLES:
            self._sorted.remove(self._latest.pop(0))
        if len(self._latest) >= LEAST:
            self.limits = [self._sorted[len(self._sorted) * i // BANDS] for i in range(1, BANDS)]


class NoConfidence:
    """What a policy asks, if S is not looked at: every sample is as all of its program. ``models``: SurvivalTables of
    every program."""

    def __init__(self, models):
        self._models = models

    def look(self, samples):
        """A decision begins; positions and S of these live samples may be new."""

    def completed(self, result, learns=True):
        """A sample left (Result). ``learns``: its exit was its own choice."""

    def rebuilt(self, program):
        """The program's own tables are new."""

    def tables(self, sample):
        """SurvivalTables of a live sample."""
        return self._models[sample.request.program]

    def foresight(self, sample):
        """Foresight of a live sample, None: that of its program."""
        return None

    def merge_costs(self, plan, group, l, waiting):
        """J(k) of Plan.merge_costs for a group (samples), the rearmost at l."""
        return plan.merge_costs(l, len(group), waiting)


class Confidence(NoConfidence):
    """Learns which samples leave behind a head, by S there, and shows what follows for a live sample.

    It looks at ``Sample.spread`` as it was last read and at the exits that completions name, never at true exits. The
    position and S of a sample are read one after the other, so a head that decides in between counts as the one before
    it: some cycles of a layer.

    models : SurvivalTables; their ``rates`` stand in where a band is not known, and until its rates
        differ from them by more than ``drift``
    """

    def __init__(self, models):
        super().__init__(models)
        self._heads = [[_Head(len(t.exit_operations)) for _ in t.exit_operations[:-1]] for t in models]
        # [program][operation]: exits before it
        self._before = [[[e for e, x in enumerate(t.exit_operations) if x < l] for l in range(t.L + 1)] for t in models]
        self._passed = {}  # id -> {head: S}
        self._views = {}  # id -> (SurvivalTables, Foresight, rates) of the present decision, if not the program's

    def look(self, samples):
        self._views.clear()
        for sample in samples:
            if sample.spread is None:
                continue
            head = self._head(sample)
            if head is None:
                continue
            id, program = sample.request.id, sample.request.program
            passed, known = self._passed.setdefault(id, {}), self._heads[program][head]
            if head not in passed:
                passed[head] = sample.spread
                known.see(sample.spread)
            band = known.band(passed[head])
            if band is not None:
                view = known.views[band]
                if view is None:
                    view = known.views[band] = self._made(self._models[program], known.bands[band], head)
                if view[0] is not None:
                    self._views[id] = view

    def completed(self, result, learns=True):
        passed = self._passed.pop(result.id, {})
        if not learns or not result.ok:
            return
        tables = self._models[result.program]
        for e, spread in passed.items():
            head = self._heads[result.program][e]
            band = head.band(spread)
            if band is None or result.exit <= e:
                continue
            head.bands[band].learn(result.exit, result.exits)
            head.news[band] += 1
            view = head.views[band]
            if view is not None and head.news[band] >= CHECKED:
                head.news[band] = 0
                if self._differ(self._rates(tables, head.bands[band], e), view[2], e) > tables.drift:
                    head.views[band] = None

    def rebuilt(self, program):
        for head in self._heads[program]:
            head.views = [None] * BANDS

    def tables(self, sample):
        view = self._views.get(sample.request.id)
        return self._models[sample.request.program] if view is None else view[0]

    def foresight(self, sample):
        view = self._views.get(sample.request.id)
        return None if view is None else view[1]

    def merge_costs(self, plan, group, l, waiting):
        """Of several bands the mean over the members, as if each went on among its like."""
        ahead = Counter(map(self.tables, group))
        if len(ahead) == 1:
            return plan.merge_costs(l, len(group), waiting, *ahead)
        shares = [n / len(group) for n in ahead.values()]
        costs = [plan.merge_costs(l, len(group), waiting, tables) for tables in ahead]
        return [sum([s * c for s, c in zip(shares, column, strict=True)]) for column in zip(*costs, strict=True)]

    def rates(self, program, head, band):
        """P(exit at e | alive at e) of the samples of a band: learned behind the head, as of all others before it."""
        return self._rates(self._models[program], self._heads[program][head].bands[band], head)

    def _head(self, sample):
        """The last exit that decided on a sample that goes on; None: there was none."""
        passed = self._before[sample.request.program][sample.op]
        if sample.exits is not None:
            passed = [e for e in passed if sample.exits >> e & 1]
        return passed[-1] if passed else None

    def _made(self, tables, band, head):
        rates = self._rates(tables, band, head)
        if self._differ(rates, tables.rates.rates(), head) <= tables.drift:
            return None, None, rates
        own = tables.with_rates(ExitRates(len(rates), rates[:-1]))
        return own, Foresight(own), rates

    @staticmethod
    def _rates(tables, band, head):
        plain = tables.rates.rates()
        band.start = plain[:-1]
        rates = band.rates()
        rates[: head + 1] = plain[: head + 1]
        return rates

    @staticmethod
    def _differ(a, b, head):
        return abs(a[head + 1 :] - b[head + 1 :]).max()
