"""int32 sums to int8: bias, TensorFlow Lite's requantisation or an average's division, zero point, clamp."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from .. import isa

__all__ = ["MODE_LAYOUT", "REQUANTIZER_LAYOUT", "Requantizer", "delayed"]

# One channel's requantiser. multiplier: 0 .. 2**31 - 1; shift: -31..30, left if positive.
# Of an average: multiplier the reciprocal, shift its bits (0..63), bias unused.
REQUANTIZER_LAYOUT = data.StructLayout({"bias": signed(32), "multiplier": 32, "shift": signed(8)})

# What all lanes share. count: divisor of an average; padded: the divisor is ``taps`` instead, 1..RECIPROCAL_MAX;
# half_up: an average rounds halves upwards.
MODE_LAYOUT = data.StructLayout(
    {
        "single_rounding": 1,
        "average": 1,
        "padded": 1,
        "half_up": 1,
        "count": 32,
        "taps": 16,
        "zero": signed(8),
        "clamp_min": signed(8),
        "clamp_max": signed(8),
    }
)


def delayed(m, value, cycles, name):
    """``value`` (a signal or a view, starting as 0) after ``cycles`` registers."""
    for n in range(cycles):
        later = Signal.like(value, name=f"{name}_{n + 1}")
        m.d.sync += later.eq(value)
        value = later
    return value


class Requantizer(Component):
    """Rigid pipeline of ``lanes`` values per cycle; ``out`` belongs to the inputs of LATENCY cycles before.

    With x = (value + bias) mod 2**32 (signed) and p = x * multiplier:

        double rounding   y = round(p / 2**31), ties up, then round(y / 2**-shift), ties away from zero   (shift <= 0)
                          y = round(p / 2**(31 - shift)), ties up                                         (shift > 0)
        single_rounding   y = round(p / 2**(31 - shift)), ties away from zero
        average           y = sign(value) * ((|value| + h) * multiplier >> shift), h = count / 2; with half_up 1 less
                          for negative values if the count is even
        out = clamp(y + zero, clamp_min, clamp_max)

    The first is MultiplyByQuantizedMultiplier of TensorFlow Lite (common.h with gemmlowp's fixedpoint.h; its
    SaturatingRoundingDoublingHighMul never saturates with a multiplier >= 0 and its truncating division with a nudge
    rounds ties up). ``x << shift`` is not cut to 32 bits: where it would overflow, TensorFlow Lite is undefined.
    The second is FULLY_CONNECTED of ai-edge-litert. A padded average takes multiplier ceil(2**24 / taps) from a table
    and shift 24, exact for int8 sums of up to RECIPROCAL_MAX taps.

    All of it works on magnitudes: a 32x32 unsigned multiplier per lane, made of four 16x16 products, and one right
    shifter whose last bit out is the rounding bit.

    Parameters: lanes. Members: values, parameters (one per lane), mode, out (int8 per lane).
    """

    LATENCY = 10

    def __init__(self, lanes):
        self.lanes = lanes
        super().__init__(
            {
                "values": In(data.ArrayLayout(signed(32), lanes)),
                "parameters": In(data.ArrayLayout(REQUANTIZER_LAYOUT, lanes)),
                "mode": In(MODE_LAYOUT),
                "out": Out(data.ArrayLayout(signed(8), lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        mode = self.mode
        depth = isa.RECIPROCAL_MAX
        m.submodules.reciprocals = reciprocals = memory.Memory(
            shape=isa.RECIPROCAL_SHIFT + 1,
            depth=depth,
            init=[-(-(1 << isa.RECIPROCAL_SHIFT) // count) for count in range(1, depth + 1)],
        )
        rom = reciprocals.read_port()
        m.d.comb += rom.addr.eq((mode.taps - 1)[: ceil_log2(depth)])

        # Cycle 1: what the lanes share. A half is added to the magnitude of an average only.
        half_1, padded_1, less_1 = Signal(31), Signal(), Signal()
        divisor = Mux(mode.padded, mode.taps, mode.count)
        m.d.sync += [
            half_1.eq(Mux(mode.average, divisor >> 1, 0)),
            less_1.eq(mode.average & mode.half_up & ~divisor[0]),
            padded_1.eq(mode.average & mode.padded),
        ]
        double = ~mode.single_rounding & ~mode.average
        double_2 = delayed(m, double, 2, "double")
        rounds_8 = delayed(m, ~mode.average, 8, "rounds")
        zero_9 = delayed(m, Mux(mode.average, 0, mode.zero), 9, "zero")
        low_9 = delayed(m, mode.clamp_min, 9, "clamp_min")
        high_9 = delayed(m, mode.clamp_max, 9, "clamp_max")

        for lane in range(self.lanes):
            channel = self.parameters[lane]
            right = Mux(mode.average, Mux(mode.padded, isa.RECIPROCAL_SHIFT, channel.shift), 31 - channel.shift)
            right_6 = delayed(m, right[:6], 6, f"right{lane}")
            coarse_6, fine_7 = Cat(C(0, 3), right_6[3:]), delayed(m, right_6[:3], 1, f"fine{lane}")
            two_steps_5 = delayed(m, double & (channel.shift <= 0), 5, f"two_steps{lane}")

            def register(shape, name, lane=lane):
                return Signal(shape, name=f"{name}_{lane}")

            # Cycle 1
            sum_1, multiplier_1 = register(signed(32), "sum_1"), register(32, "multiplier_1")
            m.d.sync += [
                sum_1.eq(self.values[lane] + Mux(mode.average, 0, channel.bias)),
                multiplier_1.eq(channel.multiplier),
            ]
            # Cycle 2
            a, b = register(32, "magnitude_2"), register(32, "multiplier_2")
            negative_2 = register(1, "negative_2")
            m.d.sync += [
                a.eq(Mux(sum_1 < 0, ~sum_1, sum_1) + half_1 + ((sum_1 < 0) & ~less_1)),
                b.eq(Mux(padded_1, rom.data, multiplier_1)),
                negative_2.eq(sum_1 < 0),
            ]
            negative_8 = delayed(m, negative_2, 6, f"negative{lane}")
            # Ties up are ties down of a negative value's magnitude
            nudge_5 = delayed(m, negative_2 & double_2 & b.any(), 3, f"nudge{lane}")
            # Cycle 3 to 5: the product
            low, high = register(32, "low_3"), register(32, "high_3")
            cross_0, cross_1 = register(32, "cross0_3"), register(32, "cross1_3")
            cross_4, outer_4 = register(33, "cross_4"), register(64, "outer_4")
            product_5 = register(64, "product_5")
            m.d.sync += [
                low.eq(a[:16] * b[:16]),
                high.eq(a[16:] * b[16:]),
                cross_0.eq(a[:16] * b[16:]),
                cross_1.eq(a[16:] * b[:16]),
                cross_4.eq(cross_0 + cross_1),
                outer_4.eq(Cat(low, high)),
                product_5.eq(outer_4 + (cross_4 << 16)),
            ]
            # Cycle 6: of two steps the first, which leaves whole multiples of 2**31: add 2**30 - nudge, else -nudge
            rounded, rounded_6 = register(64, "rounded"), register(64, "rounded_6")
            addend = Cat(nudge_5.replicate(30), two_steps_5 ^ nudge_5, (nudge_5 & ~two_steps_5).replicate(33))
            m.d.comb += rounded.eq(product_5 + addend)
            m.d.sync += rounded_6.eq(Cat(rounded[:31] & (~two_steps_5).replicate(31), rounded[31:]))
            # Cycle 7 and 8: shift right; bit 0 is the rounding bit, what exceeds 9 bits is far outside of any clamp
            coarse_7, shifted, magnitude_8 = (
                register(65, "coarse_7"),
                register(65, "shifted"),
                register(10, "magnitude_8"),
            )
            m.d.comb += shifted.eq(coarse_7 >> fine_7)
            m.d.sync += [
                coarse_7.eq(Cat(C(0, 1), rounded_6) >> coarse_6),
                magnitude_8.eq(Cat(shifted[:1], shifted[1:10] | shifted[10:].any().replicate(9))),
            ]
            # Cycle 9. The residual ADD takes its place behind this register: its second input joins y_9 there.
            y = register(10, "y")
            y_9 = register(signed(11), "y_9")
            m.d.comb += y.eq(magnitude_8[1:] + (magnitude_8[0] & rounds_8))
            m.d.sync += y_9.eq(Mux(negative_8, -y, y))
            # Cycle 10
            biased = register(signed(12), "biased")
            m.d.comb += biased.eq(y_9 + zero_9)
            m.d.sync += self.out[lane].eq(Mux(biased < low_9, low_9, Mux(biased > high_9, high_9, biased)))
        return m
