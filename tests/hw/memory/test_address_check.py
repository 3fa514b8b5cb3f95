"""AddressCheck against Python integers, with every edge of a region."""

import random

import pytest
from amaranth.sim import Simulator
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.memory.address_check import AddressCheck

TOP = 1 << 32


@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_edges(name):
    config = CONFIGS[name]
    rng = random.Random(name)
    dut = AddressCheck(config)
    bases = {
        "arena": [rng.randrange(TOP) for _ in range(config.slots)],
        "program": [rng.randrange(TOP) for _ in range(config.programs)],
    }
    sizes = {kind: [rng.randrange(1, 4096) for _ in values] for kind, values in bases.items()}
    bases["arena"][0], sizes["arena"][0] = TOP - 256, 256  # ends with the address space
    bases["arena"][1], sizes["arena"][1] = TOP - 256, 4096  # runs past it
    bases["program"][0], sizes["program"][0] = 0, TOP - 1
    bases["program"][-1], sizes["program"][-1] = 4096, 0  # no region

    async def bench(ctx):
        for kind in bases:
            for n, (base, size) in enumerate(zip(bases[kind], sizes[kind], strict=True)):
                ctx.set(getattr(dut, f"{kind}_base")[n], base)
                ctx.set(getattr(dut, f"{kind}_bytes")[n], size)
        seen = set()
        for _ in range(2000):
            kind = rng.choice(("arena", "program"))
            owner = rng.choice((rng.randrange(len(bases[kind])), rng.randrange(16)))
            nbytes = rng.choice((0, config.bus_bytes, config.bus_bytes * rng.randrange(1, config.burst_beats + 1)))
            known = owner < len(bases[kind])
            base, size = (bases[kind][owner], sizes[kind][owner]) if known else (0, TOP)
            anchor = rng.choice((base, base + size, base + size - nbytes, 0, TOP - nbytes, rng.randrange(TOP)))
            addr = (anchor + rng.choice((-1, 0, 1, -config.bus_bytes, config.bus_bytes))) % TOP
            last = addr + nbytes - 1
            expected = known and nbytes > 0 and base <= addr and last < base + size and last < TOP
            ctx.set(dut.addr, addr)
            ctx.set(dut.bytes, nbytes)
            ctx.set(dut.arena, kind == "arena")
            ctx.set(dut.owner, owner)
            assert ctx.get(dut.inside) == expected, (kind, owner, hex(addr), nbytes, hex(base), hex(size))
            seen.add((kind, known, expected))
        assert {("arena", True, True), ("arena", True, False), ("program", True, True)} <= seen

    sim = Simulator(dut)
    sim.add_testbench(bench)
    sim.run()
