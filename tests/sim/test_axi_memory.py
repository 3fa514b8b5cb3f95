"""The simulated memory: exact times of the ideal and the limited memory, stalls, order, errors, protocol checks."""

import random
from itertools import pairwise

import numpy as np
import pytest
from copier import REGISTERS
from fluidnpu.sim.memory import CHANNELS, IDEAL, ErrorWindow, MemorySettings, Stall, limited, random_stalls
from fluidnpu.sim.rtl_bench import ProtocolError
from fluidnpu.sim.simulate import run_in_simulator

SOURCE, DESTINATION, MEMORY_BYTES = 0x1_0000, 0x8_0000, 0x10_0000
AR, AW, B = 1, 2, 4  # kinds of trace_engine
R, W, LAST_W = 1, 2, 4  # kinds of trace_array


async def copy(bench, settings, beats, data_bytes, burst=16, in_flight=4, ids=1, faults=0, **places):
    """One copy of random bytes into random bytes; returns events, memory before and after, statistics."""
    source, destination = places.get("source", SOURCE), places.get("destination", DESTINATION)
    await bench.start(settings, memory_bytes=MEMORY_BYTES, watchdog=1_000_000)
    bench.memory[:] = np.random.default_rng(beats).integers(0, 256, MEMORY_BYTES, "u1")
    before = bench.memory.copy()
    values = dict(source=source, destination=destination, beats=beats, burst=burst, in_flight=in_flight, ids=ids)
    await bench.write_many([(REGISTERS[name], value) for name, value in {**values, "faults": faults}.items()])
    await bench.write(REGISTERS["go"], 1)
    assert await bench.wait() == "irq"
    return bench.events(), before, bench.memory.copy(), bench.statistics()


async def copies(bench, cases):
    """Several copies in one simulator."""
    return [await copy(bench, **case) for case in cases]


def expected_memory(before, beats, data_bytes):
    after = before.copy()
    size = beats * data_bytes
    after[DESTINATION : DESTINATION + size] = before[SOURCE : SOURCE + size]
    return after


def cycles_of(events, source, kind):
    chosen = events[(events["source"] == source) & (events["kind"] & kind != 0)]
    return chosen["cycle"].astype(int)


def read_times(ar, beats, settings):
    """Edges of the R beats after AR at the given edges: what sim/memory.py promises, computed edge by edge."""
    times, credit, edge, free = [], 256, 0, 0
    for t in ar:
        free = max(free, t + settings.read_latency) + settings.burst_overhead
        for _ in range(beats):
            while True:
                # Tokens accrue up to and including the edge before the transfer.
                while edge < free:
                    edge += 1
                    if credit < 256:
                        credit += settings.beats_per_256
                if credit >= 256 or not settings.beats_per_256:
                    break
                free += 1
            credit -= 256 if settings.beats_per_256 else 0
            times.append(free)
            free += 1
    return times


def test_ideal_memory_is_cycle_exact(copier_build):
    case = dict(settings=IDEAL, data_bytes=16)
    streaming, lonely, short = run_in_simulator(
        copier_build(16),
        copies,
        cases=[
            case | dict(beats=1024, in_flight=4),
            case | dict(beats=64, in_flight=1),
            case | dict(beats=64, burst=1, in_flight=64),
        ],
        timeout=60,
    )
    for (events, before, after, statistics), beats, burst in ((streaming, 1024, 16), (lonely, 64, 16), (short, 64, 1)):
        ar, r = cycles_of(events, 0, AR), cycles_of(events, 1, R)
        last_w, b = cycles_of(events, 1, LAST_W), cycles_of(events, 0, B)
        assert np.array_equal(after, expected_memory(before, beats, 16))
        assert list(r) == read_times(ar, burst, IDEAL)
        assert r[0] == ar[0] + 32
        assert list(b) == list(last_w + 16)
        assert len(b) == beats // burst == statistics.write_bursts == statistics.read_bursts
        assert statistics.read_beats == statistics.write_beats == beats
        assert statistics.written_bytes == 16 * beats
    r, w = cycles_of(streaming[0], 1, R), cycles_of(streaming[0], 1, W)
    assert r[-1] - r[0] == 1023 and w[-1] - w[0] == 1023  # a beat per cycle, four reads in flight
    assert streaming[3].most_reads == 4
    ar = cycles_of(lonely[0], 0, AR)
    assert set(np.diff(ar)) == {32 + 15 + 2}  # latency, beats of a burst, the copier's own two cycles
    assert list(np.diff(cycles_of(short[0], 1, R))) == [1] * 63


@pytest.mark.parametrize("beats_per_256", [256, 128, 100, 37])
def test_limited_memory(copier_build, beats_per_256):
    settings = limited(beats_per_256)
    case = dict(settings=settings, data_bytes=16, beats=512)
    ((events, before, after, _),) = run_in_simulator(copier_build(16), copies, cases=[case], timeout=60)
    assert np.array_equal(after, expected_memory(before, 512, 16))
    assert list(cycles_of(events, 1, R)) == read_times(cycles_of(events, 0, AR), 16, settings)
    w, last_w = cycles_of(events, 1, W), set(cycles_of(events, 1, LAST_W))
    gaps = {b - a for a, b in pairwise(w) if a in last_w}
    assert min(gaps) >= 3  # two idle cycles after a burst
    span = w[-1] - w[0]
    assert len(w) - 2 <= span * beats_per_256 / 256
    assert list(cycles_of(events, 0, B)) == [t + 16 for t in sorted(last_w)]


def test_stalls_change_times_only(copier_build):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    stalls = [Stall("random", 0.8), Stall("slow", cycles=5), Stall("burst", 0.1, 30)]
    settings = [MemorySettings(stalls={channel: stall}, seed=seed) for channel in CHANNELS for stall in stalls]
    settings += [random_stalls(rng.randrange(2**32), p, read_jitter=40, write_jitter=40) for p in (0.2, 0.7)]
    settings += [MemorySettings(stalls={c: rng.choice(stalls) for c in CHANNELS}, seed=rng.randrange(2**32))]
    cases = [dict(settings=s, beats=128, data_bytes=16, burst=rng.choice((4, 8, 16))) for s in settings]
    answers = run_in_simulator(copier_build(16), copies, cases=cases, timeout=60)
    for case, (events, before, after, statistics) in zip(cases, answers, strict=True):
        assert np.array_equal(after, expected_memory(before, 128, 16)), case
        assert statistics.read_beats == statistics.write_beats == 128
        assert statistics.error_bursts == statistics.beyond_bursts == 0
        stalled = case["settings"].stalls
        for channel, source, kind in (("ar", 0, AR), ("aw", 0, AW), ("b", 0, B), ("r", 1, R), ("w", 1, W)):
            if stalled.get(channel, Stall()).mode == "slow":
                assert np.diff(cycles_of(events, source, kind)).min() >= 6, case


@pytest.mark.parametrize("order", ["in_order", "shuffle", "interleave"])
def test_order_between_ids(copier_build, order):
    """Every ID keeps its own order; the data that comes with it is that of its burst."""
    settings = MemorySettings(order=order, seed=7, read_jitter=60 if order != "in_order" else 0)
    case = dict(settings=settings, beats=256, data_bytes=16, in_flight=8, ids=4)
    ((events, before, _, _),) = run_in_simulator(copier_build(16), copies, cases=[case], timeout=60)
    beats = events[(events["source"] == 1) & (events["kind"] & R != 0)]
    ids, data = beats["slot"].tolist(), beats["data"].tolist()
    words = before[SOURCE : SOURCE + 256 * 16].reshape(256, 16)[:, :4].copy().view("<u4")[:, 0].reshape(16, 16)
    for i in range(4):
        got = [d for j, d in zip(ids, data, strict=True) if j == i]
        assert got == words[i::4].flatten().tolist()
    bursts = [ids[i : i + 16] for i in range(0, 256, 16)]
    mixed = any(len(set(burst)) > 1 for burst in bursts)
    assert mixed == (order == "interleave")
    assert ([burst[0] for burst in bursts] == [0, 1, 2, 3] * 4) == (order == "in_order")


def test_errors(copier_build):
    """SLVERR for exactly the beats of the window, DECERR beyond the end; failed writes change nothing."""
    window = SOURCE + 20 * 16  # beats 20 and 21, in the second burst of 16
    target = DESTINATION + 40 * 16
    cases = [
        dict(errors=(ErrorWindow(window, 32),)),
        dict(errors=(ErrorWindow(SOURCE, 64 * 16, after=2, count=1),)),
        dict(errors=(ErrorWindow(target, 16, read=False), ErrorWindow(SOURCE, 16, read=False))),
    ]
    cases = [dict(settings=MemorySettings(**c), beats=64, data_bytes=16) for c in cases]
    cases.append(dict(settings=IDEAL, beats=64, data_bytes=16, source=MEMORY_BYTES - 32 * 16))
    answers = run_in_simulator(copier_build(16), copies, cases=cases, timeout=60)

    def responses(events):
        return events[(events["source"] == 1) & (events["kind"] & R != 0)]["line"]

    def written(events):
        return events[(events["source"] == 0) & (events["kind"] & B != 0)]["slot"].tolist()

    read = [np.flatnonzero(responses(events)).tolist() for events, *_ in answers]
    assert read == [[20, 21], list(range(32, 48)), [], list(range(32, 64))]
    assert set(responses(answers[0][0])) == {0, 2} and set(responses(answers[3][0])) == {0, 3}
    assert [written(events) for events, *_ in answers] == [[0] * 4, [0] * 4, [0, 0, 2, 0], [0] * 4]
    _, before, after, statistics = answers[2]
    expected = expected_memory(before, 64, 16)
    expected[target : target + 16] = before[target : target + 16]
    assert np.array_equal(after, expected)
    assert [s.error_bursts for *_, s in answers] == [1, 1, 1, 0]
    assert [s.beyond_bursts for *_, s in answers] == [0, 0, 0, 2]
    assert statistics.written_bytes == 63 * 16


def test_data_changes_with_the_response(copier_build):
    """A read whose address is taken before the response of a write sees the old bytes, one later the new ones."""
    distance = 8  # bursts between source and destination
    cases = [
        dict(
            settings=MemorySettings(write_latency=latency),
            beats=512,
            data_bytes=16,
            destination=SOURCE + distance * 256,
        )
        for latency in (1, 60, 500)
    ]
    for events, before, after, _ in run_in_simulator(copier_build(16), copies, cases=cases, timeout=60):
        ar, b = cycles_of(events, 0, AR), cycles_of(events, 0, B)
        bursts = [before[SOURCE + 256 * k : SOURCE + 256 * (k + 1)] for k in range(32)]
        for k in range(distance, 32):
            if b[k - distance] < ar[k]:
                bursts[k] = bursts[k - distance]
        start = SOURCE + distance * 256
        assert np.array_equal(after[start : start + 512 * 16], np.concatenate(bursts))


@pytest.mark.parametrize("data_bytes", [8, 32])
def test_other_widths(copier_build, data_bytes):
    cases = [dict(settings=random_stalls(3), beats=64, data_bytes=data_bytes)]
    build = copier_build(data_bytes, **(dict(trace=True) if data_bytes == 8 else dict(random_reset=True)))
    ((_, before, after, _),) = run_in_simulator(build, copies, cases=cases, timeout=60)
    assert np.array_equal(after, expected_memory(before, 64, data_bytes))


@pytest.mark.parametrize(
    ("message", "case"),
    [
        ("AR burst crosses 4 KB", dict(source=0x1_0F80)),
        ("AW burst crosses 4 KB", dict(destination=0x8_0F10)),
        ("AR changed or fell", dict(faults=1, settings=MemorySettings(stalls={"ar": Stall("slow", cycles=9)}))),
        ("WLAST is not at the last beat", dict(faults=2)),
        ("longer than 16 beats", dict(burst=17)),
    ],
)
def test_protocol_violations(copier_build, tmp_path, message, case):
    case = dict(settings=IDEAL, beats=64, data_bytes=16) | case
    with pytest.raises(ProtocolError, match=f"cycle [0-9]+: mem: .*{message}"):
        run_in_simulator(copier_build(16), copies, cases=[case], timeout=60, keep=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stall("sometimes"), "stall mode 'sometimes': must be one of none, random, slow, burst"),
        (lambda: Stall("random", 1.0), "stall probability = 1.0: must be 0 to 0.99"),
        (lambda: MemorySettings(read_latency=0), "read_latency = 0: must be 1 to 100000"),
        (lambda: MemorySettings(beats_per_256=300), "beats_per_256 = 300: must be 0 to 256"),
        (lambda: MemorySettings(order="fifo"), "order 'fifo': must be one of in_order, shuffle, interleave"),
        (lambda: MemorySettings(stalls={"x": Stall()}), "channels are ar, r, aw, w, b"),
        (lambda: MemorySettings(errors=(ErrorWindow(0, 4),) * 9), "number of error windows = 9: must be 0 to 8"),
        (lambda: ErrorWindow(0, 0), "error window length = 0: must be 1 to 4294967296"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)
