"""Photographs as users give them: a folder, tensors, or none for the shipped photographs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from faigfast.data.image_files import image_files
from faigfast.data.images import read_image
from faigfast.data.patches import crop_to_multiple
from faigfast.data.photographs import TRAINING
from faigfast.data.photographs import photographs as shipped_photographs
from faigfast.integration.image_range import WHITE

LEAST_PATCHES = 4  # patches side by side in the photographs to train on
MOST_HELD_OUT = 4  # photographs


def photographs_of(photographs: Any, channels: int) -> dict[str, Tensor]:
    """Read and check photographs.

    Parameters
    ----------
    photographs : path-like, Tensor, mapping, iterable or None
        A folder; one tensor [N, C, H, W]; tensors [C, H, W], by name or in any order; None: the
        training photographs of scikit-image.
    channels : int
        C of the network.

    Returns
    -------
    dict of str to Tensor
        [C, H, W] by name, float32 in [0, 1] on the CPU.

    Raises
    ------
    FileNotFoundError, ImportError
        As `faigfast.data.read_image` and `faigfast.data.photographs`.
    TypeError
        If an item is no floating-point tensor.
    ValueError
        If there is no photograph, or a shape or a value is out of range.
    """
    if photographs is None:
        return shipped_photographs(TRAINING, channels)
    if isinstance(photographs, str | os.PathLike):
        files = image_files(photographs, "photographs")
        return {name: read_image(path, channels=channels) for name, path in files.items()}
    if isinstance(photographs, Tensor):
        if photographs.ndim != 4:
            raise ValueError(
                f"photographs is a tensor {list(photographs.shape)}; expected [N, C, H, W]"
            )
        photographs = list(photographs)
    if not isinstance(photographs, Iterable):
        raise TypeError(
            f"photographs is a {type(photographs).__name__}; expected a folder, a tensor "
            "[N, C, H, W], or tensors [C, H, W]"
        )
    named = photographs if isinstance(photographs, Mapping) else dict(enumerate(photographs))
    checked = {str(name): _checked(name, image, channels) for name, image in named.items()}
    if not checked:
        raise ValueError("photographs holds none; expected tensors [C, H, W] in [0, 1]")
    return checked


def _checked(name: Any, image: Any, channels: int) -> Tensor:
    place = f"photographs holds, under {name!r},"
    if not isinstance(image, Tensor) or not image.is_floating_point():
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"{place} {kind}; expected a floating-point tensor in [0, 1]")
    if image.ndim != 3 or image.shape[0] != channels:
        raise ValueError(
            f"{place} {list(image.shape)}; expected [C, H, W] with C = {channels}, which the "
            "network takes"
        )
    image = image.detach().to("cpu", torch.float32)
    low, high = image.aminmax() if image.numel() else (torch.tensor(torch.nan),) * 2
    if not (low >= 1 - WHITE and high <= WHITE):
        raise ValueError(
            f"{place} values from {low:g} to {high:g}; expected [0, 1]: divide images of 0 to 255 "
            "by 255"
        )
    return image


def divided(
    images: Mapping[str, Tensor], scale: int, patch: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Divide photographs into some to train on and some to measure on.

    One photograph in four, at most four, is measured on. A photograph on its own is cut in two.

    Parameters
    ----------
    images : mapping of str to Tensor
        [C, H, W].
    scale : int
        Enlargement of the network.
    patch : int
        Side of a low-resolution patch.

    Returns
    -------
    training, held_out : dict of str to Tensor
        Photographs without the ones that hold no patch.

    Raises
    ------
    ValueError
        If the photographs are too small or too few.
    """
    side = scale * patch
    cropped = {name: crop_to_multiple(image, scale) for name, image in images.items()}
    usable = {name: image for name, image in cropped.items() if min(image.shape[1:]) >= side}
    if not usable:
        sizes = sorted({"×".join(map(str, image.shape[1:])) for image in images.values()})
        raise ValueError(
            f"photographs are {', '.join(sizes[:3])}; expected sides of at least {side} pixels, "
            f"for patches of {patch} at ×{scale}: larger photographs, or a smaller patch"
        )
    if len(usable) == 1:
        ((name, image),) = usable.items()
        axis = 1 if image.shape[1] > image.shape[2] else 2
        half = image.shape[axis] // 2 // scale * scale
        first = image.narrow(axis, 0, half)
        second = image.narrow(axis, half, image.shape[axis] - half)
        training, held_out = {f"{name} (a)": first}, {f"{name} (b)": second}
        usable = training | held_out if half >= side else {}
    else:
        names = list(usable)
        count = min(MOST_HELD_OUT, max(1, len(names) // 4))
        kept = _evenly(names, count)
        held_out = {name: usable[name] for name in kept}
        training = {name: image for name, image in usable.items() if name not in held_out}
    patches = sum(_patches(image, side) for image in training.values()) if usable else 0
    if patches < LEAST_PATCHES:
        raise ValueError(
            f"photographs hold {patches} patches of {side}×{side} beside the crops to measure on; "
            f"expected at least {LEAST_PATCHES}: more or larger photographs, or a smaller patch"
        )
    return training, held_out


def _patches(image: Tensor, side: int) -> int:
    return (image.shape[1] // side) * (image.shape[2] // side)


def _evenly(names: Sequence[str], count: int) -> list[str]:
    """Take names at equal distances."""
    return [names[(2 * n + 1) * len(names) // (2 * count)] for n in range(count)]
