"""Point by point on a copy of the target: for networks that cannot be captured as one graph."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.engine.verify import ReferenceSample
from faigfast.integration.gradients import gradients_at
from faigfast.integration.objective import Objective, loss
from faigfast.integration.path import NetworkThen, WeightPath
from faigfast.models.state import copy_of

Place = tuple[dict[str, Any], str, str]  # dict of a module, name therein, key on the line


class OnCopy:
    """Evaluates L(γ(α), x) and ∂L/∂γ as `gradients_at`, with less Python around the network.

    `gradients_at` swaps tensors into the user's module and looks at every call of a torch function.
    A copy needs neither in most networks. The first gradients are compared with those of
    `gradients_at`, which serves all points if they differ.
    """

    def __init__(self) -> None:
        self._network: nn.Module | None = None
        self._places: list[Place] = []
        self._trusted: bool | None = None  # None before the first comparison

    def __call__(
        self, path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See `gradients_at`; only the losses are defined where gradients are disabled."""
        # Losses at the ends come before the first gradient, with which the copy is compared.
        if not self._trusted and (self._trusted is False or not torch.is_grad_enabled()):
            return gradients_at(path, alpha, x, gt, objective)
        try:
            value, gradients = self._on_copy(path, alpha, x, gt, objective)
        except Exception:  # `gradients_at` serves the network, or says what is wrong
            self._trusted = False
            return gradients_at(path, alpha, x, gt, objective)
        if self._trusted is None and gradients:
            reference = ReferenceSample.of(path, alpha, x, gt, objective)
            rows = {key: gradient[None] for key, gradient in gradients.items()}
            self._trusted = not reference.differs(1.0, value.reshape(1, 1), rows)
            if not self._trusted:
                return gradients_at(path, alpha, x, gt, objective)
        return value, gradients

    def _on_copy(
        self, path: WeightPath, alpha: float, x: Tensor, gt: Tensor, objective: Objective
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self._network is None:
            network = copy_of(path.module)
            self._places = list(_places(path, network))
            self._network = NetworkThen(network)
        point = path.at(alpha)
        # The network may write on what does not move.
        fixed = {k: v.clone() for k, v in {**path.fixed, **point}.items() if k not in path.delta}
        values = {**point, **fixed}
        for place, name, key in self._places:
            place[name] = values[key]
        # Checkpointed parts have gradients only if their input has one.
        x = x.clone().requires_grad_(torch.is_grad_enabled()).clone()
        value = self._network(x, lambda output: loss(objective, output, gt))
        if value.requires_grad:
            value.backward()
        gradients = {key: point[key].grad for key in path.delta}
        return value.detach(), {k: v for k, v in gradients.items() if v is not None}


def _places(path: WeightPath, network: nn.Module) -> Iterator[Place]:
    """Say where a module keeps each tensor of the line."""
    on_line = {**path.fixed, **path.start}
    for prefix, module in network.named_modules():
        for place in (module._parameters, module._buffers):
            for name, value in place.items():
                key = f"{prefix}.{name}".lstrip(".")
                key = path.shared.get(key, key)
                if value is not None and key in on_line:
                    yield place, name, key
