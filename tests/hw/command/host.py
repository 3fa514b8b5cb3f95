"""A host on the command bus for the Amaranth simulator: one checked bus transaction per call."""

import random

from amaranth.sim import Simulator
from fluidnpu.hw.axi import OKAY
from fluidnpu.hw.command.command_bus import CommandBus
from fluidnpu.hw.config import CONFIGS, NpuConfig
from fluidnpu.hw.isa import register_address as reg

from .axi_lite_master import AxiLiteMaster, Read, Write

__all__ = ["NARROW", "TINY", "Host", "simulate"]

TINY = CONFIGS["tiny"]
# Fewer completion entries than commands, and not all programs.
NARROW = NpuConfig(
    "narrow", 8, 8, 32, 4, 4, 8, 4, 4096, 2048, 8, 64, command_entries=16, completion_entries=8, programs=2
)


class Host:
    """Coroutine-style host: every call is one bus transaction with random stalls, checked for its response."""

    def __init__(self, ctx, dut, rng, stall, engine=None):
        self.ctx, self.dut, self.rng, self.stall, self.engine = ctx, dut, rng, stall, engine
        self.master = AxiLiteMaster(dut.axil)

    def _delays(self, n):
        return [self.rng.randint(0, self.stall) for _ in range(n)]

    async def step(self):
        if self.engine is not None:
            self.engine(self.ctx)
        self.master.drive(self.ctx)
        self.master.observe(self.ctx)
        await self.ctx.tick()

    async def wait(self, cycles):
        for _ in range(cycles):
            await self.step()

    async def _run(self, access, group):
        group.append(access)
        for _ in range(100):
            await self.step()
            if self.master.idle():
                return access
        raise AssertionError("a transaction hangs")

    async def write(self, address, value, strobes=0xF):
        """Response of the write."""
        access = await self._run(Write(address, value, strobes, *self._delays(3)), self.master.writes)
        return access.response

    async def read(self, address):
        """(response, data) of the read."""
        access = await self._run(Read(address, *self._delays(2)), self.master.reads)
        return access.response, access.data

    async def put(self, name, value, index=0):
        assert await self.write(reg(name, index), value) == OKAY, name

    async def get(self, name, index=0):
        response, value = await self.read(reg(name, index))
        assert response == OKAY, name
        return value


def simulate(config, script, stall=0, seed=0, engine=None):
    """Run ``script(host, dut)``; ``engine(ctx)`` plays the engine before every clock edge."""
    dut = CommandBus(config)

    async def bench(ctx):
        host = Host(ctx, dut, random.Random(seed), stall, engine and (lambda ctx: engine(ctx, dut)))
        await script(host, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
