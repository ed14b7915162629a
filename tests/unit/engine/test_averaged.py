"""The rule "averaged": every backend beside the literal loop, and what averaging gains."""

import copy
from itertools import product

import pytest
import torch
from cases.cpu_kernels import poisoned_results
from cases.networks import images, kinked, pair, smooth
from torch import nn
from torch.utils.checkpoint import checkpoint

from faigfast import attribute, backends
from faigfast.engine import chunking
from faigfast.engine.memory import Chunk
from faigfast.engine.parts import _windows
from faigfast.zoo.pairs import shipped_pair


class Residual(nn.Module):
    """Chains, a residual, a shuffle and an activation after a sum."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.up = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2), nn.LeakyReLU(0.1)
        )
        self.last = nn.Conv2d(3, 3, 2, stride=2)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(self.up(torch.relu(x + self.body(x))))


class Dense(nn.Module):
    """Concatenations of a dense block."""

    def __init__(self):
        super().__init__()
        widths = zip((3, 7, 11), (4, 4, 3), strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in widths)

    def forward(self, x):
        one = nn.functional.leaky_relu(self.convs[0](x), 0.2)
        two = nn.functional.leaky_relu(self.convs[1](torch.cat([x, one], 1)), 0.2)
        return self.convs[2](torch.cat([x, one, two], 1))


def prelus():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.ConvTranspose2d(4, 4, 3, padding=1),
        nn.PReLU(), nn.Conv2d(4, 3, 1),
    )  # fmt: skip


NETWORKS = {"kinked": kinked, "residual": Residual, "dense": Dense, "prelu": prelus}


# Images and points: whose sums are kept together, or apart in three phases.
COUNTS = [(2, 5), (1, 9), (2, 6)]


@pytest.fixture(scope="module", params=[(n, *c) for n in NETWORKS for c in COUNTS], ids=str)
def case(request):
    name, count, steps = request.param
    networks = pair(NETWORKS[name])
    x, gt = images(count, size=(8, 6))
    expected = attribute(*networks, (x, gt), rule="averaged", steps=steps, backend="reference")
    return networks, x, gt, expected


@pytest.mark.parametrize("memory", [None, 400_000])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_backends_agree_with_the_loop(case, backend, memory):
    if backend == "cpu" and not backends()["cpu"].available:
        pytest.skip("the extension is missing")
    networks, x, gt, expected = case
    dtype = torch.float32 if backend == "cpu" else torch.float64
    networks = [net.to(dtype) for net in networks]
    with poisoned_results():
        result = attribute(
            *networks, (x.to(dtype), gt.to(dtype)), rule="averaged", steps=expected.evaluations,
            backend=backend, memory=memory,
        )  # fmt: skip
    for net in networks:
        net.double()
    close = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(result.scores().double(), expected.scores(), **close)
    torch.testing.assert_close(result.error, expected.error, rtol=1e-2, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(
        result.line[..., 1].double(), expected.line[..., 1], rtol=1e-5, atol=1e-6
    )


def test_windows_of_points_read_their_neighbours(monkeypatch):
    """Three points at once: one of its own, and its two neighbours."""
    networks, (x, gt) = pair(Residual), images(1, size=(8, 6))
    for steps in (9, 10):
        options = {"rule": "averaged", "steps": steps, "backend": "torch"}
        together = attribute(*networks, (x, gt), **options)
        for most in (3, 6):
            monkeypatch.setattr(chunking, "MOST_AVERAGED", most)
            in_windows = attribute(*networks, (x, gt), **options)
            torch.testing.assert_close(in_windows.scores(), together.scores())
            torch.testing.assert_close(in_windows.error, together.error, equal_nan=True)
            assert in_windows.line.shape == together.line.shape == (1, 1, steps, 2)
            assert in_windows.evaluations == steps
        monkeypatch.undo()


@pytest.mark.parametrize("context", [True, False])
@pytest.mark.parametrize("total", [1, 2, 3, 9, 10, 12, 24, 40])
def test_windows_hold_neighbours_and_whole_phases(total, context):
    for points, phases, rounds in product((1, 2, 3, 4, 6, 7, 9, 16, 27), (1, 3), (1, 3)):
        least = 6 if context else 3
        if (phases * rounds > 1 and total % 3) or (phases == 3 and (rounds == 3 or points < least)):
            continue
        windows = list(_windows(total, Chunk(points, 1), phases, rounds, context))
        assert [n for _, start, stop, _ in windows for n in range(start, stop)] == [*range(total)]
        for low, start, stop, high in windows:
            assert high - low <= max(points, 3 if context else 1)
            assert low % phases == 0 and (high - low) % phases == 0
            assert rounds == 1 or stop - start == 1
            if context:
                assert (start == 0 or low < start) and (stop == total or high > stop)


def test_more_points_only_for_images_that_need_them():
    networks, (x, gt) = pair(kinked), images(6, size=(10, 10))
    result = attribute(*networks, (x, gt))
    assert set(result.points.unique().tolist()) <= {15, 39}
    fixed = {n: attribute(*networks, (x, gt), rule="averaged", steps=n) for n in (15, 24)}
    for n, points in enumerate(result.points[0].tolist()):
        last = fixed[24 if points == 39 else 15]
        torch.testing.assert_close(result.scores()[n], last.scores()[n])
        assert result.error[0, n] == pytest.approx(last.error[0, n])
    reference = attribute(*networks, (x, gt), backend="reference")
    assert reference.points.tolist() == result.points.tolist()
    torch.testing.assert_close(reference.scores(), result.scores())


@pytest.mark.parametrize("objective", ["squared_error", "absolute_error"])
def test_networks_without_kinks_begin_with_fewer_points(objective):
    networks, (x, gt) = pair(smooth), images(2)
    results = [
        attribute(*networks, (x, gt), backend=backend, objective=objective)
        for backend in ("auto", "reference")
    ]
    for result in results:
        assert set(result.points[0].tolist()) <= {6, 6 + 15, 6 + 15 + 24}
    assert results[0].points.tolist() == results[1].points.tolist()
    torch.testing.assert_close(results[0].scores(), results[1].scores())


@pytest.mark.parametrize("kink", [nn.ReLU6(), nn.Hardswish(), nn.MaxPool2d(1), nn.PReLU(4)])
def test_kinks_that_are_not_averaged_count(kink):
    networks = pair(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), copy.deepcopy(kink)))
    x = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    gt = torch.rand(1, 4, 4, 4, dtype=torch.float64)
    for backend in ("auto", "reference"):
        assert attribute(*networks, (x, gt), backend=backend).evaluations in (15, 39)


def test_a_switch_anywhere_on_the_line_is_exact():
    """L = Σ relu(γ x) with one weight: the integral of its slope is known."""
    nets = [nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU()).double() for _ in range(2)]
    for net, value in zip(nets, (-0.3, 0.7), strict=True):
        net[0].weight.data.fill_(value)
    x, gt = torch.full((1, 1, 2, 2), 1.5, dtype=torch.float64), torch.zeros(1, 1, 2, 2).double()
    result = attribute(
        *nets, (x, gt), rule="averaged", steps=4,
        objective=lambda output, gt: output.flatten(1).sum(1),
    )  # fmt: skip
    assert result.scores().item() == pytest.approx(0.7 * 1.5 * 4, rel=1e-12)
    assert result.completeness.item() < 1e-12


def test_without_kinks_it_is_the_graded_rule():
    networks, (x, gt) = pair(smooth), images(1)
    averaged, graded = (
        attribute(*networks, (x, gt), rule=rule, steps=4) for rule in ("averaged", "graded")
    )
    torch.testing.assert_close(averaged.scores(), graded.scores(), rtol=1e-12, atol=0)


class Checkpointed(nn.Module):
    """Runs point by point, and computes its values again in backward."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(kinked() for _ in range(2))

    def forward(self, x):
        for part in self.parts:
            x = nn.functional.relu(checkpoint(part, x, use_reentrant=False))
        return x + 0 * x.max().item()


class Direct(Checkpointed):
    def forward(self, x):
        for part in self.parts:
            x = nn.functional.relu(part(x))
        return x


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_values_that_a_checkpoint_computes_again(backend):
    x, gt = images(1)
    expected = attribute(*pair(Direct), (x, gt), rule="averaged", steps=4, backend="torch")
    result = attribute(*pair(Checkpointed), (x, gt), rule="averaged", steps=4, backend=backend)
    torch.testing.assert_close(result.scores(), expected.scores())


def test_it_refines_to_a_tolerance():
    networks, (x, gt) = pair(kinked), images(2, size=(12, 12))
    exact = attribute(*networks, (x, gt), rule="averaged", steps=400)
    result = attribute(*networks, (x, gt), rule="averaged", tol=0.01)
    errors = (result.scores() - exact.scores()).abs().sum(1) / exact.scores().abs().sum(1)
    assert (errors <= result.error[0]).all() and (result.error <= 0.01).all()


def test_trained_kinks_need_fewer_points_and_barely_feel_rounding():
    networks = shipped_pair("srcnn-24x4-x2")
    x, gt = images(1, size=(16, 16), dtype=torch.float32)
    gt = torch.nn.functional.interpolate(gt, scale_factor=2, mode="bicubic")
    exact = attribute(*networks, (x, gt), rule="averaged", steps=120).scores().double()

    def error(scores):
        return float((scores.double() - exact).abs().sum() / exact.abs().sum())

    averaged, graded = (
        attribute(*networks, (x, gt), rule=rule, steps=8).scores()
        for rule in ("averaged", "graded")
    )
    assert error(averaged) < 0.6 * error(graded)
    wide = [net.double() for net in networks]
    loop = attribute(
        *wide, (x.double(), gt.double()), rule="averaged", steps=8, backend="reference"
    )
    difference = (averaged.double() - loop.scores()).abs().sum() / loop.scores().abs().sum()
    assert difference < 2e-5


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_estimates_without_kinks_are_close_to_the_errors(backend):
    networks, batch = pair(smooth), images(2, size=(8, 6))
    options = {"rule": "averaged", "backend": backend}
    exact = attribute(*networks, batch, steps=96, **options).scores()
    estimated = attribute(*networks, batch, steps=9, **options)
    errors = (estimated.scores() - exact).abs().sum(1) / exact.sum(1)
    ratios = estimated.error[0] / errors
    assert (ratios > 0.9).all() and (ratios < 1.5).all(), ratios
