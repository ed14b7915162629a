"""FAIG and its rival methods: other scores of the same filters, in the same kind of result."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faigfast.analysis.input_path import InputPath
from faigfast.attribution.one_call import attribute
from faigfast.backend.catalogue import choose
from faigfast.backend.precision import MATRIX, PRECISIONS, check_precision
from faigfast.filters.index import FilterIndex
from faigfast.filters.selection import Selection, select
from faigfast.integration.batch import Batch, Batches, batches, is_one_batch
from faigfast.integration.objective import resolve_objective
from faigfast.integration.padding import checked_pad
from faigfast.integration.quadrature import quadrature
from faigfast.integration.refinement import STEPS_OF_OTHERS, schedule
from faigfast.integration.settings import AttributionSettings
from faigfast.io.progress import progress_bar
from faigfast.models.distance import Distance
from faigfast.models.fingerprint import fingerprints
from faigfast.models.fused import fused_pair
from faigfast.models.state import check_same_layout, tensors, unwrap
from faigfast.result import Attribution

# Name on the command line → the score that it ranks by.
METHODS = {
    "faig": "FAIG",
    "input": "integrated gradients from the clean to the degraded image, Σ |∫ ∂ΣF/∂θ|",
    "change": "Σ |θ − θ̄|",
    "relative": "Σ |θ − θ̄| / Σ |θ̄|, the authors' absolute filter change",
    "random": "chance",
    "gradient": "Σ |Δ · ∂L/∂θ| at the target alone",
    "magnitude": "Σ |θ|",
    "signed": "−Σ I_i, FAIG without the absolute value",
}
# These methods look at the weights alone: one ranking serves every degradation.
WEIGHT_METHODS = ("change", "relative", "random", "magnitude")
# Options of `attribute` with their defaults; then the options that act on some methods only.
OPTION_DEFAULTS = {
    name: option.default
    for name, option in signature(attribute).parameters.items()
    if option.kind is option.KEYWORD_ONLY
    and name not in ("baseline", "target", "steps", "signed", "progress")
}
PATH_OPTIONS = ("rule", "tol", "tol_contrast", "overlap", "emulate")
COMMON_OPTIONS = ("backend", "memory", "parameters")
INPUT_OPTIONS = (*COMMON_OPTIONS, "pad")
# Method → why other options do not act on it.
NO_EFFECT_REASONS = {
    "gradient": "its one point is the target",
    "input": "the output itself is summed, by the rule right, in the networks' own precision",
    **dict.fromkeys(WEIGHT_METHODS, "its scores follow from the weights alone"),
}


def rank_by(
    method: str,
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    *,
    steps: int | None = None,
    seed: int = 0,
    clean: Tensor | None = None,
    progress: bool = False,
    **options: Any,
) -> Attribution:
    """Score all filters by FAIG or by a rival method.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    baseline, target : nn.Module
        The pair.
    batch : tuple, mapping or iterable
        As in `faigfast.attribute`.
    steps : int, optional
        Points of the path for "faig", "signed" and "input"; None: as in `faigfast.attribute`.
    seed : int
        Of "random".
    clean : Tensor, optional
        [N, C, h, w], where the path of "input" begins, for a single batch; None: the ground truth
        shrunk to the size of the input by bilinear interpolation, as the authors' images are.
    progress : bool
        Show a progress bar.
    **options
        Of `faigfast.attribute`. Rule, tol and emulate do not act on "gradient". On "input" and
        `WEIGHT_METHODS` only `parameters`, `backend` and `memory` act, on "input" also `pad`. The
        result's notes name every given option without effect.

    Returns
    -------
    Attribution
        `setting.method` is the name. `WEIGHT_METHODS` give one row of scores, and neither losses
        nor completeness (NaN).

    Raises
    ------
    TypeError
        If an option is none of `faigfast.attribute`.
    ValueError
        If the method is unknown, or as `faigfast.attribute`.

    Notes
    -----
    Source of "input", "relative" and "random": Xie et al., NeurIPS 2021, and
    their code: integrated gradients without the factor x − x′, ranked by the mean score itself,
    and a change relative to the baseline's filter. `against=` gives the contrast of "input" too.

    Examples
    --------
    >>> a, b = (torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
    >>> images = (torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8))
    >>> len(rank_by("change", a, b, images).top("lq", 0.5))
    4
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if unknown := [name for name in options if name not in OPTION_DEFAULTS]:
        raise TypeError(
            f"options hold {unknown[0]!r}; expected some of {', '.join(OPTION_DEFAULTS)}"
        )
    baseline, target = fused_pair(options.pop("fuse", None), baseline, target)
    if method in ("faig", "signed"):
        signed = method == "signed"
        return attribute(
            baseline, target, batch, steps=steps, signed=signed, progress=progress, **options
        )
    if method == "gradient":
        notes = _without_effect(method, options, PATH_OPTIONS)
        # The one node of this rule is the target.
        options |= {
            "rule": "left", "steps": 1, "tol": None, "tol_contrast": None, "overlap": None,
            "emulate": False,
        }  # fmt: skip
        options["progress"] = progress
        result = attribute(baseline, target, batch, **options)
        setting = replace(result.setting, method=method)
        return replace(result, setting=setting, notes=(*result.notes, *notes))
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    check_same_layout(tensors(baseline), tensors(target))
    parameter = next(target.parameters())
    option_values = OPTION_DEFAULTS | options
    used_backend, _ = choose(option_values["backend"], parameter.device)
    if (
        PRECISIONS.get(option_values["precision"]) == parameter.dtype
        and option_values["precision"] not in MATRIX
    ):
        option_values["precision"] = "auto"  # which is the networks' own
    acting = INPUT_OPTIONS if method == "input" else COMMON_OPTIONS
    notes = _without_effect(method, option_values, [n for n in OPTION_DEFAULTS if n not in acting])
    scored = _scored(FilterIndex.of(target), target, option_values["parameters"])
    checked_batches = batches(batch, parameter.device, parameter.dtype)
    if method == "input":
        if clean is not None and not is_one_batch(batch):
            raise ValueError("clean is given with several batches; expected a single batch")
        count = STEPS_OF_OTHERS if steps is None else steps
        # The authors' nodes: from the clean image on, 0 … 1 − 1/S.
        path = InputPath(
            target, quadrature("right", count), used_backend, option_values["memory"],
            checked_pad(option_values["pad"]),
        )  # fmt: skip
        result = _input_gradients(baseline, target, checked_batches, path, clean, progress)
    else:
        scores = _weight_scores(method, baseline, target, seed)
        rows = {
            name: scores[None].clone() for name in next(iter(checked_batches)).lq
        }  # a copy each: files refuse shared memory
        result = _result(
            baseline, target, method, rows, images=1, seed=seed if method == "random" else None
        )
    rows = {name: x.masked_fill(~scored, 0) for name, x in result.by_degradation.items()}
    return replace(result, by_degradation=rows, scored=scored, notes=tuple(notes))


def _without_effect(method: str, options: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Check the options that do not act on a method; list the ones that were given anyway."""
    option_values = OPTION_DEFAULTS | dict(options)
    schedule(option_values["rule"], None, option_values["tol"], option_values["emulate"])
    resolve_objective(option_values["objective"])
    check_precision(option_values["precision"])
    return [
        f"{name} {option_values[name]!r} does not act on {method!r}: {NO_EFFECT_REASONS[method]}"
        for name in names
        if option_values[name] != OPTION_DEFAULTS[name]
    ]


def _scored(index: FilterIndex, target: nn.Module, parameters: Selection | None) -> Tensor:
    """Say of each filter whether `parameters` names its layer, [F]."""
    selected_layers = select(parameters, index, tensors(target))
    parts = zip(index.layers, index.offsets, index.offsets[1:], strict=False)
    return torch.cat(
        [torch.full((high - low,), key in selected_layers) for key, low, high in parts]
    )


def _weight_scores(method: str, baseline: nn.Module, target: nn.Module, seed: int) -> Tensor:
    """Scores [F] in float64 that follow from the two networks' weights."""
    index = FilterIndex.of(target)
    if method == "random":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(len(index), generator=generator, dtype=torch.float64)
    start, end = tensors(baseline), tensors(target)
    parts = []
    for layer in index.layers:
        old, new = (state[layer].detach().cpu().double().flatten(2) for state in (start, end))
        value = (new if method == "magnitude" else new - old).abs().sum(2)
        if method == "relative":
            # A filter that was zero and moved comes first, one that stayed zero last.
            tiny = torch.finfo(torch.float64).tiny
            value = value / old.abs().sum(2).clamp(min=tiny)
        parts.append(value.flatten())
    return torch.cat(parts)


def _input_gradients(
    baseline: nn.Module,
    target: nn.Module,
    checked_batches: Iterable[Batch],
    path: InputPath,
    clean: Tensor | None,
    progress: bool,
) -> Attribution:
    """Score by the output's gradients between the clean and the degraded images."""
    rows: dict[str, list[Tensor]] = {}
    with progress_bar(unit="point·image", disable=not progress, leave=None) as bar:
        for batch in checked_batches:
            for name, lq in batch.lq.items():
                starts = _path_starts(batch, name, clean)
                rows.setdefault(name, []).append(
                    path.scores(starts, lq.detach(), batch.gt[name], bar)
                )
    scores = {name: torch.cat(values) for name, values in rows.items()}
    images = len(next(iter(scores.values())))
    return _result(
        baseline, target, "input", scores, images=images, steps=len(path.rule.nodes),
        backend=path.backend, pad=path.pad,
    )  # fmt: skip


def _path_starts(batch: Batch, name: str, clean: Tensor | None) -> Tensor:
    """First images of the paths of one degradation, [N, C, *spatial]."""
    lq, gt = batch.lq[name], batch.gt[name]
    if clean is None:
        if gt.shape[:2] != lq.shape[:2] or gt.ndim != lq.ndim:
            raise ValueError(
                f"gt is {list(gt.shape)} and x {list(lq.shape)}; expected images of one number of "
                "channels, or clean= for where the paths begin"
            )
        if gt.shape == lq.shape:
            return gt
        mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[lq.ndim]
        return F.interpolate(gt, size=lq.shape[2:], mode=mode, align_corners=False)
    if clean.shape != lq.shape:
        raise ValueError(f"clean is {list(clean.shape)}; expected {list(lq.shape)}, as x is")
    return clean.to(lq)


def _result(
    baseline: nn.Module,
    target: nn.Module,
    method: str,
    scores: dict[str, Tensor],
    *,
    images: int,
    steps: int = 0,
    seed: int | None = None,
    backend: str = "torch",
    pad: int = 0,
) -> Attribution:
    """Put scores [N, F] in the form of an attribution that has no losses."""
    index, pair_fingerprints = FilterIndex.of(target), fingerprints(baseline, target)
    shape, per_image = (len(scores), images), method == "input"
    unknown = partial(torch.full, fill_value=torch.nan, dtype=torch.float64)
    return Attribution(
        index=index,
        by_degradation=scores,
        completeness=unknown(shape),
        losses=unknown((*shape, 2)),
        error=unknown(shape),
        points=torch.full(shape, steps),
        scored=torch.ones(len(index), dtype=torch.bool),
        setting=AttributionSettings(
            rule="right" if per_image else "none",
            steps=steps,
            tol=None,
            emulate=False,
            objective="output sum" if per_image else "none",
            backend=backend,
            precision=str(next(iter(scores.values())).dtype).removeprefix("torch."),
            per_image=per_image,
            baseline=pair_fingerprints[0],
            target=pair_fingerprints[1],
            method=method,
            contrasted=False,
            seed=seed,
            pad=pad,
        ),
        distance=Distance.between(baseline, target, index.layers),
    )
