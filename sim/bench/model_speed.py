"""The cycle model's speed beside the RTL's: the same samples through the same network, under the same host.

python -m fluidnpu.sim.bench.model_speed NETWORK.tflite --config edge --live 4 --rtl
"""

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fluidnpu.hw import isa
from fluidnpu.hw.config import get_config
from fluidnpu.sched.driver import Driver

from ..cycle.device import CycleDevice, run_now
from ..memory import IDEAL
from ..npu_build import npu_build
from ..rtl_device import RtlDevice
from ..session import memory_bytes_for
from ..simulate import run_in_simulator
from ..study import load_program

__all__ = ["ModelSpeed", "measure_model_speed"]


@dataclass(frozen=True)
class ModelSpeed:
    """Speeds in cycles per second of processor time, the host's part included.

    cycles : of a round, in which all samples go through the network; stepping : without the memo; first : of the first
    round of a fresh model, which knows nothing; known : the best round, when everything was seen before; host : seconds
    of host code per sample in that round; rtl : of the RTL, 0 if it was not run
    """

    cycles: int
    stepping: float
    first: float
    known: float
    host: float
    rtl: float = 0.0

    def as_dict(self):
        """For reports."""
        return asdict(self)

    def __str__(self):
        text = (
            f"{self.cycles:,} cycles a round: stepping {self.stepping / 1e6:.1f}, first round {self.first / 1e6:.1f}, "
            f"known {self.known / 1e6:.1f} million cycles/s; host {1e6 * self.host:.0f} us a sample"
        )
        if self.rtl:
            times = ", ".join(f"{speed / self.rtl:,.0f}" for speed in (self.stepping, self.first, self.known))
            text += f"; RTL {self.rtl / 1e3:.0f} k cycles/s; times RTL: {times}"
        return text


async def _rounds(device, clock, program, size, live, count):
    """(cycles, seconds) of rounds of ``live`` samples, none of which leaves early."""
    driver = Driver(device, memory_bytes=size)
    await driver.start()
    await driver.load_program(program)
    for e in range(len(program.exits)):
        await driver.limit(0, e, isa.LIMIT_NEVER)
    place = program.tensors[program.input_tensor]
    image = bytes(place.height * place.line_beats * program.bus_bytes)
    rounds = []
    for _ in range(count):
        since, begin = clock(), await device.cycle()
        for slot in range(live):
            await driver.admit(slot, image, slot, runnable=False, exits=0)
        await driver.batch((1 << live) - 1)
        ended = 0
        while ended < live:
            await device.wait()
            ended += len(await driver.completions())
        rounds.append((await device.cycle() - begin, clock() - since))
    return rounds


async def rounds_on_rtl(bench, memory, **way):
    """The part that runs in the simulator."""
    await bench.start(memory, memory_bytes=way["size"], watchdog=1 << 40)
    return await _rounds(RtlDevice(bench), time.thread_time, **way)


class _Timed(CycleDevice):
    """Knows how long the model itself has run."""

    seconds = 0.0

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        run = self.model.run

        def timed(*a, **o):
            since = time.thread_time()
            try:
                return run(*a, **o)
            finally:
                self.seconds += time.thread_time() - since

        self.model.run = timed


def measure_model_speed(config, program, live, *, rounds=8, memory=IDEAL, build=None):
    """ModelSpeed of groups of ``live`` samples. build : the RTL's simulator, which plays one round; None: not run."""
    size = memory_bytes_for(program, config.slots)
    way = {"program": program, "size": size, "live": live}
    CycleDevice(config, memory, size, jumps=False).model.run(1)  # compiles
    stepping = run_now(_rounds(CycleDevice(config, memory, size, jumps=False), time.thread_time, count=1, **way))
    device = _Timed(config, memory, size)
    moments, inside = [], []

    def clock():
        inside.append(device.seconds)
        moments.append(time.thread_time())
        return moments[-1]

    found = run_now(_rounds(device, clock, count=rounds, **way))
    host = [moments[i + 1] - moments[i] - inside[i + 1] + inside[i] for i in range(0, len(moments), 2)]
    best = min(range(1, rounds), key=lambda i: found[i][1] / found[i][0])
    rtl = 0.0
    if build is not None:
        ((cycles, seconds),) = run_in_simulator(build, rounds_on_rtl, memory=memory, count=1, **way)
        rtl = cycles / seconds
    speeds = [cycles / seconds for cycles, seconds in (stepping[0], found[0], found[best])]
    return ModelSpeed(found[best][0], *speeds, host[best] / live, rtl)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help=".tflite file")
    parser.add_argument("--config", default="edge")
    parser.add_argument("--live", type=int, default=1, help="samples that go together")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--rtl", action="store_true", help="a round on the RTL, too")
    options = parser.parse_args(arguments)
    config = get_config(options.config)
    _, program = load_program(config, options.network)
    build = npu_build(config) if options.rtl else None
    print(measure_model_speed(config, program, options.live, rounds=options.rounds, build=build))


if __name__ == "__main__":
    main()
