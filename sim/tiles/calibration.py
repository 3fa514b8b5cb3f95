"""Makes the tile model take as long as the cycle model: for every layer and number of live samples.

n = 1 .. slots samples go through all operations together, on both. What the cycle model's T[l][n]
(sim.measured_latency) takes longer or shorter is spread over the tiles of layer l with n candidates.
"""

import numpy as np

from ..cycle.device import run_now
from ..decisions import Decided
from ..memory import IDEAL
from .device import TileDriver
from .operations import operations_of

__all__ = ["calibrate", "group_times"]

ROUNDS, DAMPING = 15, 0.7
ALLOWANCE, SHARE = 200, 0.4  # a tile is corrected by at most so many cycles and that share of its time


def group_times(driver, n):
    """Cycle, from the start of ``n`` samples together, at which each operation of program 0 is complete for all.

    float [operations]; those of EXIT and JUMP are those of the layer before, except the last one's: its decision.
    """
    operations, there = driver.operations, driver.there

    async def run():
        for slot in range(n):
            await driver.admit(slot, None, slot, runnable=False)
        await driver.batch((1 << n) - 1)
        begin, stamps = await driver.cycle(), []
        while len(stamps) < n:
            await driver.wait()
            stamps += [c.stamp for c in await driver.completions()]
        return begin, max(stamps)

    begin, last = run_now(run())
    times = np.zeros(len(driver.programs[0].ops))
    for i in range(len(times)):
        now = there[:n, i, operations["lines"][i] - 1].max() - begin if operations["kind"][i] == 0 else 0
        times[i] = max(now, times[i - 1] if i else 0)
    times[-1] = last - begin
    return times


def calibrate(config, program, latency, *, memory=IDEAL, unstacked=False):
    """Operations (array OPERATION) of a program, calibrated with its LatencyTable of the cycle model."""
    operations = operations_of(program, config)
    layers = np.flatnonzero(operations["kind"][: len(program.ops)] == 0)
    wanted = np.diff(latency.cycles.cumsum(0)[layers], axis=0, prepend=0)  # exits count to the layer behind them
    never = Decided.at(np.full(config.slots, len(program.exits) - 1))
    extra = operations["extra"]
    for n in range(1, config.slots + 1):
        extra[:, n] = extra[:, n - 1]
        best, error = extra[:, n].copy(), np.inf
        for _ in range(ROUNDS):
            driver = TileDriver(config, [program], operations, never, memory=memory, unstacked=unstacked)
            group_times(driver, 1)  # as on the cycle model, somebody was there before
            operations["seen"] = 0
            times = group_times(driver, n)[layers]
            missing = wanted[:, n] - np.diff(times, prepend=0)
            wrong = np.abs(missing).sum() + abs(missing.sum())
            if wrong < error:
                best, error = extra[:, n].copy(), wrong
            seen, tiles = operations["seen"][layers, n], operations["seen"][layers].sum(1)
            most = ALLOWANCE + SHARE * wanted[:, n] / np.maximum(tiles, 1)
            change = np.where(seen > 0, DAMPING * missing / np.maximum(seen, 1), 0)
            extra[layers, n] = np.round(np.clip(extra[layers, n] + change, -most, most))
        extra[:, n] = best
    operations["seen"] = 0
    return operations
