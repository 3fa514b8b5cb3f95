"""Points run on Dask: kept, continued, the same whoever runs them, and nothing is lost with a worker."""

import json
import os
import pickle
import signal
import time

import pytest
from distributed import Client, LocalCluster
from fluidnpu.sim.campaign.cases import build_case, find_workloads
from fluidnpu.sim.campaign.points import Point
from fluidnpu.sim.campaign.run import run_point
from fluidnpu.sim.campaign.runner import Store, run_points

MACHINE = {"seconds", "host_us", "nothing_us"}  # figures of the computer, not of the NPU


def points(count, requests=200, **more):
    policies = ("serial", "adaptive", "lazy")
    options = {"workload": "digits", "config": "edge", "load": 0.5, "requests": requests, **more}
    return [Point("test", policy=policies[n % 3], seed=n // 3 + 1, **options) for n in range(count)]


def of_the_npu(figures):
    return {name: value for name, value in figures.items() if name not in MACHINE}


@pytest.fixture(scope="module")
def cases():
    workload = find_workloads()["digits"]
    return {(workload.name, "edge", "full", False): build_case(workload, "edge", "full", False)}


@pytest.fixture(scope="module")
def case(cases):
    return next(iter(cases.values()))


@pytest.fixture
def cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0) as cluster:
        with Client(cluster) as client:
            yield client


def test_the_same_seed_gives_the_same_figures(case):
    (point,) = points(1)
    assert of_the_npu(run_point(point, case)) == of_the_npu(run_point(point, case))
    other = run_point(Point(**{**vars(point), "seed": 2}), case)
    assert other["mean"] != run_point(point, case)["mean"]


def test_every_request_is_accounted_for(case):
    for point in points(3, load=1.1):
        figures = run_point(point, case)
        assert figures["answered"] == figures["requests"] == 200 and figures["drops"] == 0
        assert sum(figures["exits"]) == pytest.approx(1)
        assert figures["accuracy"] == figures["own_accuracy"]


def test_no_policy_beats_the_lower_bound(case):
    for load in (0.3, 0.9):
        for point in points(6, load=load, requests=400):
            figures = run_point(point, case)
            assert figures["mean"] >= figures["bound_mean"] and figures["misses"] >= figures["bound_misses"], point


def test_a_host_that_takes_time_costs_latency(case):
    free, paid = (run_point(p, case)["mean"] for c in (0, 400) for p in points(1, decision_cycles=c))
    assert 300 < paid - free < 3000


def test_points_have_names_of_their_own():
    some = points(6) + points(3, load=0.6) + points(3, rigid=True) + points(3, options=(("most", 2),))
    assert len({p.key for p in some}) == len(some)
    assert Point(**{**vars(some[0]), "group": "other"}).key == some[0].key
    assert pickle.loads(pickle.dumps(some[0])).key == some[0].key


def test_a_lost_worker_loses_nothing(cluster, cases, case, tmp_path):
    """One of two workers is killed while points are under way; the result is that of a single process."""
    some = points(18, requests=1500)
    killed = []

    def tell(done, total, point):
        if point is not None and done >= 3 and not killed:
            pids = sorted(cluster.run(os.getpid).values())
            killed.append(pids[0])
            os.kill(pids[0], signal.SIGKILL)

    found, failed = run_points(cluster, some, cases, Store(tmp_path), tell)
    assert killed and not failed and list(found) == some
    for point in some[::5]:
        assert of_the_npu(found[point]) == of_the_npu(json.loads(json.dumps(run_point(point, case)))), point


def test_a_study_continues(cluster, cases, tmp_path):
    """What is finished is read, not run: a second run takes the kept figures, and adds what is missing."""
    store = Store(tmp_path)
    first, _ = run_points(cluster, points(3), cases, store)
    marked = first[points(3)[0]] | {"mean": -1.0}
    store.put(points(3)[0], marked)
    told = []
    begin = time.perf_counter()
    found, _ = run_points(cluster, points(4), cases, Store(tmp_path), lambda done, total, _: told.append((done, total)))
    assert told == [(3, 4), (4, 4)]
    assert found[points(4)[0]]["mean"] == -1.0 and found[points(4)[3]]["mean"] > 0
    assert time.perf_counter() - begin < 60


def test_a_point_that_fails_does_not_end_the_study(cluster, cases, tmp_path):
    bad = Point("test", "digits", "edge", "nobody", 0.5, 1, requests=50)
    found, failed = run_points(cluster, [*points(2, requests=50), bad], cases, Store(tmp_path))
    assert list(found) == points(2, requests=50)
    assert list(failed) == [bad] and "unknown policy 'nobody'" in str(failed[bad])


def test_half_a_file_is_not_a_result(tmp_path):
    store, (point,) = Store(tmp_path), points(1)
    (store.folder / f"{point.key}.json").write_text('{"mean": 1')
    assert store.get(point) is None
