"""Architectures of spandrel, and networks that are not as they were made."""

from importlib import import_module

import torch
from cases.spandrel import import_spandrel


def architecture(name, kind=None):
    """Class of an architecture of spandrel; skip where spandrel is not installed."""
    import_spandrel()
    return getattr(import_module(f"spandrel.architectures.{name}"), kind or name)


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
