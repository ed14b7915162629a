"""Small networks, photographs and schedules for tests of training."""

import pytest
import torch
from torch import nn

from faigfast.data.patches import Patches
from faigfast.training.trainer import Schedule
from faigfast.zoo import SRResNet


def photographs():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(3, 24, 30, generator=generator) for name in ("a", "b")}


def patches(**options):
    return Patches(photographs().values(), scale=2, patch=4, resizes=(1.0,), **options)


def network(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return SRResNet(width=4, blocks=1, scale=2)


SHORT = Schedule(iterations=12, learning_rate=1e-2, batch=2)


@pytest.fixture
def frequent(monkeypatch):
    """Save and log every fourth iteration."""
    monkeypatch.setattr("faigfast.training.trainer.SAVE_EVERY", 4)
    monkeypatch.setattr("faigfast.training.trainer.LOG_EVERY", 4)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


class Dies(nn.Module):
    """Raises in its n-th call."""

    def __init__(self, net, after, error=KeyboardInterrupt):
        super().__init__()
        self.net, self.left, self.error = net, after, error

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise self.error("stopped")
        return self.net(x)
