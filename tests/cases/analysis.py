"""A small pair and small crops for the analysis tests."""

import pytest
import torch

import faigfast
from faigfast.analysis.evaluation import crops
from faigfast.data import Degradation
from faigfast.zoo import SRResNet

RECIPES = {
    "blur": Degradation(blur=1.5),
    "noise": Degradation(noise=0.1),
    "clean": Degradation(),
}


def small_pair(seed=0):
    """Two networks far enough apart to change the loss clearly."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        nets = [SRResNet(width=4, blocks=1, scale=2) for _ in range(2)]
        for net in nets:
            for weight in net.parameters():
                weight.data.add_(0.05 * torch.randn(weight.shape))
    return tuple(net.eval() for net in nets)


def photographs():
    generator = torch.Generator().manual_seed(3)
    return {name: torch.rand(3, 48, 72, generator=generator) for name in ("one", "two")}


@pytest.fixture(scope="session")
def study_parts():
    """Pair, attributed crops, measured crops and FAIG's result."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = crops(photographs(), RECIPES, 24)
    attributed, kept = data.part(slice(0, None, 4)), data.without(slice(0, None, 4))
    nets = small_pair()
    result = faigfast.attribute(*nets, {"lq": attributed.lq, "gt": attributed.gt}, steps=3)
    yield nets, attributed, kept, result
    torch.set_num_threads(threads)
