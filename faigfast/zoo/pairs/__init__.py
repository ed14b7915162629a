"""The trained pairs that ship with the package."""

from importlib import resources
from pathlib import Path

from torch import nn

from faigfast.zoo.checkpoints import load_pair

# Family, width × depth, enlargement; the first is the demo's.
PAIRS = ("srresnet-32x8-x2", "srcnn-24x4-x2", "swinir-32x2-x2")


def shipped_folder(name: str = PAIRS[0]) -> Path:
    """Folder of a pair: two checkpoints, and the command, recipe, log and evaluation of both.

    Raises
    ------
    ValueError
        If there is no such pair; the names are listed.
    """
    if name not in PAIRS:
        raise ValueError(f"pair is {name!r}; expected one of {', '.join(PAIRS)}")
    return Path(str(resources.files(__name__))) / name


def shipped_pair(name: str = PAIRS[0]) -> tuple[nn.Module, nn.Module]:
    """Load a shipped baseline and target; SRResNet ×2 of 32 channels and 8 blocks by default.

    The baseline was trained on clean images, the target from it on images that are blurred (σ = 2)
    and noisy (0.1), each with probability ½.

    Parameters
    ----------
    name : str
        One of `PAIRS`.

    Returns
    -------
    baseline, target : nn.Module
        In eval mode.

    Raises
    ------
    ValueError
        If there is no such pair; the names are listed.

    Examples
    --------
    >>> baseline, target = shipped_pair("swinir-32x2-x2")
    >>> type(target).__name__, target.scale
    ('SwinIR', 2)
    """
    folder = shipped_folder(name)
    return load_pair(folder / "baseline.safetensors", folder / "target.safetensors")
