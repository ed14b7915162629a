"""Architectures of spandrel without torchvision, of which none of these takes anything."""

import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

STUBS = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


@contextmanager
def stubs():
    """Let spandrel import torchvision, which only other architectures of its use."""
    if find_spec("torchvision") is not None:
        yield
        return
    modules = {name: ModuleType(name) for name in STUBS}
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(modules[STUBS[-1]], name, None)
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in STUBS:
            sys.modules.pop(name, None)


def architecture(name, kind=None):
    """Class of an architecture of spandrel; skip where spandrel is not installed."""
    if find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed")
    with stubs():
        module = import_module(f"spandrel.architectures.{name}")
    return getattr(module, kind or name)


def perturbed(net):
    """Move parameters and running statistics away from their initial values."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        for name, buffer in net.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand(buffer.shape, generator=generator), alpha=0.5)
    return net.eval()
