"""Photographs that ship inside the wheels of scikit-image and scikit-learn."""

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from faigfast.data.images import read_image

# No scene is in both sets (the two motorcycle views are one scene).
TRAINING = (
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "flower.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "brick.png",
    "coins.png",
    "grass.png",
    "gravel.png",
)
KEPT_OUT = ("astronaut.png", "chelsea.png", "china.jpg", "camera.png")
_FOLDERS = (("skimage", "data"), ("sklearn", "datasets/images"))


def _find(name: str) -> Path | None:
    for package, inner in _FOLDERS:
        if find_spec(package) is not None:
            path = Path(str(resources.files(package))) / inner / name
            if path.is_file():
                return path
    return None


def photographs(names: tuple[str, ...], channels: int = 3) -> dict[str, Tensor]:
    """Load shipped photographs by file name, without photographs of absent packages.

    Parameters
    ----------
    names : tuple of str
        `TRAINING` or `KEPT_OUT`, or any files of the two packages.
    channels : {3, 1}
        As in `read_image`.

    Returns
    -------
    dict of str to Tensor
        Name to image [C, H, W], float32 in [0, 1]; gray images have three equal channels.

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise ImportError("the photographs need scikit-image: pip install 'faigfast[data]'")
    paths = {name: _find(name) for name in names}
    return {
        name.partition(".")[0]: read_image(path, channels=channels)
        for name, path in paths.items()
        if path
    }


def photograph(name: str = "chelsea", channels: int = 3) -> Tensor:
    """Load one shipped photograph, for a first try without files of one's own.

    Parameters
    ----------
    name : str
        A name in `TRAINING` or `KEPT_OUT`, with or without its ending; the shipped pairs were not
        trained on the default.
    channels : {3, 1}
        As in `read_image`.

    Returns
    -------
    Tensor
        [C, H, W], float32 in [0, 1].

    Raises
    ------
    ImportError
        If scikit-image is not installed.
    ValueError
        If there is no such photograph here; the names are listed.

    Examples
    --------
    >>> photograph("chelsea").shape
    torch.Size([3, 300, 451])
    """
    names = {one.partition(".")[0]: one for one in (*KEPT_OUT, *TRAINING)}
    known = isinstance(name, str) and name in {*names, *names.values()}
    here = photographs((names.get(name, name),), channels) if known else {}
    if not here:
        listed = [stem for stem, one in names.items() if _find(one)]
        raise ValueError(f"photograph is {name!r}; expected one of {', '.join(listed)}")
    return next(iter(here.values()))
