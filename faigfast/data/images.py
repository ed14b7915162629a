"""Reading and writing of single images."""

import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faigfast.data.avif_depth import HEADER, avif_bits
from faigfast.io.atomic import atomic_write
from faigfast.io.regular_file import regular_file, shown

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 turn the image on its side
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
ALPHAS = ("refuse", "drop")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's
# Layouts of 16-bit colour in PNG and TIFF, of which Pillow keeps the high bytes, by byte order.
_ORDERS = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
_WIDE_COLOUR = {f"{kind};{order}" for kind in ("RGB", "RGBA", "RGBX") for order in _ORDERS}

PathLike = str | os.PathLike[str]


def read_image(path: PathLike, *, channels: int = 3, alpha: str = "refuse") -> Tensor:
    """Read a photograph in colour or gray.

    The EXIF orientation is obeyed. 16-bit PNG, TIFF, PGM and PPM files keep their 16 bits. AVIF
    files of 10 and 12 bits are refused, since Pillow decodes them to 8 bits.

    Parameters
    ----------
    path : path-like
        A PNG, JPEG, BMP or WebP file; TIFF, PPM, PGM or AVIF where Pillow reads them.
    channels : {3, 1}
        3: gray and palette images become RGB. 1: colour becomes gray, 0.299 R + 0.587 G + 0.114 B.
    alpha : {"refuse", "drop"}
        What becomes of an alpha channel that is not opaque.

    Returns
    -------
    Tensor
        [C, H, W], float32 in [0, 1].

    Raises
    ------
    ImportError
        If Pillow is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not an image in a regular file, is damaged, has transparent pixels, claims more
        pixels than Pillow's `Image.MAX_IMAGE_PIXELS`, has several pages, numbers of a kind that
        is not 8 or 16 bits, or is AVIF of more than 8 bits.
    """
    return read_hashed(path, channels=channels, alpha=alpha)[0]


def read_hashed(path: PathLike, *, channels: int = 3, alpha: str = "refuse") -> tuple[Tensor, str]:
    """Read a photograph as `read_image` does, with the SHA-256 of the bytes that were decoded."""
    check_reading(channels, alpha)
    with _naming(path):
        content = regular_file(path, "image").read_bytes()
        array = _pixels(content, channels, alpha)
    image = torch.from_numpy(array).permute(2, 0, 1).contiguous()  # [C, H, W]
    return image, hashlib.sha256(content).hexdigest()


def check_reading(channels: Any, alpha: Any) -> None:
    """Refuse unknown arguments of `read_image`."""
    if isinstance(channels, bool) or channels not in (1, 3):
        raise ValueError(f"channels is {channels!r}; expected 1 or 3")
    if alpha not in ALPHAS:
        raise ValueError(f"alpha is {alpha!r}; expected one of {', '.join(ALPHAS)}")


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


def image_size(path: PathLike, *, alpha: str = "drop") -> tuple[int, int]:
    """Height and width of an image in its EXIF orientation, from the file's header alone.

    Parameters
    ----------
    path : path-like
        As in `read_image`.
    alpha : {"drop", "refuse"}
        "refuse" decodes an image with an alpha channel, and refuses transparent pixels.

    Raises
    ------
    ImportError, FileNotFoundError, ValueError
        As `read_image`.
    """
    pillow = _pillow()
    with _naming(path), _opened(pillow, _checked_depth(regular_file(path, "image"))) as image:
        _check_layout(image)
        width, height = image.size
        if alpha == "refuse":
            _refuse_transparency(image)
        # getexif() of a PNG without EXIF would decode all of its pixels.
        turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1) > 4
    return (width, height) if turned else (height, width)


def _checked_depth(path: Path) -> Path:
    """Refuse an AVIF file of more than 8 bits, by its header."""
    with open(path, "rb") as file:
        _check_depth(file.read(HEADER))
    return path


def _check_depth(content: bytes) -> None:
    bits = avif_bits(content)
    if bits is not None and bits > 8:
        raise ValueError(
            f"it is AVIF of {bits} bits, of which Pillow keeps 8; expected 8 bits, or the image "
            "as PNG or TIFF of 16 bits"
        )


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
    except _Transparent as error:
        raise ValueError(f"image {shown(path)} {error}") from None
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
            return pillow.open(file, formats=_formats(pillow))
    except too_many as error:  # "Image size (169000000 pixels) exceeds limit ..."
        claimed = str(error).partition(" exceeds")[0]
        raise ValueError(
            f"{claimed} is above PIL.Image.MAX_IMAGE_PIXELS, {pillow.MAX_IMAGE_PIXELS}; expected "
            "a smaller image, or a higher PIL.Image.MAX_IMAGE_PIXELS for a file that you trust"
        ) from None


def _formats(pillow: Any) -> list[str]:
    """Give the formats that this Pillow knows."""
    if any(name not in pillow.OPEN for name in FORMATS):
        pillow.init()
    return [name for name in FORMATS if name in pillow.OPEN]


class _Transparent(ValueError):
    """An image has an alpha channel that says something."""


def _refuse_transparency(image: Any) -> None:
    """Refuse an image with pixels that are not opaque; decodes it if it has an alpha channel."""
    if not image.has_transparency_data:
        return
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    if low < 255:
        raise _Transparent(
            "has transparent pixels; expected an opaque image, or alpha='drop' (--alpha drop), "
            "which keeps the colours below them"
        )


def _check_layout(image: Any) -> None:
    """Refuse pages, and numbers that Pillow would read wrongly or cut."""
    layout = _layout(image)
    if layout == "LA;16B":
        raise ValueError("it is gray with alpha at 16 bit; expected gray, RGB or RGBA")
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers; expected 8 or 16 bits")
    if image.format == "PPM" and image.tile[0][0] == "ppm_plain" and _most(image) > 255:
        raise ValueError("it is text of more than 8 bits; expected binary PPM or PGM")
    if image.format != "TIFF":
        return
    bits, photometric = (image.tag_v2.get(tag) for tag in (258, 262))  # BitsPerSample
    wide = max(bits if isinstance(bits, tuple) else (bits or 1,)) > 8
    gray = image.mode.startswith("I;16") and photometric == 1  # black is 0
    if wide and not gray and layout not in _WIDE_COLOUR:
        raise ValueError(
            f"it holds {bits} bits a pixel as {layout or image.mode}; expected 8 bits, or 16 bits "
            "of gray, RGB or RGBA side by side"
        )
    try:
        image.seek(1)
    except EOFError:
        return
    raise ValueError("it has several pages; expected one image")


def _layout(image: Any) -> str | None:
    """Say how the file stores a pixel, in Pillow's words."""
    arguments = image.tile[0][3] if image.tile else None
    if isinstance(arguments, tuple):
        arguments = next(iter(arguments), None)
    return arguments if isinstance(arguments, str) else None


def _most(image: Any) -> int:
    """Largest number of a PPM or PGM file."""
    arguments = image.tile[0][3]
    return int(arguments[1]) if isinstance(arguments, tuple) else 255


def _pixels(content: bytes, channels: int, alpha: str) -> np.ndarray:
    """Decode to [H, W, C], float32 in [0, 1]."""
    pillow = _pillow()
    _check_depth(content)
    with _opened(pillow, io.BytesIO(content)) as image:
        _check_layout(image)
    with _opened(pillow, io.BytesIO(content)) as image:
        if alpha == "refuse" and image.has_transparency_data:
            _refuse_transparency(image.copy())
    with _opened(pillow, io.BytesIO(content)) as image:
        layout = _layout(image)
        if image.format == "PPM" and layout == "RGB" and _most(image) > 255:
            return _gray(_wide_ppm(image, content), channels)
        is_16_bit = image.mode.startswith("I")  # gray
        wide = layout in _WIDE_COLOUR
        values = _decoded(image, 3 if wide else channels)
    if not wide:
        return values / (65535 if is_16_bit else 255)
    # Pillow keeps the high byte alone; reading in the other byte order keeps the low byte.
    with _opened(pillow, io.BytesIO(content)) as image:
        image.tile = [_other_order(tile) for tile in image.tile]
        return _gray((256 * values + _decoded(image, 3)) / 65535, channels)


def _other_order(tile: Any) -> Any:
    """Give a tile of 16-bit colour with its bytes exchanged."""
    *place, arguments = tile
    layout, *rest = arguments if isinstance(arguments, tuple) else (arguments,)
    kind, _, order = layout.partition(";")
    other = f"{kind};{_ORDERS[order]}"
    arguments = (other, *rest) if isinstance(arguments, tuple) else other
    # A named tuple since Pillow 11.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*place, arguments)


def _wide_ppm(image: Any, content: bytes) -> np.ndarray:
    """Read binary RGB of 16 bits, of which Pillow keeps 8."""
    width, height = image.size
    numbers = np.frombuffer(content, ">u2", 3 * height * width, image.tile[0][2])
    return numbers.reshape(height, width, 3).astype(np.float32) / _most(image)


def _gray(values: np.ndarray, channels: int) -> np.ndarray:
    """Make gray of colour [H, W, 3], if one channel is wanted."""
    return values if channels == 3 else (values @ LUMA)[..., None]


def _decoded(image: Any, channels: int) -> np.ndarray:
    """Decode to [H, W, C], float32 in the file's own units, in the EXIF orientation."""
    from PIL import ImageOps

    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    image.info.pop("transparency", None)  # a warning of palettes
    if image.mode.startswith("I"):
        return np.repeat(np.asarray(image, np.float32)[..., None], channels, axis=2)
    array = np.asarray(image.convert("RGB" if channels == 3 else "L"), np.float32)
    return array if channels == 3 else array[..., None]
