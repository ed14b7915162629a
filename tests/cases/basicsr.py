"""Helpers to write BasicSR's networks out by hand."""

import torch
from torch.nn import functional as F

RGB = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)


def shapes(net):
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


def conv(x, state, name):
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def shaken(net):
    """Move every parameter away from an initialisation with many zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return net.eval()


def weights(**kernels):
    """Shapes of the weights and biases of convolutions, from the weights' names and shapes."""
    tensors = {}
    for name, shape in kernels.items():
        name = name.replace("__", ".")
        tensors |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return tensors
