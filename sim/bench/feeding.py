"""Parts that the benchmarks share: inside the simulator without a scheduler, straight through the driver."""

import numpy as np
from fluidnpu.sched.driver import Driver

from ..rtl_device import RtlDevice
from ..session import memory_bytes_for

__all__ = ["one_after_another", "packed", "prepared"]


async def prepared(bench, program, slots, memory, *, rigid=False, unstacked=False, limits=None):
    """A driver with ``program`` loaded; ``limits`` replace the program's."""
    size = memory_bytes_for(program, slots)
    await bench.start(memory, memory_bytes=size)
    driver = Driver(RtlDevice(bench), memory_bytes=size)
    await driver.start(rigid=rigid, unstacked=unstacked)
    await driver.load_program(program)
    for e, limit in enumerate(limits or ()):
        await driver.limit(0, e, limit)
    return driver


async def one_after_another(bench, driver, images, slots):
    """Keep every slot filled until all images are served; completions in their order."""
    waiting = list(enumerate(images))[::-1]
    free, ended = list(range(slots))[::-1], []
    while len(ended) < len(images):
        while waiting and free:
            tag, image = waiting.pop()
            await driver.admit(free.pop(), image, tag)
        await bench.wait()
        for completion in await driver.completions():
            ended.append(completion)
            free.append(completion.slot)
    return ended


def packed(program, images):
    """Images (uint8 [n, h, w, c]) as bytes of the input tensor."""
    signed = (images.astype(np.int16) - 128).astype(np.int8)
    return [program.pack_input(image) for image in signed]
