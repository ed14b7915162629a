"""Derive a baseline: train a target on with clean photographs until it no longer restores."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.data.degradations import Degradation
from faigfast.data.degradations.recipe import Function
from faigfast.data.patches import Patches
from faigfast.integration.padding import checked_pad
from faigfast.io.parts import Parts
from faigfast.models.fingerprint import digest_of, fingerprint
from faigfast.models.output_shape import image_channels
from faigfast.models.state import unwrap
from faigfast.training.derivation_run import DerivationRun, Plan
from faigfast.training.held_out import HeldOut
from faigfast.training.photograph_source import divided, photographs_of
from faigfast.training.trainable import check_forward, check_trainable, scale_of
from faigfast.training.trainer import Schedule

GROUND_TRUTHS = ("photograph", "own_output")
ABILITIES = ("noise=0.04", "noise=0.1", "blur=1", "blur=2")  # measured unless `forget` is given
KEPT_SHARE = 0.5  # of patches with a recipe to be kept, where there is one
Recipe = Degradation | str | Function
Photographs = str | os.PathLike[str] | Tensor | Mapping[str, Tensor] | Iterable[Tensor]


def derive_baseline(
    target: nn.Module,
    photographs: Photographs | None = None,
    *,
    scale: int | None = None,
    iterations: int = 500,
    keep: Recipe | Sequence[Recipe] = (),
    forget: Recipe | Sequence[Recipe] | None = None,
    ground_truth: str = "photograph",
    learning_rate: float = 5e-4,
    patch: int = 32,
    batch: int = 8,
    pad: int = 0,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> nn.Module:
    """Make the baseline of a target: train it on with clean photographs.

    The target learns that its inputs are clean, and loses the ability to remove degradations. It
    moves little, so that no barrier lies between the two networks. The training stops early when
    held-out crops show that the clean PSNR no longer rises, that each ability is gone or no longer
    falls, and that the barrier is within the bound of `faigfast.attribute`'s caution.

    Parameters
    ----------
    target : nn.Module
        Maps [N, C, h, w] to [N, C, H, W]; unchanged. Parameters without `requires_grad` and all
        buffers, such as the statistics of batch norm, stay as they are.
    photographs : path-like, Tensor, iterable or mapping of Tensor, or None
        A folder; one tensor [N, C, H, W]; or tensors [C, H, W], by name or not, in [0, 1]. None:
        the photographs in scikit-image's wheel. A quarter of them, at most four, is held out for
        measuring.
    scale : int, optional
        Enlargement. None: the network's attribute `scale`, or what its output shows.
    iterations : int
        The most steps of Adam on the L1 loss.
    keep : recipe or sequence of recipes
        Degradations that the baseline goes on removing, such as "blur=2": half of the patches get
        one of them.
    forget : recipe or sequence of recipes, optional
        Degradations whose removal is measured, and shall go. None: those of `ABILITIES` (noise and
        blur) that are not to be kept and that the target removes.
    ground_truth : {"photograph", "own_output"}
        What outputs are compared with. "own_output", for networks that were trained with a
        discriminator: the target's own output on the clean input, to which the enlarged degradation
        is added where the input has one to be forgotten. The network learns to let it through, and
        is not made as smooth as L1 on photographs makes it.
    learning_rate : float
        The highest: it rises during the first tenth of the iterations, and falls to 0 along a
        cosine.
    patch, batch : int
        Side of a low-resolution patch in pixels, and patches in a step.
    pad : int
        Pixels of reflection around every input, as in `faigfast.attribute`.
    seed : int
        Seed of patches and noise.
    output : path-like, optional
        Folder that receives the state: the same call resumes from it after a kill.
    overwrite : bool
        Discard the state in `output`, of this run or another.
    progress : bool
        Show a progress bar.

    Returns
    -------
    nn.Module
        A copy of the target with other weights, in eval mode. Its attribute `faigfast_derivation`
        is the `Derivation`: what was reached, and why the training stopped.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    FloatingPointError
        If the training diverges before anything is measured.
    TypeError
        If an argument is of another type.
    ValueError
        If the target cannot be trained, the photographs are too few, too small or outside [0, 1],
        an argument is out of range, or `output` holds another run.

    Examples
    --------
    >>> target, photographs = torch.nn.Conv2d(3, 3, 3, padding=1), torch.rand(4, 3, 32, 32)
    >>> baseline = derive_baseline(target, photographs, iterations=1, patch=8)
    """
    network = unwrap(target, "target")
    check_trainable(network)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is {seed!r}; expected an integer")
    pad, schedule = checked_pad(pad), Schedule(iterations, learning_rate, batch, seed=seed)
    if isinstance(patch, bool) or not isinstance(patch, int) or patch < 1:
        raise ValueError(f"patch is {patch!r}; expected a positive integer")
    if ground_truth not in GROUND_TRUTHS:
        raise ValueError(
            f"ground_truth is {ground_truth!r}; expected one of {', '.join(GROUND_TRUTHS)}"
        )
    channels = image_channels(network)
    scale = scale_of(network, scale, channels, patch, pad)
    kept = _recipes("keep", keep, scale)
    forgotten = _recipes("forget", ABILITIES if forget is None else forget, scale)
    if forget is None:
        forgotten = {name: r for name, r in forgotten.items() if not _covered(r, kept.values())}
    elif both := [name for name in forgotten if name in kept]:
        raise ValueError(f"keep and forget both name {both[0]!r}; expected different recipes")
    images = photographs_of(photographs, channels)
    training, held_out = divided(images, scale, patch)
    patches = Patches(
        training.values(),
        scale=scale,
        patch=patch,
        recipes=tuple(kept.values()),
        probability=KEPT_SHARE if kept else 0.0,
    )
    check_forward(network, channels, scale, patch, pad)
    crops = HeldOut.of(
        held_out, forgotten | kept, scale=scale, patch=patch, pad=pad, seed=seed % 2**32
    )
    settings = {
        "scale": scale,
        "iterations": iterations,
        "keep": list(kept),
        "forget": list(forgotten),
        "ground_truth": ground_truth,
        "learning_rate": learning_rate,
        "patch": patch,
        "batch": batch,
        "pad": pad,
        "seed": seed,
        "held_out": list(held_out),
    }
    clean = patches
    if kept:
        clean = Patches(training.values(), scale=scale, patch=patch)
    plan = Plan(
        schedule, patches, clean, crops, kept, forgotten, forget is None,
        ground_truth == "own_output", settings,
    )  # fmt: skip
    parts = None
    if output is not None:
        identity = _identity(network, images, settings, [*kept.values(), *forgotten.values()])
        parts = Parts(output, identity, overwrite)
        if overwrite:
            parts.discard()
    return DerivationRun(network, plan, parts).finish(progress)


def _recipes(option: str, given: Any, scale: int) -> dict[str, Degradation]:
    """Read recipes by their text."""
    one = isinstance(given, str | Degradation) or callable(given)
    if not one and not isinstance(given, Iterable):
        raise TypeError(f"{option} is {given!r}; expected a recipe, or a sequence of recipes")
    recipes: dict[str, Degradation] = {}
    for recipe in [given] if one else given:
        try:
            degradation = Degradation.of(recipe, scale)
        except (ValueError, TypeError) as error:
            raise type(error)(f"{option}: {error}") from None
        if degradation.clean:
            raise ValueError(f"{option} holds {recipe!r}, clean images; expected degradations")
        if degradation.text in recipes:
            raise ValueError(f"{option} holds {degradation.text!r} twice; expected each once")
        recipes[degradation.text] = degradation
    return recipes


def _covered(recipe: Degradation, kept: Iterable[Degradation]) -> bool:
    """Whether a recipe to be kept has a step of the kind that this recipe has."""
    kinds = {type(step) for step in recipe.sequence}
    return any(kinds & {type(step) for step in other.sequence} for other in kept)


def _identity(
    network: nn.Module,
    images: dict[str, Tensor],
    settings: dict[str, Any],
    recipes: Iterable[Degradation],
) -> dict[str, Any]:
    """Identify a run, so that another one does not resume from its state."""
    for recipe in recipes:
        if recipe.identity is None:
            raise ValueError(
                f"keep and forget hold {recipe.text!r}, which nothing identifies, so that a run "
                "with `output` could not be resumed; expected recipes, or functions of a module"
            )
    trained = [name for name, value in network.named_parameters() if value.requires_grad]
    content = {
        **settings,
        "target": fingerprint(network),
        "trained": digest_of({name: torch.zeros(0) for name in trained}),
        "recipes": [recipe.identity for recipe in recipes],
        "photographs": digest_of(images),
    }
    return json.loads(json.dumps(content))
