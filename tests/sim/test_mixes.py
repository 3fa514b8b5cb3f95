"""Exit mixes: a network's answers, files, shares; the same seed draws the same samples."""

import numpy as np
import pytest
from fluidnpu.nn.exits import decide
from fluidnpu.sim.mixes import ExitMix, MixError, answers_mix, file_mix, mix_of, shares_mix
from fluidnpu.sim.options import MODELS
from fluidnpu.sim.study import limits_of, load_network, read_images

HEADER = "name,label,p1,c1,p2,c2,p3,c3\n"


def test_answers_are_those_of_the_network():
    network = load_network(MODELS / "digits.tflite")
    images, labels = read_images(MODELS / "digits_views.npz", network.input.shape)
    images, labels = images[:60], labels[:60]
    limits = limits_of([0.8], len(network.ends))
    mix = answers_mix(network, limits, images, labels)
    from fluidnpu.nn import reference

    wanted = decide(network, reference.run(network, images), limits)
    assert mix.taken.tolist() == wanted.exit.tolist()
    assert mix.top[np.arange(60), mix.taken].tolist() == wanted.top.tolist()
    assert (mix.spread[np.arange(60), mix.taken] == wanted.spread).all()
    assert ((mix.spread <= limits) == (mix.confident[:, None] >> np.arange(3) & 1)).all()
    decided, drawn = mix.draw(500, seed=3)
    places = [int(np.flatnonzero((mix.spread == s).all(1))[0]) for s in decided.spread]
    assert np.array_equal(decided.confident, mix.confident[places])
    again, _ = mix.draw(500, seed=3)
    assert np.array_equal(decided.confident, again.confident)
    assert not np.array_equal(decided.confident, mix.draw(500, seed=4)[0].confident)
    assert set(drawn) <= set(labels.tolist())


@pytest.mark.parametrize("shares", [(0.5, 0.3, 0.2), (0.1, 0.2, 0.7)])
def test_shares_are_met(shares):
    decided, labels = shares_mix(shares).draw(20_000, seed=1)
    taken = np.array([decided.taken(n, 3) for n in range(20_000)])
    assert np.allclose(np.bincount(taken, minlength=3) / 20_000, shares, atol=0.012)
    assert labels is None
    left = [shares[0], shares[1] / (1 - shares[0])]
    assert shares_mix(shares).rates() == pytest.approx(left)


def test_a_shift_comes_midway():
    decided, _ = mix_of("shift", 3).draw(10_000, seed=1)
    taken = np.array([decided.taken(n, 3) for n in range(10_000)])
    first, second = (np.bincount(half, minlength=3) / 5000 for half in (taken[:5000], taken[5000:]))
    assert np.allclose(first, (0.7, 0.2, 0.1), atol=0.02) and np.allclose(second, (0.1, 0.2, 0.7), atol=0.02)
    assert mix_of("shift", 3).rates(phase=1)[0] == pytest.approx(0.1)


def test_a_file_of_confidences(tmp_path):
    path = tmp_path / "exits.csv"
    path.write_text(HEADER + "a,3,3,0.9,3,0.95,3,1.0\nb,1,2,0.5,1,0.85,1,1.0\nc,1,2,0.5,2,0.1,1,0.2\n")
    mix = file_mix(path, 3, threshold=0.8)
    assert mix.taken.tolist() == [0, 1, 2]
    assert mix.label.tolist() == [3, 1, 1] and mix.top[2].tolist() == [2, 2, 1]
    assert mix_of(str(path), 3).taken.tolist() == [0, 1, 2]
    assert mix.spread[0].tolist() == [int(65536 / c) for c in (0.9, 0.95, 1.0)]
    assert ((mix.spread <= limits_of([0.8], 3)) == (mix.confident[:, None] >> np.arange(3) & 1)).all()


def test_shares_draw_from_a_pool():
    pool = ExitMix(np.array([0b111, 0b110, 0b100, 0b100]), 3, np.arange(12).reshape(4, 3), np.arange(4))
    decided, labels = mix_of("0.5,0.5,0", 3, pool).draw(200, seed=1)
    assert set(labels.tolist()) == {0, 1} and set(decided.confident.tolist()) == {0b111, 0b110}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda p: mix_of("luck", 3), "exit mix 'luck': neither answers, easy, hard, shift"),
        (lambda p: mix_of("0.5,0.5", 3), "nor 3 shares"),
        (lambda p: mix_of("answers", 3), "the network has no images"),
        (lambda p: shares_mix((0.5, 0.6)), "each at least 0, and 1 together"),
        (lambda p: shares_mix((0.5, 0.5), ExitMix(np.array([2, 2]), 2)), r"nobody leaves at \[0\]"),
        (lambda p: file_mix(p / "no.csv", 3), "no.csv: No such file"),
        (lambda p: file_mix(p / "bad.csv", 3), "bad.csv: columns label, p1, c1 .. p3, c3 are needed"),
        (lambda p: file_mix(p / "empty.csv", 3), "empty.csv: there is no sample"),
    ],
)
def test_bad_mixes(make, message, tmp_path):
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text(HEADER)
    with pytest.raises(MixError, match=message):
        make(tmp_path)
