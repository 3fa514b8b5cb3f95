"""Addition against TensorFlow Lite's integer arithmetic, written as its source code has it."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.post.addition import OPERANDS_LAYOUT, RESULT_LAYOUT, Addition

from .test_requantize import rounding_divide_by_pot, saturating_rounding_doubling_high_mul

__all__ = ["FIELDS", "golden_sum", "random_addition"]

FIELDS = tuple(name for layout in (OPERANDS_LAYOUT, RESULT_LAYOUT) for name, _ in layout)


def golden_sum(left, right, d):
    """The int8 case of AddElementwise of integer_ops/add.h; ``d``: the descriptor's fields of an addition."""

    def scaled(q, side):
        shifted = (q - d[f"add_{side}_zero"]) << 20
        high = saturating_rounding_doubling_high_mul(shifted, d[f"add_{side}_multiplier"])
        return rounding_divide_by_pot(high, -d[f"add_{side}_shift"])

    total = scaled(left, "left") + scaled(right, "right")
    high = saturating_rounding_doubling_high_mul(total, d["add_multiplier"])
    y = rounding_divide_by_pot(high, -d["add_shift"]) + d["add_zero"]
    return max(d["add_clamp_min"], min(d["add_clamp_max"], y))


def random_addition(rng):
    """Fields of an addition, most of them such that the results differ."""
    low = rng.choice([-128, rng.randint(-128, 127)])
    d = {
        "add_left_multiplier": rng.randrange(1 << 30, 1 << 31),
        "add_right_multiplier": 1 << 30,
        "add_left_shift": rng.choice([0, -1, -2, -5, -9]),
        "add_right_shift": 0,
        "add_left_zero": rng.choice([-128, 0, 127, rng.randint(-128, 127)]),
        "add_right_zero": rng.choice([-128, 0, 127, rng.randint(-128, 127)]),
        "add_multiplier": rng.randrange(1 << 30, 1 << 31),
        "add_shift": rng.choice([-17, -18, -19, -20]),
        "add_zero": rng.choice([-128, 0, rng.randint(-128, 127)]),
        "add_clamp_min": low,
        "add_clamp_max": rng.choice([127, rng.randint(low, 127)]),
    }
    if rng.random() < 0.5:  # the other operand has the larger scale
        for what in ("multiplier", "shift"):
            left, right = f"add_left_{what}", f"add_right_{what}"
            d[left], d[right] = d[right], d[left]
    if rng.random() < 0.2:  # any legal value
        for side in ("left_", "right_", ""):
            d[f"add_{side}multiplier"] = rng.choice([0, 1, (1 << 31) - 1, rng.getrandbits(31)])
            d[f"add_{side}shift"] = rng.randint(-31, 0)
    return d


def run(lanes, cases):
    """Values of ``cases`` (fields, left values, right values), one per cycle; fields that come later do so."""
    dut = Addition(lanes)
    out = []

    async def bench(ctx):
        for cycle in range(len(cases) + dut.LATENCY):
            if cycle < len(cases):
                fields, left, right = cases[cycle]
                for lane in range(lanes):
                    ctx.set(dut.left[lane], left[lane])
                    ctx.set(dut.right[lane], right[lane])
                for name, _ in OPERANDS_LAYOUT:
                    ctx.set(dut.operands[name], fields[name])
            late = cycle - dut.RESULT_CYCLES
            if 0 <= late < len(cases):
                for name, _ in RESULT_LAYOUT:
                    ctx.set(dut.result[name], cases[late][0][name])
            if cycle >= dut.LATENCY:
                out.append([ctx.get(dut.out[lane]) for lane in range(lanes)])
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    return out


@pytest.mark.parametrize("seed", range(3))
def test_random(seed):
    """Fields change with every cycle: each value meets its own."""
    rng = random.Random(f"addition {seed}")
    corners = (-128, -1, 0, 1, 127)
    cases = []
    for _ in range(600):
        values = [[rng.choice([*corners, *[rng.randint(-128, 127)] * 5]) for _ in range(4)] for _ in range(2)]
        cases.append((random_addition(rng), *values))
    got = run(4, cases)
    for (fields, left, right), row in zip(cases, got, strict=True):
        assert row == [golden_sum(a, b, fields) for a, b in zip(left, right, strict=True)], (fields, left, right)
    assert len({value for row in got for value in row}) > 200


def test_ties():
    """Every pair of two inputs' differences, with scales that make ties in both roundings common."""
    base = dict.fromkeys(FIELDS, 0) | {"add_clamp_min": -128, "add_clamp_max": 127}
    base |= {"add_left_multiplier": 1 << 30, "add_right_multiplier": 1 << 30, "add_multiplier": 1 << 30}
    cases = []
    for left_shift, shift in ((0, -19), (-1, -19), (-20, 0), (-19, 0), (-21, -1), (-3, -20)):
        fields = base | {"add_left_shift": left_shift, "add_right_shift": -20, "add_shift": shift}
        for a in range(-128, 128, 4):
            cases += [(fields, [a, a + 1, a + 2, a + 3], [b] * 4) for b in (-3, -2, -1, 0, 1, 2, 3)]
    for (fields, left, right), row in zip(cases, run(4, cases), strict=True):
        assert row == [golden_sum(a, b, fields) for a, b in zip(left, right, strict=True)], (fields, left, right)
