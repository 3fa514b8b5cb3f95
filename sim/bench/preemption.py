"""Cycles from a commit's acceptance to the first MAC of the sample that it puts in front."""

import random

import numpy as np
from fluidnpu.hw import isa
from fluidnpu.hw.engine.descriptor_check import DescriptorCheck
from fluidnpu.hw.isa import register_address
from fluidnpu.hw.post.addition import Addition

from ..memory import IDEAL
from ..simulate import run_in_simulator
from .feeding import prepared
from .group import started_tiles

__all__ = ["overhead_bound", "preemption_bound", "preemption_latencies"]

DOORBELL = register_address("DOORBELL")


def overhead_bound(config, memory):
    """Most cycles of a preemption beside the rest of one tile and one stripe load: docs/architecture.md, Preemption."""
    slots, lines = config.slots, config.max_stack * config.max_lines
    deal = 5 * slots + lines + config.max_stack + 8  # scan, descriptor, dealer
    sequencer = 2 * deal + 4 * (slots + lines) + config.fragments + 8 * slots + 40
    # Descriptors of samples that have just moved on, each to an operation of its own
    fetch = memory.read_latency + isa.DESCRIPTOR_BYTES // config.bus_bytes + DescriptorCheck.CYCLES
    # Discarding the dropped tile's reads, second operands among them; then the new tile's weights and an exit's reads
    in_flight = 2 * config.reads_in_flight * config.burst_beats
    reads = 2 * (memory.read_latency + config.weight_fifo_beats + in_flight)
    tracker = memory.write_latency + config.stage_beats
    # A half of the residual buffer becomes free when the chunk in it is drained
    operands = config.stage_bytes // config.post_lanes + Addition.LATENCY
    return sequencer + (slots - 1) * fetch + reads + tracker + operands


def preemption_bound(config, program, memory=IDEAL):
    """Most cycles from a commit to the first MAC of a sample whose inputs are there: any tile, any load, overhead."""
    tile = max(op.tile_cycles for op in program.ops)
    load = max(op.load_beats for op in program.ops)
    return tile + load + overhead_bound(config, memory)


def preemption_latencies(build, config, program, images, moments, seed=1, memory=IDEAL):
    """Latencies (int array, cycles) of ``moments`` preemptions at random times, in seeded order."""
    run = run_in_simulator(
        build,
        run_preemptions,
        program=program,
        slots=config.slots,
        images=images,
        moments=moments,
        moments_seed=seed,
        memory=memory,
    )
    urgent = config.slots - 1
    firsts = np.array([t["first"] for t in started_tiles(run["events"]) if any(f[0] == urgent for f in t["fragments"])])
    return np.array([int(firsts[firsts > commit].min()) - commit for commit in run["commits"]])


async def run_preemptions(bench, program, slots, images, moments, moments_seed, memory):
    """In the simulator: the other slots work without a pause; the last one is started again and again on top."""
    rng = random.Random(moments_seed)
    never = [isa.LIMIT_NEVER] * len(program.exits)
    driver = await prepared(bench, program, slots, memory, limits=never)
    urgent, commits, tag = slots - 1, [], 0

    async def refill(completions):
        nonlocal tag
        for completion in completions:
            if completion.of_sample and completion.slot != urgent:
                tag += 1
                await driver.admit(completion.slot, images[tag % len(images)], tag)

    for slot in range(urgent):
        tag += 1
        await driver.admit(slot, images[tag % len(images)], tag)
    alone = sum(op.variants[0]["cycles"] for op in program.ops if op.variants)
    while len(commits) < moments:
        tag += 1
        await driver.admit(urgent, images[tag % len(images)], tag, runnable=False)
        until = bench.cycle() + rng.randrange(alone)
        while await bench.wait(until) == "irq":
            await refill(await driver.completions())
        await driver.batch(1 << urgent, priority=200)
        writes = bench.transactions()
        commits.append(int(writes[writes["address"] == DOORBELL]["accepted"][-1]))
        while driver.slots[urgent].tag is not None:
            await bench.wait()
            await refill(await driver.completions())
    return {"commits": commits, "events": bench.events()}
