"""Activations that a path operation applies to its own result, and their gradients."""

import torch
from torch import Tensor
from torch.nn import functional as F

aten = torch.ops.aten

# Name → whether the gradient needs the activation's input; the other gradients need the output.
ACTIVATIONS = {
    "none": False,
    "relu": False,
    "leaky_relu": False,
    "sigmoid": False,
    "prelu": True,
    "gelu": True,
    "gelu_tanh": True,
    "silu": True,
}


def activate(z: Tensor, name: str, slope: float | Tensor) -> Tensor:
    """Apply an activation; it overwrites z unless its gradient needs a copy.

    Parameters
    ----------
    z : Tensor
        [M, C, ...].
    name : str
        One of `ACTIVATIONS`.
    slope : float or Tensor
        Positive slope of leaky_relu; [C] or [1] of prelu.
    """
    if name == "relu":
        return z.relu_()
    if name == "leaky_relu":
        return aten.leaky_relu_(z, slope)
    if name == "sigmoid":
        return z.sigmoid_()
    if name == "prelu":
        return torch.where(z > 0, z, z * per_channel(slope, z))
    if name in ("gelu", "gelu_tanh"):
        return F.gelu(z, approximate="tanh" if name == "gelu_tanh" else "none")
    return F.silu(z) if name == "silu" else z


def activation_backward(gy: Tensor, saved: Tensor, name: str, slope: float | Tensor) -> Tensor:
    """Gradient at the activation's input, from the output or input that `ACTIVATIONS` names."""
    if name == "relu":
        return aten.threshold_backward(gy, saved, 0)
    if name == "leaky_relu":
        return aten.leaky_relu_backward(gy, saved, slope, True)
    if name == "sigmoid":
        return aten.sigmoid_backward(gy, saved)
    if name == "prelu":
        return torch.where(saved > 0, gy, gy * per_channel(slope, saved))
    if name in ("gelu", "gelu_tanh"):
        approximate = "tanh" if name == "gelu_tanh" else "none"
        return aten.gelu_backward(gy, saved, approximate=approximate)
    return aten.silu_backward(gy, saved) if name == "silu" else gy


def per_channel(slope: float | Tensor, z: Tensor) -> Tensor:
    """Shape a slope [C] or [1] so that it broadcasts over z [M, C, ...]."""
    assert isinstance(slope, Tensor)
    return slope.view(-1, *[1] * (z.ndim - 2))
