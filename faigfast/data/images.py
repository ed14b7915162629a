"""Reading and writing of single images."""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faigfast.io.atomic import atomic_write
from faigfast.io.regular_file import regular_file, shown

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 turn the image on its side
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")

PathLike = str | os.PathLike[str]


def read_image(path: PathLike) -> Tensor:
    """Read a photograph as RGB.

    Gray and palette images become RGB, an alpha channel is dropped, the EXIF orientation is
    obeyed. 16-bit PNGs keep their 16 bits.

    Parameters
    ----------
    path : path-like
        A file that Pillow can read.

    Returns
    -------
    Tensor
        [3, H, W], float32 in [0, 1].

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an image in a regular file, is damaged, claims more pixels than Pillow's
        `Image.MAX_IMAGE_PIXELS`, or has gray, alpha and 16 bits at once.
    """
    return read_hashed(path)[0]


def read_hashed(path: PathLike) -> tuple[Tensor, str]:
    """Read a photograph as `read_image` does, with the SHA-256 of the bytes that were decoded."""
    with _naming(path):
        content = regular_file(path, "image").read_bytes()
        array = _pixels(content)
    image = torch.from_numpy(array).permute(2, 0, 1).contiguous()  # [3, H, W]
    return image, hashlib.sha256(content).hexdigest()


def write_image(path: PathLike, image: Tensor) -> None:
    """Write an image as an 8-bit PNG, whole or not at all.

    Parameters
    ----------
    path : path-like
        A name that ends in .png.
    image : Tensor
        [3, H, W] or [1, H, W], floating, finite; clipped to [0, 1] and rounded.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    TypeError
        If `image` is not a floating tensor.
    ValueError
        If the name, the shape or a value is wrong, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_image(f"{folder}/gray.png", torch.full((3, 4, 6), 0.4))
    ...     read_image(f"{folder}/gray.png")[0, 0, 0] * 255
    tensor(102.)
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f"path {shown(path)} ends in {path.suffix!r}; expected .png")
    encoded = encode_png(image)
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)


def encode_png(image: Tensor) -> bytes:
    """Encode an image as an 8-bit PNG; arguments and errors as in `write_image`."""
    if not (isinstance(image, Tensor) and image.is_floating_point()):
        kind = image.dtype if isinstance(image, Tensor) else type(image).__name__
        raise TypeError(f"image is {kind}; expected a floating tensor")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise ValueError(f"image has shape {[*image.shape]}; expected [3, H, W] or [1, H, W]")
    if not image.isfinite().all():
        raise ValueError("image has values that are not finite; expected [0, 1]")
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()  # [H, W, C]
    picture = _pillow().fromarray(array[..., 0] if image.shape[0] == 1 else array)
    encoded = io.BytesIO()
    picture.save(encoded, format="PNG")
    return encoded.getvalue()


def image_size(path: PathLike) -> tuple[int, int]:
    """Height and width of an image in its EXIF orientation, from the file's header alone.

    Raises
    ------
    ImportError, FileNotFoundError, ValueError
        As `read_image`.
    """
    pillow = _pillow()
    with _naming(path), _opened(pillow, regular_file(path, "image")) as image:
        width, height = image.size
        # getexif() of a PNG without EXIF would decode all of its pixels.
        turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1) > 4
    return (width, height) if turned else (height, width)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("images need Pillow: pip install 'faigfast[data]'") from None
    return Image


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Turn any error of reading or decoding into one that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {shown(path)}") from None
    except ImportError:
        raise
    except Exception as error:  # decoders raise many types for a damaged file
        raise ValueError(
            f"{shown(path)} cannot be read as one of {', '.join(FORMATS)}, truncated, damaged or "
            f"of another kind: {error}"
        ) from error


def _opened(pillow: Any, file: Path | io.BytesIO) -> Any:
    """Open an image; refuse one that claims more pixels than Pillow's limit."""
    too_many = (pillow.DecompressionBombWarning, pillow.DecompressionBombError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return pillow.open(file, formats=FORMATS)
    except too_many as error:  # "Image size (169000000 pixels) exceeds limit ..."
        claimed = str(error).partition(" exceeds")[0]
        raise ValueError(
            f"{claimed} is above PIL.Image.MAX_IMAGE_PIXELS, {pillow.MAX_IMAGE_PIXELS}; expected "
            "a smaller image, or a higher PIL.Image.MAX_IMAGE_PIXELS for a file that you trust"
        ) from None


def _pixels(content: bytes) -> np.ndarray:
    """Decode to [H, W, 3], float32 in [0, 1]."""
    pillow = _pillow()
    with _opened(pillow, io.BytesIO(content)) as image:
        layout = image.tile[0][3] if image.tile else None  # how the file stores a pixel
        if layout == "LA;16B":
            raise ValueError("it is gray with alpha at 16 bit; expected gray, RGB or RGBA")
        is_16_bit = image.mode.startswith("I")  # gray
        values = _rgb(image)
    if layout not in ("RGB;16B", "RGBA;16B"):
        return values / (65535 if is_16_bit else 255)
    # Pillow keeps the high byte alone; reading in the other byte order keeps the low byte.
    with _opened(pillow, io.BytesIO(content)) as image:
        image.tile = [(*image.tile[0][:3], layout.replace("16B", "16L"))]
        return (256 * values + _rgb(image)) / 65535


def _rgb(image: Any) -> np.ndarray:
    """Decode to [H, W, 3], float32 in the file's own units, in the EXIF orientation."""
    from PIL import ImageOps

    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return np.repeat(np.asarray(image, np.float32)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"), np.float32)
