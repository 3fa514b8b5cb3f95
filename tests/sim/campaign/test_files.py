"""Files behind points: their names, and that other contents are other points."""

from pathlib import Path

import pytest
from fluidnpu.sim.campaign.cases import Workload
from fluidnpu.sim.campaign.files import named_files, with_files
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.study import InputError


@pytest.fixture
def files(tmp_path):
    paths = {name: tmp_path / name for name in ("net.tflite", "images.npz", "day.csv", "exits.csv")}
    for name, path in paths.items():
        path.write_text(name)
    return paths


def keys(files):
    workloads = {"net": Workload("net", files["net.tflite"], files["images.npz"], "a network")}
    poisson = Point("policies", "net", "tiny", "serial", 0.5, 1)
    from_files = Point("policies", "net", "tiny", "serial", 0.5, 1, arrivals="day", mix="exits")
    points = with_files([poisson, from_files], workloads, {"day": files["day.csv"]}, {"exits": files["exits.csv"]})
    return [p.key for p in points]


@pytest.mark.parametrize("name, changed", [("net.tflite", 2), ("images.npz", 2), ("day.csv", 1), ("exits.csv", 1)])
def test_another_content_is_another_point(files, name, changed):
    before = keys(files)
    assert keys(files) == before and len(set(before)) == 2
    files[name].write_text("other")
    assert sum(a != b for a, b in zip(before, keys(files), strict=True)) == changed


def test_names():
    known, given = Path("real/day.csv"), Path("mine/day.csv")
    assert named_files("--timestamps", [], ("poisson",), known) == {"day": known}
    assert named_files("--timestamps", [given], ("poisson",), known) == {"day": given}
    with pytest.raises(InputError, match=r"--timestamps mine/poisson\.csv: the name 'poisson' is taken"):
        named_files("--timestamps", [Path("mine/poisson.csv")], ("poisson",))
