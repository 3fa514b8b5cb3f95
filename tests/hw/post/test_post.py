"""Post against a model that works on whole tiles: bytes in the staging buffer, chunks, order and cycles of a drain."""

import gc
import random
from dataclasses import replace

import pytest
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.post.addition import Addition
from fluidnpu.hw.post.epilogue import Epilogue
from fluidnpu.hw.tile import ADDITION_FIELDS

from .post_bench import Bench
from .post_tile import Tile, scale
from .test_addition import FIELDS

TINY = CONFIGS["tiny"]
CASES = {
    "one value": [Tile([1], 1)],
    "partial c-tile": [Tile([3], 5), Tile([2], 11)],
    "row stacks": [Tile([3, 3, 3, 2], 8, log2_kr=2), Tile([4, 1], 9, log2_kr=1)],
    "an empty sub-tile": [Tile([4, 4, 0, 0], 7, log2_kr=2), Tile([2], 8, log2_kr=1)],
    "depth stacks": [Tile([4], 12, log2_kd=1), Tile([5], 6, log2_kd=2)],
    "both": [Tile([3, 2], 13, log2_kr=1, log2_kd=1)],
    "chunks": [Tile([5], 40, chunk_beats=2), Tile([5], 44, chunk_beats=1), Tile([2], 20, chunk_beats=2)],
    "chunk of several c-tiles": [Tile([4, 2, 4, 4], 13, log2_kr=2, chunk_beats=1)],
    "mean": [Tile([1, 1], 16, log2_kr=1, pool=scale(0.7, -6)), Tile([2], 8)],
    "average": [
        Tile([4], 8, pool={"bias": 0, "multiplier": -(-(1 << 24) // 9), "shift": 24}, mode={"average": 1, "count": 9})
    ],
    "depthwise": [Tile([5], 16, vector=True), Tile([3, 2], 30, vector=True, log2_kr=1, log2_kd=1)],
    "depthwise, chunks": [
        Tile([3, 3, 3, 1], 37, vector=True, log2_kr=2, chunk_beats=1),
        Tile([4], 60, vector=True, log2_kd=1, chunk_beats=4),
        Tile([4], 32, vector=True, log2_kd=2, chunk_beats=4),
    ],
    "depthwise among others": [
        Tile([2], 12),
        Tile([2], 12, vector=True),
        Tile([3], 9),
        Tile([1], 8, vector=True, pool=scale(0.4, -5)),
        Tile([1], 8, vector=True),
        Tile([2, 2, 0, 0], 12, log2_kr=2, vector=True),
        Tile([3], 9),
    ],
    "mean, vector": [
        Tile([1, 1], 16, log2_kr=1, vector=True, pool=scale(0.7, -6)),
        Tile([1], 64, log2_kd=2, vector=True, pool=scale(0.7, -6)),
        Tile([2], 8, vector=True, pool=scale(0.7, -6)),
    ],
    "padded average": [
        Tile(
            [6, 6, 2],
            12,
            log2_kr=2,
            vector=True,
            pool={"bias": 0, "multiplier": 5, "shift": 3},
            mode={"average": 1, "padded": 1, "half_up": 1, "count": 5},
        ),
        Tile([6], 12),
    ],
    "residual": [Tile([4], 8, residual=True), Tile([3], 13, residual=True), Tile([2], 5)],
    "residual, short tiles": [Tile([1], 3, residual=n % 3 != 1) for n in range(6)],
    "residual, row stacks": [
        Tile([3, 2, 4, 1], 8, log2_kr=2, residual=True),
        Tile([4, 1], 9, log2_kr=1, residual=True),
    ],
    "residual, chunks": [
        Tile([5], 40, chunk_beats=2, residual=True),
        Tile([2], 9),
        Tile([2], 20, 0, 1, 1, residual=True),
    ],
    "residual, identity": [
        Tile(
            [4, 3, 3],
            24,
            log2_kr=2,
            chunk_beats=2,
            vector=True,
            residual=True,
            pool={"bias": 1, "multiplier": 1, "shift": 0},
            mode={"average": 1, "count": 1},
        )
    ],
    "residual among others": [
        Tile([2], 12, vector=True, residual=True),
        Tile([2], 12, vector=True),
        Tile([3], 9),
        Tile([1], 16, vector=True, log2_kd=1, residual=True),
        Tile([1], 8, vector=True, residual=True),
        Tile([3], 9),
        Tile([1], 8, vector=True),
        Tile([1], 8, residual=True),
    ],
    "full staging half": [Tile([32], 64, chunk_beats=8), Tile([32], 64, chunk_beats=8)],
}


@pytest.mark.parametrize("stalls", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_cases(name, stalls):
    rng = random.Random(name)
    tiles = [replace(tile).fill(TINY, rng) for tile in CASES[name]]
    for tile in tiles:
        if tile.mode["average"]:
            limit = 128 * (min(map(min, tile.taps)) if tile.mode["padded"] else tile.mode["count"])
            tile.sums = [[[rng.randrange(-limit, limit) for _ in row] for row in sub] for sub in tile.sums]
    Bench(TINY, tiles, name, stalls).run()


@pytest.mark.parametrize("name", ["ecp5", "edge", "hub"])
def test_other_configurations(name):
    config = CONFIGS[name]
    rng = random.Random(name)
    deep = config.max_stack.bit_length() - 1
    tiles = [
        Tile([2], config.pes + 5, chunk_beats=max(1, config.pes // config.bus_bytes)),
        Tile([1, 2], config.pes, log2_kr=1, log2_kd=deep - 1),
        Tile([3], config.bus_bytes + 1, vector=True),
        Tile([2], config.bus_bytes * (1 << deep), vector=True, log2_kd=deep),
        Tile([2, 1], config.bus_bytes * 3 - 1, vector=True, log2_kr=1, chunk_beats=1),
    ]
    Bench(config, [tile.fill(config, rng) for tile in tiles], name, False).run()


@pytest.mark.parametrize("name", ["ecp5", "edge", "hub"])
def test_residual_in_other_configurations(name):
    config = CONFIGS[name]
    rng = random.Random(f"residual {name}")
    deep = config.max_stack.bit_length() - 1
    tiles = [
        Tile([2], config.pes + 5, chunk_beats=max(1, config.pes // config.bus_bytes), residual=True),
        Tile([1, 2], config.pes, log2_kr=1, log2_kd=deep - 1, residual=True),
        Tile([2], 7),
    ]
    Bench(config, [tile.fill(config, rng) for tile in tiles], name, False).run()


def test_residual_latency():
    """A tile without addition costs no cycle more behind another one, and waits behind one with addition."""
    pool = scale(0.5, -5)
    waits = {}
    for residual in (False, True):
        rng = random.Random(3)
        tiles = [Tile([6], 4, pool=pool, residual=residual).fill(TINY, rng), Tile([4], 4, pool=pool).fill(TINY, rng)]
        bench = Bench(TINY, tiles, 3, False).run()
        latency = bench.dut.residual_latency if residual else bench.dut.latency
        assert bench.chunks[0] == bench.taken[0] + 1 + latency + 1
        waits[residual] = bench.taken[1] - bench.taken[0] - 6
    assert waits[False] == Epilogue.JOB_CYCLES + Epilogue.TILE_CYCLES
    assert waits[True] == Addition.LATENCY
    assert set(FIELDS) == {f.name for f in ADDITION_FIELDS}


def test_one_lane_on_a_wide_bus():
    """Two columns per parameter beat, one per memory read."""
    config = replace(TINY, bus_bytes=32, post_lanes=1)
    rng = random.Random(1)
    Bench(config, [Tile([2], 11).fill(config, rng)], 1, False).run()


def test_slow_writer():
    """Halves are not written while they are read; no more tiles are taken than can be held."""
    rng = random.Random(5)
    tiles = [Tile([3], 8 * (1 + n % 3), chunk_beats=1).fill(TINY, rng) for n in range(6)]
    bench = Bench(TINY, tiles, 5, False, reading_cycles=120).run()
    first_requests = [next(cycle for cycle, n in bench.requests if n == job) for job in range(len(bench.jobs))]
    assert first_requests[2] - first_requests[1] > 100


def test_drain_cycles():
    """Three jobs in a row and another tile: requests, JOB_CYCLES, TILE_CYCLES, drained; when beats are staged."""
    rng = random.Random(2)
    pool = scale(0.5, -5)
    tiles = [Tile([6, 5], 10, log2_kr=1, pool=pool).fill(TINY, rng), Tile([4], 8, pool=pool).fill(TINY, rng)]
    bench = Bench(TINY, tiles, 2, False).run()
    cols, lanes = 4, TINY.post_lanes
    counts = [11 * -(-min(cols, 10 - first) // lanes) for first in (0, 4, 8)] + [4 * 2]
    taken = bench.taken
    for n in (1, 2):
        assert taken[n] - taken[n - 1] == counts[n - 1] + Epilogue.JOB_CYCLES
    assert taken[3] - taken[2] == counts[2] + Epilogue.JOB_CYCLES + Epilogue.TILE_CYCLES
    first = taken[2] + 1 + bench.dut.latency  # 10 channels: the third job completes two beats of a pixel per cycle
    assert bench.chunks[0] == first + 1
    assert bench.staged[first : first + 12] == [2 * n for n in range(12)]


def test_permits():
    """A block per cycle while halves are free; the next tile's first block two cycles after this tile's last one."""
    rng = random.Random(3)
    tiles = [Tile([2], 8 * n, vector=True).fill(TINY, rng) for n in (3, 2)]
    bench = Bench(TINY, tiles, 3, False).run()
    first = bench.permitted[0]
    assert bench.permitted[:3] == [first, first + 1, first + 2]
    assert bench.permitted[3:5] == [first + 4, first + 5]


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
def test_bad_latency():
    with pytest.raises(ValueError, match="acc_latency = 0 is not at least 1"):
        Epilogue(TINY, 0)
    gc.collect()
