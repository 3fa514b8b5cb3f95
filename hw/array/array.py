"""The stackable PE array: banks, address generators, PEs, accumulators, vector results, controller, weight loader."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..tile import Layouts
from .accumulators import ACC_LATENCY, RMW_DISTANCE, Accumulators
from .address_generator import AddressGenerator, step_layout
from .banks import Banks
from .controller import STATUS, Controller
from .pe import LaneElement, ProcessingElement, sum_width
from .stacking import DepthSum, Stacking, delayed, select
from .vector_results import TAP_BITS, VectorResults
from .weight_loader import WeightLoader

__all__ = ["Array"]


class Array(Component):
    """Runs tiles: sums of products of banked activations and streamed weights, per row and column.

    For a tile (see docs/architecture.md) with R = lines * seg_w rows per step, a set that becomes active with a step
    occupies the array for

        max(R, RMW_DISTANCE, parameter beats + beats of the next set)        cycles

    where parameter beats count in a c-tile's first step, and the next set may be the announced tile's first. A c-tile
    also waits until its accumulator bank is drained. A block of the vector path takes

        max(R * max(kh * kw, D), beats of the next block's weights)          cycles

    with D as in Controller, and waits for its ``permit``. Nothing else costs a cycle.

    Latency: a tile that is started in cycle n issues its first row in cycle n + 1 if its first set is loaded; the
    sums of a row issued in cycle n are in the accumulators in cycle n + sum_latency, in
    which the c-tile's ``drain`` job comes; if parameters of that c-tile are missing it comes 2 cycles after the last.
    A bank half is free 3 cycles after the last row that reads it. ``vector_row`` comes ``operand`` cycles after a row's
    last tap; its results can be requested from the next cycle on, for D cycles.

    Flow control: streams at the edges, a rigid pipeline behind the controller.

    Parameters: config (NpuConfig).

    Members: docs/architecture.md; what is "always taken", a pulse or a request comes with a ``_valid`` of its own,
    ``drained`` with ``drained_bank``. The epilogue holds ``permit_valid`` until ``permit_taken``.
    """

    ACC_LATENCY = ACC_LATENCY
    RMW_DISTANCE = RMW_DISTANCE

    def __init__(self, config):
        self.config = config
        self.stacking = Stacking(config)
        self.layouts = layouts = Layouts(config)
        super().__init__(
            {
                "next": In(layouts.array_tile),
                "announced": In(1),
                "revoke": In(1),
                "start_valid": In(1),
                "start_ready": Out(1),
                "fill": In(layouts.fill),
                "fill_valid": In(1),
                "line_write": In(layouts.line_write),
                "line_write_valid": In(1),
                "weights": In(stream.Signature(8 * config.bus_bytes)),
                "parameter_write": Out(layouts.parameter_write),
                "parameter_write_valid": Out(1),
                "drain": Out(stream.Signature(layouts.drain_job)),
                "drained": In(1),
                "drained_bank": In(1),
                "permit_valid": In(1),
                "permit_taken": Out(1),
                "vector_row": Out(layouts.vector_row),
                "vector_row_valid": Out(1),
                "block_drained": In(1),
                "acc_request": In(layouts.acc_request),
                "acc_request_valid": In(1),
                "acc_values": Out(layouts.acc_values),
                "acc_taps": Out(TAP_BITS),
                "half_free": Out(2, init=0b11),
                "status": Out(STATUS),
                "trace": Out(layouts.event),
            }
        )

    @property
    def operand(self):
        """Cycle of a row in which the PEs see its words: the banks', routed to the groups, behind the borders."""
        return AddressGenerator.LATENCY + (2 if self.stacking.groups > 2 else 1)

    @property
    def update(self):
        """Cycle of a row in which its sums meet the accumulators."""
        return self.operand + ProcessingElement.LATENCY + self.stacking.group_bits  # DepthSum

    @property
    def sum_latency(self):
        """Cycles from the issue of a row until its sums are in the accumulators."""
        return self.update + 1

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.controller = controller = Controller(c)
        m.submodules.loader = loader = WeightLoader(c, self.operand - 2)  # a set is complete when it becomes active
        self._control(m, controller, loader)

        # Every row travels down the pipeline beside the facts that its stages need; ``at`` finds them by cycle.
        # The tile may be another one from cycle 1 on.
        row, tile = controller.row, controller.tile
        active_half, half = Signal(), Signal()  # of the lane PEs' weights
        m.d.comb += half.eq(Mux(controller.swap.valid, loader.half, active_half))
        m.d.sync += active_half.eq(half)
        travelling = {"sums": row.sums, "ends": row.ends, "swap": controller.swap.valid, "reading": controller.reading}
        facts = {name: row[name] for name in ("row", "bank", "first", "last", "last_tile", "begins")}
        facts |= {
            "weights": Cat(row.tap, half),
            "keep": tile.vector & ~tile.maximum & ~row.begins,
            "rise": tile.vector & tile.maximum & ~row.begins,
        }
        facts |= {name: tile[name] for name in ("half", "log2_kr", "log2_kd", "in_w", "in_h", "in_zero")}
        stages = {name: delayed(m, value, self.update, name) for name, value in facts.items()}
        stages |= {name: delayed(m, value, self.update, name, reset_less=False) for name, value in travelling.items()}

        def at(name, cycle):
            return stages[name][cycle]

        m.submodules.results = results = VectorResults(c)
        operands, accumulate, inside = self._operands(m, controller, at)
        sums = self._sums(m, loader, results, operands, at)
        self._accumulate(m, controller, loader, results, sums, accumulate, at)
        m.d.comb += [
            results.first.eq(at("begins", self.operand)),
            results.inside.eq(inside),
            results.complete.eq(at("ends", self.operand + 1)),
            results.request.eq(self.acc_request),
            self.acc_taps.eq(results.taps),
            self.vector_row_valid.eq(at("ends", self.operand)),
            self.vector_row.last.eq(at("last", self.operand)),
            self.vector_row.last_tile.eq(at("last_tile", self.operand)),
        ]

        # A half is free when no row reads it: the line table in cycle 0, the bank in cycle 2
        for half in range(2):
            reads = [at("reading", n) & (at("half", n) == half) for n in range(AddressGenerator.ADDRESS_LATENCY + 1)]
            m.d.comb += self.half_free[half].eq(~Cat(reads).any())
        return m

    def _control(self, m, controller, loader):
        """Controller, weight loader and the contract's ports that are theirs."""
        connect(m, flipped(self.weights), loader.weights)
        m.d.comb += [
            controller.next.eq(self.next),
            controller.start_valid.eq(self.start_valid),
            self.start_ready.eq(controller.start_ready),
            controller.set_ready.eq(loader.set_ready),
            controller.parameters_left.eq(loader.parameters_left),
            controller.permit_valid.eq(self.permit_valid),
            self.permit_taken.eq(controller.permit_taken),
            controller.drained.eq(self.drained),
            controller.drained_bank.eq(self.drained_bank),
            self.status.eq(controller.status),
            self.trace.eq(controller.trace),
            loader.next.eq(self.next),
            loader.announced.eq(self.announced),
            loader.revoke.eq(self.revoke),
            loader.start.eq(self.start_valid & self.start_ready),
            loader.tile.eq(controller.tile),
            loader.swap.eq(controller.swap),
            loader.block_drained.eq(self.block_drained),
            self.parameter_write.eq(loader.parameter_write),
            self.parameter_write_valid.eq(loader.parameter_write_valid),
        ]

    def _operands(self, m, controller, at):
        """Cycles 0 to ``operand``: the word that each group multiplies. Returns per group the words, "the row is not
        masked" (AddressGenerator.LATENCY), and "the tap lies in the image" (``operand``).

        The operand register of a maximum keeps the larger value over the taps of a row, lane by lane."""
        c, row, tile = self.config, controller.row, controller.tile
        m.submodules.banks = banks = Banks(c)
        step = Signal(step_layout(c), reset_less=True)
        m.d.sync += [step[name].eq(row[name]) for name, _ in step.shape()]
        read = AddressGenerator.ADDRESS_LATENCY
        m.d.comb += [
            banks.fill.eq(self.fill),
            banks.fill_valid.eq(self.fill_valid),
            banks.half.eq(at("half", read)),
        ]
        generators = []
        for g in range(c.max_stack):
            m.submodules[f"generator_{g}"] = generator = AddressGenerator(c, g)
            m.d.comb += [
                generator.line_write.eq(self.line_write),
                generator.line_write_valid.eq(self.line_write_valid),
                generator.half.eq(tile.half),
                generator.line.eq(row.line),
                generator.sub_lines.eq(tile.sub_lines),
                generator.log2_kr.eq(tile.log2_kr),
                generator.step.eq(step),
                generator.in_w.eq(at("in_w", read)),
                generator.in_h.eq(at("in_h", read)),
                generator.late_log2_kr.eq(at("log2_kr", read)),
                generator.late_log2_kd.eq(at("log2_kd", read)),
                banks.addresses[g].eq(generator.address),
            ]
            generators.append(generator)
        # Two stages, of about one LUT per bit each: the lower bits of the bank, then its top bit and the border.
        # Where the top bit is not the group's own, the other half's group works on the same row and chose the same.
        routing = self.operand - 1 - AddressGenerator.LATENCY
        border = at("in_zero", self.operand - 1).replicate(c.lanes)
        half = max(1, c.max_stack // 2)
        chosen = []
        for g, generator in enumerate(generators):
            near = {b % half: banks.words[b] for b in range(c.max_stack) if b // half == g // half}
            word = Value.cast(select(generator.bank[:-1], near))
            chosen.append(delayed(m, word, routing, f"word_{g}")[routing])
        operands, inside_image = [], []
        rise = at("rise", self.operand - 1)
        for g, generator in enumerate(generators):
            top = delayed(m, generator.bank[-1:], routing, f"top_{g}")[routing]
            inside = delayed(m, generator.inside, routing, f"inside_{g}")[routing]
            operand = Signal(8 * c.lanes, name=f"operand_{g}", reset_less=True)
            word = Signal(8 * c.lanes, name=f"routed_{g}")
            m.d.comb += word.eq(Mux(inside, select(top, dict(enumerate(chosen[g % half :: half]))), border))
            for i in range(c.lanes):
                new, old = word.word_select(i, 8), operand.word_select(i, 8)
                with m.If(~(rise & (old.as_signed() > new.as_signed()))):
                    m.d.sync += old.eq(new)
            operands.append(operand)
            inside_image.append(delayed(m, inside, 1, f"counted_{g}")[1])
        accumulate = Cat(generator.accumulate for generator in generators)
        return operands, accumulate, Cat(inside_image)

    def _sums(self, m, loader, results, operands, at):
        """From cycle ``operand`` on: the PEs, and with stacking the depth sums. Returns the sums of each group."""
        c, stacking = self.config, self.stacking
        width = sum_width(c.lanes)
        swap = at("swap", self.operand - 1)
        summed = self.operand + ProcessingElement.LATENCY
        lend = at("log2_kd", summed - 1) != 0
        sums, lent = [], []
        for g, operand in enumerate(operands):
            columns = []
            for p in range(c.group_pes):
                m.submodules[f"pe_{g}_{p}"] = pe = LaneElement(c.lanes) if p == 0 else ProcessingElement(c.lanes)
                m.d.comb += [
                    pe.x.eq(operand),
                    pe.weight.eq(loader.words[loader.word_class(g, p)]),
                    pe.load.eq(loader.pe_select[p] & loader.group_select[g]),
                    pe.lend.eq(lend),
                ]
                if p == 0:
                    m.d.comb += [
                        pe.write.eq(loader.address),
                        pe.read.eq(at("weights", self.operand - 1)),
                        pe.keep.eq(at("keep", self.operand)),
                        getattr(results, f"sums_{g}").eq(pe.sums),
                    ]
                else:
                    m.d.comb += pe.swap.eq(swap)
                columns.append(pe)
            sums.append(Cat(pe.out for pe in columns))
            lent.append(Cat(pe.lent for pe in columns))
        if stacking.groups == 1:
            return [(sums[0], width)]
        m.submodules.depth_sum = depth = DepthSum(c, width)
        m.d.comb += depth.log2_kd.eq(at("log2_kd", summed))
        m.d.comb += [port.eq(value) for port, value in zip(depth.sums, sums, strict=True)]
        m.d.comb += [port.eq(value) for port, value in zip(depth.lent, lent, strict=True)]
        return [(getattr(depth, f"out_{g}"), depth.out_width(g)) for g in range(stacking.groups)]

    def _accumulate(self, m, controller, loader, results, sums, accumulate, at):
        """Cycle ``update``: into the accumulators; the last row of a c-tile makes its drain job."""
        late = self.update - AddressGenerator.LATENCY
        m.submodules.accumulators = accumulators = Accumulators(self.config, [width for _, width in sums])
        write = delayed(m, Value.cast(accumulate), late, "accumulate")[late]
        valid = at("sums", self.update)
        m.d.comb += [
            accumulators.bank.eq(at("bank", self.update - 1)),
            accumulators.row.eq(at("row", self.update - 1)),
            accumulators.first.eq(at("first", self.update - 1)),
            accumulators.write.eq(Mux(valid, write, 0)),
            accumulators.vector_values.eq(results.values),
            accumulators.modes.eq(controller.modes),
            accumulators.acc_request.eq(self.acc_request),
            self.acc_values.eq(accumulators.acc_values),
        ]
        m.d.comb += [getattr(accumulators, f"sum_{g}").eq(value) for g, (value, _) in enumerate(sums)]

        # C-tiles that wait for the epilogue, at most one per bank; banks alternate
        waiting, last, turn = Signal(2), Signal(2), Signal()
        bank = at("bank", self.update)
        m.d.comb += [
            self.drain.valid.eq((waiting & ~loader.parameters_missing).bit_select(turn, 1)),
            self.drain.payload.bank.eq(turn),
            self.drain.payload.last.eq(last.bit_select(turn, 1)),
        ]
        with m.If(self.drain.valid & self.drain.ready):
            m.d.sync += [waiting.bit_select(turn, 1).eq(0), turn.eq(~turn)]
        with m.If(valid & at("last", self.update)):
            m.d.sync += [waiting.bit_select(bank, 1).eq(1), last.bit_select(bank, 1).eq(at("last_tile", self.update))]
