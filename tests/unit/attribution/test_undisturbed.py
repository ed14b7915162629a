"""Results do not depend on the caller's state; models, images and generators stay unchanged."""

import functools
import math
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from cases.hard_networks import Body
from cases.networks import images, kinked, pair, same, untouched
from torch import nn

from faigfast import attribute
from faigfast.attribution import attributor as attribution
from faigfast.backend.cpu import extension as _extension
from faigfast.integration.cautions import without_cautions


class Merges(nn.Conv2d):
    """Changes its weights when its mode changes, as adapters do."""

    def train(self, mode=True):
        if mode != self.training:
            self.weight.data.add_(-0.1 if mode else 0.1)
        return super().train(mode)


def test_modules_that_do_more_when_their_mode_changes_are_as_before():
    nets = pair(lambda: nn.Sequential(Merges(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)))
    for net in nets:
        net.train()
    before = [net[0].weight.clone() for net in nets]
    attribute(*nets, images(1), steps=1)
    assert all(net.training and net[0].training for net in nets)
    for net, weight in zip(nets, before, strict=True):
        torch.testing.assert_close(net[0].weight, weight)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
def test_scripted_parts():
    def scripted():
        inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Sigmoid()))
        return nn.Sequential(inner, nn.Tanh(), nn.Conv2d(4, 3, 1))

    nets = pair(scripted)
    expected = attribute(*nets, images(1), steps=2, backend="reference").scores()
    scores = attribute(*nets, images(1), steps=2).scores()
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        torch.enable_grad,
        lambda: torch.random.fork_rng([]),
    ],
)
@pytest.mark.parametrize(
    "objective", ["squared_error", lambda o, g: (o * g).flatten(1).sum(1).square()]
)
def test_the_callers_context_does_not_reach_inside(context, objective):
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    expected = attribute(baseline, target, batch, objective=objective)
    with context(), untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch, objective=objective)
    assert same(result, expected)
    with context():  # make images and networks inside
        inner = tuple(t.clone() for t in batch)
        nets = pair(kinked, torch.float32)
        result = attribute(*nets, inner, objective=objective)
    assert torch.equal(result.scores(), expected.scores())


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_the_default_dtype_does_not_matter(default):
    baseline, target = pair(kinked, torch.float32)
    batch = images(dtype=torch.float32)
    expected = attribute(baseline, target, batch, rule="gauss-kronrod", steps=3)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        result = attribute(baseline, target, batch, rule="gauss-kronrod", steps=3)
    finally:
        torch.set_default_dtype(before)
    assert same(result, expected)
    assert torch.equal(result.error, expected.error)


def test_models_are_untouched_in_every_mode():
    baseline, target = pair(lambda: nn.Sequential(kinked(), nn.Dropout(0.5), nn.BatchNorm2d(3)))
    batch = images()
    expected = attribute(baseline, target, batch)
    baseline.train()
    target.train()
    target[2].eval()
    for net in (baseline, target):
        net[0][0].weight.grad = torch.ones_like(net[0][0].weight)
        net[0][0].bias.requires_grad_(False)
        net.register_forward_hook(lambda *_: None)
    with untouched(baseline, target, data=batch):
        result = attribute(baseline, target, batch)
    assert same(result, expected)


def test_images_that_require_gradients_and_odd_layouts():
    baseline, target = pair(kinked)
    x, gt = images(2, size=(6, 6))
    expected = attribute(baseline, target, (x, gt))
    wide_x, wide_gt = torch.zeros(2, 3, 12, 12).double(), torch.zeros(4, 3, 6, 6).double()
    wide_x[..., ::2, ::2], wide_gt[1::2] = x, gt
    views = [
        (x.clone().requires_grad_(), gt.clone().requires_grad_()),
        (x.contiguous(memory_format=torch.channels_last), gt),
        (wide_x[..., ::2, ::2], wide_gt[1::2]),
        (x.transpose(2, 3).contiguous().transpose(2, 3), gt),
    ]
    for batch in views:
        with untouched(baseline, target, data=batch):
            result = attribute(baseline, target, batch)
        torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-12, atol=1e-14)
    expanded = attribute(
        baseline, target, (x[:1].expand(2, -1, -1, -1), gt[:1].expand(2, -1, -1, -1))
    )
    torch.testing.assert_close(expanded.scores(), expected.scores()[[0, 0]], rtol=1e-12, atol=1e-14)


def test_both_networks_may_share_parts_that_do_not_move():
    baseline, target = pair(kinked)
    baseline[2] = target[2]
    with untouched(baseline, target):
        result = attribute(baseline, target, images(), steps=200)
    assert not result.scores()[:, 12:].any() and (result.scores()[:, :12] > 0).all()
    assert result.completeness.max() < 1e-2


def test_a_difference_in_a_bias_alone_moves_the_loss_and_scores_nothing():
    baseline, target = pair(lambda: nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        baseline.weight.copy_(target.weight)
    result = attribute(baseline, target, images(), steps=1)
    assert not result.scores().any() and result.completeness.max() < 1e-13


def test_an_error_estimate_of_nothing_is_not_a_number():
    baseline, target = pair(lambda: nn.Conv2d(3, 3, 1))
    with torch.no_grad():
        baseline.weight.copy_(target.weight)
    result = attribute(baseline, target, images(), rule="gauss-kronrod", steps=3)
    assert all(math.isnan(value) or value == 0 for value in result.error.flatten().tolist())


def test_a_loss_that_does_not_change_makes_the_ratio_meaningless_not_an_error():
    baseline, target = pair(lambda: nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        baseline.weight.fill_(-1)
        target.weight.fill_(1)
    x = torch.ones(1, 1, 2, 2).double()
    result = attribute(baseline, target, (x, torch.zeros_like(x)), steps=2)
    assert result.losses.tolist() == [[[4.0, 4.0]]]
    assert not result.completeness.isfinite().all() or result.completeness.item() < 1e-12


@functools.lru_cache
def ramp(n):
    return torch.linspace(0, 1, n, dtype=torch.float64)


class Remembered(Body):
    def between(self, y):
        return y * ramp(y.shape[-1])


class Cached(Body):
    """Caches a table for each size in a dict."""

    def __init__(self):
        super().__init__()
        self.tables = {}

    def between(self, y):
        n = y.shape[-1]
        if n not in self.tables:
            self.tables[n] = torch.linspace(0, 1, n, dtype=y.dtype)
        return y * self.tables[n]


class LazyBuffer(Body):
    """Registers a table as a buffer at the first call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", None)
        self.scale = None

    def between(self, y):
        if self.table is None or self.table.shape[0] != y.shape[-1]:
            self.table = torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)
        self.scale = y.detach().abs().mean()
        return y * self.table


class Listed(Body):
    """Keeps its features in a list, a dict and an object."""

    def __init__(self):
        super().__init__()
        self.seen, self.last, self.more = [], {}, SimpleNamespace(inner={})

    def between(self, y):
        self.seen = [*self.seen, y][-1:]
        self.last["y"] = self.more.inner["y"] = y
        return y


@pytest.mark.parametrize("make", [Remembered, Cached, LazyBuffer, Listed])
def test_what_a_network_caches_has_values(make):
    ramp.cache_clear()
    nets = pair(make)
    data = [images(2, size=size) for size in ((6, 5), (8, 7), (70, 71))]
    expected = attribute(*pair(make), data[:2], steps=3, backend="reference")
    result = attribute(*nets, data[:2], steps=3, backend="torch")
    torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)
    attribute(*nets, data[2], steps=1, backend="torch")  # a corner of the image is compared
    assert not without_cautions(result.notes)
    for x, _ in data:
        assert type(nets[1](x)) is torch.Tensor and nets[1](x).detach().numpy().shape == x.shape
    if make is Listed:
        attribute(*nets, data[0], steps=3, backend="torch")
        kept = [*nets[1].seen, *nets[1].last.values(), *nets[1].more.inner.values()]
        assert [type(value) for value in kept] == [torch.Tensor] * 3


def test_tensors_written_in_place_and_first_set_inside_are_as_before():
    class Counts(Body):
        def __init__(self):
            super().__init__()
            self.calls, self.left = torch.zeros(()), None
            self.register_buffer("table", None)

        def between(self, y):
            self.calls += 1
            self.left = self.table = y.detach()
            return y

    nets = pair(Counts)
    calls = [net.calls for net in nets]
    for backend in ("reference", "torch"):
        with untouched(*nets):
            attribute(*nets, images(), steps=2, backend=backend)
        for net, counter in zip(nets, calls, strict=True):
            assert net.calls is counter and counter == 0
            assert net.left is None and net.table is None
            assert list(net.state_dict()) == list(pair(Counts)[0].state_dict())


def test_networks_that_compare_equal_are_two():
    class Equal(Body):
        def __eq__(self, other):
            return isinstance(other, Equal)

        def __hash__(self):
            return 1

        def between(self, y):
            return y * self.gain

    nets, others = pair(Equal), pair(Equal, seed=1)
    for net, gain in zip((*nets, *others), (1.0, 1.0, 2.0, 2.0), strict=True):
        net.gain = gain
        net.train()
    for two in (nets, others):
        expected = attribute(*two, images(), steps=2, backend="reference")
        with untouched(*two):
            result = attribute(*two, images(), steps=2)
        torch.testing.assert_close(result.scores(), expected.scores(), rtol=1e-11, atol=1e-16)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_threads_may_share_networks(backend):
    nets, batch = pair(kinked), images()
    expected = attribute(*nets, batch, steps=10, backend=backend)
    attribution._graphs.pop(nets[1])
    start = threading.Barrier(3)

    def run(_):
        start.wait()
        return attribute(*nets, batch, steps=10, backend=backend)

    with untouched(*nets), ThreadPoolExecutor(3) as pool:
        results = list(pool.map(run, range(3)))
    assert all(same(result, expected) for result in results)


def flushes():
    """Whether this thread and torch's worker threads flush denormal numbers to 0."""
    flushed = torch.full((1 << 20,), 1e-40) * 1 == 0  # large enough for all threads
    assert flushed.all() or not flushed.any()
    return bool(flushed.all())


@pytest.mark.skipif(_extension.module is None, reason="torch alone has it for one thread only")
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_denormal_numbers_are_zero_inside_alone(backend, before, fails, request):
    request.addfinalizer(functools.partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    outer = _extension.module.flush_denormals(2)
    if not before:
        _extension.module.set_control_words(outer)
    seen = []

    def objective(y, gt):
        seen.append(flushes())
        if fails:
            raise ValueError("no")
        return (y - gt).square().flatten(1).sum(1)

    try:
        with pytest.raises(ValueError, match="no") if fails else nullcontext():
            attribute(*pair(kinked), images(1), steps=2, backend=backend, objective=objective)
        assert seen and all(seen)
        assert flushes() == before
    finally:
        _extension.module.set_control_words(outer)


def test_the_reference_computes_with_denormal_numbers():
    seen = []

    def objective(y, gt):
        seen.append(flushes())
        return (y - gt).square().flatten(1).sum(1)

    attribute(*pair(kinked), images(1), steps=2, backend="reference", objective=objective)
    assert seen and not any(seen)


@pytest.mark.skipif(_extension.module is None, reason="torch alone keeps nothing")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_memory_that_torch_freed_goes_back_at_the_end_of_a_block():
    """In a process of its own, which has a small heap."""
    lines = """
import re, torch
from faigfast import Attributor
def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) >> 10
def net():
    layers = (torch.nn.Sequential(torch.nn.Conv2d(64, 64, 1), torch.nn.Tanh()) for _ in range(8))
    return torch.nn.Sequential(torch.nn.Conv2d(3, 64, 1), *layers, torch.nn.Conv2d(64, 3, 1))
nets, x = (net(), net()), torch.rand(1, 3, 192, 192)
with Attributor(*nets, steps=2, backend="torch") as attributor:
    attributor((x, x))
    inside = held()
print(inside, held())
"""
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    inside, after = map(int, run.stdout.split())
    assert after < inside - 50
