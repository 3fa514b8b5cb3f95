"""Places of tensors: exact offsets, and that nobody writes where somebody still reads."""

import random

from fluidnpu.nn.arena import place_tensors

BUS = 8


def offsets(tensors, first_write, last_read, **options):
    places, size = place_tensors(tensors, first_write, last_read, BUS, **options)
    return {name: place.offset for name, place in places.items()}, size


def test_a_chain_takes_turns():
    """in -> a -> b -> c: b begins where the input was, unless a is in the way."""
    tensors = [("in", 4, 4, 3, 1), ("a", 2, 2, 3, 1), ("b", 2, 2, 20, 3), ("c", 1, 1, 3, 1)]
    first, last = {"in": -1, "a": 0, "b": 1, "c": 2}, {"in": 0, "a": 1, "b": 2, "c": 2}
    assert offsets(tensors, first, last) == ({"in": 0, "a": 128, "b": 0, "c": 96}, 160)
    assert offsets(tensors, first, last, reuse=False) == ({"in": 0, "a": 128, "b": 160, "c": 256}, 264)


def test_places_are_padded_to_beats():
    places, size = place_tensors([("x", 3, 5, 9, 2)], {"x": -1}, {"x": 0}, BUS)
    place = places["x"]
    assert (place.offset, place.height, place.width, place.channels) == (0, 3, 5, 9)
    assert (place.pixel_beats, place.line_beats, size) == (2, 10, 240)


def test_an_empty_program_has_an_arena():
    assert place_tensors([], {}, {}, BUS) == ({}, BUS)


def test_living_tensors_never_overlap():
    for seed in range(200):
        rng = random.Random(seed)
        tensors, first, last = [], {}, {}
        for i in range(rng.randrange(2, 12)):
            name = f"t{i}"
            tensors.append((name, rng.randrange(1, 6), rng.randrange(1, 6), 8, 1))
            first[name] = i - 1
            last[name] = i - 1 + rng.randrange(0, 5)
        places, size = place_tensors(tensors, first, last, BUS)
        kept, all_size = place_tensors(tensors, first, last, BUS, reuse=False)
        assert size <= all_size == sum(h * w * BUS for _, h, w, _, _ in tensors)
        for chosen, at_once in ((places, False), (kept, True)):
            ends = {n: p.offset + p.height * p.line_beats * BUS for n, p in chosen.items()}
            assert max(ends.values()) <= (all_size if at_once else size)
            for a in places:
                for b in places:
                    together = at_once or (first[a] <= last[b] and first[b] <= last[a])
                    if a != b and together:
                        assert ends[a] <= chosen[b].offset or ends[b] <= chosen[a].offset, (seed, a, b)
