"""What the study is meant to show, and whether it does."""

from dataclasses import dataclass

from fluidnpu.hw.config import get_config

from .plans import BASELINE, OURS
from .rivals import BETTER, HEAVY, NO_WORSE, best_baselines
from .summary import by_cell, decision_times, estimate, headline, shift_table

__all__ = ["Target", "targets"]

LATENCY, MISSES = 2.5, 10.0  # at least: ours on our NPU against the baseline on the rigid, unstacked one
BOUND, BOUND_LOAD = 1.25, 0.6  # at most, up to this load
SHIFT = 1.03  # at most: learned rates against those of the end, told beforehand
DECISION = 100.0  # microseconds, less
QUIET = 0.01  # share of deadlines that a tenant within its share may miss beside a flood
SWEEPS = (  # groups, with what their cells are
    ("slo", ("load", "slo")),
    ("arrivals", ("load", "arrivals")),
    ("mixes", ("load", "mix")),
    ("networks", ("load", "workload", "config", "bandwidth")),
)


@dataclass(frozen=True)
class Target:
    """what : figure; asked, measured : texts; hit : None: there is no target; note : what limits it, or conditions"""

    what: str
    asked: str
    measured: str
    hit: bool | None
    note: str = ""


def targets(found):
    """[Target] that the points (dict Point -> figures) say something about."""
    return [t for part in (_headline, _rivals, _sweeps, _bound, _shift, _decisions, _quiet) for t in part(found)]


def _headline(found):
    result = headline(found, "rigid-unstacked")
    if result:
        latency, misses, _ = result
        against = f"{BASELINE} on the rigid, unstacked NPU / {OURS}"
        yield Target(f"mean latency, {against}", f">= {LATENCY:g}x", latency.times, latency.value >= LATENCY)
        yield Target(f"missed deadlines, {against}", f">= {MISSES:g}x", misses.times, misses.value >= MISSES)
        for mode in ("fluid-unstacked", "fluid-stacked"):
            latency, misses, _ = headline(found, mode) or (None, None, None)
            if latency:
                said = f"{latency.times}, misses {misses.times}"
                yield Target(
                    f"the same against {BASELINE} on the {mode.replace('-', ', ')} NPU", "beside it", said, None
                )


def _rivals(found):
    under = [r for r in best_baselines(found) if r.cell[0] < 1]
    rivals = [r for r in under if r.equal_drops]
    if rivals:
        worst = max(rivals, key=lambda r: r.best_ratio)
        said = f"at most {100 * (worst.best_ratio - 1):+.1f} % ({worst.ours}, load {worst.cell[0]:g}, {worst.best})"
        what = "the best baseline's figure, all on the fluid, stacked NPU, loads below 1, equal drops"
        yield Target(what, f"<= {100 * (NO_WORSE - 1):+.0f} %", said, all(r.no_worse for r in rivals))
        heavy = [r for r in rivals if r.cell[0] >= HEAVY]
        said = f"{sum(r.better for r in heavy)} of {len(heavy)}"
        short = [f"{r.ours} at {r.cell[0]:g} against {r.policy}" for r in heavy if not r.better]
        what = (
            f"baselines than which ours is {100 * (1 - BETTER):.0f} % better in one figure without losing the other, "
        )
        yield Target(f"{what}load >= {HEAVY:g}", "all", said, not short, "; ".join(short))
    for r in under:
        if not r.equal_drops and r.best == "misses":
            said = f"misses {r.misses.value:.3f}, mean {r.mean.value:.3f} of theirs"
            note = f"drops {100 * r.drops:+.1f} points: it answers others, so their means do not compare"
            yield Target(f"{r.ours} against {r.policy}, load {r.cell[0]:g}", "beside it", said, None, note)


def _sweeps(found):
    for group, names in SWEEPS:
        rivals = best_baselines(found, group, names)
        if rivals:
            worse = [f"{', '.join(map(str, r.cell))}: {r.best} {r.best_ratio:.3f}" for r in rivals if not r.no_worse]
            said = f"{len(rivals) - len(worse)} of {len(rivals)}"
            what = f"{group}: cells' best baselines than which ours is not more than 2 % worse"
            yield Target(what, "all", said, not worse, "; ".join(worse))


def _bound(found):
    cells = by_cell(found, "policies", "policy", "load")

    def ratio(policy, load):
        runs = cells.get((policy, load), {}).values()
        return estimate([f["mean"] / f["bound_mean"] for f in runs], log=True).value if runs else float("nan")

    loads = sorted(l for p, l in cells if p == OURS and l <= BOUND_LOAD)
    if loads:
        ours = ", ".join(f"{ratio(OURS, l):.2f} at load {l:g}" for l in loads)
        hit = all(ratio(OURS, l) <= BOUND for l in loads)
        oracle = ", ".join(f"{ratio('oracle', l):.2f}" for l in loads)
        note = f"the bound always works at its best batch and knows all; ours told every true exit: {oracle}"
        yield Target("mean latency / lower bound", f"<= {BOUND:g}x", ours, hit, note)


def _shift(found):
    for label, _, ratio in shift_table(found):
        if label.startswith("ours"):
            hit = ratio.value <= SHIFT
            yield Target("exit mix that shifts: learned rates / rates told", f"<= {SHIFT:g}x", ratio.times, hit)
        elif not label.startswith("rates of"):
            yield Target(f"the same, {label}", "beside it", ratio.times, None)


def _decisions(found):
    mine = {key: times for key, times in decision_times(found).items() if key[1] == OURS}
    if mine:
        slots = get_config(next(iter(mine))[0]).slots
        text = ", ".join(f"{us:.0f} at load {load:g}" for (_, _, load), (_, us, _) in mine.items())
        nothing = max(times[2] for times in mine.values())
        yield Target(
            f"host time per decision with {slots} slots, microseconds", f"< {DECISION:g}", text,
            all(us < DECISION for _, us, _ in mine.values()), f"a policy that does nothing: {nothing:.1f}",
        )  # fmt: skip


def _quiet(found):
    for (tenants, series), runs in by_cell(found, "tenants", "tenants", "series").items():
        if series == OURS and max(load for _, load, _ in tenants) > 1:
            quiet = min(range(len(tenants)), key=lambda n: tenants[n][1])
            misses = estimate([f[f"tenant{quiet + 1}_misses"] for f in runs.values()]).value
            what = f"deadlines that {tenants[quiet][0]} at load {tenants[quiet][1]:g} misses beside a flood"
            yield Target(what, f"< {100 * QUIET:g} %", f"{100 * misses:.2f} %", misses < QUIET)
