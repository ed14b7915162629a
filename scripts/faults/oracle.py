"""The scores by their definition: a float64 loop over points, written without the package."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from torch.func import functional_call

CONVOLUTIONS = tuple(
    getattr(nn, f"Conv{transposed}{axes}d")
    for transposed in ("", "Transpose")
    for axes in (1, 2, 3)
)
PARAMETRIZED = "parametrizations.weight.original"
WEIGHTS = ("weight", PARAMETRIZED, f"{PARAMETRIZED}1", "weight_v", "weight_orig")
Loss = Callable[[Tensor, Tensor], Tensor]
Rule = tuple[np.ndarray, np.ndarray]


def squared_error(output: Tensor, gt: Tensor) -> Tensor:
    """Sum the squared differences of each image: [B, ...] to [B]."""
    return (output - gt).square().flatten(1).sum(1)


def absolute_error(output: Tensor, gt: Tensor) -> Tensor:
    """Sum the absolute differences of each image: [B, ...] to [B]."""
    return (output - gt).abs().flatten(1).sum(1)


def nodes_and_weights(rule: str, count: int) -> Rule:
    """Give the nodes [P] and weights [P] of a rule; of others 60 nodes of Gauss."""
    s, equal = np.arange(count), np.full(count, 1 / count)
    if rule == "left":
        return 1 - s / count, equal
    if rule == "right":
        return 1 - (s + 1) / count, equal
    if rule == "midpoint":
        return (s + 0.5) / count, equal
    if rule == "graded":
        t = (s + 0.5) / count
        density = 0.6 + 2.4 * t * (1 - t)
        return 0.6 * t + 0.4 * (3 * t**2 - 2 * t**3), density / density.sum()
    if rule == "trapezoid":
        return s / (count - 1), np.where((s == 0) | (s == count - 1), 0.5, 1) / (count - 1)
    x, weights = leggauss(count if rule == "gauss-legendre" else 60)
    return (x + 1) / 2, weights / 2


def first_keys(network: nn.Module) -> dict[int, str]:
    """Give the first state-dict key of every tensor, by the tensor's id."""
    first: dict[int, str] = {}
    for key, value in network.state_dict(keep_vars=True).items():
        first.setdefault(id(value), key)
    return first


def filter_keys(network: nn.Module) -> list[str]:
    """Name the weights of convolutions in state-dict order; a shared one once."""
    state = network.state_dict(keep_vars=True)
    weights = set()
    for name, layer in network.named_modules(remove_duplicate=False):
        if isinstance(layer, CONVOLUTIONS):
            keys = [f"{name}.{tail}".lstrip(".") for tail in WEIGHTS]
            shape = layer.weight.shape
            weights |= {next(k for k in keys if k in state and state[k].shape == shape)}
    return [key for key in first_keys(network).values() if key in weights]


def scores(
    networks: tuple[nn.Module, nn.Module],
    x: Tensor,
    gt: Tensor,
    loss: Loss,
    rule: Rule,
    signed: bool = False,
) -> dict[str, Tensor]:
    """Score the filters of one image x [1, ...], by layer: Σ |Δ_i Σ_s w_s ∂L(γ(α_s))/∂γ_i|."""
    baseline, target = (_copy(network).double().eval() for network in networks)
    start, end = (
        {key: net.state_dict()[key].clone() for key in first_keys(target).values()}
        for net in (baseline, target)
    )
    sums = {key: torch.zeros_like(start[key]) for key in filter_keys(target)}
    for alpha, weight in zip(*rule, strict=True):
        point = {
            key: (start[key] + float(alpha) * (value - start[key])).requires_grad_(key in sums)
            if value.is_floating_point()
            else value.clone()
            for key, value in end.items()
        }
        with torch.enable_grad():
            output = functional_call(target, point, (x.detach().double().clone(),))
            loss(output, gt.detach().double().clone()).sum().backward()
        for key, total in sums.items():
            if point[key].grad is not None:
                total += float(weight) * point[key].grad
    attributions = {key: (end[key] - start[key]) * total for key, total in sums.items()}
    return {
        key: (-part if signed else part.abs()).flatten(2).sum(2).flatten()
        for key, part in attributions.items()
    }


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network; tensors that its hooks computed lose their history."""
    attributes = [value for module in network.modules() for value in vars(module).values()]
    computed = [v for v in attributes if isinstance(v, Tensor) and not v.is_leaf]
    return copy.deepcopy(network, {id(v): v.detach().clone() for v in computed})


def relative_error(given: Tensor, expected: Tensor) -> float:
    """Relative L1 error of scores."""
    difference = (given.double() - expected).abs().sum()
    return float(difference / expected.abs().sum().clamp_min(1e-300))
