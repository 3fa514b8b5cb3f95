"""Feature maps of backbones: what they cost, how they are named, which ones are proposed, what is refused."""

import re

import numpy as np
import pytest
from fluidnpu.nn.exit_places import AttachError, Backbone, find_places, propose_places
from fluidnpu.nn.tflite_writer import TfliteWriter

from .backbones import MODELS, digits_backbone, residual_backbone


@pytest.fixture(scope="module")
def digits():
    return Backbone(digits_backbone(), "digits.tflite")


@pytest.fixture(scope="module")
def residual():
    return Backbone(residual_backbone(), "residual.tflite")


def test_places_of_digits(digits):
    """Cumulative MACs by hand: 3x3 convolutions on 16, 8 and 4 pixels."""
    found = {place.label: (place.macs, place.tensor.shape, place.cut) for place in digits.places}
    stage1 = 16 * 16 * 9 * (16 * 1 + 16 * 16)
    stage2 = stage1 + 8 * 8 * 9 * (32 * 16 + 32 * 32)
    assert found["stage1b"] == (stage1, (16, 16, 16), True)
    assert found["stage2b"] == (stage2, (8, 8, 32), True)
    assert list(found) == ["stage1a", "stage1b", "stage2a", "stage2b", "stage3a", "stage3b"]
    assert digits.beta == 1.0 and digits.classes == 10 and not digits.unsigned


def test_inside_a_residual_block_is_no_cut(residual):
    """Behind "inner" the ADD still reads "first"."""
    cuts = {place.label: place.cut for place in residual.places}
    assert cuts == {"first": True, "inner": False, "sum": True, "last": True}
    assert residual.beta == 0.5
    macs = {place.label: place.macs for place in residual.places}
    assert macs["first"] == 66 * 8 * 27 and macs["sum"] == macs["inner"] == 66 * 8 * (27 + 72)


def test_proposals_divide_the_macs(digits, residual):
    assert [place.label for place in propose_places(digits, 2)] == ["stage2a", "stage2b"]  # 38.5 %, 63.1 %
    shares = [place.macs / digits.macs for place in propose_places(digits, 3)]
    assert shares == sorted(shares) and len(set(shares)) == 3 and max(shares) <= 0.95
    assert [place.label for place in propose_places(residual, 2)] == ["first", "sum"]
    assert len(propose_places(residual, 3)) == 3  # more than there are cuts
    for count in (0, 9):
        with pytest.raises(AttachError, match=rf"{count} exits; there are places for 1 to"):
            propose_places(digits, count)


def test_names(digits):
    number = next(place.index for place in digits.places if place.label == "stage2a")
    assert [p.label for p in find_places(digits, ["stage2b", "stage1b"])] == ["stage1b", "stage2b"]  # by depth
    assert find_places(digits, [str(number)]) == find_places(digits, ["stage2a"]) == find_places(digits, ["e2a"])


@pytest.mark.parametrize(
    "wanted, message",
    [
        (
            ["stage9"],
            r"there is no tensor 'stage9'; feature maps: .*'stage1b' \[16, 16, 16\] after 26\.1% of the MACs",
        ),
        (["stage2"], r"'stage2' fits 2 tensors: \d+ 'stage2a', \d+ 'stage2b'; name one by its number"),
        (["stage1b", "stage1b"], r"tensor \d+ 'stage1b' is named twice"),
        (["stage1a/weights"], r"is no feature map \(a constant\); feature maps: "),
        (["view"], r"is no feature map \(the input\)"),
        (["exit3"], r"is no feature map \(the backbone's own output\)"),
        (["exit3/mean"], r"is no feature map \(it must be \[1, height, width, channels\]"),
        (["999"], r"there is no tensor '999'"),
        ([""], r"there is no tensor ''"),
        ([], r"no tensor to attach an exit to"),
    ],
)
def test_bad_names(digits, wanted, message):
    with pytest.raises(AttachError, match=message):
        find_places(digits, wanted)


def test_no_backbone():
    with pytest.raises(AttachError, match=re.escape("has 3 outputs ('exit1', 'exit2', 'exit3'); a backbone has 1")):
        Backbone((MODELS / "digits.tflite").read_bytes(), "digits")
    net = TfliteWriter()
    x = net.input((1, 8, 8, 1), scale=1.0, zero_point=0)
    y = net.conv_2d(x, np.ones((2, 3, 3, 1), np.int8), np.zeros(2, np.int32), 0.1, scale=1.0, zero_point=0, name="map")
    with pytest.raises(
        AttachError, match=re.escape("output 'map' has shape [1, 8, 8, 2]; a backbone ends in a vector")
    ):
        Backbone(net.to_bytes([y]), "maps")
    with pytest.raises(ValueError, match=r"not a \.tflite file"):
        Backbone(b"nothing of the kind", "text")
