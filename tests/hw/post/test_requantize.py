"""Requantizer against TensorFlow Lite's C written out with Python integers: corner cases and random ones."""

import random
from fractions import Fraction

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw import isa
from fluidnpu.hw.post.requantize import Requantizer

INT_MIN, INT_MAX = -(1 << 31), (1 << 31) - 1
LANES = 4


def wrap(x):
    return (x - INT_MIN) % (1 << 32) + INT_MIN


def truncating_divide(a, b):
    return abs(a) // b * (1 if a >= 0 else -1)


def saturating_rounding_doubling_high_mul(a, b):
    """gemmlowp fixedpoint.h."""
    if a == b == INT_MIN:
        return INT_MAX
    nudge = 1 << 30 if a * b >= 0 else 1 - (1 << 30)
    return truncating_divide(a * b + nudge, 1 << 31)


def rounding_divide_by_pot(x, exponent):
    """gemmlowp fixedpoint.h."""
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (x < 0)
    return (x >> exponent) + ((x & mask) > threshold)


def multiply_by_quantized_multiplier(x, multiplier, shift):
    """TensorFlow Lite common.h, double rounding."""
    high = saturating_rounding_doubling_high_mul(x << max(shift, 0), multiplier)
    return rounding_divide_by_pot(high, max(-shift, 0))


def half_away(exact):
    """Round a Fraction, ties away from zero."""
    rounded = (abs(exact) + Fraction(1, 2)).__floor__()
    return rounded if exact >= 0 else -rounded


def golden(value, channel, mode):
    if mode["average"]:
        count = mode["taps"] if mode["padded"] else mode["count"]
        y = Fraction(value, count)
        y = (y + Fraction(1, 2)).__floor__() if mode["half_up"] else half_away(y)
    else:
        x = wrap(value + channel["bias"])
        if mode["single_rounding"]:
            y = half_away(x * channel["multiplier"] * Fraction(2) ** (channel["shift"] - 31))
        else:
            y = multiply_by_quantized_multiplier(x, channel["multiplier"], channel["shift"])
        y += mode["zero"]
    return min(max(y, mode["clamp_min"]), mode["clamp_max"])


def run(rows):
    """Feed one row (values, channels, mode) per cycle; check every output LATENCY cycles later."""
    dut = Requantizer(LANES)
    sim = Simulator(dut)
    sim.add_clock(1e-6)

    async def bench(ctx):
        for cycle in range(len(rows) + dut.LATENCY):
            if cycle < len(rows):
                values, channels, mode = rows[cycle]
                for lane in range(LANES):
                    ctx.set(dut.values[lane], values[lane])
                ctx.set(dut.parameters, channels)
                ctx.set(dut.mode, mode)
            if cycle >= dut.LATENCY:
                values, channels, mode = rows[cycle - dut.LATENCY]
                for lane in range(LANES):
                    expected = golden(values[lane], channels[lane], mode)
                    assert ctx.get(dut.out[lane]) == expected, (values[lane], channels[lane], mode)
            await ctx.tick()

    sim.add_testbench(bench)
    sim.run()


def make_mode(**fields):
    return {
        "single_rounding": 0,
        "average": 0,
        "padded": 0,
        "half_up": 0,
        "count": 0,
        "taps": 0,
        "zero": 0,
        "clamp_min": -128,
        "clamp_max": 127,
    } | fields


def make_channel(bias=0, multiplier=1 << 30, shift=0):
    return {"bias": bias, "multiplier": multiplier, "shift": shift}


def fits(x, shift):
    return INT_MIN <= x << max(shift, 0) <= INT_MAX


CORNERS = {
    "zero": [(0, 0, 0, 0), (0, 0, INT_MAX, 30), (0, 0, INT_MAX, -31), (5, -5, INT_MAX, 0)],
    "least value": [(INT_MIN, 0, m, s) for m in (1 << 30, INT_MAX) for s in (0, -1, -23, -24, -25, -31)],
    "largest value": [(INT_MAX, 0, m, s) for m in (1 << 30, INT_MAX) for s in (0, -1, -23, -24, -25, -31)],
    "bias wraps": [(INT_MAX, 1, 1 << 30, -24), (INT_MIN, -1, 1 << 30, -24), (INT_MIN, INT_MIN, 1 << 30, 0)],
    "ties of the first step": [(x, 0, 1 << 30, 0) for x in range(-6, 7)],
    "ties of the second step": [(x, 0, 1 << 30, -1) for x in range(-9, 10)],
    "both steps round": [(x, 0, 3 << 29, -2) for x in range(-40, 41)],
    "ties to the left": [(x, 0, 1 << 28, 1) for x in range(-9, 10)],
    "left shift": [(x, 0, 0x50000001, s) for s in (1, 3, 8, 16, 30) for x in (-1, 1, -2, 2, 37, -37) if fits(x, s)],
    "largest left shift": [(-1, 0, 1, 30), (-2, 0, 60, 30), (1, 0, 1, 30), (-1, 0, 127, 30), (-1, 0, 1 << 30, 30)],
    "saturation": [(x, 0, INT_MAX, s) for x in (200, -200, 100000, -100000) for s in (0, 4, 12)],
    "small multipliers": [(x, 0, m, 0) for m in (1, 2, 1 << 20) for x in (INT_MIN, INT_MAX, -1, 1, 12345)],
}


@pytest.mark.parametrize("single", [0, 1])
@pytest.mark.parametrize("name", CORNERS)
def test_corners(name, single):
    cases = CORNERS[name]
    mode = make_mode(single_rounding=single)
    rows = []
    for i in range(0, len(cases), LANES):
        group = (cases[i : i + LANES] + [cases[0]] * LANES)[:LANES]
        rows.append(([v for v, *_ in group], [make_channel(*rest) for _, *rest in group], mode))
    run(rows)


def near_tie(rng, multiplier, shift):
    """A value whose product lies as near to a half as the multiplier allows, or is small."""
    half = (2 * rng.randrange(-128, 128) + 1) << 30 >> max(shift, 0) << max(-shift, 0)
    return half // multiplier + rng.randrange(-1, 2)


@pytest.mark.parametrize("seed", range(3))
def test_random_requantisation(seed):
    rng = random.Random(seed)
    rows = []
    while len(rows) < 250:
        values, channels = [], []
        while len(values) < LANES:
            multiplier = rng.choice([rng.randrange(1 << 30, 1 << 31), 1 << 30, 3 << 29, rng.randrange(1, 1 << 31)])
            shift = rng.choice([rng.randrange(-31, 12), rng.randrange(-12, 1)])
            x = rng.choice([near_tie(rng, multiplier, shift), rng.randrange(INT_MIN, INT_MAX + 1)])
            if not fits(x, shift) or not INT_MIN <= x <= INT_MAX:
                continue
            bias = rng.choice([0, rng.randrange(-(1 << 20), 1 << 20), rng.randrange(INT_MIN, INT_MAX + 1)])
            values.append(wrap(x - bias))
            channels.append(make_channel(bias, multiplier, shift))
        low, high = sorted(rng.choices(range(-128, 128), k=2)) if rng.random() < 0.3 else (-128, 127)
        zero = rng.choice([0, -128, 127, rng.randrange(-128, 128)])
        rows.append(
            (values, channels, make_mode(single_rounding=rng.randrange(2), zero=zero, clamp_min=low, clamp_max=high))
        )
    run(rows)


def test_average():
    """Constant divisors with the smallest reciprocal that is exact for int8, padded ones with the table."""
    rng = random.Random(7)
    rows = []
    counts = [1, 2, 3, 4, 5, 7, 9, 49, 64, 255, 256, 961, 4096, *rng.choices(range(1, 257), k=60)]
    for count in counts:
        bits = 2 * count.bit_length() + 8
        padded = count <= isa.RECIPROCAL_MAX and rng.random() < 0.6
        channel = make_channel(rng.randrange(INT_MIN, INT_MAX), -(-(1 << bits) // count), bits)
        largest = 128 * count
        values = [-largest, 127 * count, rng.randrange(-largest, largest), rng.choice([-1, 1]) * (count // 2)]
        ties = [(2 * rng.randrange(-127, 127) + 1) * count // 2 for _ in range(LANES)]
        low, high = rng.choice([(-128, 127), (0, 100), (-128, 90)])
        mode = make_mode(
            average=1,
            padded=padded,
            half_up=rng.randrange(2),
            single_rounding=rng.randrange(2),
            count=rng.randrange(1 << 20) if padded else count,
            taps=count if padded else rng.randrange(1 << 16),
            zero=rng.randrange(-128, 128),
            clamp_min=low,
            clamp_max=high,
        )
        rows += [(values, [channel] * LANES, mode), (ties, [channel] * LANES, mode)]
    run(rows)


def test_every_divisor_of_the_table_is_exact():
    """The claim of the docstring, by arithmetic: floor(n * ceil(2**24 / count) / 2**24) = floor(n / count)."""
    for count in range(1, isa.RECIPROCAL_MAX + 1):
        reciprocal = -(-(1 << isa.RECIPROCAL_SHIFT) // count)
        largest = 128 * count + count // 2
        assert largest * (reciprocal * count - (1 << isa.RECIPROCAL_SHIFT)) < 1 << isa.RECIPROCAL_SHIFT
