"""Progress of long runs: what is shown, and that looking at it changes nothing."""

import io
import time

import pytest
from copier import REGISTERS
from fluidnpu.sim import rtl_progress
from fluidnpu.sim.rtl_progress import CycleProgress, reporting, time_left
from fluidnpu.sim.simulate import run_in_simulator
from rich.console import Console


def test_time_left():
    assert time_left(0, 100, 3.0) is None
    assert time_left(25, 100, 3.0) == 9.0


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_shown(terminal, monkeypatch):
    monkeypatch.setattr(rtl_progress, "LINE_SECONDS", 0.05)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with CycleProgress(console, "a network", 1_000_000) as progress:
        path, every = progress.ticks
        assert every >= rtl_progress.LEAST
        with open(path, "r+b") as file:
            file.write(b"%20d" % 250_000)
        time.sleep(1.2)
    said = console.file.getvalue()
    assert "a network" in said and "25%" in said and "k cycles/s" in said and "left" in said
    assert not progress._file.exists()


async def copy_and_watch(bench, ticks):
    await bench.start()
    with reporting(bench, ticks):
        for name, value in dict(source=0, destination=0x10_0000, beats=4096, go=1).items():
            await bench.write(REGISTERS[name], value)
        await bench.wait()
    return bench.cycle(), bench.wakes(), bench.events()


def test_watching_changes_nothing(copier_build, tmp_path):
    path = tmp_path / "cycles"
    path.touch()
    build = copier_build(16)
    alone, few, events = run_in_simulator(build, copy_and_watch, timeout=100, ticks=None)
    watched, wakes, same = run_in_simulator(build, copy_and_watch, timeout=100, ticks=(str(path), 1000))
    assert watched == alone > 4096 and (events == same).all()
    assert few + 3 <= wakes <= few + 6
    assert 1000 < int(path.read_text()) <= alone
