"""ReadArbiter: priority, address check, stable AR, routing by ID, hold and throughput."""

import random
from collections import deque

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.isa import Client
from fluidnpu.hw.memory.read_arbiter import ReadArbiter

from .read_bus import ReadMemory, beat_value

ARENA, PROGRAM, SIZE = 0x10000, 0x80000, 0x4000


def set_regions(ctx, dut):
    for slot, (base, size) in enumerate(zip(dut.arena_base, dut.arena_bytes, strict=True)):
        ctx.set(base, ARENA + slot * SIZE)
        ctx.set(size, SIZE)
    for n, (base, size) in enumerate(zip(dut.program_base, dut.program_bytes, strict=True)):
        ctx.set(base, PROGRAM + n * SIZE)
        ctx.set(size, SIZE)


def random_burst(rng, config):
    """A burst and whether it lies inside."""
    arena = rng.randrange(2)
    count = config.slots if arena else config.programs
    owner = rng.randrange(min(16, count + 1))
    base = (ARENA if arena else PROGRAM) + owner * SIZE
    beats = rng.randint(1, config.burst_beats)
    page = rng.randrange(SIZE // 4096) * 4096
    addr = page + rng.randrange((4096 - beats * config.bus_bytes) // config.bus_bytes + 1) * config.bus_bytes
    outside = rng.random() < 0.2
    if outside:
        addr += rng.choice((-SIZE, SIZE))
    return {"addr": base + addr, "beats": beats, "arena": arena, "owner": owner}, owner < count and not outside


@pytest.mark.parametrize("name", ["tiny", "hub"])
@pytest.mark.parametrize("ready_rate, valid_rate, ask", [(1, 1, 1), (0.4, 0.5, 0.3), (1, 0.5, 0.1)])
def test_random(name, ready_rate, valid_rate, ask):
    config = CONFIGS[name]
    seed = f"{name} {ready_rate} {valid_rate} {ask}"
    rng = random.Random(seed)
    dut = ReadArbiter(config)
    memory = ReadMemory(config, dut.bus, latency=7, ready_rate=ready_rate, valid_rate=valid_rate, seed=seed)
    memory.bad = {base + n * config.bus_bytes for base in (ARENA, PROGRAM) for n in range(0, 4096, 3)}
    clients = [None] * len(Client)
    expected = {n: deque() for n in range(len(Client))}  # beats that a client must get: addr, last
    issued = deque()
    counts = {"accepted": 0, "rejected": 0, "bursts": 0}

    async def bench(ctx):
        set_regions(ctx, dut)
        for cycle in range(1700):
            hold = cycle % 200 > 170
            stop = cycle > 600
            if stop and not any(clients) and not any(expected.values()):
                break
            ctx.set(dut.hold, hold)
            for n, port in enumerate(dut.clients):
                if clients[n] is None and not stop and rng.random() < ask:
                    in_flight = sum(last for _, last in expected[n])
                    if in_flight < config.reads_in_flight:
                        clients[n] = random_burst(rng, config)
                ctx.set(port.request.valid, clients[n] is not None)
                if clients[n]:
                    ctx.set(port.request.payload, clients[n][0])
            samples = []
            for port in dut.clients:
                samples += [port.request.ready, port.rejected, port.beat_valid, port.beat.data, port.beat.error]
                samples += [port.beat_last]
            _, _, pulse, idle, *values = await ctx.tick().sample(dut.burst, dut.idle, *samples)
            counts["bursts"] += pulse
            asking = [n for n in range(len(Client)) if clients[n]]
            taken = [n for n in range(len(Client)) if clients[n] and values[6 * n]]
            assert taken in ([], asking[:1]), "only the first client may be served"
            assert not (hold and taken)
            assert idle == (not any(expected.values()))
            for n in range(len(Client)):
                _, rejected, valid, bits, error, last = values[6 * n : 6 * n + 6]
                if valid:
                    addr, is_last = expected[n].popleft()
                    assert (bits, error, last) == (beat_value(config, addr), addr in memory.bad, is_last)
                if n in taken:
                    burst, inside = clients[n]
                    assert rejected == (not inside), burst
                    counts["accepted" if inside else "rejected"] += 1
                    if inside:
                        issued.append((n, burst["addr"], burst["beats"]))
                        for k in range(burst["beats"]):
                            last = k == burst["beats"] - 1
                            expected[n].append((burst["addr"] + k * config.bus_bytes, last))
                    clients[n] = None
        assert not any(expected.values()) and ctx.get(dut.idle)
        assert [burst[1:] for burst in memory.bursts] == list(issued), "bursts leave in the order of acceptance"
        assert counts["bursts"] == counts["accepted"] == len(issued) and counts["rejected"]

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(memory.serve, background=True)
    sim.run()


def test_one_burst_per_cycle():
    config = CONFIGS["tiny"]
    dut = ReadArbiter(config)
    memory = ReadMemory(config, dut.bus, latency=2)

    async def bench(ctx):
        set_regions(ctx, dut)
        port = dut.clients[Client.STRIPE]
        ctx.set(port.request.valid, 1)
        for n in range(20):
            ctx.set(port.request.payload, {"addr": ARENA + 64 * n, "beats": 1, "arena": 1, "owner": 0})
            assert ctx.get(port.request.ready) == 1
            await ctx.tick()
        ctx.set(port.request.valid, 0)
        await ctx.tick().repeat(6)
        first = ReadArbiter.LATENCY
        assert [b[0] for b in memory.bursts] == list(range(first, first + 20))
        assert [b[0] for b in memory.beats] == list(range(first + 2, first + 22))

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.add_testbench(memory.serve, background=True)
    sim.run()
