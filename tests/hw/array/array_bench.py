"""Test bench of the array: plays engine, stripe loader, weight streamer and epilogue, and records events."""

import random
from collections import deque
from itertools import groupby

from amaranth.sim import Simulator
from fluidnpu.hw.array import Array
from fluidnpu.hw.isa import ArrayEvent

__all__ = ["Bench"]


class Bench:
    """Runs ``cases`` back to back, checks every sum, and keeps what happened.

    stall : chance that a stream waits in a cycle; drain_values : read every value (else free the bank at once)
    revoke : indices of tiles that are announced, revoked after that many cycles (dict) and announced again
    preloaded : the first two tiles' stripes are written before anything is announced

    Members after ``run``: events = list of (cycle, ArrayEvent, context, data); busy = cycles with a row;
    parameters = list of (bank, beat, data) not checked yet; jobs = cycles in which drain jobs were taken; drained =
    list of (cycle, bank); started = list of (cycle of the first request, cycle of the handshake); waits = cycles by
    status; half_low = per half, set of cycles in which it is not free
    """

    def __init__(
        self, config, cases, *, stall=0.0, seed=0, drain_values=True, revoke=None, preloaded=False, limit=20000
    ):
        self.config, self.cases = config, cases
        self.stall, self.drain_values, self.limit = stall, drain_values, limit
        self.revoke = dict(revoke or {})
        self.rng = random.Random(seed)
        self.dut = Array(config)
        self.beats = deque()  # (tile index, beat)
        self.preloaded = preloaded
        self.events, self.parameters, self.jobs, self.drained = [], [], [], []
        self.half_low = [set(), set()]
        self.busy = self.cycle = 0
        self.waits = {"waiting_weights": 0, "waiting_output": 0}
        self.started = []
        self.vector_bank, self.store = 0, {}  # of the next block with parameters; (bank, beat) -> data

    def run(self):
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self._monitor, background=True)
        simulator.add_testbench(self._engine)
        simulator.add_testbench(self._stream_weights, background=True)  # after the engine, whose revoke it obeys
        simulator.add_testbench(self._epilogue)
        simulator.run()
        assert not self.beats, f"{len(self.beats)} weight beats were not taken"
        return self

    def _waits(self):
        return self.rng.random() < self.stall

    async def _tick(self, ctx):
        assert self.cycle < self.limit, f"nothing ends within {self.limit} cycles"
        await ctx.tick()

    async def _monitor(self, ctx):
        dut = self.dut
        while True:
            _, _, trace, status, parameter_valid, parameter, half_free = await ctx.tick().sample(
                dut.trace, dut.status, dut.parameter_write_valid, dut.parameter_write, dut.half_free
            )
            for half in range(2):
                if not half_free >> half & 1:
                    self.half_low[half].add(self.cycle)
            if trace.valid:
                self.events.append((self.cycle, ArrayEvent(trace.kind), trace.line, trace.data))
            self.busy += status.busy
            for name in self.waits:
                self.waits[name] += status[name]
            if parameter_valid and parameter.vector:
                self.store[parameter.bank, parameter.beat] = parameter.data
            elif parameter_valid:
                self.parameters.append((parameter.bank, parameter.beat, parameter.data))
            self.cycle += 1

    async def _stream_weights(self, ctx):
        """Offers the beats; a beat of a revoked tile is withdrawn in the cycle after the pulse."""
        weights = self.dut.weights
        offered = False
        while True:
            if not self.beats:
                offered = False
            elif not offered:
                offered = not self._waits()
            ctx.set(weights.valid, offered)
            ctx.set(weights.payload, self.beats[0][1] if offered else self.rng.getrandbits(32))
            front = self.beats[0] if offered else None
            _, _, ready = await ctx.tick().sample(weights.ready)
            if offered and ready and self.beats and self.beats[0] is front:
                self.beats.popleft()
                offered = False

    async def _engine(self, ctx):
        dut = self.dut
        if self.preloaded:
            for case in self.cases[:2]:
                await self._fill(ctx, case)
        for index, case in enumerate(self.cases):
            ctx.set(dut.next, case.tile)
            ctx.set(dut.announced, 1)
            ours = [(index, beat) for beat in case.beats]
            if index in self.revoke:
                self.beats += ours
                for _ in range(self.revoke[index]):
                    await self._tick(ctx)
                ctx.set(dut.revoke, 1)
                await self._tick(ctx)
                ctx.set(dut.revoke, 0)
                ctx.set(dut.announced, 0)
                self.beats = deque(b for b in self.beats if b[0] != index)
                for _ in range(self.rng.randint(0, 3)):
                    await self._tick(ctx)
                ctx.set(dut.announced, 1)
            self.beats += ours
            if not self.preloaded:
                await self._fill(ctx, case)
            while self._waits():
                await self._tick(ctx)
            ctx.set(dut.start_valid, 1)
            asked = self.cycle
            ready = False
            while not ready:
                assert self.cycle < self.limit, f"a tile does not start within {self.limit} cycles"
                _, _, ready = await ctx.tick().sample(dut.start_ready)
            self.started.append((asked, self.cycle - 1))
            ctx.set(dut.start_valid, 0)
            ctx.set(dut.announced, 0)

    async def _fill(self, ctx, case):
        """One beat and one line table entry per cycle, once the half is free."""
        dut, half = self.dut, case.half
        while not ctx.get(dut.half_free[half]):
            await self._tick(ctx)
        for n in range(max(len(case.fills), len(case.line_writes))):
            while self._waits():
                await self._tick(ctx)
            if n < len(case.fills):
                banks, address, value = case.fills[n]
                ctx.set(dut.fill, dict(half=half, banks=banks, address=address, data=value))
                ctx.set(dut.fill_valid, 1)
            if n < len(case.line_writes):
                banks, index, line = case.line_writes[n]
                ctx.set(dut.line_write, dict(half=half, banks=banks, index=index, line=line))
                ctx.set(dut.line_write_valid, 1)
            await self._tick(ctx)
            ctx.set(dut.fill_valid, 0)
            ctx.set(dut.line_write_valid, 0)

    async def _epilogue(self, ctx):
        dut = self.dut
        bank = 0
        for is_vector, group in groupby(self.cases, key=lambda case: bool(case.shape.vector)):
            if is_vector:
                await self._take_rows(ctx, list(group))
                continue
            for case in group:
                for ctile, used in enumerate(case.used):
                    while self._waits():
                        await self._tick(ctx)
                    ctx.set(dut.drain.ready, 1)
                    while not ctx.get(dut.drain.valid):
                        await self._tick(ctx)
                    job = ctx.get(dut.drain.payload)
                    known = len(self.parameters)
                    self.jobs.append(self.cycle)
                    await self._tick(ctx)
                    ctx.set(dut.drain.ready, 0)
                    assert (job.bank, job.last) == (bank, ctile == len(case.used) - 1)
                    self._check_parameters(case, ctile, bank, known)
                    await self._drain(ctx, case, ctile, used, bank)
                    bank ^= 1

    def _check_parameters(self, case, ctile, bank, known):
        """The c-tile's parameters were passed on before its job came."""
        expected = [(bank, n, beat) for n, beat in enumerate(case.parameters[ctile])]
        assert self.parameters[: len(expected)] == expected
        assert known >= len(expected)
        del self.parameters[: len(expected)]

    async def _drain(self, ctx, case, ctile, used, bank):
        dut, c = self.dut, self.config
        lanes = min(c.post_lanes, case.cols)
        requests = [
            (r, row, quad)
            for r, mask in enumerate(case.masks)
            for row in range(len(mask))
            for quad in range(-(-used // lanes))
            if self.drain_values and mask[row]
        ]
        latency = dut.ACC_LATENCY
        for i in range(max(1, len(requests)) + latency):
            valid = i < len(requests)
            ctx.set(dut.acc_request_valid, valid)
            if valid:
                r, row, quad = requests[i]
                ctx.set(dut.acc_request, dict(bank=bank, sub_tile=r, row=row, quad=quad))
            frees = i == max(1, len(requests)) + latency - 2  # latency - 1 cycles after the last request
            ctx.set(dut.drained, frees)
            ctx.set(dut.drained_bank, bank)
            if frees:
                self.drained.append((self.cycle, bank))
            _, _, values = await ctx.tick().sample(dut.acc_values)
            if latency <= i < len(requests) + latency:
                r, row, quad = requests[i - latency]
                expected = case.sums[ctile][r][row][quad * lanes : min(used, (quad + 1) * lanes)]
                got = [values[n] for n in range(len(expected))]
                assert got == list(expected), f"tile {case.context}, c-tile {ctile}, {r=}, {row=}, {quad=}"
        ctx.set(dut.drained, 0)

    async def _take_rows(self, ctx, cases):
        """Permits for the blocks of successive vector tiles, a little ahead; each row's results as they come."""
        dut = self.dut
        blocks = [(case, n) for case in cases for n in range(case.shape.words)]
        permitted = taken = row = late = 0
        requests, answers = deque(), deque()
        bank, frees = self.vector_bank, deque()
        while taken < len(blocks) or requests or answers or frees:
            permitted = permitted or (not self._waits() and late < len(blocks))
            ctx.set(dut.permit_valid, permitted)
            ctx.set(dut.acc_request_valid, bool(requests))
            if requests:
                request = requests.popleft()
                ctx.set(dut.acc_request, request[0])
                answers.append((self.cycle + dut.ACC_LATENCY, *request[1:]))
            ctx.set(dut.block_drained, bool(frees and frees[0] <= self.cycle and frees.popleft()))
            now = self.cycle
            _, _, went, valid, info, values, taps = await ctx.tick().sample(
                dut.permit_taken, dut.vector_row_valid, dut.vector_row, dut.acc_values, dut.acc_taps
            )
            if went:
                assert permitted
                late, permitted = late + 1, False
            if answers and answers[0][0] == now:
                _, expected, inside = answers.popleft()
                if expected is not None and self.drain_values:
                    assert [values[i] for i in range(len(expected))] == list(expected)
                    assert taps == inside % 512
            if valid:
                assert not requests, "a row's results come while those of the row before are taken"
                case, n = blocks[taken]
                requests += self._row_requests(case, n, row)
                row += 1
                last = row == case.rows
                assert (info.last, info.last_tile) == (last, n == case.shape.words - 1 if last else info.last_tile)
                if last:
                    row, taken = 0, taken + 1
                    if case.parameters[n]:
                        self._check_block_parameters(case, n, bank)
                        bank ^= 1
                        frees.append(now + len(requests) + 2)
        self.vector_bank = bank
        ctx.set(dut.permit_valid, 0)
        ctx.set(dut.acc_request_valid, 0)
        ctx.set(dut.block_drained, 0)

    def _row_requests(self, case, block, row):
        """(request, expected values or None, taps inside) in the order in which the epilogue drains a row."""
        c, s = self.config, case.shape
        width = min(c.lanes, c.post_lanes)
        for r in range(sum(n > 0 for n in s.sub_lines)):
            real = row < len(case.masks[r]) and case.masks[r][row]
            for d in range(s.kd):
                for quad in range(c.lanes // width):
                    group = (r * c.max_stack // s.kr) | d
                    at = d * c.lanes + quad * width
                    yield (
                        dict(vector=1, bank=0, sub_tile=group, row=0, quad=quad),
                        case.sums[block][r][row][at : at + width] if real else None,
                        case.inside[r][row] << s.twice if real else 0,
                    )

    def _check_block_parameters(self, case, block, bank):
        c, beats = self.config, case.parameters[block]
        per_word = len(beats) // case.shape.kd
        pitch = per_word * max(1, c.post_lanes // c.lanes)
        for n, beat in enumerate(beats):
            assert self.store[bank, n // per_word * pitch + n % per_word] == beat
