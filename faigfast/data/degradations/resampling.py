"""Down-sampling by an integer, and resizing to any size and back."""

from torch import Tensor
from torch.nn import functional as F

DOWNSAMPLINGS = ("bilinear", "bicubic")
RESIZE_METHODS = ("nearest", "bilinear", "bicubic", "area")


def downsample(x: Tensor, scale: int, method: str = "bilinear") -> Tensor:
    """Shrink an image by an integer factor.

    Parameters
    ----------
    x : Tensor
        [N, C, H, W], H and W multiples of `scale`.
    scale : int
        Factor, at least 1.
    method : {"bilinear", "bicubic"}
        "bilinear" interpolates at the new pixels' centres without a low-pass filter. The authors'
        images are bilinear, since their call for bicubic passes its flag as another argument.
        "bicubic" is the anti-aliased cubic (a = -0.5) of Pillow and MATLAB.

    Returns
    -------
    Tensor
        [N, C, H/scale, W/scale].

    Raises
    ------
    ValueError
        If the sizes do not divide or the method is unknown.
    """
    if method not in DOWNSAMPLINGS:
        raise ValueError(f"downsampling is {method!r}; expected one of {DOWNSAMPLINGS}")
    size = low_size(x, scale)
    if scale == 1:
        return x
    return F.interpolate(
        x, size=size, mode=method, align_corners=False, antialias=method == "bicubic"
    )


def low_size(x: Tensor, scale: int) -> tuple[int, int]:
    """Give the size of [..., H, W] after down-sampling; refuse sides that do not divide."""
    height, width = x.shape[-2:]
    if height % scale or width % scale or not height or not width:
        raise ValueError(
            f"an image of {height}×{width} does not divide by the scale {scale}; crop it first"
        )
    return height // scale, width // scale


def resize(x: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """Resize an image.

    Parameters
    ----------
    x : Tensor
        [C, H, W].
    size : (int, int)
        New height and width, at least 1.
    method : {"nearest", "bilinear", "bicubic", "area"}
        "bilinear" and "bicubic" are anti-aliased, as Pillow's; the cubic has a = -0.5 and may
        leave [0, 1]. "area" is the mean over the old pixels that a new one touches.

    Returns
    -------
    Tensor
        [C, *size].
    """
    if method in ("bilinear", "bicubic"):
        y = F.interpolate(x[None], size=size, mode=method, align_corners=False, antialias=True)
    else:
        y = F.interpolate(
            x[None], size=size, mode="nearest-exact" if method == "nearest" else method
        )
    return y[0]


def down_and_up(x: Tensor, factor: float, method: str = "bicubic") -> Tensor:
    """Shrink an image and enlarge it to its old size.

    Parameters
    ----------
    x : Tensor
        [C, H, W].
    factor : float
        Old side divided by new side, at least 1. The new side is rounded to at least one pixel.
    method : str
        As in `resize`, both ways.

    Returns
    -------
    Tensor
        [C, H, W].
    """
    height, width = x.shape[-2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    return resize(resize(x, small, method), (height, width), method)
