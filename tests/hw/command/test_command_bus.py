"""Command bus: random traffic from host and engine at the same time, full and empty queues, interrupt, soft reset."""

import random
from collections import deque

import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.axi import OKAY, SLVERR
from fluidnpu.hw.command.counters import EVENTS, RAW_CAUSES
from fluidnpu.hw.isa import register_address as reg

from .host import NARROW, TINY, simulate


class RandomEngine:
    """Takes commands at random times and does with each what an engine may do: release its reservation, complete it
    at once, or keep the reservation and complete it later. Knows what must be in the completion queue."""

    def __init__(self, seed, patience):
        self.rng = random.Random(seed)
        self.patience = patience  # commands that may wait for their completion
        self.taken = []
        self.pending = 0
        self.completions = deque()  # posted, not popped
        self.popped = []
        self.tag = 0
        self.hurry = False
        self.asleep = False

    def __call__(self, ctx, dut):
        rng = self.rng
        payload = ctx.get(dut.popped)
        if payload["valid"]:
            self.popped.append((payload["status"], payload["slot"]))
        ctx.set(dut.release_reservation, 0)
        ctx.set(dut.completion.valid, 0)
        if rng.random() < 0.005:
            self.asleep = not self.asleep  # long enough for the command queue to fill
        if self.asleep and not self.hurry:
            ctx.set(dut.command.ready, 0)
            return
        take = rng.random() < 0.3 and self.pending < self.patience
        ctx.set(dut.command.ready, take)
        post = self.pending and rng.random() < 0.3
        if post:
            self.pending -= 1
        if take and ctx.get(dut.command.valid):
            words = [ctx.get(dut.command.payload.words[i]) for i in range(5)]
            self.taken.append((ctx.get(dut.command.payload.opcode), words))
            what = rng.choice(["release", "keep", "keep", "post"])
            if what == "release" or (what == "post" and post):
                ctx.set(dut.release_reservation, 1)
            elif what == "keep":
                self.pending += 1
            else:
                post = True
        if post:
            self.tag += 1
            values = {"status": rng.randrange(5), "slot": rng.randrange(16), "top": rng.randrange(1 << 16),
                      "tag": self.tag, "stamp_high": rng.getrandbits(32)}  # fmt: skip
            self.completions.append(values)
            ctx.set(dut.completion.payload, values)
            ctx.set(dut.completion.valid, 1)


@pytest.mark.parametrize("config", [TINY, NARROW], ids=lambda c: c.name)
@pytest.mark.parametrize("seed, stall", [(0, 0), (1, 2)])
def test_nothing_lost(config, seed, stall):
    """Random doorbells and pops beside a random engine: order, contents, refusals, reservations, the interrupt. The
    component's own assertions watch the reservations in every cycle."""
    rng = random.Random(seed)
    engine = RandomEngine(seed, patience=config.completion_entries)
    sent, popped = [], []
    refused = empty = 0

    async def pop(host):
        """Read and remove the oldest completion, or find that there is none."""
        nonlocal empty
        known = len(engine.completions)  # more may follow during the accesses
        assert known <= await host.get("COMPLETION_LEVEL") <= len(engine.completions)
        if not known:
            if not engine.completions:
                before = engine.tag
                response = await host.write(reg("COMPLETION_POP"), 1)
                assert response == SLVERR or engine.tag != before
                if response == OKAY:
                    expected = engine.completions.popleft()
                    popped.append((expected["status"], expected["slot"]))
                empty += response == SLVERR
            return
        assert host.ctx.get(host.dut.irq)
        words = [await host.get("COMPLETION", i) for i in range(5)]
        expected = engine.completions[0]
        found = isa.decode(isa.COMPLETION_FIELDS, words)
        assert found == {**dict.fromkeys(found, 0), **expected}
        await host.put("COMPLETION_POP", 0)
        engine.completions.popleft()
        popped.append((expected["status"], expected["slot"]))

    async def ring(host, n, arguments):
        nonlocal refused
        if rng.random() < 0.5:
            i = rng.randrange(5)
            arguments[i] = rng.getrandbits(32)
            await host.put("ARGUMENT", arguments[i], i)
        free = await host.get("COMMAND_FREE")
        response = await host.write(reg("DOORBELL"), n)
        assert response == OKAY or not free
        if response == OKAY:
            sent.append((n, list(arguments)))
        else:
            refused += 1
            assert await host.get("STATUS") & 8
            await host.put("STATUS", 8)
            assert not await host.get("STATUS") & 8

    async def script(host, dut):
        await host.put("CONTROL", 4)
        arguments = [0] * 5
        for n in range(200):
            rings = 0.93 if n // 40 % 2 else 0.3  # now the host pops hardly, now much
            if rng.random() < rings:
                await ring(host, n, arguments)
            else:
                await pop(host)
        engine.hurry = True
        while len(engine.taken) < len(sent) or engine.pending or engine.completions:
            await pop(host)
        await host.wait(3)
        assert engine.taken == sent
        assert engine.popped == popped and len(popped) == engine.tag
        assert await host.get("COMMAND_FREE") == min(config.command_entries, config.completion_entries)
        assert not host.ctx.get(dut.irq)

    simulate(config, script, stall, seed, engine)
    assert refused > 3 and len(popped) > 20 and empty


def test_queue_full():
    """Exactly command_entries doorbells fit; the next is refused, sticks, and changes nothing."""

    async def script(host, dut):
        for n in range(TINY.command_entries):
            assert await host.get("COMMAND_FREE") == TINY.command_entries - n
            await host.put("ARGUMENT", n)
            await host.put("DOORBELL", 2)
        for _ in range(2):
            await host.put("ARGUMENT", 99)
            assert await host.write(reg("DOORBELL"), 3) == SLVERR
        assert await host.get("STATUS") == 8
        await host.put("STATUS", 7)
        assert await host.get("STATUS") == 8
        await host.put("STATUS", 8)
        assert await host.get("STATUS") == 0
        host.ctx.set(dut.command.ready, 1)
        for n in range(TINY.command_entries):
            assert host.ctx.get(dut.command.valid)
            assert host.ctx.get(dut.command.payload.opcode) == 2
            assert host.ctx.get(dut.command.payload.words[0]) == n
            await host.step()
        assert not host.ctx.get(dut.command.valid)
        # Nobody gave the entries of these commands back.
        assert await host.get("COMMAND_FREE") == min(16, TINY.completion_entries - 16)

    simulate(TINY, script)


def test_completion_entries_run_out():
    """Executed commands keep their entries until they are released or popped."""

    async def script(host, dut):
        ctx = host.ctx
        ctx.set(dut.command.ready, 1)
        for _ in range(NARROW.completion_entries):
            await host.put("DOORBELL", 1)
        assert await host.write(reg("DOORBELL"), 1) == SLVERR
        ctx.set(dut.release_reservation, 1)
        await host.step()
        ctx.set(dut.release_reservation, 0)
        assert await host.get("COMMAND_FREE") == 1
        ctx.set(dut.completion.valid, 1)
        await host.wait(7)
        ctx.set(dut.completion.valid, 0)
        assert await host.get("COMPLETION_LEVEL") == 7
        assert await host.get("COMMAND_FREE") == 1
        await host.put("COMPLETION_POP", 1)
        assert await host.get("COMMAND_FREE") == 2

    simulate(NARROW, script)


@pytest.mark.parametrize("port", ["completion.valid", "release_reservation"])
def test_unreserved_completion_is_caught(port):
    async def script(host, dut):
        signal = dut.completion.valid if port == "completion.valid" else dut.release_reservation
        host.ctx.set(signal, 1)
        await host.step()

    with pytest.raises(AssertionError, match="a completion without a reservation"):
        simulate(TINY, script)


def test_interrupt_and_pop():
    """A level: queue not empty and enabled. Popping the last completion lowers it."""

    async def script(host, dut):
        ctx = host.ctx
        assert await host.write(reg("COMPLETION_POP"), 1) == SLVERR
        for _ in range(2):
            await host.put("DOORBELL", 6)
        for tag in (77, 78):
            ctx.set(dut.completion.valid, 1)
            ctx.set(dut.completion.payload, {"status": 4, "slot": 3, "tag": tag})
            await host.step()
        ctx.set(dut.completion.valid, 0)
        await host.wait(2)
        assert not ctx.get(dut.irq) and await host.get("STATUS") == 0
        await host.put("CONTROL", 4)
        assert ctx.get(dut.irq) and await host.get("STATUS") == 4
        for tag in (77, 78):
            assert ctx.get(dut.irq)
            assert await host.get("COMPLETION", 1) == tag
            await host.put("COMPLETION_POP", 1)
        assert not ctx.get(dut.irq) and await host.get("COMPLETION", 1) == 0
        assert await host.write(reg("COMPLETION_POP"), 1) == SLVERR

    simulate(TINY, script)


def test_soft_reset():
    """Queues and reservations are gone, doorbells and pops refused meanwhile; registers stay."""
    resetting = 0

    def engine(ctx, dut):
        nonlocal resetting
        if ctx.get(dut.soft_reset):
            resetting = 60
        ctx.set(dut.resetting, resetting > 0)
        resetting -= resetting > 0

    async def script(host, dut):
        ctx = host.ctx
        await host.put("CONTROL", 7)
        await host.put("PROGRAM_BYTES", 4096, 1)
        await host.put("ARGUMENT", 5, 2)
        for _ in range(6):
            await host.put("DOORBELL", 2)
        ctx.set(dut.command.ready, 1)
        await host.wait(3)
        ctx.set(dut.command.ready, 0)
        ctx.set(dut.completion.valid, 1)
        await host.wait(2)
        ctx.set(dut.completion.valid, 0)
        await host.wait(1)
        assert ctx.get(dut.irq) and ctx.get(dut.command.valid)
        await host.put("SOFT_RESET", 0)
        assert await host.get("STATUS") & 6 == 2
        ctx.set(dut.completion.valid, 1)  # a straggler
        ctx.set(dut.release_reservation, 1)
        assert not ctx.get(dut.irq) and not ctx.get(dut.command.valid)
        assert await host.get("COMMAND_FREE") == 0
        assert await host.write(reg("DOORBELL"), 2) == SLVERR
        assert await host.write(reg("COMPLETION_POP"), 2) == SLVERR
        assert await host.get("COMPLETION_LEVEL") == 0
        ctx.set(dut.completion.valid, 0)
        ctx.set(dut.release_reservation, 0)
        while await host.get("STATUS") & 2:
            pass
        assert await host.get("STATUS") == 8  # the refused doorbell
        assert await host.get("COMMAND_FREE") == TINY.command_entries
        assert await host.get("CONTROL") == 7
        assert await host.get("PROGRAM_BYTES", 1) == 4096
        assert await host.get("ARGUMENT", 2) == 5
        await host.put("DOORBELL", 3)
        assert ctx.get(dut.command.valid) and ctx.get(dut.command.payload.opcode) == 3
        assert ctx.get(dut.command.payload.words[2]) == 5

    simulate(TINY, script, engine=engine)


def test_counters_through_the_bus():
    """The latched cycles_* counters add up to the cycle of the latch; events and halves are where they belong."""
    rng = random.Random(5)
    truth = dict.fromkeys(isa.COUNTERS, 0)
    latched = {}

    def engine(ctx, dut):
        if ctx.get(dut.cycle) == latched.get("at"):
            latched["copy"] = dict(truth)
        causes = {name: rng.random() < 0.2 for name in RAW_CAUSES}
        ctx.set(dut.causes, causes)
        first = next((name for name in RAW_CAUSES if causes[name]), "idle")
        increments = {name: rng.choice([0, 1, 255]) for name in EVENTS}
        ctx.set(dut.increments, increments)
        truth[f"cycles_{first}"] += 1
        for name in EVENTS:
            truth[name] += increments[name]

    async def script(host, dut):
        for _ in range(3):
            await host.wait(rng.randint(1, 50))
            # Without stalls the write is performed in the cycle after its transfer.
            latched["at"] = host.ctx.get(dut.cycle) + 1
            await host.put("COUNTER_LATCH", 0)
            values = {}
            for i, name in enumerate(isa.COUNTERS):
                low = await host.get("COUNTER_LOW", i)
                values[name] = low | await host.get("COUNTER_HIGH", i) << 32
            assert values == latched["copy"]
            assert sum(values[f"cycles_{cause}"] for cause in isa.CAUSES) == latched["at"]

    simulate(TINY, script, engine=engine)
