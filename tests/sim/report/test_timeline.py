"""The timeline picture: every slot, tile and mark is in it; and the choice of the stretch that it shows closely."""

import re

import pytest
from fluidnpu.sim.report import draw_timeline, read_story
from fluidnpu.sim.report.moments import find_moment
from fluidnpu.sim.report.report import svg_text
from fluidnpu.sim.report.timeline import bubbles, collect_marks
from report_runs import Script, merging_run, world_run


def picture(story):
    figure = draw_timeline(story, "a title")
    return figure, svg_text(figure)


def group(svg, name):
    """What is inside the SVG group of that id."""
    return re.search(rf'<g id="{name}">(.*?)\n   </g>', svg, re.DOTALL).group(1)


def test_marks():
    story = read_story(merging_run())
    marks = {kind: [(slot, text) for _, slot, text in places] for kind, places in collect_marks(story).items()}
    assert marks == {
        "admission": [(0, ""), (1, "")],
        "preemption": [(0, "")],
        "merge": [(0, ""), (1, "")],
        "passed": [(1, "1")],
        "exit": [(0, "1"), (1, "2")],
        "release": [(0, ""), (1, "")],
        "lost": [],
    }
    assert not any(collect_marks(story, 0, 1).values())


def test_everything_is_drawn():
    story = read_story(merging_run())
    figure, svg = picture(story)
    drawn = {c.get_gid(): len(c.get_paths()) for a in figure.axes for c in a.collections if c.get_gid()}
    assert {k: n for k, n in drawn.items() if k.startswith("tiles")} == {
        "tiles-0": 6, "tiles-1": 7, "tiles-2": 0, "tiles-3": 0, "tiles-array": 10,
    }  # fmt: skip
    for kind, places in collect_marks(story).items():
        assert not places or group(svg, f"mark-{kind}").count("<use") == len(places)
    ticks = [label.get_text() for a in figure.axes for label in a.get_yticklabels()]
    assert [t for t in ticks if t.startswith("slot")] == [f"slot {s}" for s in range(4)]
    for text in ("a title", "request a", "request b", "conv0", "fc1", "preempted", "1×2"):
        assert text in svg


def long_run():
    s = Script()
    for round in range(12):
        s.admit(0, f"a{round}")
        for line in range(20):
            s.tile(0, {0: (line, line)}, length=20)
        if round == 7:
            s.admit(1, "late")
            for line in range(20):
                s.tile(0, {1: (line, line)}, length=20)
            s.tile(1, {0: (0, 1), 1: (0, 1)}, length=20)
            s.release(1)
        s.release(0)
    return s.record()


def test_closer_look_at_a_long_run():
    story = read_story(long_run())
    (wait,) = story.waits
    moment = find_moment(story)
    assert moment.begin < wait.begin < wait.end < moment.end < story.cycles and not moment.whole
    assert "request a7 is preempted: request late enters" in moment.text
    assert "merges with late" in moment.text
    figure, svg = picture(story)
    assert len(figure.axes) == 5  # overview, queue, closer look, array, legend
    assert "<image" in svg


def test_short_runs_are_shown_whole():
    story = read_story(merging_run())
    assert find_moment(story).whole
    assert not find_moment(story, most_tiles=5).whole


def test_without_preemptions():
    s = Script()
    s.admit(0, "a")
    for line in range(300):
        s.tile(0, {0: (line, line)}, length=20)
    moment = find_moment(read_story(s.record()))
    assert "Nobody is preempted" in moment.text


def test_bubbles():
    s = Script()
    s.admit(0, "a")
    s.exit(0, 0, False)
    s.tile(5, {0: (0, 7)})
    s.release(0, exit=0)
    story = read_story(s.record())
    assert bubbles(story) == story.stays
    assert "goes on as bubble" in picture(story)[1]
    assert not bubbles(read_story(merging_run()))


@pytest.mark.parametrize("seed", range(60, 64))
def test_random_worlds(monkeypatch, seed):
    story = read_story(world_run(monkeypatch, seed)[0])
    figure, _ = picture(story)
    array = next(c for a in figure.axes for c in a.collections if c.get_gid() == "tiles-array")
    assert len(array.get_paths()) <= len(story.tiles)


def test_an_empty_run():
    figure, _ = picture(read_story(Script().record()))
    assert figure.axes
