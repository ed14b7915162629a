"""Images of the page: scenes to compare, dials to turn, and which crops to show."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

# Names of the images of a scene, in their order on every page.
INPUT, BASELINE, TARGET, TRUTH = "input", "baseline", "target", "ground truth"


@dataclass(frozen=True)
class Shot:
    """One image of a scene.

    Parameters
    ----------
    name : str
        What it shows; equal names have equal places in all scenes.
    address : str
        Data URI of the PNG.
    caption : str
        Below the image, such as its PSNR.
    """

    name: str
    address: str
    caption: str = ""


@dataclass(frozen=True)
class Scene:
    """Images of one crop.

    Parameters
    ----------
    title : str
        Photograph and degradation.
    shots : sequence of Shot
        In the page's one order: input, baseline, target, masked networks, ground truth.
    side : int
        Height of the images in pixels.
    """

    title: str
    shots: Sequence[Shot]
    side: int

    @property
    def first_pair(self) -> tuple[int, int]:
        """Places of the images that the A/B slider starts with: the target, and masked."""
        names = [shot.name for shot in self.shots]
        a = names.index(TARGET) if TARGET in names else 0
        return a, min(a + 1, len(names) - 1)


@dataclass(frozen=True)
class Dial:
    """Images at all values of one or two sliders.

    Parameters
    ----------
    title : str
        What is restored.
    axes : sequence of (str, sequence of float)
        Name and values of every slider.
    images : sequence of (str, str)
        Data URI and caption, the last slider's values next to each other.
    side : int
        Height of the images in pixels.
    """

    title: str
    axes: Sequence[tuple[str, Sequence[float]]]
    images: Sequence[tuple[str, str]]
    side: int

    @property
    def start(self) -> int:
        """Place of the image that is shown first: all sliders as near to 1 as they go."""
        place = 0
        for _, values in self.axes:
            distances = [abs(value - 1) for value in values]
            place = place * len(values) + distances.index(min(distances))
        return place


def largest_gains(gain: Tensor, photographs: Sequence[str], most: int) -> list[int]:
    """Choose crops to show: of each photograph the one with the largest gain, largest first.

    Parameters
    ----------
    gain : Tensor
        [N], PSNR of the target over the baseline in dB.
    photographs : sequence of str
        The photograph of each crop.
    most : int
        How many photographs.

    Returns
    -------
    list of int
        Places of the crops.

    Examples
    --------
    >>> import torch
    >>> largest_gains(torch.tensor([1.0, 3.0, 2.0]), ["a", "a", "b"], 2)
    [1, 2]
    """
    best: dict[str, int] = {}
    for n, (name, value) in enumerate(zip(photographs, gain.tolist(), strict=True)):
        if name not in best or value > float(gain[best[name]]):
            best[name] = n
    return sorted(best.values(), key=lambda n: -float(gain[n]))[:most]


def choice_text(gain: Tensor, places: Sequence[int], degradation: str) -> str:
    """Say how crops were chosen, and how far above the mean they are."""
    shown = ", ".join(f"{float(gain[n]):.1f}" for n in places)
    which = "the crop" if len(places) == 1 else "of each photograph the crop"
    return (
        f"Chosen, not typical: {which} where the target gains most over the "
        f"baseline on {degradation}, {shown} dB; the mean over all {len(gain)} crops is "
        f"{float(gain.mean()):.1f} dB."
    )
