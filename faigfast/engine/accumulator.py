"""Sums of weighted gradients of several images, and the scores that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from faigfast.engine.points import Points
from faigfast.filters.index import FilterIndex
from faigfast.integration.image_scores import NO_GRADIENT, ImageScores
from faigfast.integration.line_losses import loss_table
from faigfast.integration.path import WeightPath
from faigfast.integration.phases import ENOUGH, authors_error, relative, score_error
from faigfast.integration.quadrature import Step
from faigfast.models.state import all_finite
from faigfast.ops.score_reduction import score_reduction


class NonFiniteGradient(ValueError):
    """A gradient of an image is not finite."""

    def __init__(self, key: str, image: int) -> None:
        super().__init__(
            f"the gradient of {key!r} is not finite on the line; try a wider precision"
        )
        self.image = image


@dataclass
class GradientAccumulator:
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
        """Begin with every image open and nothing add_gradients."""
        self.images = len(self.losses)
        self.open = list(range(self.images))
        self.done: dict[int, ImageScores] = {}
        self.previous_scores: Tensor | None = None
        self.score_errors: Tensor | None = None  # [N_open, F], estimated
        self.evaluations = self.level = 0
        self.nodes: list[float] = []
        self.node_losses: list[Tensor] = []  # [P, N_open] each

    def add(
        self,
        step: Step,
        phases: Sequence[Mapping[str, Tensor]],
        losses: Iterable[tuple[Points, Tensor]] = (),
    ) -> list[int]:
        """Add the gradients [N_open, *w] of the open images, summed over one step's points.

        `phases` holds one such sum, or those of every third point if the step keeps them apart;
        `losses` are those [P, N_open] at the points, in parts.

        Returns
        -------
        list of int
            Open images that go on, by their position among the open images.

        Raises
        ------
        ValueError
            If there is no gradient, or one is not finite; `image` is then the image's number.
        """
        gradients = phases[0] if len(phases) == 1 else _summed(phases)
        if not gradients:
            raise ValueError(NO_GRADIENT)
        self.level = len(step.nodes)
        self.evaluations += self.level
        for points, values in losses:
            self.nodes += points.nodes
            self.node_losses.append(values)
        # One synchronisation with the device; a sum of finite values may overflow, so look again.
        if not bool(torch.stack([part.sum() for part in gradients.values()]).isfinite().all()):
            for key, gradient in gradients.items():
                if not all_finite(gradient):
                    raise NonFiniteGradient(key, self.open[_first_non_finite(gradient)])
        for value in self.total.values():  # also of tensors without a gradient in this step
            value.mul_(step.keep)
        for key, gradient in gradients.items():
            _add(self.total, key, gradient, 1.0)
            if step.coarse is not None and key in self.scored:
                _add(self.coarse, key, gradient, step.coarse)
        positions = range(len(self.open))
        if not step.compares and len(phases) == 1:
            return list(positions)
        scores = self._scores(self.total)
        bound: Tensor | float | None = self.tol
        if len(phases) > 1:
            self.score_errors = score_error(self._scores, scores, phases, step)
            if step.adapts:
                authors = authors_error(self._scores, scores, gradients, phases, len(step.nodes))
                bound = relative(authors, scores) / ENOUGH
        elif self.previous_scores is not None:
            self.score_errors = step.factor * (self.previous_scores - scores)
        self.previous_scores = scores
        errors = self._errors(scores)
        done = torch.zeros_like(errors) if bound is None else errors <= bound
        unfinished = [n for n in positions if not done[n]]
        if len(unfinished) < len(self.open):
            self._finish(scores, [n for n in positions if n not in unfinished])
            self.open = [self.open[n] for n in unfinished]
            self.previous_scores = scores[unfinished]
            self.score_errors = None if self.score_errors is None else self.score_errors[unfinished]
            self.total = {key: value[unfinished] for key, value in self.total.items()}
            self.node_losses = [values[:, unfinished] for values in self.node_losses]
        return unfinished

    def results(self) -> list[ImageScores]:
        """Finish the open images; give the results of all images in order."""
        if self.open:
            scores = self._scores(self.total)
            if self.coarse:
                self.score_errors = self._scores(self.coarse) - scores
            self._finish(scores, range(len(self.open)))
            self.open = []
        return [self.done[n] for n in range(self.images)]

    def _errors(self, scores: Tensor) -> Tensor:
        """Estimated relative L1 error of every open image [N_open]; NaN without an estimate."""
        if self.score_errors is None:
            return torch.full((len(scores),), torch.nan)
        return relative(self.score_errors, scores)

    def _finish(self, scores: Tensor, positions: Iterable[int]) -> None:
        errors = self._errors(scores)
        change = torch.zeros(len(scores), dtype=torch.float64, device=scores.device)
        for key, value in self.total.items():
            parts = (self.path.delta[key] * value).reshape(len(value), -1)
            change += parts.sum(1, dtype=torch.float64)
        positions = list(positions)
        zero_gradient = self._zero_gradient(scores, positions)
        node_losses = torch.cat(self.node_losses or [scores.new_empty(0, len(scores))])
        line = loss_table(self.nodes, node_losses)  # [N_open, P, 2]
        for n in positions:
            self.done[self.open[n]] = ImageScores(
                scores[n],
                self.losses[self.open[n]],
                float(change[n]),
                float(errors[n]),
                self.evaluations,
                line[n],
                zero_gradient,
                None if self.score_errors is None else self.score_errors[n],
                self.level,
            )

    def _zero_gradient(self, scores: Tensor, positions: list[int]) -> frozenset[str]:
        """Scored layers that differ, whose gradients are 0 in all images of some positions."""
        if not positions:
            return frozenset()
        counts = (scores[positions] != 0).any(0).cumsum(0)  # [F]
        counts = torch.nn.functional.pad(counts, (1, 0))[list(self.index.offsets)].diff()
        layers = zip(self.index.layers, counts.tolist(), strict=True)
        zero = {key for key, count in layers if not count and key in self.scored}
        return frozenset(
            key
            for key in zero & self.path.delta.keys()
            if key not in self.total or not self.total[key][positions].any()
        )

    def _scores(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Score of every filter [N_open, F]; 0 where a layer is not scored."""
        images, template = len(self.open), next(iter(self.total.values()))
        parts = []
        for layer, shape in zip(self.index.layers, self.index.shapes, strict=True):
            if layer in self.scored and layer in gradients:
                total = gradients[layer]
                delta = self.path.delta[layer].to(total)
                if self.signed:
                    parts.append((delta * total).flatten(3).sum(3).flatten(1).neg())
                else:
                    parts.append(score_reduction(total, delta))
            else:
                parts.append(template.new_zeros(images, shape[0] * shape[1]))
        return torch.cat(parts, 1)


def add_gradients(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Add gradients by name, in order; the tensors of the first part are overwritten."""
    totals: dict[str, Tensor] = {}
    for part in parts:
        for key, value in part.items():
            totals[key] = totals[key].add_(value) if key in totals else value
    return totals


def split_phases(gradients: Mapping[str, Tensor], phases: int) -> list[dict[str, Tensor]]:
    """Take gradients [G·N, *w] apart into those of every phase."""
    parts = {key: value.unflatten(0, (phases, -1)) for key, value in gradients.items()}
    return [{key: part[n] for key, part in parts.items()} for n in range(phases)]


def _summed(phases: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Sum the phases of a step; they stay as they are."""
    first, *rest = phases
    return {key: sum((part[key] for part in rest), start=value) for key, value in first.items()}


def _add(totals: dict[str, Tensor], key: str, part: Tensor, factor: float) -> None:
    if key not in totals:
        totals[key] = part * factor if factor != 1 else part
    else:
        totals[key].add_(part, alpha=factor)


def _first_non_finite(gradient: Tensor) -> int:
    finite = gradient.reshape(len(gradient), -1).isfinite().all(1)
    return int((~finite).nonzero()[0])
