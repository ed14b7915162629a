"""The engine compares a captured plan with its network before use, and detects old plans."""

import copy
import gc
import weakref

import pytest
import torch
from cases.hard_networks import Body, MixesBatch
from cases.networks import images, pair, smooth
from cases.verification import fall_back, wrong
from torch import nn

from faigfast import attribute
from faigfast.attribution import attributor as attribution
from faigfast.engine import chunking, integrate
from faigfast.engine import graph as graphs
from faigfast.engine import points as on_points
from faigfast.engine.graph import Graphs
from faigfast.engine.memory import Chunk
from faigfast.engine.samples import Samples
from faigfast.integration.path import WeightPath

aten = torch.ops.aten

pytestmark = pytest.mark.usefixtures("wide_chunks")


class Scaled(Body):
    """Two convolutions around a smooth function and one tiny parameter."""

    def __init__(self):
        super().__init__()
        self.tiny = nn.Parameter(torch.ones(1))

    def between(self, y):
        return y + 1e-4 * self.tiny * y.square()


@pytest.mark.parametrize("factor", [1 + 1e-5, 1.1, -1])
def test_a_wrong_value_is_noticed(factor, monkeypatch):
    wrong(monkeypatch, aten.conv2d.default, lambda y: y * factor)
    fall_back(pair(Scaled), "losses")


@pytest.mark.parametrize("factor", [1 + 1e-5, 0.5, -1])
def test_a_wrong_gradient_is_noticed(factor, monkeypatch):
    wrong(monkeypatch, aten.conv2d.default, lambda y: y.detach() + factor * (y - y.detach()))
    fall_back(pair(Scaled), "gradient of ")


def test_a_missing_gradient_is_noticed(monkeypatch):
    wrong(monkeypatch, aten.conv2d.default, lambda y: y.detach())
    fall_back(pair(Scaled), "gradient of ")


def test_a_wrong_gradient_of_one_tiny_tensor_is_noticed(monkeypatch):
    raw = on_points.Points.raw

    def changed(points, value):
        samples = raw(points, value)
        if isinstance(value, on_points.Moving) and value.w0.shape == (1,):
            samples = Samples(samples.data * 1.5 - 0.5 * samples.data.detach())
        return samples

    monkeypatch.setattr(on_points.Points, "raw", changed)
    fall_back(pair(Scaled), "gradient of 'tiny'")


def test_a_gradient_that_the_network_does_not_have_is_noticed(monkeypatch):
    class Detaches(Scaled):
        def between(self, y):
            return y + self.tiny.detach() * y

    make = graphs._plan

    def attached(path, trace):
        plan = make(path, trace)
        for node in plan.graph.nodes:
            if node.target is aten.detach.default:
                node.target = aten.alias.default
        return plan

    monkeypatch.setattr(graphs, "_plan", attached)
    fall_back(pair(Detaches), "gradient of 'tiny'")


@pytest.fixture
def long(monkeypatch):
    """Compare the first chunk of a run instead of an extra run, as for graphs of many nodes."""
    monkeypatch.setattr(integrate, "MOST_NODES", 0)
    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), Chunk(1, 1)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def wrong_alone(monkeypatch, change):
    """Change convolutions in graphs that run one image at one point."""
    make = graphs.sample_module

    def changed(graph, nodes):
        module, taken = make(graph, nodes)
        for node in module.graph.nodes:
            if node.op == "call_function" and "conv" in str(node.target):
                right = node.target
                node.target = lambda *args, right=right: change(right(*args))
        module.recompile()
        return module, taken

    monkeypatch.setattr(graphs, "sample_module", changed)


@pytest.mark.parametrize("rule", ["midpoint", "left"])
@pytest.mark.parametrize("large", [0, 1 << 30], ids=["two at once", "one"])
def test_the_first_point_of_a_long_graph_is_compared(rule, large, long, monkeypatch):
    monkeypatch.setattr(chunking, "LARGE_SAMPLE", large)
    compared, right = [], integrate.ReferenceSample.differs
    monkeypatch.setattr(
        integrate.ReferenceSample,
        "differs",
        lambda *args: compared.append(right(*args)) or compared[-1],
    )
    nets = pair(Scaled)
    expected = attribute(*nets, images(2), backend="reference", rule=rule, steps=7)
    first, again = (
        attribute(*nets, images(2), backend="torch", rule=rule, steps=7) for _ in range(2)
    )
    assert compared == [""] and not [n for n in first.notes if "point by point" in n]
    assert torch.equal(first.scores(), again.scores())
    torch.testing.assert_close(first.scores(), expected.scores(), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda y: y * (1 + 1e-5), "losses"),
        (lambda y: y.detach() + 1.001 * (y - y.detach()), "gradient of "),
        (lambda y: y.detach(), "gradient of "),
        (lambda y: y / 0 if y.requires_grad else y, "loss"),
        (lambda y: y[5:] if y.requires_grad else y, "cannot be compared"),
    ],
)
@pytest.mark.parametrize("large", [0, 1 << 30], ids=["two at once", "one"])
def test_a_long_graph_that_is_wrong_is_noticed(change, words, large, long, monkeypatch):
    monkeypatch.setattr(chunking, "LARGE_SAMPLE", large)
    wrong_alone(monkeypatch, change)
    fall_back(pair(Scaled), words)


def test_a_long_graph_is_compared_beforehand_where_only_an_end_is_computed(long, monkeypatch):
    wrong_alone(monkeypatch, lambda y: y.detach() + 1.001 * (y - y.detach()))
    nets = pair(Scaled)
    result = attribute(*nets, images(1), backend="torch", rule="left", steps=1)
    assert any("gradient of " in note for note in result.notes)


@pytest.mark.parametrize("chunk", [Chunk(1, 2), Chunk(2, 1), Chunk(2, 2), Chunk(2, 2, 2)])
def test_every_shape_of_a_chunk_is_checked(chunk, monkeypatch):
    """The result is wrong only for several points, or only for several images."""
    monkeypatch.setattr(chunking, "PREFERRED_CHUNKS", dict.fromkeys(("cpu", "cuda"), chunk))

    def mixed(y):
        if y.shape[0] > 1:
            return y + 0.01 * y.flip(0)
        return y + 0.01 * y.flip(1) if y.shape[1] > 1 else y

    wrong(monkeypatch, aten.conv2d.default, mixed)
    fall_back(pair(Scaled), "losses")


@pytest.mark.parametrize(
    "make",
    [
        MixesBatch,
        lambda: nn.Sequential(
            nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False), nn.Tanh()
        ),
    ],
)
def test_networks_that_mix_a_batch_are_run_image_by_image(make):
    nets, (x, gt) = pair(make), images(3)
    result = attribute(*nets, (x, gt), steps=3)
    alone = [attribute(*nets, (x[[n]], gt[[n]]), backend="reference", steps=3) for n in range(3)]
    for n in range(3):
        torch.testing.assert_close(result.scores()[n], alone[n].scores()[0], rtol=1e-11, atol=0)


class Ramp(Body):
    """Computes something else for every width."""

    def between(self, y):
        return y * torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)


@pytest.mark.parametrize("make, plans", [(smooth, 1), (Ramp, graphs.PLANS)])
def test_plans_end_with_their_network_and_are_few(make, plans):
    nets = list(pair(make))
    for size in range(4, 5 + graphs.PLANS):
        attribute(*nets, images(1, size=(3, size)), steps=1)
    assert len(attribution._graphs[nets[1]]._plans) == plans
    gone = [weakref.ref(net) for net in nets]
    nets.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_failed_capture_is_remembered_and_told_every_time():
    class ByValue(Body):
        def between(self, y):
            return y if y.sum() > 0 else -y

    nets = pair(ByValue)
    for _ in range(2):
        fall_back(nets, "data-dependent")


def test_plans_differ_by_what_moves_and_by_type_and_not_by_size():
    a, b = pair(smooth)
    still = copy.deepcopy(b)
    still[0].weight.data.copy_(a[0].weight)
    x = images(1)[0]
    known = Graphs()
    made = [
        known.plan_of(path, path_x).graph
        for path, path_x in (
            (WeightPath(a, b), x),
            (WeightPath(still, b), x),
            (WeightPath(a, b, torch.float32), x.float()),
            (WeightPath(a, b), x[..., 1:]),
        )
    ]
    assert len({id(graph) for graph in made}) == 3 and made[3] is made[0]
