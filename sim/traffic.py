"""When requests come: Poisson, bursts, cameras, a file of timestamps; and which image each of them brings.

Rates are requests per cycle, times are cycles. The same seed gives the same arrivals.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
from fluidnpu.sched.request import Request

__all__ = [
    "LEAD_IN",
    "SHAPES",
    "Trace",
    "TrafficError",
    "arrivals",
    "bursts",
    "cameras",
    "make_trace",
    "poisson",
    "read_times",
]

# No request comes before this cycle: the host sets up the NPU meanwhile.
LEAD_IN = 2000
SHAPES = ("poisson", "bursts", "cameras")


class TrafficError(ValueError):
    """Arrivals that cannot be made; the message names the value or the file."""


@dataclass(frozen=True)
class Trace:
    """What is served: the same for every policy.

    name : of the traffic; requests : Request, in order of arrival; labels : dict request id -> class, where known
    images : dict request id -> int8 image; options : JSON-able, how it was made
    """

    name: str
    requests: list
    labels: dict
    images: dict
    options: dict = field(default_factory=dict)


def _check(rate, count):
    if not (math.isfinite(rate) and rate > 0):
        raise TrafficError(f"rate is {rate}, it must be positive")
    if count < 1:
        raise TrafficError(f"number of requests is {count}, it must be at least 1")


def poisson(rate, count, seed=1):
    """``count`` arrivals with independent exponential gaps of mean 1 / rate; int64, ascending."""
    _check(rate, count)
    return _whole(np.random.default_rng(seed).exponential(1 / rate, count).cumsum())


def bursts(rate, count, seed=1, burst=8.0, on_share=0.25):
    """On/off arrivals: Poisson of rate / on_share while on, nothing while off.

    Both periods are exponential; ``burst`` is the mean number of requests of an on period, ``on_share`` the share of
    the time that is on, so that the mean rate is ``rate``.
    """
    _check(rate, count)
    if not (math.isfinite(burst) and burst > 0):
        raise TrafficError(f"burst is {burst} requests, it must be positive")
    if not 0 < on_share <= 1:
        raise TrafficError(f"share of the time that is on is {on_share}, it must be within 0..1 and not 0")
    random = np.random.default_rng(seed)
    on = burst * on_share / rate  # mean length of an on period
    off = on * (1 - on_share) / on_share
    gaps = random.exponential(on_share / rate, count)  # time spent on, between requests
    now, left, found = 0.0, random.exponential(on), []
    for gap in gaps:
        while gap > left:
            now, gap = now + left + random.exponential(off), gap - left
            left = random.exponential(on)
        now, left = now + gap, left - gap
        found.append(now)
    return _whole(np.array(found))


def cameras(rate, count, seed=1, streams=8, jitter=0.1):
    """Arrivals from ``streams`` cameras, each with the same period and a random phase.

    Every frame comes up to ``jitter`` periods early or late (uniform). The mean rate of all together is ``rate``.
    """
    _check(rate, count)
    if streams < 1 or not 0 <= jitter <= 0.5:
        raise TrafficError(f"{streams} cameras with a jitter of {jitter} periods: at least 1, and within 0..0.5")
    random = np.random.default_rng(seed)
    period, frames = streams / rate, -(-count // streams)
    times = period * (random.random((1, streams)) + np.arange(frames)[:, None])
    times = times + period * (jitter + random.uniform(-jitter, jitter, times.shape))
    return _whole(np.sort(times.ravel())[:count])


def read_times(path):
    """Timestamps of a text file: one number per line, any unit and origin; empty lines and ``#`` comments are skipped.

    A .csv file has a first line of names; its first column holds numbers or dates (ISO 8601).

    Returns float64, sorted, from 0. TrafficError names file and line.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise TrafficError(f"timestamps {path}: {why}") from None
    times = []
    table = Path(path).suffix == ".csv"
    for number, line in enumerate(lines, 1):
        text = line.partition("," if table else "#")[0].strip()
        if not text or (table and number == 1):
            continue
        times.append(_moment(text))
        if not math.isfinite(times[-1]):
            raise TrafficError(f"timestamps {path}, line {number}: {text[:40]!r} is no number")
    if len(times) < 2 or min(times) == max(times):
        raise TrafficError(f"timestamps {path}: at least two different times are needed, there are {len(set(times))}")
    return np.sort(np.array(times)) - min(times)


def _moment(text):
    """Seconds, or whatever the unit of a number is; NaN for what is neither a number nor a date."""
    try:
        return float(text)
    except ValueError:
        pass
    whole, _, digits = text.partition(".")
    try:
        return datetime.fromisoformat(whole).timestamp() + float(f"0.{digits or 0}")
    except ValueError:
        return math.nan


def rescale(times, rate, count=None):
    """The first ``count`` timestamps (default: all), stretched so that their mean rate is ``rate``."""
    count = len(times) if count is None else count
    _check(rate, count)
    if count > len(times):
        raise TrafficError(f"{count} requests, but the file has {len(times)} timestamps")
    times = times[:count]
    span = times[-1]
    if count > 1 and not span:
        raise TrafficError(f"the first {count} timestamps are all the same")
    return _whole(times * ((count - 1) / rate / span) if count > 1 else times)


def arrivals(shape, rate, count=None, seed=1, **options):
    """Arrivals of a shape in SHAPES, or of the file of timestamps with that path. ``count``: default 200, or all of
    the file. ``options``: of `bursts` or `cameras`."""
    if shape == "poisson":
        return poisson(rate, 200 if count is None else count, seed)
    if shape == "bursts":
        return bursts(rate, 200 if count is None else count, seed, **options)
    if shape == "cameras":
        return cameras(rate, 200 if count is None else count, seed, **options)
    if not Path(shape).exists():
        raise TrafficError(f"arrivals {shape!r}: neither {' nor '.join(SHAPES)} nor a file of timestamps")
    return rescale(read_times(shape), rate, count)


def make_trace(
    name, times, images, labels=None, *, slo=None, seed=1, skip=0, shuffle=True, lead_in=LEAD_IN, options=None
):
    """A Trace: request n arrives at ``lead_in + times[n]`` with an image of its own, if there are enough.

    images : int8 [n, h, w, c]; they are taken in an order that ``seed`` gives, from the ``skip``-th on, so that traces
        with the same seed and different ``skip`` bring different images; without ``shuffle`` as they come
    labels : true class per image, or None
    slo : cycles from arrival to decision that every request is promised, or None
    """
    if not len(images):
        raise TrafficError("there are no images")
    order = np.random.default_rng(seed).permutation(len(images)) if shuffle else np.arange(len(images))
    chosen = [int(order[(skip + n) % len(images)]) for n in range(len(times))]
    requests = [
        Request(n, lead_in + int(t), images[i], slo) for n, (t, i) in enumerate(zip(times, chosen, strict=True))
    ]
    return Trace(
        name,
        requests,
        {} if labels is None else {n: int(labels[i]) for n, i in enumerate(chosen)},
        {r.id: r.image for r in requests},
        dict(options or {}),
    )


def _whole(times):
    return np.floor(times).astype(np.int64)
