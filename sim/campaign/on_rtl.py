"""A point of the study on the RTL: the same policy, requests and images, completion by completion."""

from dataclasses import replace

from ..npu_build import npu_build
from ..rtl_device import RtlDevice
from ..simulate import run_in_simulator
from ..study import InputError, read_images
from .inputs import policy_of, traffic_of

__all__ = ["agreement", "serve_on_rtl"]

PATIENCE = 50  # times that all samples one after the other take: longer runs have stalled


def serve_on_rtl(point, case):
    """timed_npu.Served of a point on the RTL, whose exits decide by the samples' own images."""
    npu = case.npu
    if case.images is None:
        raise InputError(f"{point.workload} has no images: it cannot run on the RTL")
    images, _ = read_images(case.images, npu.programs[0].input.shape)
    return run_in_simulator(npu_build(npu.config), serve_in_simulator, point=point, case=case, images=images)


async def serve_in_simulator(bench, *, point, case, images):
    """The part of `serve_on_rtl` that runs in the simulator's process."""
    requests, decided, _ = traffic_of(point, case)
    if decided.image is None:
        raise InputError(f"exit mix {point.mix!r} does not say which images its samples are")
    requests = [replace(r, image=images[i]) for r, i in zip(requests, decided.image.tolist(), strict=True)]
    npu = replace(case.npu, rigid=point.rigid)
    watchdog = requests[-1].arrival + round(PATIENCE * case.alone * (len(requests) + 4))
    await bench.start(npu.memory, memory_bytes=npu.memory_bytes, watchdog=watchdog)
    policy = policy_of(point, case, decided)
    return await npu.serve_on(RtlDevice(bench), requests, policy, decision_cycles=point.decision_cycles)


def agreement(one, other):
    """Share of the completions of two Served that are the same: request, status, slot, exit, class, and every time."""
    sides = [{_completion(r) for r in served.results} for served in (one, other)]
    return len(sides[0] & sides[1]) / max(map(len, sides))


def _completion(r):
    return r.id, r.status, r.slot, r.admitted, r.stamp, r.completed, r.exit, r.top
