"""The engine of Ray: what it refuses, and a sweep on a cluster of this machine."""

import os
import signal
import sys
import types

import pytest
import torch

from faigfast.sweeps import ray_engine
from faigfast.sweeps.engines import Engine
from faigfast.sweeps.method_settings import Resources
from faigfast.sweeps.run import sweep


def test_ray_is_absent(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"needs Ray 2.40 or newer: pip install 'faigfast\[sweep"):
        sweep(plan, tmp_path / "out", "ray")
    assert not (tmp_path / "out").exists()


def test_ray_is_too_old(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(__version__="2.9.3"))
    with pytest.raises(ImportError, match=r"Ray is 2.9.3; the engine 'ray' needs Ray 2.40"):
        sweep(plan, tmp_path / "out", "ray")


def test_more_memory_than_a_worker_has(plan, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(__version__="2.60.0"))
    plan["settings"] = [{"memory": 3 * 10**9}]
    with pytest.raises(ValueError, match=r"memory=3000000000, and a worker has worker_memory=2000"):
        sweep(plan, tmp_path / "out", "ray", worker_memory=2 * 10**9)


def test_workers_that_the_cluster_has_room_for():
    cluster = types.SimpleNamespace(
        cluster_resources=lambda: {"CPU": 8.0, "GPU": 1.0, "memory": 1e10}
    )

    def count(cpus, gpus, workers=None, memory=None):
        return ray_engine._count(cluster, Resources(cpus, gpus, "cpu"), workers, memory)

    assert count(1, 0) == 8 and count(2, 0.25) == 4 and count(1, 0, 3) == 3
    assert count(1, 0, memory=4 * 10**9) == 2
    with pytest.raises(ValueError, match="a worker asks for GPU 2 and the cluster has 1"):
        count(1, 2)
    with pytest.raises(ValueError, match="a worker asks for memory 2e"):
        count(1, 0, memory=2 * 10**10)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "x:y"])
def test_an_address_where_nothing_listens(monkeypatch, address):
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(__version__="2.60.0"))
    with pytest.raises(ValueError, match=rf"address is '{address}': .*; expected a running"):
        ray_engine.connect(address)


def test_an_address_that_does_not_answer(monkeypatch):
    from threading import Event

    stop = Event()
    fake = types.SimpleNamespace(__version__="2.60.0", init=lambda *_, **__: stop.wait(60))
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(ray_engine, "PATIENCE", 0.05)
    with pytest.raises(ValueError, match=r"'auto': it did not answer within 0.05 s"):
        ray_engine.connect("auto")
    stop.set()


def test_no_workers_and_no_such_engine():
    with pytest.raises(ValueError, match="workers is 0 with the engine 'ray'"):
        Engine("ray", 0)


@pytest.fixture
def cluster():
    """A cluster of two processors in this process."""
    ray = pytest.importorskip("ray")
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_a_sweep_on_ray_with_a_killed_worker(plan, tmp_path, cluster, monkeypatch):
    original = ray_engine.Actors.send
    killed = []

    def send(self, worker, task, pair):
        original(self, worker, task, pair)
        if not killed:
            pid = cluster.get(self._actors[worker].process.remote())
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(ray_engine.Actors, "send", send)
    result = sweep(plan, tmp_path / "out", "ray")
    wanted = sweep(plan, tmp_path / "wanted", workers=0)
    assert result.status.done == 9 and result.failures == [] and killed
    assert result.status.driver["replaced"] == 1
    for name in wanted.degradations:
        assert torch.equal(result.mean(None, name), wanted.mean(None, name))
    again = sweep(plan, tmp_path / "out", "ray")
    assert again.status.done == 9
