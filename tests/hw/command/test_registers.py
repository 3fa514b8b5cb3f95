"""Register file against a golden model: every address, every refusal."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw import isa
from fluidnpu.hw.axi import OKAY, SLVERR
from fluidnpu.hw.command.registers import Registers, constant_registers
from fluidnpu.hw.config import NpuConfig
from fluidnpu.hw.isa import REGISTER_FIELDS
from fluidnpu.hw.isa import register_address as reg

from .host import NARROW, TINY, simulate


class RegisterModel:
    """What the host may expect of every address, from the documentation alone. No engine: nothing is executed."""

    def __init__(self, config):
        self.config = config
        array = config.pes | config.lanes << 16 | config.max_stack << 24
        tile = config.rows | config.max_lines << 16 | config.slots << 24
        bus = config.bus_bytes | config.post_lanes << 8 | config.programs << 16 | config.exits << 24
        queue = config.command_entries | config.completion_entries << 16
        self.fixed = {0x000: 0x464E5055, 0x004: isa.ISA_VERSION, 0x008: config.hash, 0x010: array, 0x014: tile,
                      0x018: bus, 0x01C: config.bank_bytes, 0x020: config.stage_bytes, 0x024: queue}  # fmt: skip
        self.stored = dict.fromkeys([0x40, *range(0x80, 0x94, 4)], 0)
        for p in range(config.programs):
            self.stored |= dict.fromkeys(range(0x100 + 16 * p, 0x10C + 16 * p, 4), 0)
        self.overflow = 0
        self.queued = []

    def free(self):
        return min(self.config.command_entries, self.config.completion_entries) - len(self.queued)

    def write(self, address, value, strobes):
        if strobes != 15:
            return SLVERR
        if address == 0x40:
            self.stored[address] = value & 7
        elif address in self.stored:
            low = self.config.bus_bytes - 1 if address >= 0x100 and address % 16 == 0 else 0
            self.stored[address] = value & ~low
        elif address == 0x44:
            self.overflow &= ~(value >> 3) & 1
        elif address == 0xA0:
            if not self.free():
                self.overflow = 1
                return SLVERR
            self.queued.append((min(value, 255), [self.stored[a] for a in range(0x80, 0x94, 4)]))
        elif address not in (0x48, 0x58):
            return SLVERR
        return OKAY

    def read(self, address):
        """(response, data); data None: any."""
        if address in self.fixed:
            return OKAY, self.fixed[address]
        if address in self.stored:
            return OKAY, self.stored[address]
        if address == 0x44:
            return OKAY, self.overflow << 3
        if address == 0x4C:
            return OKAY, self.free()
        if address in range(0xC0, 0xD4, 4) or address == 0xDC:
            return OKAY, 0
        counters = 0x200 <= address < 0x200 + 8 * len(isa.COUNTERS)
        if address % 4 == 0 and (address in (0x50, 0x54) or counters):
            return OKAY, None
        if 0x500 <= address < 0x500 + 16 * self.config.slots and address % 16 == 0:
            return OKAY, 0xA000_0000 | (address - 0x500) // 16 << 16 | 16
        if address % 4 == 0 and 0x400 <= address < 0x400 + 16 * self.config.slots:
            slot, word = divmod(address - 0x400, 16)
            return OKAY, 0xA000_0000 | slot << 16 | word
        return SLVERR, 0


@pytest.mark.parametrize("config", [TINY, NARROW], ids=lambda c: c.name)
@pytest.mark.parametrize("seed, stall", [(0, 0), (1, 3)])
def test_register_file(config, seed, stall):
    """Random accesses of every address, known or not, aligned or not, whole words or not."""
    model = RegisterModel(config)
    rng = random.Random(seed)
    known = [reg(r.name, i) for r in isa.REGISTERS for i in range(r.count)]
    slot = 0

    def engine(ctx, dut):
        nonlocal slot
        for word in range(5):
            ctx.set(dut.slot_view.data[word], 0xA000_0000 | slot << 16 | word << 2)
        slot = ctx.get(dut.slot_view.index)

    async def script(host, dut):
        for n in range(600):
            address = rng.choice(known) if rng.random() < 0.85 else rng.randrange(1 << isa.REGISTER_ADDR_WIDTH)
            if address in (reg("SOFT_RESET"), reg("COMPLETION_POP")):
                continue  # tests of their own
            if rng.random() < 0.5:
                strobes = 15 if rng.random() < 0.9 else rng.randrange(15)
                value = rng.choice([rng.getrandbits(32), rng.randrange(16), rng.randrange(256)])
                assert await host.write(address, value, strobes) == model.write(address, value, strobes), (n, address)
            else:
                response, data = await host.read(address)
                expected = model.read(address)
                assert response == expected[0], (n, hex(address))
                assert expected[1] in (None, data), (n, hex(address), data)
        for p in range(config.programs):
            for k, words in enumerate((dut.program_base, dut.program_bytes, dut.program_ops)):
                assert host.ctx.get(words[p]) == model.stored[0x100 + 16 * p + 4 * k]
        control = model.stored[0x40]
        assert host.ctx.get(dut.control.rigid) == control & 1
        assert host.ctx.get(dut.control.unstacked) == control >> 1 & 1
        for opcode, words in model.queued:
            assert host.ctx.get(dut.command.valid)
            assert host.ctx.get(dut.command.payload.opcode) == opcode
            assert [host.ctx.get(dut.command.payload.words[i]) for i in range(5)] == words
            host.ctx.set(dut.command.ready, 1)
            await host.ctx.tick()
        assert not host.ctx.get(dut.command.valid)

    simulate(config, script, stall, seed, engine)


def test_program_written():
    pulses = []

    def engine(ctx, dut):
        if ctx.get(dut.program_written):
            pulses.append((ctx.get(dut.program_written), ctx.get(dut.program_ops[1])))

    async def script(host, dut):
        await host.put("PROGRAM_OPS", 7, 1)
        await host.put("PROGRAM_BASE", 64, 0)
        await host.put("PROGRAM_BYTES", 64, 1)
        await host.get("PROGRAM_BASE", 0)
        assert await host.write(reg("PROGRAM_BASE", 0), 1, strobes=7) == SLVERR
        await host.wait(3)

    simulate(TINY, script, engine=engine)
    assert pulses == [(2, 7), (1, 7), (2, 7)]


def test_opcode_above_a_byte():
    async def script(host, dut):
        await host.put("DOORBELL", 0x101)
        await host.step()
        assert host.ctx.get(dut.command.payload.opcode) == 255

    simulate(TINY, script)


def test_cycle():
    async def script(host, dut):
        before = host.ctx.get(dut.cycle)
        assert await host.get("CYCLE_LOW") == before + 2  # the second cycle after the address
        assert await host.get("CYCLE_HIGH") == 0

    simulate(TINY, script)


def test_cycle_is_latched():
    """CYCLE_HIGH belongs to the CYCLE_LOW read before it, even over a carry."""
    dut = Registers(TINY)

    async def bench(ctx):
        async def read(name, cycle):
            ctx.set(dut.cycle, cycle)
            ctx.set(dut.read.address, reg(name) // 4)
            ctx.set(dut.read.sample, 1)
            value = ctx.get(dut.read.data)
            await ctx.tick()
            ctx.set(dut.read.sample, 0)
            return value

        for cycle in (0x7_FFFF_FFFF, 0x8_0000_0000):
            assert await read("CYCLE_LOW", cycle) == cycle & 0xFFFF_FFFF
            assert await read("CYCLE_HIGH", cycle + 1000) == cycle >> 32
            assert await read("MAGIC", 1 << 40) == isa.MAGIC
            assert await read("CYCLE_HIGH", 1 << 50) == cycle >> 32

    sim = Simulator(dut)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()


def test_fields_agree_with_the_documentation():
    """isa.REGISTERS names the same fields at the same bits; none of them overlap."""
    documents = {r.name: r.doc for r in isa.REGISTERS}
    for name, fields in REGISTER_FIELDS.items():
        used = 0
        for f in fields:
            bits = ((1 << f.width) - 1) << f.lsb
            assert f.word == 0 and not used & bits and bits < 1 << 32
            used |= bits
            where = f"[{f.lsb}]" if f.width == 1 else f"[{f.lsb + f.width - 1}:{f.lsb}]"
            if f.width < 32:
                assert where in documents[name], (name, f.name)


def test_size_that_does_not_fit():
    wide = NpuConfig("wide", 8, 8, 512, 4, 4, 8, 4, 4096, 2048, 256)
    with pytest.raises(isa.IsaError, match=r"wide: register CONFIG_TILE: max_lines = 256 is not within 0..255"):
        constant_registers(wide)
