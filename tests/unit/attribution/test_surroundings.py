"""What surrounds a call: threads that draw random numbers, compiled callers, little memory."""

import subprocess
import sys
import threading

import pytest
import torch
from cases.networks import images, pair
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import faigfast


def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))


@pytest.fixture
def drawing():
    """Run a thread that draws random numbers all the time; gives what it has drawn."""
    drawn, stop = [], threading.Event()

    def draw():
        while not stop.is_set():
            drawn.append(float(torch.rand(())))

    thread = threading.Thread(target=draw)
    thread.start()
    yield drawn
    stop.set()
    thread.join()


def test_a_thread_that_draws_is_neither_accused_nor_rewound(drawing):
    nets, batch = pair(small), images(1)  # which seeds torch
    drawing.clear()
    for _ in range(5):
        faigfast.attribute(*nets, batch, steps=2)
    drawn = list(drawing)
    assert len(drawn) > 100 and len(set(drawn)) > 0.995 * len(drawn)


def test_a_network_that_draws_is_refused_beside_a_thread_that_draws(drawing):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x):
            return self.net(x) + 1e-3 * torch.rand_like(x)

    with pytest.raises(ValueError, match="draw random numbers"):
        faigfast.attribute(*pair(Noisy), images(1), steps=2)


def test_torch_compile_leaves_a_call_alone():
    nets, batch = pair(small), images(1)
    expected = faigfast.attribute(*nets, batch, steps=2)
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    attributor = faigfast.Attributor(*nets, steps=2)

    @torch.compile(backend=counter)
    def compiled(x):
        twice = 2 * x
        result = faigfast.attribute(*nets, batch, steps=2)
        return twice + 1, result, attributor(batch)

    _, one, other = compiled(batch[0])
    assert torch.equal(one.scores(), expected.scores())
    assert torch.equal(other.scores(), expected.scores())
    assert counter.frame_count <= 2  # before and after the calls


class Broken:
    """A terminal that has gone."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [Broken(), None])
def test_a_terminal_that_has_gone_stops_nothing(monkeypatch, stderr):
    nets, batch = pair(small), images(1)
    options = {"steps": 2, "progress": True}
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stderr)
        result = faigfast.attribute(*nets, batch, **options)
    thread = threading.Thread(target=lambda: faigfast.attribute(*nets, batch, **options))
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and result.images == 1


def test_a_default_device_of_the_caller_changes_nothing():
    nets, batch = pair(small), images(1)
    expected = faigfast.attribute(*nets, batch, steps=2)
    with torch.device("meta"):
        result = faigfast.attribute(*nets, batch, steps=2)
    assert torch.equal(result.scores(), expected.scores()) and int(result.points.max()) == 2


def test_transforms_and_fake_tensors_are_refused():
    nets, (x, gt) = pair(small), images(1)
    with pytest.raises(ValueError, match=r"inside a transform of torch\.func"):
        torch.vmap(lambda one: faigfast.attribute(*nets, (one, gt), steps=2).scores())(x[None])
    with FakeTensorMode(), pytest.raises(ValueError, match="inside a FakeTensorMode"):
        faigfast.attribute(*nets, (x, gt), steps=2)
    with FakeTensorMode():
        fake = torch.empty(x.shape, dtype=x.dtype)
    with pytest.raises(ValueError, match="x is a fake tensor"):
        faigfast.attribute(*nets, (fake, gt), steps=2)
    with pytest.raises(ValueError, match="x is a nested tensor"):
        faigfast.attribute(*nets, (torch.nested.nested_tensor([x[0]]), gt), steps=2)


def test_networks_with_tensors_without_dense_values_are_refused():
    nets = pair(small)
    nets[1].register_buffer("odd", torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match=r"model_b holds 'odd', a tensor of torch\.sparse_coo"):
        faigfast.attribute(*nets, images(1), steps=2)
    with pytest.raises(TypeError, match="whose __init__ was not called"):
        faigfast.attribute(nn.Module.__new__(nn.Module), nets[0], images(1))


LITTLE = """
import resource, sys, torch, faigfast
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
torch.set_num_threads(1)
def net():
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1))
nets, x = (net(), net()), torch.rand(1, 3, 512, 512)
small = x[..., :32, :32]
faigfast.attribute(*nets, (small, small), steps=2, backend=sys.argv[1])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 20 * 2**20,) * 2)
try:
    faigfast.attribute(*nets, (x, x), steps=2, backend=sys.argv[1], memory=2**31)
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits memory")
@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_memory_that_runs_out_is_named_with_a_budget(backend):
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, backend], capture_output=True, text=True, timeout=120
    )
    assert "memory ran out at degradation 'lq', image 0 of x [3, 512, 512]" in done.stdout
    assert f"expected memory={2**30} or less" in done.stdout and not done.stderr
