"""Tiny networks, images, the authors' loop, and a check that arguments stay unchanged."""

import random
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from faigfast import attribute

CONVOLUTIONS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def smooth(channels=3, width=4):
    """Two convolutions around tanh: smooth in its weights."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(width, channels, 3, padding=1),
    )


def kinked(channels=3, width=4):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, channels, 3, padding=1),
    )


def randomise(net, seed):
    """Draw every parameter and floating buffer at random, with positive variances."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator).to(value)
                gain = 1.4 * value[0].numel() ** -0.5 if value.ndim > 2 else 0.2
                value.copy_(0.5 + noise.abs() if key.endswith("running_var") else gain * noise)
    return net


def pair(make=smooth, dtype=torch.float64, seed=0):
    """Baseline and target of one architecture, in eval mode."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return tuple(randomise(make().to(dtype), 2 * seed + i).eval() for i in (1, 2))


def images(n=2, channels=3, size=(6, 5), dtype=torch.float64, seed=0):
    """Random (x, gt), each [n, channels, *size]."""
    generator = torch.Generator().manual_seed(1000 + seed)
    shape = (n, channels, *size)
    return tuple(torch.rand(shape, generator=generator, dtype=dtype) for _ in range(2))


def authors_scores(make, baseline, target, x, gt, steps=100):
    """FAIG [F] of one image, from two state dicts, by the published loop.

    For every point 1 - s/S a new network loads the interpolated state dict and runs one backward of
    the summed squared error. The score of a kernel is the sum of |gradient · Δ / S| over it.
    """
    grads = {}
    for s in range(steps):
        share = s / steps
        net = make().to(x.dtype)
        net.load_state_dict(
            {
                key: share * baseline[key] + (1 - share) * value
                if value.is_floating_point()
                else value
                for key, value in target.items()
            }
        )
        net.eval()
        nn.MSELoss(reduction="sum")(net(x), gt).backward()
        for name, layer in net.named_modules():
            if isinstance(layer, CONVOLUTIONS):
                key = f"{name}.weight" if name else "weight"
                grads[key] = grads.get(key, 0) + layer.weight.grad
    kernels = []
    for key, gradient in grads.items():
        change = (target[key] - baseline[key]) * gradient / steps
        kernels.append(change.abs().flatten(2).sum(2).flatten())
    return torch.cat(kernels)


def _inside(model):
    record = {}
    for name, module in model.named_modules():
        record[name, "mode"] = module.training
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            record[name, kind] = dict(getattr(module, kind))
        record[name, "attributes"] = set(vars(module))
        for key, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                record[name, key] = value.detach().clone()
        for key, value in module._parameters.items():
            if value is not None:
                record[name, key, "is"] = id(value)
                record[name, key] = value.detach().clone()
                record[name, key, "requires_grad"] = value.requires_grad
                grad = value.grad
                record[name, key, "grad"] = None if grad is None else grad.clone()
        for key, value in module._buffers.items():
            if value is not None:
                record[name, key, "is"] = id(value)
                record[name, key] = value.detach().clone()
    return record


def _same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.device.type == "meta" or a.dtype != b.dtype or a.shape != b.shape:
            return (a.device, a.dtype, a.shape) == (b.device, b.dtype, b.shape)
        return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    return type(a) is type(b) and a == b


@contextmanager
def untouched(*models, data=()):
    """Assert on exit that models, tensors and random generators are unchanged."""
    models_before = [_inside(model) for model in models]
    data_before = [value.detach().clone() for value in data]
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = np.random.get_state()
    flags = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.get_num_threads()
    yield
    for i, (model, before) in enumerate(zip(models, models_before, strict=True)):
        after = _inside(model)
        assert after.keys() == before.keys()
        for key, value in before.items():
            assert _same(value, after[key]), f"model {i}: {key} changed"
    for i, (value, before) in enumerate(zip(data, data_before, strict=True)):
        assert _same(before, value.detach()) and value.grad is None, f"data {i} changed"
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert random.getstate() == python_state
    numpy_after = np.random.get_state()
    assert np.array_equal(numpy_after[1], numpy_state[1]) and numpy_after[2:] == numpy_state[2:]
    assert flags == (
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
    )


def same(a, b):
    """Whether two results are equal to the bit."""
    return (
        a.degradations == b.degradations
        and all(torch.equal(a.scores(d), b.scores(d)) for d in a.degradations)
        and torch.equal(a.completeness, b.completeness)
        and torch.equal(a.losses, b.losses)
        and a.setting == b.setting
    )


def refused(kind, words, *models, batch=None, data=(), **options):
    """Assert that `attribute` refuses with one sentence that has these words, and return it."""
    watched = [model for model in models if isinstance(model, nn.Module)]
    for model in watched:
        model.train()
    with untouched(*watched, data=data), pytest.raises(kind) as caught:
        attribute(*models, images() if batch is None else batch, **options)
    assert type(caught.value) in (ValueError, TypeError, FileNotFoundError)
    message = str(caught.value)
    assert re.search(words, message), message
    assert "\n" not in message
    return message


def completeness(baseline, target, batch, steps=40, **options):
    """Worst completeness over the images; checks that the call leaves all arguments unchanged."""
    data = [t for t in batch if isinstance(t, torch.Tensor)]
    with untouched(baseline, target, data=data):
        result = attribute(baseline, target, batch, rule="gauss-legendre", steps=steps, **options)
    assert result.scores().isfinite().all() and (result.scores() >= 0).all()
    return result.completeness.max().item()
