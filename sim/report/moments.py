"""The moment of a run that is worth a closer look: a preemption that ends in a merge, if there is one."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import log2

from .words import cycles_text, names_text, request_text

__all__ = ["Moment", "find_moment"]

MOST_TILES = 160  # in one picture, so that a tile is some pixels wide
LEAST_TILES = 50


@dataclass(frozen=True)
class Moment:
    """Cycles ``begin``..``end`` and what happens there in plain words."""

    begin: int
    end: int
    text: str
    whole: bool = False


def find_moment(story, most_tiles=MOST_TILES):
    """Moment of a Story; ``whole`` if the run has at most ``most_tiles`` tiles and is shown from end to end."""
    if len(story.tiles) <= most_tiles:
        return Moment(0, story.cycles, "The whole run, tile by tile", whole=True)
    windows = [_around_wait(story, wait) for wait in story.waits]
    if not windows:
        return _busiest(story, most_tiles)
    return max(windows, key=lambda window: _score(story, window[0], window[1], most_tiles))[0]


def _clipped(story, begin, end):
    return max(0, int(begin)), min(story.cycles, int(end) + 1)


def _around_wait(story, wait):
    margin = 0.3 * (wait.end - wait.begin)
    begin, end = _clipped(story, wait.begin - margin, wait.end + 1.5 * margin)
    first = bisect_left(story.tiles, begin, key=lambda t: t.end)
    last = bisect_right(story.tiles, end, key=lambda t: t.first) - 1
    missing = max(0, LEAST_TILES - (last - first + 1))
    if missing and last >= first:  # a short wait: show what was before and what became of it
        begin = min(begin, story.tiles[max(0, first - missing // 3)].first)
        end = max(end, story.tiles[min(last + missing - missing // 3, len(story.tiles) - 1)].end)
    return Moment(begin, end, _wait_text(story, wait)), wait


def _wait_text(story, wait):
    who, cause = request_text(wait.stay), request_text(wait.by)
    why = {
        "newcomer": f"{cause} enters and catches up",
        "priority": f"{cause} has a higher priority",
        "paused": "the host pauses it",
    }[wait.reason]
    text = f"At {cycles_text(wait.begin)} {who} is preempted: {why}."
    if not wait.merged:
        return f"{text} It goes on at {cycles_text(wait.end)}."
    merge = next(m for m in story.merges if m.cycle == wait.end and wait.stay in m.stays)
    others = names_text(stay.request for stay in merge.stays if stay is not wait.stay)
    return f"{text} At {cycles_text(wait.end)} it merges with {others}."


def _score(story, moment, wait, most_tiles):
    """Higher is better: a merge, many kinds of marks, a number of tiles that can be seen."""

    def inside(cycles):
        return any(moment.begin < c < moment.end for c in cycles)

    kinds = (
        [stay.begin for stay in story.stays],
        [stay.end for stay in story.stays],
        [e.cycle for e in story.exits if e.left],
        [e.cycle for e in story.exits if not e.left],
    )
    tiles = max(1, _tiles_between(story, moment.begin, moment.end))
    too_many, too_few = max(0, log2(tiles / most_tiles)), max(0, log2(0.25 * most_tiles / tiles))
    group = next((len(m.stays) for m in story.merges if m.cycle == wait.end and wait.stay in m.stays), 0)
    share = (wait.end - wait.begin) / max(1, moment.end - moment.begin)
    return 6 * wait.merged + sum(map(inside, kinds)) + min(group, 4) / 2 + min(2, 8 * share) - 4 * too_many - too_few


def _tiles_between(story, begin, end):
    return bisect_right(story.tiles, end, key=lambda t: t.first) - bisect_left(story.tiles, begin, key=lambda t: t.end)


def _busiest(story, most_tiles):
    """Without preemptions: around the moment with the most live samples, as many tiles as fit."""
    peak = max(story.live(), key=lambda step: step[1])[0]
    first = min(max(0, bisect_left(story.tiles, peak, key=lambda t: t.end) - most_tiles // 4), len(story.tiles) - 1)
    last = min(first + most_tiles, len(story.tiles)) - 1
    begin, end = _clipped(story, story.tiles[first].first, story.tiles[last].end)
    return Moment(begin, end, "Nobody is preempted in this run; a stretch with the most samples alive")
