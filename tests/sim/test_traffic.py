"""Arrivals: rates, shapes, files, seeds; which image comes when."""

import numpy as np
import pytest
from fluidnpu.sim.traffic import (
    LEAD_IN,
    TrafficError,
    arrivals,
    bursts,
    cameras,
    make_trace,
    poisson,
    read_times,
    rescale,
)

RATE, COUNT = 1e-3, 20000


@pytest.mark.parametrize("seed", [1, 2])
def test_poisson(seed):
    times = poisson(RATE, COUNT, seed)
    gaps = np.diff(times)
    assert (gaps >= 0).all() and times.dtype == np.int64 and times.shape == (COUNT,)
    assert gaps.mean() == pytest.approx(1 / RATE, rel=0.03)
    assert gaps.std() == pytest.approx(1 / RATE, rel=0.05)  # of an exponential: the mean
    assert np.array_equal(times, poisson(RATE, COUNT, seed))
    assert not np.array_equal(times, poisson(RATE, COUNT, seed + 1))


def test_bursts_have_the_rate_and_come_in_bursts():
    times = bursts(RATE, COUNT, 1, burst=8, on_share=0.25)
    gaps = np.diff(times)
    assert gaps.mean() == pytest.approx(1 / RATE, rel=0.1)
    # Within a burst the gaps are exponential of mean on_share / rate; one in burst + 1 crosses an off period.
    assert np.median(gaps) == pytest.approx(0.25 / RATE * np.log(2), rel=0.25)
    windows = np.bincount(times // int(8 / RATE))
    poisson_windows = np.bincount(poisson(RATE, COUNT, 1) // int(8 / RATE))
    assert windows.var() > 3 * poisson_windows.var()


def test_bursts_that_are_always_on_are_poisson():
    gaps = np.diff(bursts(RATE, COUNT, 1, on_share=1.0))
    assert gaps.mean() == pytest.approx(1 / RATE, rel=0.03) and gaps.std() == pytest.approx(1 / RATE, rel=0.05)


def test_file_is_sorted_and_rescaled(tmp_path):
    path = tmp_path / "times.txt"
    path.write_text("# camera 3\n12.5\n\n10.0  # first\n11.0\n20.0\n")
    assert read_times(path).tolist() == [0.0, 1.0, 2.5, 10.0]
    assert arrivals(str(path), 0.01).tolist() == [0, 30, 75, 300]  # three gaps of 100 cycles on average
    assert arrivals(str(path), 0.01, 3).tolist() == [0, 80, 200]
    assert rescale(np.array([0.0, 5.0]), 0.1, 1).tolist() == [0]


@pytest.mark.parametrize(
    "text, message",
    [
        ("1\nx\n", r"times.txt, line 2: 'x' is no number"),
        ("1\nnan\n", r"line 2: 'nan' is no number"),
        ("1\n", r"at least two different times are needed, there are 1"),
        ("2\n2\n", r"at least two different times are needed, there are 1"),
        ("", r"there are 0"),
    ],
)
def test_bad_files(tmp_path, text, message):
    path = tmp_path / "times.txt"
    path.write_text(text)
    with pytest.raises(TrafficError, match=message):
        read_times(path)


def test_bad_arguments(tmp_path):
    with pytest.raises(TrafficError, match="rate is 0, it must be positive"):
        poisson(0, 10)
    with pytest.raises(TrafficError, match="number of requests is 0"):
        bursts(1, 0)
    with pytest.raises(TrafficError, match="share of the time that is on is 2"):
        bursts(1, 1, on_share=2)
    with pytest.raises(TrafficError, match="burst is -1"):
        bursts(1, 1, burst=-1)
    with pytest.raises(TrafficError, match="neither poisson nor bursts nor cameras nor a file"):
        arrivals("nowhere.txt", 1)
    path = tmp_path / "two"
    path.write_text("1\n2\n")
    with pytest.raises(TrafficError, match="3 requests, but the file has 2 timestamps"):
        arrivals(str(path), 1, 3)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    with pytest.raises(TrafficError, match="not a text file"):
        read_times(tmp_path / "binary")


def test_trace_gives_every_request_its_image():
    images = np.arange(10, dtype=np.int8).reshape(10, 1, 1, 1)
    labels = np.arange(10) * 11
    first = make_trace("a", [0, 5, 9], images, labels, slo=100, seed=3)
    second = make_trace("b", [0, 5, 9], images, labels, slo=100, seed=3, skip=3)
    assert [r.arrival for r in first.requests] == [LEAD_IN, LEAD_IN + 5, LEAD_IN + 9]
    assert [r.deadline - r.arrival for r in first.requests] == [100] * 3
    for trace in (first, second):
        for r in trace.requests:
            assert trace.labels[r.id] == 11 * int(r.image[0, 0, 0]) and trace.images[r.id] is r.image
    seen = [int(r.image[0, 0, 0]) for t in (first, second) for r in t.requests]
    assert len(set(seen)) == 6  # no image twice while there are enough
    plain = make_trace("c", [0] * 12, images, shuffle=False)
    assert [int(r.image[0, 0, 0]) for r in plain.requests] == [*range(10), 0, 1] and plain.labels == {}
    with pytest.raises(TrafficError, match="there are no images"):
        make_trace("d", [0], images[:0])


@pytest.mark.parametrize("streams", [1, 8])
def test_cameras_are_periodic(streams):
    times = cameras(RATE, 4000, 1, streams=streams, jitter=0.1)
    period = streams / RATE
    assert len(times) == 4000 and (np.diff(times) >= 0).all()
    assert np.diff(times).mean() == pytest.approx(1 / RATE, rel=0.02)
    counts = np.histogram(times, np.arange(2 * period, times[-1] - 2 * period, 10 * period))[0]
    assert abs(counts - 10 * streams).max() <= 2 * streams  # Poisson would deviate by sqrt(10 streams) often
    assert np.array_equal(arrivals("cameras", RATE, 4000, 1, streams=streams), times)


def test_a_table_of_dates(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("TIMESTAMP,Tokens\n2023-11-16 18:15:46.6800000,374\n2023-11-16 18:15:50.1800000,396\n")
    assert read_times(path) == pytest.approx([0.0, 3.5])
    path.write_text("t,x\nnever,1\n")
    with pytest.raises(TrafficError, match=r"log.csv, line 2: 'never' is no number"):
        read_times(path)


def test_bad_cameras():
    with pytest.raises(TrafficError, match=r"0 cameras with a jitter of 0.1 periods"):
        cameras(RATE, 10, streams=0)
