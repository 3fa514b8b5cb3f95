"""Accumulators: int32 sums of two c-tiles, read-modify-write on one side, drain reads on the other."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2, exact_log2

from ..tile import RMW_DISTANCE, Layouts
from .pe import SUM_BITS
from .stacking import Stacking, select

__all__ = ["ACC_LATENCY", "RMW_DISTANCE", "Accumulators"]

ACC_LATENCY = 2  # cycles from acc_request to acc_values


class Accumulators(Component):
    """acc[bank][row][column] = partial sum + (0 if ``first`` else acc[bank][row][column])

    One row and one drain read per cycle. ``bank``, ``row`` and ``first`` come one cycle before ``valid``, ``write``
    and the partial sums; the sum is in memory in the cycle after those. A row may be updated every RMW_DISTANCE
    cycles. Values come ACC_LATENCY cycles after their request: lane l delivers column quad * post_lanes + l of the
    sub-tile; lanes behind the stack's last column are undefined.

    A group's accumulators of both banks are one memory of 2 * rows words with one write and two read ports. An FPGA
    builds it of two copies with one read port each: as many block RAMs as one memory per bank would take (32 bits x
    512 is the least there is), and no multiplexer between banks.

    Parameters: config, widths (bits of a partial sum, per group).

    Members
    -------
    sum_0, sum_1, ... : group_pes partial sums per group, concatenated
    write : per group: the row is not masked
    modes : log2 kr, log2 kd of the c-tile in each bank, while it drains
    vector_values : results of the vector path, taken instead one cycle after a request with ``vector``
    acc_request, acc_values : as in the array's contract
    """

    def __init__(self, config, widths):
        self.config = config
        self.widths = widths
        self.stacking = Stacking(config)
        self.layouts = layouts = Layouts(config)
        mode = data.StructLayout({"log2_kr": layouts.log2_stack, "log2_kd": layouts.log2_stack})
        super().__init__(
            {
                "bank": In(1),
                "row": In(ceil_log2(config.rows)),
                "first": In(1),
                "write": In(config.max_stack),
                **{f"sum_{g}": In(config.group_pes * width) for g, width in enumerate(widths)},
                "modes": In(data.ArrayLayout(mode, 2)),
                "acc_request": In(layouts.acc_request),
                "vector_values": In(data.ArrayLayout(signed(SUM_BITS), config.post_lanes)),
                "acc_values": Out(layouts.acc_values),
            }
        )

    def elaborate(self, platform):
        m = Module()
        c = self.config
        depth = 2 * c.rows

        # Update: the read of cycle 0 meets the partial sums in cycle 1
        address = Cat(self.row, self.bank)
        late_address = Signal.like(address, reset_less=True)
        late_first = Signal(reset_less=True)
        m.d.sync += [late_address.eq(address), late_first.eq(self.first)]

        # Drain: the read of cycle 0 is selected in cycle 1
        request = self.acc_request
        drain_address = Cat(request.row, request.bank)

        drained = []
        for g, width in enumerate(self.widths):
            shape = data.ArrayLayout(signed(32), c.group_pes)
            m.submodules[f"group_{g}"] = group = memory.Memory(shape=shape, depth=depth, init=[])
            write, read, drain = group.write_port(), group.read_port(), group.read_port()
            m.d.comb += [
                read.addr.eq(address),
                drain.addr.eq(drain_address),
                write.addr.eq(late_address),
                write.en.eq(self.write[g]),
            ]
            sums = getattr(self, f"sum_{g}")
            for pe in range(c.group_pes):
                before = Mux(late_first, 0, read.data[pe])
                m.d.comb += write.data[pe].eq(sums.word_select(pe, width).as_signed() + before)
            drained.append(drain.data)

        self._deliver(m, drained)
        return m

    def _deliver(self, m, drained):
        """Lane multiplexers: lane l only ever needs the PEs that can hold column l modulo post_lanes."""
        c, stacking = self.config, self.stacking
        request = self.acc_request
        lanes, pes = c.post_lanes, stacking.group_pes
        bits = stacking.group_bits
        mode = Signal.like(self.modes[0])
        m.d.comb += mode.eq(self.modes[request.bank])

        # The first column of the quad lies in group part ``quad >> quad_bits`` of the stack, at PE ``offset`` there
        quad_bits = exact_log2(max(1, pes // lanes))  # quads per group, if a group has more than one
        part_bits = exact_log2(max(1, lanes // pes))  # groups per quad, if a quad has more than one
        offset = Signal(quad_bits, reset_less=True)
        m.d.sync += offset.eq(request.quad[:quad_bits])
        group_of = []
        for part in range(min(1 << part_bits, stacking.groups)):
            if bits == 0:
                group_of.append(Signal(0))
                continue
            mid = (
                Cat(*(part >> i & 1 for i in range(part_bits)), request.quad[quad_bits:])[:bits]
                if part_bits
                else (request.quad[quad_bits:])
            )
            group = Signal(bits, name=f"group_of_part_{part}", reset_less=True)
            r = select(mode.log2_kr, {a: request.sub_tile << (bits - a) for a in range(bits + 1)})
            m.d.sync += group.eq((mid << mode.log2_kd) | r)
            group_of.append(group)

        vector = Signal(reset_less=True)
        m.d.sync += vector.eq(request.vector)
        for lane in range(lanes):
            part = lane // pes
            reachable = self._reachable(lane)
            choices = {
                g: select(offset, {o: drained[g][(o * lanes + lane) % pes] for o in range(1 << quad_bits)})
                for g in reachable
            }
            m.d.sync += self.acc_values[lane].eq(Mux(vector, self.vector_values[lane], select(group_of[part], choices)))

    def _reachable(self, lane):
        """Groups that hold a column congruent to ``lane`` modulo post_lanes, with d = 0, in any mode."""
        c, stacking = self.config, self.stacking
        groups = set()
        for a, b in stacking.modes:
            columns = c.pes >> (a + b)
            for g in range(stacking.groups):
                _, mid, d = stacking.fields(g, a, b)
                first = mid * stacking.group_pes
                own = range(first, first + stacking.group_pes)
                if d == 0 and any(n < columns and n % c.post_lanes == lane for n in own):
                    groups.add(g)
        return sorted(groups)
