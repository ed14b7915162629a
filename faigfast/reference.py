"""FAIG by its equations: one image and one point of the line at a time, in plain PyTorch.

Tests compare every faster backend with this oracle. It imports nothing fast.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from faigfast.filters.index import FilterIndex
from faigfast.integration.gradients import Evaluate, gradients_at
from faigfast.integration.image_scores import NO_GRADIENT, ImageScores
from faigfast.integration.kinks import KinkAverager, KinkDetector
from faigfast.integration.line_losses import loss_table
from faigfast.integration.objective import Objective
from faigfast.integration.path import WeightPath
from faigfast.integration.phases import ENOUGH, authors_error, relative, score_error
from faigfast.integration.refinement import Steps
from faigfast.models.state import all_finite


def integrate(
    path: WeightPath,
    steps: Steps,
    objective: Objective,
    index: FilterIndex,
    scored: frozenset[str],
    x: Tensor,
    gt: Tensor,
    tol: float | None = None,
    advance: Callable[[], object] = lambda: None,
    signed: bool = False,
    evaluate: Evaluate = gradients_at,
) -> ImageScores:
    """Scores Σ |I_i| of one image, with I_i = Δ_i Σ_s w_s ∂L(γ(α_s), x)/∂γ_i.

    Parameters
    ----------
    path : WeightPath
        The line γ.
    steps : Steps
        Nodes α_s and weights w_s, summed step by step.
    objective : callable
        L, of (output, gt).
    index : FilterIndex
        All filters of the network.
    scored : frozenset of str
        Layers of the index to score.
    x, gt : Tensor
        One image [1, C, *spatial] and its ground truth [1, ...].
    tol : float, optional
        Estimated relative L1 error of the scores after which no further step is taken.
    advance : callable
        Called after every point.
    signed : bool
        Score a kernel by −Σ I_i in place of Σ |I_i|.
    evaluate : callable
        Gives L and ∂L/∂γ at one point.

    Returns
    -------
    ImageScores
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    total = {key: torch.zeros_like(delta, dtype=wide) for key, delta in path.delta.items()}
    coarse = {key: torch.zeros_like(value) for key, value in total.items() if key in scored}

    def kernel_sums(sums: Mapping[str, Tensor]) -> Tensor:
        parts = []
        for layer, shape in zip(index.layers, index.shapes, strict=True):
            if layer in scored and layer in path.delta:
                attribution = path.delta[layer].to(wide) * sums[layer]
                attribution = -attribution if signed else attribution.abs()
                parts.append(attribution.flatten(2).sum(2).flatten())
            else:
                parts.append(torch.zeros(shape[0] * shape[1], dtype=wide, device=x.device))
        return torch.cat(parts)

    with torch.no_grad():
        detector = KinkDetector()
        with detector if steps.depend_on_kinks else nullcontext():
            first = evaluate(path, 0.0, x, gt, detector.before(objective))[0].item()
        last = evaluate(path, 1.0, x, gt, objective)[0].item()

    before: Tensor | None = None
    error: Tensor | None = None  # [F], estimated, of the scores
    evaluations = 0
    nodes: list[float] = []
    losses: list[Tensor] = []
    for step in steps(detector.kinked):
        for value in total.values():
            value.mul_(step.keep)
        embedded = step.coarse is not None
        kept_apart = range(step.phases) if step.phases > 1 else ()
        phases = [{k: torch.zeros_like(v) for k, v in total.items()} for _ in kept_apart]
        averager = step.cells is not None and KinkAverager(step, path, x, gt, objective, evaluate)
        for s, (alpha, weight) in enumerate(zip(step.nodes, step.weights, strict=True)):
            with averager.at(s) if averager else nullcontext():
                value, gradients = evaluate(path, float(alpha), x, gt, objective)
            if not gradients:
                raise ValueError(NO_GRADIENT)
            for key, gradient in gradients.items():
                total[key].add_(gradient, alpha=float(weight))
                if phases:
                    phases[s % len(phases)][key].add_(gradient, alpha=float(weight))
                if step.coarse is not None and key in coarse:
                    coarse[key].add_(gradient, alpha=float(weight) * step.coarse)
            nodes.append(float(alpha))
            losses.append(value)
            evaluations += 1
            advance()
        if not phases and not step.compares:
            continue
        scores, bound = kernel_sums(total), tol
        if phases:
            error = score_error(kernel_sums, scores, phases, step)
            if step.adapts:
                authors = authors_error(kernel_sums, scores, total, phases, len(step.nodes))
                bound = float(relative(authors, scores)) / ENOUGH
        elif before is not None:
            error = step.factor * (before - scores)
        before = scores
        if error is not None and bound is not None and float(relative(error, scores)) <= bound:
            break

    for key, value in total.items():
        if not all_finite(value):
            raise ValueError(
                f"the gradient of {key!r} is not finite on the line; try a wider precision"
            )
    scores = kernel_sums(total)
    if embedded:
        error = kernel_sums(coarse) - scores
    change = sum(
        float((path.delta[key].to(torch.float64) * value).sum()) for key, value in total.items()
    )
    zero_gradient = frozenset(key for key in scored & total.keys() if not total[key].any())
    line = loss_table(nodes, torch.stack(losses))
    size = math.nan if error is None else float(relative(error, scores))
    return ImageScores(
        scores, (first, last), change, size, evaluations, line, zero_gradient, error,
        len(step.nodes),
    )  # fmt: skip
