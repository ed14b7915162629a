"""Sums of weighted gradients of several images, and the scores that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from faigfast.filters.filter_set import FilterIndex
from faigfast.integration.image_scores import Integral
from faigfast.integration.path import WeightPath
from faigfast.integration.quadrature import Step
from faigfast.models.state import all_finite
from faigfast.ops.score_reduction import score_reduction


class NotFinite(ValueError):
    """A gradient of an image is not finite."""

    def __init__(self, key: str, image: int) -> None:
        super().__init__(
            f"the gradient of {key!r} is not finite on the line; try a wider precision"
        )
        self.image = image


@dataclass
class Sums:
    """Σ_s w_s ∂L(γ(α_s), x_n)/∂γ of N images, step by step.

    Parameters
    ----------
    path : WeightPath
        The line.
    index : FilterIndex
        All filters.
    scored : frozenset of str
        Layers that are scored.
    losses : sequence of (float, float)
        L(θ̄) and L(θ) of N images.
    tol : float, optional
        Estimated relative L1 error of the scores at which an image is done; None: only when the
        steps end.
    signed : bool
        Score a kernel by −Σ I_i in place of Σ |I_i|.
    """

    path: WeightPath
    index: FilterIndex
    scored: frozenset[str]
    losses: Sequence[tuple[float, float]]
    tol: float | None = None
    signed: bool = False
    total: dict[str, Tensor] = field(default_factory=dict)
    coarse: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with every image open and nothing summed."""
        self.images = len(self.losses)
        self.open = list(range(self.images))
        self.done: dict[int, Integral] = {}
        self.before: Tensor | None = None
        self.errors = torch.full((self.images,), torch.nan)
        self.evaluations = 0

    def add(self, step: Step, gradients: Mapping[str, Tensor]) -> list[int]:
        """Add the open images' sums [N_open, *w] over one step's points.

        Returns
        -------
        list of int
            Those of the open images, by place among them, that go on.

        Raises
        ------
        ValueError
            If no gradient came, or one is not finite; then `image` tells whose.
        """
        if not gradients:
            raise ValueError("the loss does not depend on any weight that differs")
        self.evaluations += len(step.nodes)
        # One question to the device; sums of finite values that overflow are looked at again.
        if not bool(torch.stack([part.sum() for part in gradients.values()]).isfinite().all()):
            for key, gradient in gradients.items():
                if not all_finite(gradient):
                    raise NotFinite(key, self.open[_first_not_finite(gradient)])
        for value in self.total.values():  # those too that got nothing in this step
            value.mul_(step.keep)
        for key, gradient in gradients.items():
            _add(self.total, key, gradient, 1.0)
            if step.coarse is not None and key in self.scored:
                _add(self.coarse, key, gradient, step.coarse)
        everyone = range(len(self.open))
        if not step.compares:
            return list(everyone)
        scores = self._scores(self.total)
        self.errors = step.factor * _relative(self.before, scores)
        self.before = scores
        going = [n for n in everyone if self.tol is None or not self.errors[n] <= self.tol]
        if len(going) < len(self.open):
            self._finish(scores, self.errors, [n for n in everyone if n not in going])
            self.open = [self.open[n] for n in going]
            self.before, self.errors = scores[going], self.errors[going]
            self.total = {key: value[going] for key, value in self.total.items()}
        return going

    def integrals(self) -> list[Integral]:
        """Finish the images that are still open; give all in order."""
        if self.open:
            scores = self._scores(self.total)
            if self.coarse:
                errors = _relative(self._scores(self.coarse), scores)
            elif self.before is not None:
                errors = self.errors
            else:
                errors = torch.full((len(self.open),), torch.nan)
            self._finish(scores, errors, range(len(self.open)))
            self.open = []
        return [self.done[n] for n in range(self.images)]

    def _finish(self, scores: Tensor, errors: Tensor, places: Iterable[int]) -> None:
        change = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
        for key, value in self.total.items():
            parts = (self.path.delta[key] * value).reshape(len(value), -1)
            change += parts.sum(1, dtype=torch.float64)
        for n in places:
            self.done[self.open[n]] = Integral(
                scores[n],
                self.losses[self.open[n]],
                float(change[n]),
                float(errors[n]),
                self.evaluations,
            )

    def _scores(self, sums: Mapping[str, Tensor]) -> Tensor:
        """Score of every filter [N_open, F]; 0 where a layer is not scored."""
        images, like = len(self.open), next(iter(self.total.values()))
        parts = []
        for layer, shape in zip(self.index.layers, self.index.shapes, strict=True):
            if layer in self.scored and layer in sums:
                total = sums[layer]
                delta = self.path.delta[layer].to(total)
                if self.signed:
                    parts.append((delta * total).flatten(3).sum(3).flatten(1).neg())
                else:
                    parts.append(score_reduction(total, delta))
            else:
                parts.append(like.new_zeros(images, shape[0] * shape[1]))
        return torch.cat(parts, 1)


def summed(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add gradients by name, in order; the first ones are overwritten."""
    found: dict[str, Tensor] = {}
    for part in parts:
        for key, value in part.items():
            found[key] = found[key].add_(value) if key in found else value
    return found


def _add(sums: dict[str, Tensor], key: str, part: Tensor, factor: float) -> None:
    if key not in sums:
        sums[key] = part * factor if factor != 1 else part
    else:
        sums[key].add_(part, alpha=factor)


def _first_not_finite(gradient: Tensor) -> int:
    finite = gradient.reshape(len(gradient), -1).isfinite().all(1)
    return int((~finite).nonzero()[0])


def _relative(coarse: Tensor | None, fine: Tensor) -> Tensor:
    """|coarse − fine| / |fine| in L1, image by image [N]."""
    coarse = torch.zeros_like(fine) if coarse is None else coarse
    return (coarse - fine).abs().sum(1) / fine.abs().sum(1)
