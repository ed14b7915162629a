"""Rounding to 8 bit, and the lossy codecs of Pillow."""

import io
from typing import Any

import numpy as np
import torch
from torch import Tensor


def round_to_8_bit(x: Tensor) -> Tensor:
    """Round to multiples of 1/255 and clip to [0, 1], as saving a PNG does."""
    return (x * 255).round().clamp(0, 255) / 255


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Write an image as JPEG and read it again, by Pillow.

    Parameters
    ----------
    x : Tensor
        [1, H, W] or [3, H, W]; rounded to 8 bit and clipped to [0, 1] before.
    quality : int
        Pillow's quality, 1 to 100. Colour is halved in both directions (4:2:0), Pillow's default.

    Returns
    -------
    Tensor
        [C, H, W], multiples of 1/255.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    ValueError
        If the image has another number of channels, or is larger than the format allows.
    """
    return _through(x, "JPEG", quality)


def webp(x: Tensor, quality: int) -> Tensor:
    """Write an image as lossy WebP and read it again, by Pillow.

    Parameters
    ----------
    x, quality
        As in `jpeg`; quality 0 to 100.

    Returns
    -------
    Tensor
        [C, H, W], multiples of 1/255.

    Raises
    ------
    ImportError
        If Pillow is not installed, or was built without WebP.
    ValueError
        As `jpeg`.
    """
    return _through(x, "WEBP", quality)


def _through(x: Tensor, name: str, quality: int) -> Tensor:
    """Encode and decode an image [C, H, W]."""
    pillow = _pillow(name)
    if x.shape[0] not in (1, 3):
        raise ValueError(f"{name} takes images of 1 or 3 channels; got {list(x.shape)}")
    levels = (round_to_8_bit(x.detach()) * 255).round().to(torch.uint8).cpu()
    pixels = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).contiguous().numpy()
    file, image = io.BytesIO(), pillow.fromarray(pixels)
    try:
        image.save(file, name, quality=quality)
    except (OSError, ValueError) as problem:
        raise ValueError(f"{name} does not take an image {list(x.shape)}: {problem}") from problem
    decoded = np.array(pillow.open(file).convert(image.mode))
    y = torch.from_numpy(decoded.reshape(*x.shape[-2:], -1)).permute(2, 0, 1)
    return (y.to(x) / 255).contiguous()


def _pillow(name: str) -> Any:
    try:
        from PIL import Image, features
    except ImportError:
        raise ImportError(f"{name} needs Pillow: pip install 'faigfast[data]'") from None
    if name == "WEBP" and not features.check("webp"):
        raise ImportError(
            "this Pillow was built without WebP: pip install --force-reinstall 'faigfast[data]'"
        )
    return Image
