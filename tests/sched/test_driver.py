"""The driver on the fake device: identity, memory, commands, completions, full queues, errors."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fluidnpu.hw import isa
from fluidnpu.hw.isa import Code, IsaError, Opcode, Status
from fluidnpu.sched.driver import Driver, DriverError, Position

from .fake_device import LIMIT, TINY, FakeDevice, chain, image


def run(script, device=None, **options):
    """Run ``await script(driver)`` on a started driver; returns (result, device)."""
    device = device or FakeDevice()

    async def main():
        driver = Driver(device, **options)
        await driver.start()
        return await script(driver)

    return asyncio.run(main()), device


def packed(program, *values):
    return program.pack_input(image(*values))


def test_reads_the_configuration_from_the_device():
    async def script(driver):
        return driver.sizes

    sizes, _ = run(script)
    assert sizes == {name: getattr(TINY, name) for name in sizes}
    assert {"slots", "rows", "bus_bytes", "programs", "command_entries", "stage_bytes"} <= set(sizes)


@pytest.mark.parametrize(
    "register, value, message",
    [("MAGIC", 1, "MAGIC reads 0x00000001"), ("ISA_VERSION", 99, "ISA version 99")],
)
def test_refuses_a_strange_device(register, value, message):
    device = FakeDevice()
    device.registers[register] = value
    with pytest.raises(DriverError, match=message):
        run(lambda driver: None, device)


def test_refuses_a_program_of_another_configuration():
    other = replace(chain([1]), config_hash=7, config_name="big")

    async def script(driver):
        await driver.load_program(other)

    with pytest.raises(DriverError, match=r"'chain' is for configuration 'big' \(hash 0x00000007\)"):
        run(script)


def test_load_program_writes_region_registers_and_limits():
    program = chain([1, 2])

    async def script(driver):
        return await driver.load_program(program), await driver.load_program(program)

    (first, second), device = run(script, memory_base=0x2000)
    assert (first, second) == (0, 1)
    assert device.registers["PROGRAM_BASE"] == 0x2000
    assert device.registers["PROGRAM_BASE", 1] % 4096 == 0
    assert bytes(device.read_memory(0x2000, len(program.region))) == program.region
    assert device.engine.limits == {(p, e): LIMIT for p in (0, 1) for e in (0, 1)}


def test_too_many_programs_and_too_little_memory():
    async def five(driver):
        for _ in range(5):
            await driver.load_program(chain([1]))

    with pytest.raises(DriverError, match="all 4 program regions are taken"):
        run(five)
    with pytest.raises(DriverError, match="do not fit the 100 left"):
        run(five, memory_bytes=100)

    async def arena(driver):
        await driver.load_program(chain([1]))
        await driver.admit(0, packed(chain([1])), 1)

    with pytest.raises(DriverError, match="arena of slot 0: 64 bytes do not fit the 0 left"):
        run(arena, memory_bytes=4096)


def test_a_sample_from_admission_to_completion():
    program = chain([2, 3])

    async def script(driver):
        await driver.load_program(program)
        await driver.admit(3, packed(program, 1, 42), tag=0xDEADBEEF, priority=9, exits=0b10)
        with pytest.raises(DriverError, match="slot 3 is taken by the sample with tag 3735928559"):
            await driver.admit(3, packed(program), tag=1)
        assert await driver.device.wait()
        (completion,) = await driver.completions()
        assert await driver.completions() == []
        tensor = driver.tensor(3, "image")
        await driver.admit(3, packed(program), tag=1)  # the slot is free again
        return completion, tensor

    (completion, tensor), device = run(script)
    assert completion.of_sample
    assert (completion.status, completion.slot, completion.tag) == (Status.OK, 3, 0xDEADBEEF)
    assert (completion.exit, completion.top, completion.spread) == (1, 42, 1 << 16)
    assert np.array_equal(tensor, image(1, 42))
    start = device.tiles[0][0]
    assert completion.stamp == start + 5 * 100  # exit 0 is not enabled: its head is one JUMP away


def test_outputs_of_the_last_sample_of_a_slot():
    async def script(driver):
        program = replace(chain([1]), outputs=("image",))
        await driver.load_program(program)
        with pytest.raises(DriverError, match="slot 2 never held a sample"):
            driver.outputs(2)
        await driver.admit(2, packed(program, 5, 6), tag=1)
        return driver.outputs(2)

    outputs, _ = run(script)
    assert list(outputs) == ["image"] and outputs["image"].ravel().tolist() == [5, 6]


def test_stamps_beyond_32_bits():
    program = chain([1])

    async def script(driver):
        driver.device.now = 1 << 40
        await driver.load_program(program)
        await driver.admit(0, packed(program), 1)
        await driver.device.wait()
        return (await driver.completions())[0].stamp

    stamp, _ = run(script)
    assert 1 << 40 < stamp < (1 << 40) + 1000


def test_wrong_images_slots_and_programs():
    program = chain([1])

    async def script(driver):
        with pytest.raises(DriverError, match="no program is loaded at index 0; there are \\[\\]"):
            await driver.admit(0, packed(program), 1)
        await driver.load_program(program)
        with pytest.raises(DriverError, match="an image is 8 bytes, this one has 5"):
            await driver.admit(0, b"12345", 1)
        with pytest.raises(DriverError, match=r"slot 4 is not within 0\.\.3"):
            await driver.admit(4, packed(program), 1)
        with pytest.raises(IsaError, match=r"ADMIT: priority = 256 is not within 0\.\.255"):
            await driver.admit(0, packed(program), 1, priority=256)
        with pytest.raises(DriverError, match="slot 1 never held a sample"):
            driver.tensor(1, "image")
        await driver.admit(0, packed(program), 1)  # none of these took the slot
        with pytest.raises(DriverError, match="samples still run in program 0"):
            await driver.load_program(program, index=0)

    run(script)


def test_commands_reach_the_engine_with_every_field():
    program = chain([4])

    async def script(driver):
        await driver.load_program(program)
        driver.device.executed.clear()
        await driver.admit(1, packed(program), 5, runnable=False, ride=False, priority=7)
        await driver.batch(0b10, priority=3, runnable=True, ride=False, commit=False)
        await driver.batch(0b10, priority=4, ride=True)
        await driver.leave(0b1010)
        await driver.limit(0, 0, 99)
        await driver.cancel(0b10)
        await driver.fence(77)
        while len(found) < 2:
            await driver.device.wait()
            found.extend(await driver.completions())

    found = []
    _, device = run(script)
    ops = [(op, {k: v for k, v in fields.items() if v}) for _, op, fields in device.executed]
    assert ops[0][1].keys() == {"slot", "priority", "tag", "arena_base", "arena_bytes", "exits"}
    assert ops[1:] == [
        (Opcode.BATCH, {"slot_mask": 2, "priority": 3, "runnable": 1}),
        (Opcode.BATCH, {"slot_mask": 2, "priority": 4, "runnable": 1, "ride": 1, "commit": 1}),
        (Opcode.LEAVE, {"slot_mask": 10}),
        (Opcode.LIMIT, {"limit": 99}),
        (Opcode.CANCEL, {"slot_mask": 2}),
        (Opcode.FENCE, {"tag": 77}),
    ]
    assert [(c.status, c.tag) for c in found] == [(Status.CANCELLED, 5), (Status.FENCE, 77)]


def test_a_batch_command_costs_two_writes_and_one_wake():
    async def script(driver):
        await driver.limit(0, 0, 1)
        before = driver.device.accesses, driver.device.wakes
        await driver.batch(0b1)
        await driver.batch(0b1)  # word 0 is still staged
        return driver.device.accesses - before[0], driver.device.wakes - before[1]

    (accesses, wakes), _ = run(script)
    assert (accesses, wakes) == (3, 2)


def test_full_command_queue_waits_for_room():
    device = FakeDevice(stall_commands=5000)

    async def script(driver):
        for n in range(40):
            await driver.limit(0, 0, n)
        return device.now

    now, _ = run(script, device)
    assert now >= 5000
    while device.events:
        device._step()
    assert [f["limit"] for _, op, f in device.executed if op == Opcode.LIMIT] == list(range(40))


def test_full_command_queue_gives_up_after_its_patience():
    async def script(driver):
        for n in range(40):
            await driver.limit(0, 0, n)

    with pytest.raises(DriverError, match="command queue stayed full"):
        run(script, FakeDevice(stall_commands=10**9), patience=10_000)


def test_full_completion_queue_is_drained_and_nothing_is_lost():
    async def script(driver):
        for n in range(100):
            await driver.fence(n)
        found = []
        while len(found) < 100:
            await driver.device.wait()
            found += await driver.completions()
        return [c.tag for c in found]

    tags, _ = run(script)
    assert tags == list(range(100))


def test_refused_doorbell_is_a_clear_error():
    async def script(driver):
        driver._credit = 100  # the driver believes in room that is not there
        for n in range(40):
            await driver.limit(0, 0, n)

    with pytest.raises(DriverError, match=r"command LIMIT .*'limit': 16.* was not taken: write to register 0xa0"):
        run(script, FakeDevice(stall_commands=10**6))


def test_failed_sample_and_refused_admit():
    program = chain([2])

    async def script(driver):
        await driver.load_program(program)
        await driver.admit(0, packed(program), 8)
        await driver.device.wait()
        failed = await driver.completions()
        driver.programs[0] = replace(program, arena_bytes=0)
        driver.slots[1].size = 64
        await driver.admit(1, packed(program), 9)
        await driver.device.wait()
        refused = await driver.completions()
        assert driver.slots[1].tag is None
        return failed + refused

    (failed, refused), _ = run(script, FakeDevice(failing={8: Code.WRITE}))
    assert (failed.status, failed.code, failed.tag) == (Status.FAILED, Code.WRITE, 8)
    assert (refused.status, refused.code, refused.tag) == (Status.ERROR, Code.ARENA, 9)
    assert refused.of_admit and not failed.of_admit


def test_soft_reset_clears_samples_and_restores_limits():
    program = chain([3, 3])

    async def script(driver):
        await driver.load_program(program)
        await driver.admit(0, packed(program), 8)
        await driver.soft_reset()
        await driver.admit(0, packed(program, 1), 9)
        await driver.device.wait()
        return await driver.completions()

    (completion,), device = run(script)
    assert (completion.tag, completion.exit) == (9, 1)
    assert device.engine.limits == {(0, 0): LIMIT, (0, 1): LIMIT}


def test_positions_and_counters():
    program = chain([5])

    async def script(driver):
        await driver.load_program(program, index=2)
        await driver.admit(1, packed(program), 1, program=2)
        await driver.device.wait(driver.device.now + 250)
        return await driver.positions([1]), await driver.counters()

    (positions, counters), _ = run(script)
    assert positions == {1: Position(op=4, line=0)} or positions == {1: Position(op=3, line=0)}
    assert counters == {name: 1000 + i + (i << 32) for i, name in enumerate(isa.COUNTERS)}
