"""Scenarios for the host: samples with arbitrary padding, memories of all kinds, random behaviour."""

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.sim.memory import IDEAL, MemorySettings, limited, random_stalls
from npu_scenario import Loaded, Sample, Scenario

__all__ = ["WILD", "every_image", "load", "random_memory", "random_scenario", "samples_of", "scenario"]

# What the random host does: how often it admits, says who runs, lets samples leave, ...
WILD = {
    "admit": 8, "batch": 3, "commit": 1, "leave": 0.5, "cancel": 0.7, "fence": 0.3, "limit": 0.5, "wrong": 0.3,
    "nap": 6, "pop": 2,
}  # fmt: skip


def load(compiled, limits=None):
    """What the device needs to know of a compiled network."""
    program = compiled.program
    limits = tuple(limits or [isa.LIMIT_NEVER] * len(program.exits))
    offset = program.tensors[program.input_tensor].offset
    return Loaded(program.region, len(program.ops), limits, program.arena_bytes, offset)


def payload(compiled, image, rng):
    """Bytes of the input tensor; padding channels hold anything, which must not matter."""
    program = compiled.program
    place = program.tensors[program.input_tensor]
    real = program.pack(place.name, np.ones((place.height, place.width, place.channels), np.int8)) != 0
    packed = program.pack_input(compiled.images[image])
    return np.where(real, packed, rng.integers(0, 256, packed.size, np.uint8)).astype(np.uint8)


def samples_of(programs, count, rng, exits=None):
    """``count`` random samples of random programs; tags are 1, 2, ... ``exits``: mask, else random."""
    chosen = []
    for n in range(count):
        p = int(rng.integers(len(programs)))
        image = int(rng.integers(len(programs[p].images)))
        mask = int(rng.choice([0xFFFF, 0xFFFF, int(rng.integers(1 << 16))])) if exits is None else exits
        chosen.append(Sample(n + 1, p, image, payload(programs[p], image, rng), mask))
    return tuple(chosen)


def every_image(compiled, rng):
    """A sample of each image of one program, all exits enabled; tags are 1, 2, ..."""
    return tuple(
        Sample(image + 1, 0, image, payload(compiled, image, rng), 0xFFFF) for image in range(len(compiled.images))
    )


def random_memory(rng):
    """From ideal to slow, jittering and out of order."""
    kind, seed = int(rng.integers(6)), int(rng.integers(1, 1 << 30))
    latencies = {"read_latency": int(rng.integers(1, 120)), "write_latency": int(rng.integers(1, 200))}
    if kind == 0:
        return IDEAL
    if kind == 1:
        return MemorySettings(**latencies)
    if kind == 2:
        return limited(int(rng.choice([32, 64, 128, 200])), **latencies)
    if kind == 3:
        order = str(rng.choice(["shuffle", "interleave"]))
        return MemorySettings(**latencies, read_jitter=60, write_jitter=100, order=order, seed=seed)
    if kind == 4:
        return random_stalls(seed, float(rng.uniform(0.1, 0.7)), **latencies)
    return MemorySettings(1, 1)


def scenario(config, programs, seed, *, samples, limits=None, **options):
    """A Scenario of ``programs`` (list of Compiled); limits: per program, default never."""
    loaded = tuple(load(c, limits[i] if limits else None) for i, c in enumerate(programs))
    return Scenario(seed, loaded, samples, config.slots, config.bus_bytes, **options)


def random_scenario(config, programs, seed, count, *, exits=None, **options):
    """Random samples, arrivals, commands and memory."""
    rng = np.random.default_rng(seed)
    samples = samples_of(programs, count, rng, exits)
    limits = [c.limits_between(rng) if rng.random() < 0.6 else None for c in programs]
    nap = int(rng.choice([30, 100, 300, 600]))
    options = {"memory": random_memory(rng), "weights": WILD, "nap": nap} | options
    return scenario(config, programs, seed, samples=samples, limits=limits, **options)
