"""Rigid or fluid, unstacked or stacked, on one netlist: cycles for the same images."""

from ..memory import IDEAL
from ..simulate import run_in_simulator
from .feeding import one_after_another, prepared

__all__ = ["ablation"]


def ablation(build, config, program, images, memory=IDEAL):
    """Rows {"rigid", "unstacked", "cycles", "ratio"} of the four modes; ratio: of the slowest one to this one.

    The host keeps every slot filled; cycles from the first command to the last decision. Raises AssertionError unless
    all four give the same answers.
    """
    rows, answers = [], None
    for rigid in (True, False):
        for unstacked in (True, False):
            run = run_in_simulator(
                build,
                run_images,
                program=program,
                slots=config.slots,
                images=images,
                memory=memory,
                rigid=rigid,
                unstacked=unstacked,
            )
            assert answers in (None, run["answers"]), "the modes give different answers"
            answers = run["answers"]
            rows.append({"rigid": rigid, "unstacked": unstacked, "cycles": run["cycles"]})
    slowest = max(r["cycles"] for r in rows)
    return [row | {"speedup": slowest / row["cycles"]} for row in rows]


async def run_images(bench, program, slots, images, memory, rigid, unstacked):
    """In the simulator: every image once; cycles and answers by tag."""
    driver = await prepared(bench, program, slots, memory, rigid=rigid, unstacked=unstacked)
    begin = bench.cycle()
    ended = await one_after_another(bench, driver, images, slots)
    return {
        "cycles": max(c.stamp for c in ended) - begin,
        "answers": sorted((c.tag, c.exit, c.top, c.spread) for c in ended),
    }
