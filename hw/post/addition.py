"""Residual ADD: two int8 values into one, with TensorFlow Lite's integer arithmetic."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from .requantize import delayed

__all__ = ["OPERANDS_LAYOUT", "RESULT_LAYOUT", "Addition"]

# What all lanes share, named as in the descriptor. Multipliers: 0 .. 2**31 - 1; shifts: -31..0.
OPERANDS_LAYOUT = data.StructLayout(
    {
        "add_left_zero": signed(8),
        "add_right_zero": signed(8),
        "add_left_multiplier": 32,
        "add_right_multiplier": 32,
        "add_left_shift": signed(8),
        "add_right_shift": signed(8),
    }
)
RESULT_LAYOUT = data.StructLayout(
    {
        "add_multiplier": 32,
        "add_shift": signed(8),
        "add_zero": signed(8),
        "add_clamp_min": signed(8),
        "add_clamp_max": signed(8),
    }
)

_LEFT_SHIFT = 20  # of both inputs, in TensorFlow Lite's reference kernel
_DROPPED = 31 - _LEFT_SHIFT  # bits that the doubling high multiply drops of (q - zero) * multiplier


class Addition(Component):
    """Rigid pipeline of ``lanes`` values per cycle; ``out`` belongs to the inputs of LATENCY cycles before.

        scaled(q, zero, m, e) = rdp(srdhm((q - zero) << 20, m), -e)
        out = clamp(rdp(srdhm(scaled(left) + scaled(right), m), -e) + zero, clamp_min, clamp_max)

    srdhm(x, m) = floor((x * m + 2**30) / 2**31), ties up: gemmlowp's SaturatingRoundingDoublingHighMul, which does not
    saturate with a multiplier >= 0. rdp(x, e): x / 2**e rounded to nearest, ties away from zero: RoundingDivideByPOT.
    Together the int8 case of AddElementwise in tensorflow/lite/kernels/internal/reference/integer_ops/add.h.

    Of an operand's product only (q - zero) * m is formed, 9 x 31 bits in two parts; the sum's takes four 16 x 16 ones.

    Parameters: lanes. Members: left, right (int8 per lane); operands, with the values; result, RESULT_CYCLES later;
    out (int8 per lane).
    """

    RESULT_CYCLES = 8
    LATENCY = 17

    def __init__(self, lanes):
        self.lanes = lanes
        values = data.ArrayLayout(signed(8), lanes)
        super().__init__(
            {
                "left": In(values),
                "right": In(values),
                "operands": In(OPERANDS_LAYOUT),
                "result": In(RESULT_LAYOUT),
                "out": Out(values),
            }
        )

    def elaborate(self, platform):
        m = Module()
        o, result = self.operands, self.result

        # What the lanes share: cycle 1 of the operands, then of the result
        sides = []
        for side in ("left", "right"):
            exponent = Signal(5, name=f"{side}_exponent")
            m.d.comb += exponent.eq(-o[f"add_{side}_shift"])
            sides.append(
                {
                    "name": side,
                    "values": getattr(self, side),
                    "zero": o[f"add_{side}_zero"],
                    "multiplier": delayed(m, o[f"add_{side}_multiplier"], 1, f"{side}_multiplier"),
                    "shifts_2": delayed(m, exponent.any(), 2, f"{side}_shifts"),
                    "coarse_4": delayed(m, exponent[3:], 4, f"{side}_coarse"),
                    "fine_5": delayed(m, exponent[:3], 5, f"{side}_fine"),
                }
            )
        exponent = Signal(5)
        m.d.comb += exponent.eq(-result.add_shift)
        multiplier_9 = delayed(m, result.add_multiplier[:31], 1, "multiplier")
        coarse_13, fine_14 = delayed(m, exponent[3:], 5, "coarse"), delayed(m, exponent[:3], 6, "fine")
        zero_16 = delayed(m, result.add_zero, 8, "zero")
        low_16, high_16 = (delayed(m, result[f"add_clamp_{end}"], 8, f"clamp_{end}") for end in ("min", "max"))

        for lane in range(self.lanes):

            def register(shape, name, lane=lane):
                return Signal(shape, name=f"{name}_{lane}")

            left, right = (self._scaled(m, side, lane) for side in sides)
            sum_8, negative_9, a = register(signed(30), "sum_8"), register(1, "negative_9"), register(30, "a_9")
            m.d.sync += [
                sum_8.eq(left + right),
                negative_9.eq(sum_8 < 0),
                a.eq(Mux(sum_8 < 0, -sum_8, sum_8)),
            ]
            negative_12 = delayed(m, negative_9, 3, f"negative{lane}")
            negative_15 = delayed(m, negative_12, 3, f"negative_late{lane}")
            # Cycle 10 to 12: the product of magnitudes
            b = multiplier_9
            low, high = register(32, "low_10"), register(29, "high_10")
            cross_0, cross_1 = register(31, "cross0_10"), register(30, "cross1_10")
            cross_11, outer_11, product_12 = (
                register(32, "cross_11"),
                register(61, "outer_11"),
                register(61, "product_12"),
            )
            m.d.sync += [
                low.eq(a[:16] * b[:16]),
                high.eq(a[16:] * b[16:]),
                cross_0.eq(a[:16] * b[16:]),
                cross_1.eq(a[16:] * b[:16]),
                cross_11.eq(cross_0 + cross_1),
                outer_11.eq(Cat(low, high)),
                product_12.eq(outer_11 + (cross_11 << 16)),
            ]
            # Cycle 13: round to multiples of 2**31, ties up in value. Then shift; bit 0 is the rounding bit
            rounded, high_13 = register(61, "rounded"), register(30, "high_13")
            coarse_14, shifted = register(31, "coarse_14"), register(31, "shifted")
            magnitude_15 = register(10, "magnitude_15")
            m.d.comb += [
                rounded.eq(product_12 + Cat(negative_12.replicate(30), ~negative_12)),
                shifted.eq(coarse_14 >> fine_14),
            ]
            m.d.sync += [
                high_13.eq(rounded[31:]),
                coarse_14.eq(Cat(C(0, 1), high_13) >> (coarse_13 << 3)),
                magnitude_15.eq(Cat(shifted[:1], shifted[1:10] | shifted[10:].any().replicate(9))),
            ]
            y, y_16 = register(10, "y"), register(signed(11), "y_16")
            biased = register(signed(12), "biased")
            m.d.comb += [y.eq(magnitude_15[1:] + magnitude_15[0]), biased.eq(y_16 + zero_16)]
            m.d.sync += [
                y_16.eq(Mux(negative_15, -y, y)),
                self.out[lane].eq(Mux(biased < low_16, low_16, Mux(biased > high_16, high_16, biased))),
            ]
        return m

    def _scaled(self, m, side, lane):
        """An operand in the sum's scale, 7 cycles after it came."""

        def register(shape, name):
            return Signal(shape, name=f"{side['name']}_{name}_{lane}")

        difference_1 = register(signed(9), "difference_1")
        low_2, high_2 = register(signed(26), "low_2"), register(signed(25), "high_2")
        low_3, high_3 = register(signed(27), "low_3"), register(signed(25), "high_3")
        exact, product_4 = register(signed(42), "exact"), register(signed(29), "product_4")
        coarse_5, shifted_6 = register(signed(30), "coarse_5"), register(signed(30), "shifted_6")
        scaled_7 = register(signed(29), "scaled_7")
        # rdp of a negative value: one less, then ties up
        half = 1 << (_DROPPED - 1)
        down_2 = delayed(m, difference_1 < 0, 1, f"{side['name']}_negative{lane}") & side["shifts_2"]
        multiplier = side["multiplier"]
        m.d.comb += exact.eq((high_3 << 16) + low_3)
        m.d.sync += [
            difference_1.eq(side["values"][lane] - side["zero"]),
            low_2.eq(difference_1 * multiplier[:16]),
            high_2.eq(difference_1 * multiplier[16:31]),
            low_3.eq(low_2 + Mux(down_2, -half, half)),
            high_3.eq(high_2),
            product_4.eq(exact >> _DROPPED),
            coarse_5.eq(Cat(C(0, 1), product_4).as_signed() >> (side["coarse_4"] << 3)),
            shifted_6.eq(coarse_5 >> side["fine_5"]),
            scaled_7.eq(shifted_6[1:].as_signed() + shifted_6[0]),
        ]
        return scaled_7
