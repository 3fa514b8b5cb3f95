"""The co-simulation and the bare executable do the same, and Python sleeps."""

import numpy as np
import pytest
from copier import REGISTERS
from fluidnpu.sim.memory import random_stalls
from fluidnpu.sim.speed import measure_speed


async def copies(bench, rounds, beats):
    await bench.start(random_stalls(5, 0.2))
    bench.memory[: 16 * beats] = np.random.default_rng(0).integers(0, 256, 16 * beats, "u1")
    for i in range(rounds):
        pairs = dict(source=0, destination=0x10_0000 * (i + 1), beats=beats, go=1)
        await bench.write_many([(REGISTERS[name], value) for name, value in pairs.items()])
        await bench.wait()
        await bench.write(REGISTERS["interrupt"], 0)
        bench.write_memory(16 * i, np.full(16, i + 1, "u1"))  # the next round copies it


def test_the_bare_run_is_the_same_run(copier_build):
    build, bare = copier_build(16), copier_build(16, bare=True)
    report = measure_speed(build, bare, copies, rounds=3, beats=4096, repeat=1, timeout=300)
    print(report)
    assert report.same
    assert report.cycles > 3 * 4096
    assert report.python_cycles < 0.01
    assert report.as_dict()["ratio"] == report.cosimulation / report.bare
    with pytest.raises(ValueError, match="build it with bare=True"):
        measure_speed(build, build, copies, rounds=1, beats=16, repeat=1)
