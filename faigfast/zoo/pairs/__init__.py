"""The trained pair that ships with the package."""

from importlib import resources
from pathlib import Path

from torch import nn

from faigfast.zoo.checkpoints import load_pair

NAME = "srresnet-32x8-x2"


def shipped_folder() -> Path:
    """Folder of the pair: two checkpoints, and the command, recipe, log and evaluation of both."""
    return Path(str(resources.files(__name__))) / NAME


def shipped_pair() -> tuple[nn.Module, nn.Module]:
    """Load the shipped baseline and target: SRResNet ×2 of 32 channels and 8 blocks.

    The baseline was trained on clean images, the target from it on images that are blurred (σ = 2)
    and noisy (0.1), each with probability ½.

    Returns
    -------
    baseline, target : SRResNet
        In eval mode.
    """
    folder = shipped_folder()
    return load_pair(folder / "baseline.safetensors", folder / "target.safetensors")
