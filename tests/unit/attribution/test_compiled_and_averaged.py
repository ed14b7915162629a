"""Networks that were compiled in place, averaged, traced or exported; objectives made anew."""

import copy

import pytest
import torch
from cases.networks import images, kinked, pair, refused, untouched
from torch import nn
from torch.optim.swa_utils import AveragedModel

from faigfast import Attributor, attribute
from faigfast.engine import integrate

BACKENDS = ["reference", "torch", "cpu"]


class Body(nn.Module):
    """Of a class that torch.compile compiles, unlike those of torch."""

    def __init__(self, body=None):
        super().__init__()
        self.body = kinked() if body is None else body
        self.tail = nn.Conv2d(3, 3, 1).double()

    def forward(self, x):
        return self.tail(self.body(x)) * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_compiled_in_place_runs_as_it_was_written(backend):
    nets, batch = pair(Body), images()
    expected = attribute(*nets, batch, backend=backend)
    compiled = []

    def compiler(graph, inputs):
        compiled.append(graph)
        return graph.forward

    nets[1].compile(backend=compiler)
    with_part = Body(copy.deepcopy(nets[1]))
    with_part.body.compile(backend=compiler)
    wrapped = copy.deepcopy(nets[1])
    wrapped.forward = torch.compile(wrapped.forward, backend=compiler)
    baseline = Body(copy.deepcopy(nets[0]))
    baseline.tail.load_state_dict(with_part.tail.state_dict())
    attribute(baseline, with_part, batch, backend=backend)
    for target in (nets[1], wrapped):
        result = attribute(nets[0], target, batch, backend=backend)
        assert torch.equal(result.scores(), expected.scores())
        assert result.notes == expected.notes and not compiled
    nets[1](batch[0])
    assert compiled  # afterwards it is compiled as before
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_averaged_model_is_the_network_it_averages(backend):
    nets, batch = pair(kinked), images()
    expected = attribute(*nets, batch, backend=backend)
    averaged = [AveragedModel(net) for net in nets]
    for a, b in (averaged, (averaged[0], nets[1]), (nets[0], averaged[1])):
        with untouched(a, b):
            result = attribute(a, b, batch, backend=backend)
        assert torch.equal(result.scores(), expected.scores()) and result.index == expected.index
    result.top(None, 0.1).check_pair(*averaged)


def test_traced_and_exported_modules_are_refused_by_name():
    nets, batch = pair(kinked), images()
    traced = [torch.jit.trace(net, batch[0]) for net in nets]
    refused(TypeError, "model_a is a scripted module; expected the torch.nn.Module", *traced)
    programs = [torch.export.export(net, (batch[0],)) for net in nets]
    refused(TypeError, "model_a is a ExportedProgram; expected a torch.nn.Module", *programs)
    exported = [program.module() for program in programs]
    for pair_of_modules, words in (
        (exported, "model_a is or holds a GraphModule, an exported module; expected the torch.nn"),
        ((nets[0], exported[1]), "model_b is or holds a GraphModule, an exported module"),
        (list(map(Body, exported)), "model_a is or holds 'body', an exported module"),
    ):
        with pytest.raises(TypeError, match=words):
            attribute(*pair_of_modules, batch)


def made_anew(factor):
    return lambda output, gt: factor * (output - gt).square().flatten(1).sum(1)


@pytest.fixture
def comparisons(monkeypatch):
    """Calls in which a plan was compared with the network."""
    calls, original = [], integrate.differs

    def counted(*args, **options):
        calls.append(1)
        return original(*args, **options)

    monkeypatch.setattr(integrate, "differs", counted)
    return calls


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_an_objective_made_anew_is_compared_once(backend, comparisons):
    nets, batch = pair(kinked), images()
    first = attribute(*nets, batch, backend=backend, steps=3, objective=made_anew(2.0))
    assert comparisons
    comparisons.clear()
    for _ in range(3):
        again = attribute(*nets, batch, backend=backend, steps=3, objective=made_anew(2.0))
        assert torch.equal(again.scores(), first.scores())
    assert not comparisons
    other = attribute(*nets, batch, backend=backend, steps=3, objective=made_anew(3.0))
    assert comparisons
    torch.testing.assert_close(other.scores(), 1.5 * first.scores())


def test_objectives_of_ever_other_values_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(integrate, "MOST_CHECKED", 2)
    nets, batch = pair(kinked), images()
    with Attributor(*nets, backend="torch", steps=2, objective=made_anew(0.5)) as attributor:
        attributor(batch)
    for factor in range(4):
        attribute(*nets, batch, backend="torch", steps=2, objective=made_anew(1.0 + factor))
    from faigfast.attribution.attributor import _graphs

    plans = _graphs[nets[1]]._plans.values()
    assert all(len(plan.checked) <= 3 for plan in plans)
