"""A tiny pair, tiny photographs and a plan for them."""

import pytest
import torch
from cases.sweeps import add_photo

import faigfast
from faigfast.sweeps.worker import UnitComputer
from faigfast.zoo import SRCNNStyle


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Two checkpoints of one architecture, and one of another."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, width in (("a", 4), ("b", 4), ("other", 5)):
            faigfast.save_model(SRCNNStyle(widths=(width, 3), scale=2), folder / f"{name}.pth")
    return folder


@pytest.fixture
def photos(tmp_path):
    """Five images of two sizes."""
    for n in range(5):
        add_photo(tmp_path / "photos", n)
    return tmp_path / "photos"


@pytest.fixture
def plan(checkpoints, photos):
    """A plan in the form of YAML."""
    return {
        "pairs": {"tiny": [str(checkpoints / "a.pth"), str(checkpoints / "b.pth")]},
        "images": str(photos),
        "degradations": {"noise": [0.05, 0.1], "blur": 1},
        "settings": [{"steps": 2}],
        "shard": 2,
    }


@pytest.fixture
def computed(monkeypatch):
    """Tasks that were computed in this process."""
    tasks = []
    original = UnitComputer.compute

    def compute(self, task):
        tasks.append(task)
        return original(self, task)

    monkeypatch.setattr(UnitComputer, "compute", compute)
    return tasks
