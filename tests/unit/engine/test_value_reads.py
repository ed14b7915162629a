"""Numbers and masks of activations that Python code reads, folded where a graph can have them."""

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, pair, untouched
from torch import nn

from faigfast import attribute
from faigfast.engine.calls import record_calls
from faigfast.engine.filled_memory import filled_memory
from faigfast.engine.graph import Graphs, _tensors
from faigfast.integration.path import WeightPath

pytestmark = pytest.mark.usefixtures("wide_chunks")


class Network(Body):
    """A body with a parameter that the network reads as a number, and keeps as an attribute."""

    def __init__(self, body):
        super().__init__()
        self.k = nn.Parameter(torch.full((1,), 0.7))
        self.kept = 0.0
        self.body = body

    def between(self, y):
        return self.body(self, y)


def item_of_a_parameter(self, y):
    self.kept = self.k.item()
    return y.square().add(1e-3).pow(self.kept)


def hue(self, y):
    """As colour conversions fill three sectors, in memory without values."""
    value = y.max(1)[0]
    out = torch.Tensor(y.shape[0], y.shape[2], y.shape[3]).to(y.dtype)
    for n in range(y.shape[1]):
        out[y[:, n] == value] = (2.0 * n + (y[:, n - 1] * 3 - 1)[y[:, n] == value]) % 6
    out[value == 0] = 0.0
    return y * (out / 6.0).unsqueeze(1)


FOLDED = {
    "a parameter's number": item_of_a_parameter,
    "an activation's number": lambda self, y: y * y.mean().item(),
    "values of a mask": lambda self, y: masked(y, lambda v: v),
    "shifted and scaled": lambda self, y: masked(y, lambda v: 1 - (v * 2 - 3) / 4),
    "a number": lambda self, y: masked(y, lambda v: 0.5),
    "a scalar tensor": lambda self, y: masked(y, lambda v: torch.tensor(0.5)),
    "memory without values": hue,
    "values that are exchanged": lambda self, y: exchanged(self, y),
    "a number of what is written later": lambda self, y: written_after_the_read(self, y),
}


def masked(y, change):
    out = y * 1
    out[y > 0] = change((y.sin())[y > 0])
    return out


def exchanged(self, y):
    """Both values are read before either is written."""
    one, other = y.sin(), y.cos()
    mask = y > 0
    one[mask], other[mask] = other[mask], one[mask]
    return one - 2 * other


def written_after_the_read(self, y):
    total = y.mean(0, keepdim=True).mean()
    number = total.item()
    total.add_(5)
    return y * number + total


def another_mask(self, y):
    out = y * 1
    out[y.flip(-1) > 0] = y[y > 0] if (y > 0).sum() == (y.flip(-1) > 0).sum() else 0.0
    return out


POINT_BY_POINT = {
    "a function of selected values": lambda self, y: masked(y, lambda v: v.exp()),
    "values of another mask": another_mask,
    "a branch": lambda self, y: y * 2 if y.mean().item() > 0 else y * 3,
    "a comparison": lambda self, y: y * (1 if y.mean().item() == 0 else 2),
}


def compared(body):
    baseline, target = pair(lambda: Network(body))
    batch = images(3)
    with untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch, steps=4, backend="torch")
    expected = attribute(baseline, target, batch, steps=4, backend="reference")
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-9, atol=1e-13)
    return [note for note in result.notes if note.startswith("runs point by point")]


@pytest.mark.parametrize("name", FOLDED)
def test_reads_of_values_are_folded(name):
    assert not compared(FOLDED[name])


@pytest.mark.parametrize("name", POINT_BY_POINT)
def test_other_reads_run_point_by_point_with_the_reason(name):
    (note,) = compared(POINT_BY_POINT[name])
    assert "data-dependent" in note


def test_a_network_keeps_its_number():
    baseline, target = pair(lambda: Network(item_of_a_parameter))
    attribute(baseline, target, images(1), steps=2)
    assert isinstance(target.kept, float)


def test_memory_without_values_does_not_change_the_state():
    nets = pair(lambda: Network(hue))
    path = WeightPath(*nets)
    x = images(1)[0]
    calls = set()
    for fill in (1.0, 2.0, 3.0):
        torch.full((100_000,), fill)  # memory that the network may get
        calls.add(record_calls(path, nets[1], _tensors(path, nets[1]), x).calls)
    assert len(calls) == 1
    graphs = Graphs()
    assert graphs.state(path, nets, x) == graphs.state(path, nets, x)


def test_filled_memory_restores_the_mode_of_the_caller():
    with filled_memory():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError), filled_memory():
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled()
