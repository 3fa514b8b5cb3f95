"""What is read out of a trace: stays, tiles, visits, preemptions, merges, exits."""

import pytest
from fluidnpu.hw.isa import Opcode, Status
from fluidnpu.sim.report import StoryError, read_story
from report_runs import Script, merging_run, world_run


def test_preemption_and_merge():
    story = read_story(merging_run())
    a, b = story.stays
    assert [(s.slot, s.request, s.status, s.exit) for s in (a, b)] == [(0, "a", "ok", 0), (1, "b", "ok", 1)]
    assert a.begin < a.decided < a.end
    (wait,) = story.waits
    assert (wait.stay, wait.by, wait.reason, wait.merged) == (a, b, "newcomer", True)
    assert (wait.begin, wait.end) == (story.tiles[3].started, story.tiles[5].started)
    (merge,) = story.merges
    assert (merge.cycle, set(merge.stays), merge.caught_up) == (wait.end, {a, b}, (a,))
    assert [(e.stay, e.exit, e.left) for e in story.exits] == [(a, 0, True), (b, 0, False), (b, 1, True)]


def test_tiles():
    story = read_story(merging_run())
    assert [story.layer(t.pc) for t in story.tiles] == "conv0 conv0 conv1 conv0 conv1 conv1 conv1 fc0 conv2 fc1".split()
    assert [(t.kr, t.kd) for t in story.tiles][:6] == [(2, 1), (2, 1), (1, 1), (1, 1), (1, 1), (1, 2)]
    assert [t.end - t.first for t in story.tiles] == [50, 50, 50, 90, 50, 50, 50, 10, 50, 10]
    assert [len(t.pieces) for t in story.tiles] == [1, 1, 1, 1, 1, 2, 2, 2, 1, 1]
    assert [p.text for p in story.tiles[5].pieces] == ["4-5", "4-5"]
    assert story.tiles[0].rows == 16
    assert [story.head(pc) for pc in story.layers()] == [-1, -1, 0, -1, -1]


def test_a_preemption_ends_a_visit():
    story = read_story(merging_run())
    visits = [(v.stay.request, story.layer(v.pc), len(v.tiles)) for v in story.visits]
    assert visits == [
        ("a", "conv0", 2), ("a", "conv1", 1), ("b", "conv0", 1), ("b", "conv1", 3), ("a", "conv1", 2), ("a", "fc0", 1),
        ("b", "fc0", 1), ("b", "conv2", 1), ("b", "fc1", 1),
    ]  # fmt: skip


def test_taking_turns_is_no_preemption():
    s = Script()
    s.admit(0, "a")
    s.admit(1, "b")
    for line in range(0, 8, 2):
        s.tile(0, {0: (line, line + 1)}, candidates=[0, 1])
        s.tile(0, {1: (line, line + 1)}, candidates=[0, 1])
    story = read_story(s.record())
    assert not story.waits and not story.merges
    assert len(story.visits) == 2


def test_higher_priority_preempts_its_own_group():
    s = Script()
    s.admit(0, "a")
    s.admit(1, "b")
    s.tile(0, {0: (0, 3), 1: (0, 3)})
    s.command(Opcode.BATCH, slot_mask=1, priority=3, runnable=1, ride=1)  # recorded, not committed
    s.tile(0, {0: (4, 5), 1: (4, 5)})
    s.command(Opcode.BATCH, slot_mask=0, commit=1)
    s.tile(0, {0: (6, 7)}, candidates=[0])
    s.tile(1, {0: (0, 7)}, candidates=[0])
    s.tile(0, {1: (6, 7)}, candidates=[1])
    s.tile(1, {1: (0, 7)}, candidates=[0, 1])
    story = read_story(s.record())
    (wait,) = story.waits
    assert (wait.stay.slot, wait.reason, wait.merged) == (1, "priority", False)
    assert [m.cycle for m in story.merges] == [story.tiles[-1].started]


def test_a_paused_sample_waits():
    s = Script()
    s.admit(0, "a")
    s.admit(1, "b")
    s.tile(0, {0: (0, 3), 1: (0, 3)})
    s.command(Opcode.BATCH, slot_mask=2, priority=1, runnable=0, ride=1, commit=1)
    s.tile(0, {0: (4, 7)})
    s.command(Opcode.CANCEL, slot_mask=2)
    s.release(1, status=Status.CANCELLED)
    story = read_story(s.record())
    assert [(w.stay.slot, w.reason, w.end) for w in story.waits] == [(1, "paused", story.stays[1].end)]
    assert [stay.status for stay in story.stays] == ["live", "cancelled"]


def test_a_sample_at_its_exit_is_not_preempted():
    s = Script()
    s.admit(0, "a")
    s.tile(3, {0: (0, 0)})
    s.admit(1, "b")
    s.tile(0, {1: (0, 3)})
    s.exit(0, 0, True)
    s.release(0)
    assert not read_story(s.record()).waits


def test_revoked_tiles_are_no_tiles():
    s = Script()
    s.admit(0, "a")
    s.deal(0, {0: (0, 3)})
    s.engine(8)
    s.tile(0, {0: (0, 3)})
    story = read_story(s.record())
    assert len(story.tiles) == 1 and len(story.revocations) == 1


def test_rigid_mode_decides_before_it_finishes():
    s = Script()
    s.admit(0, "a")
    s.tile(3, {0: (0, 0)})
    s.exit(0, 0, False)
    decided = s.cycle
    s.tile(5, {0: (0, 7)})
    s.exit(0, 1, True, pc=7)
    s.release(0, exit=0)
    (stay,) = read_story(s.record()).stays
    assert (stay.decided, stay.exit) == (decided, 0)


def test_refused_admits_are_no_stays():
    s = Script()
    s.command(Opcode.ADMIT, code=3, slot=0)
    s.admit(0, "a")
    assert [stay.request for stay in read_story(s.record()).stays] == ["0.0"]


def test_a_trace_that_stops_in_a_tile():
    s = Script()
    s.admit(0, "a")
    s.tile(0, {0: (0, 3)})
    s.events.pop()
    story = read_story(s.record(cycles=400))
    assert (story.tiles[0].end, story.stays[0].end, story.stays[0].status) == (400, 400, "live")


@pytest.mark.parametrize("drop, text", [(12, "begins a tile"), (10, "none is dealt")])
def test_events_that_do_not_belong_together(drop, text):
    s = Script()
    s.admit(0, "a")
    s.tile(0, {0: (0, 3)})
    s.events = [e for e in s.events if e[1] or e[2] != drop]
    with pytest.raises(StoryError, match=text):
        read_story(s.record())


def test_steps():
    story = read_story(merging_run())
    assert [level for _, level in story.live()] == [0, 1, 2, 1, 0]
    assert sorted(level for _, level in story.waiting()) == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(40))
def test_random_worlds(monkeypatch, seed):
    record, model = world_run(monkeypatch, seed)
    story = read_story(record)
    assert len(story.stays) == model.admitted
    assert [t.pc for t in story.tiles] == [t.pc for t in model.tiles]
    assert sorted(s.status for s in story.stays) == sorted(r.status for r in record.results)
    lines = {}
    for visit in story.visits:
        for tile, piece in visit.tiles:
            assert visit.stay is piece.stay and visit.stay.begin <= tile.first < tile.end <= visit.stay.end
            lines.setdefault((id(piece.stay), tile.pc), []).extend(
                n for a, b, _ in piece.lines for n in range(a, b + 1)
            )
    assert all(found == list(range(len(found))) for found in lines.values())
    assert sum(map(len, lines.values())) == sum(f.lines for t in model.tiles for f in t.fragments)
    for wait in story.waits:
        assert wait.stay.begin < wait.begin < wait.end <= wait.stay.end
        own = [t for t in story.tiles if any(p.stay is wait.stay for p in t.pieces)]
        assert not [t for t in own if wait.begin <= t.started < wait.end]
