"""How far a long run on the RTL is: cycles done of those that the cycle model says, speed, time left."""

import os
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import cocotb
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .verilator import build_root

__all__ = ["CycleProgress", "reporting", "time_left"]

LOOKS = 500  # of Python at the cycle counter in a run
LEAST = 20_000  # cycles between two of them, so that Python sleeps nearly always
LINE_SECONDS = 20  # where nobody watches a bar


def time_left(done, total, seconds):
    """Seconds to the end at the speed so far; None before the first cycle."""
    return seconds * (total - done) / done if done else None


class CycleProgress:
    """A bar over the cycles of one run, while the context is open; without a terminal a line now and then.

    Parameters
    ----------
    console : rich Console; text : what runs; total : cycles in which it will end

    ``ticks`` : what `reporting` in the simulator's process needs to know (picklable)
    """

    def __init__(self, console, text, total):
        self.console, self.text, self.total = console, text, max(1, total)
        self._stop = threading.Event()

    def __enter__(self):
        runs = build_root() / "runs"
        runs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="cycles-", dir=runs)
        os.close(handle)
        self._file = Path(name)
        self.ticks = name, max(LEAST, self.total // LOOKS)
        self._thread = threading.Thread(target=self._bar if self.console.is_terminal else self._lines, daemon=True)
        self._begin = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._file.unlink(missing_ok=True)

    def _done(self):
        text = self._file.read_text()
        return min(int(text), self.total) if text else 0

    def _bar(self):
        left = (TextColumn("left"), TimeRemainingColumn())
        speed = TextColumn("{task.fields[speed]}")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            speed,
            TimeElapsedColumn(),
            *left,
        )
        with Progress(*columns, console=self.console, speed_estimate_period=60) as bars:
            task = bars.add_task(self.text, total=self.total, speed="")
            while not self._stop.wait(0.5):
                bars.update(task, completed=self._done(), speed=self._speed(self._done()))

    def _lines(self):
        self.console.print(f"{self.text}: {self.total:,} cycles to simulate", soft_wrap=True)
        while not self._stop.wait(LINE_SECONDS):
            done, seconds = self._done(), time.monotonic() - self._begin
            left = time_left(done, self.total, seconds)
            if left is not None:
                share, rest = done / self.total, f"{left // 60:.0f}:{left % 60:02.0f} left"
                self.console.print(f"{self.text}: {share:.0%}, {self._speed(done)}, {rest}", soft_wrap=True)

    def _speed(self, done):
        return f"{done / (time.monotonic() - self._begin) / 1e3:,.0f} k cycles/s"


async def _report(bench, path, every):
    with open(path, "r+b", buffering=0) as file:
        while True:
            await bench.wait(bench.cycle() + every, irq=False)
            os.pwrite(file.fileno(), b"%20d" % bench.cycle(), 0)


@contextmanager
def reporting(bench, ticks):
    """In the simulator: while open, tells a CycleProgress the cycle every now and then. ``ticks``: its, or None."""
    if ticks is None:
        yield
        return
    task = cocotb.start_soon(_report(bench, *ticks))
    try:
        yield
    finally:
        task.cancel()
