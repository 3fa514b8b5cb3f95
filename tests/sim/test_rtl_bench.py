"""Register accesses, sleeping and waking, watchdog, trace, waves: all in exact cycles."""

import re

import cocotb
import numpy as np
import pytest
from copier import REGISTERS
from fluidnpu.sim.memory import IDEAL
from fluidnpu.sim.rtl_bench import BusError, Transaction, WatchdogError
from fluidnpu.sim.simulate import run_in_simulator
from fluidnpu.sim.verilator import SimulationError

GO, CYCLES = REGISTERS["go"], REGISTERS["cycles"]
NOTHING = 0x100  # no register there: the copier answers SLVERR


async def begin_copy(bench, beats, source=0x1000, destination=0x10000):
    pairs = [("source", source), ("destination", destination), ("beats", beats), ("go", 1)]
    return await bench.write_many([(REGISTERS[name], value) for name, value in pairs])


async def registers(bench):
    await bench.start()
    answers = {"first": bench.cycle()}
    writes = [Transaction(True, REGISTERS["source"], 5), Transaction(True, REGISTERS["destination"], 6)]
    late = Transaction(False, CYCLES, 0, not_before=100)
    delayed = [
        Transaction(True, REGISTERS["beats"], 7, address_delay=a, data_delay=d, response_delay=r)
        for a, d, r in ((3, 0, 0), (0, 4, 0), (0, 0, 5), (6, 2, 1))
    ]
    answers["transactions"] = await bench.transact([*writes, late, *delayed])
    answers["cycle"] = bench.cycle()
    answers["values"] = await bench.read_many([REGISTERS[n] for n in ("source", "destination", "beats")])
    answers["count"] = len(bench.transactions())
    answers["wakes"] = bench.wakes()
    answers["unchecked"] = [t.response for t in await bench.transact([Transaction(False, NOTHING, 0)], check=False)]
    try:
        await bench.write(NOTHING, 1)
    except BusError as error:
        answers["error"] = str(error)
    await bench.reset()
    answers["reset"] = [bench.cycle(), len(bench.transactions()), await bench.read(REGISTERS["source"])]
    return answers


def test_registers(copier_build):
    answers = run_in_simulator(copier_build(16), registers, timeout=60)
    first, second, late, *delayed = answers["transactions"]
    assert answers["first"] == 0
    # The copier takes address and data together and answers one cycle later.
    assert (first.issued, first.accepted, first.done) == (0, 1, 2)
    assert (second.issued, second.accepted, second.done) == (2, 3, 4)
    assert (late.issued, late.accepted, late.data) == (100, 101, 101)  # the counter as read in the cycle of acceptance
    assert [t.accepted - t.issued for t in delayed] == [1 + 3, 1 + 4, 1, 1 + 6]
    assert [t.done - t.accepted for t in delayed] == [1, 1, 1 + 5, 1 + 1]
    assert answers["cycle"] == delayed[-1].done
    assert answers["values"] == [5, 6, 7]
    assert answers["count"] == 10
    assert answers["wakes"] == 3  # the end of reset, of the seven accesses, of the three reads
    assert answers["unchecked"] == [2]
    assert re.fullmatch(r"write to register 0x100 at cycle \d+: SLVERR", answers["error"])
    assert answers["reset"] == [0, 0, 0]


async def sleeping(bench):
    await bench.start()
    answers = {"empty": len(bench.events())}
    answers["times"] = [(await bench.wait(n), bench.cycle()) for n in (10, 11, 5000, 3)]
    go = (await begin_copy(bench, 64))[-1]
    answers["through"] = await bench.wait(bench.cycle() + 1000, irq=False), bench.irq(), bench.cycle()
    answers["at once"] = await bench.wait(), bench.cycle()
    await bench.write(REGISTERS["interrupt"], 0)
    before = len(bench.events())
    go = (await begin_copy(bench, 64))[-1]

    async def other():
        return await bench.wait(bench.cycle() + 20, irq=False), bench.cycle(), await bench.read(CYCLES)

    task = cocotb.start_soon(other())
    reason = await bench.wait(bench.cycle() + 1000)
    last = bench.events()[-1]
    answers["irq"] = reason, bench.cycle() - int(last["cycle"]), int(last["kind"])
    answers["other"] = (await task)[1:], go.done
    answers["events"] = len(bench.events()) - before == len(bench.events(before)) > 64
    return answers


def test_sleeping(copier_build):
    answers = run_in_simulator(copier_build(16), sleeping, timeout=60)
    assert answers["empty"] == 0
    assert answers["times"] == [("time", 10), ("time", 11), ("time", 5000), ("time", 5000)]
    reason, irq, cycle = answers["through"]
    assert (reason, irq) == ("time", True)
    assert answers["at once"] == ("irq", cycle)
    # The copier raises its interrupt in the cycle after the last response, which is its last event.
    assert answers["irq"] == ("irq", 1, 4)
    (woken, counter), go_done = answers["other"]
    assert woken == go_done + 20 and counter == woken + 2
    assert answers["events"]


async def forever(bench):
    await bench.start(watchdog=3000)
    await bench.wait()


async def oversleep(bench):
    """Waits for something that the bench knows nothing of."""
    await bench.start(watchdog=3000)
    await cocotb.triggers.Timer(1, "sec")


async def wrong(bench, text):
    await bench.start()
    raise LookupError(text)


async def fault(bench):
    await bench.start()
    await bench.write(REGISTERS["faults"], 4)
    await begin_copy(bench, 16)


def test_failures_reach_the_caller(copier_build, tmp_path):
    build, options = copier_build(16), dict(timeout=60, keep=tmp_path)
    with pytest.raises(WatchdogError, match="cycle 3000: the limit of 3000 cycles is reached"):
        run_in_simulator(build, forever, **options)
    with pytest.raises(SimulationError, match="watchdog: cycle 103001 and the host does not stop"):
        run_in_simulator(build, oversleep, **options)
    with pytest.raises(LookupError, match="this one") as error:
        run_in_simulator(build, wrong, text="this one", **options)
    assert "in wrong" in error.value.__notes__[0]
    with pytest.raises(SimulationError, match="go with fault 2"):
        run_in_simulator(build, fault, **options)
    with pytest.raises(ValueError, match="only a function at module level"):
        run_in_simulator(build, lambda bench: None)


async def waves(bench, path):
    await bench.start(IDEAL)
    bench.waves(path, 100, 149)
    await begin_copy(bench, 256)
    await bench.wait()


def test_waves_over_a_window(copier_build, tmp_path):
    path = tmp_path / "window.vcd"
    run_in_simulator(copier_build(8, trace=True), waves, path=str(path), timeout=60)
    times = np.array([int(line[1:]) for line in path.read_text().splitlines() if line.startswith("#")])
    assert 40 < (times.max() - times.min()) / 10 <= 50  # a cycle is 10 time units
    assert "axil__awaddr" in path.read_text()
    with pytest.raises(RuntimeError, match="built without trace=True"):
        run_in_simulator(copier_build(16), waves, path=str(path), timeout=60, keep=tmp_path)
