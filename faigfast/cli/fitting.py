"""Images that do not fit a network, found before the first of them is attributed."""

from collections.abc import Mapping
from contextlib import suppress

from torch import nn

from faigfast.cli.reading import Images
from faigfast.data.image_files import first_names
from faigfast.integration.named_images import name_in_errors
from faigfast.integration.objective import Objective
from faigfast.io.text_table import counted
from faigfast.models.output_shape import OutputShapes

MULTIPLES = (2, 4, 8, 16, 32, 64)  # tried as a remedy
MOST_PAD = 64

Size = tuple[int, int]


def check_sizes(
    network: nn.Module,
    sizes: Mapping[str, Size],
    *,
    scale: int,
    channels: int,
    pad: int = 0,
    crop_to: int = 1,
) -> None:
    """Refuse images whose output would not fit their ground truth.

    Parameters
    ----------
    network : nn.Module
        The target.
    sizes : mapping of str to (int, int)
        Height and width of the degraded images, by name.
    scale : int
        Enlargement from the degraded images to the ground truths.
    channels : int
        Channels of the images.
    pad : int
        Pixels of reflection on every side of an image.
    crop_to : int
        Number whose multiples the sides of the degraded images are cropped to.

    Raises
    ------
    ValueError
        Naming the first images that do not fit, the reason for the first one, and a remedy.
    """
    shapes = OutputShapes(network)
    names_by_size: dict[Size, list[str]] = {}
    for name, size in sizes.items():
        names_by_size.setdefault(size, []).append(name)
    problems = {
        size: problem
        for size in names_by_size
        if (problem := _problem(shapes, size, scale, channels, pad))
    }
    if not problems:
        return
    refused = [name for name, size in sizes.items() if size in problems]
    first = sizes[refused[0]]
    raise ValueError(
        f"{len(refused)} of {counted(len(sizes), 'image')} "
        f"{'does' if len(refused) == 1 else 'do'} not fit the network: {first_names(refused)}; "
        f"degraded image {refused[0]!r} is {_text(first)}: {problems[first]}"
        f"{_remedy(shapes, list(names_by_size), problems, scale, channels, pad, crop_to)}"
    )


def check_smallest(images: Images, objective: Objective) -> None:
    """Read and degrade the images with the shortest sides, and evaluate the objective on them.

    Raises
    ------
    ValueError
        If an image is too small for its degradation or for the objective.
    """
    sizes = list(images.low_sizes.values())
    if len(set(sizes)) == 1:  # the first image fails as the others would
        return
    for side in (0, 1):
        smallest = min(range(len(sizes)), key=lambda n: sizes[n][side])
        gt = images[smallest]["gt"][None]
        with name_in_errors(f"image {images.names[smallest]!r}"):
            objective(gt, gt)


def _problem(shapes: OutputShapes, size: Size, scale: int, channels: int, pad: int) -> str:
    """Say why images of a size do not fit; "" if they do."""
    if pad >= min(size):
        return f"pad={pad} is not less than its sides"
    padded = [side + 2 * pad for side in size]
    try:
        output = shapes.of(channels, *padded)
    except ValueError as error:
        return str(error)
    gt = [scale * side for side in size]
    made = f"the network makes {_text(output[1:])} of {_text((channels, *padded))} and gt is "
    made += _text((channels, *gt))
    if len(output) != 4 or output[1] != channels:
        return made
    differences = [have - want for have, want in zip(output[2:], gt, strict=True)]
    if not pad:
        return made if any(differences) else ""
    if min(differences) < 0:
        return f"{made}, which is larger"
    return f"{made}, which has no middle" if any(d % 2 for d in differences) else ""


def _remedy(
    shapes: OutputShapes,
    sizes: list[Size],
    problems: Mapping[Size, str],
    scale: int,
    channels: int,
    pad: int,
    crop_to: int,
) -> str:
    """Name options with which all images fit."""
    if not shapes.cheap():
        return "; expected images that fit, --crop-to a multiple, or --pad"

    def fit(number: int, pixels: int) -> bool:
        cropped = [tuple(side // number * number for side in size) for size in [*problems, *sizes]]
        return all(
            min(size) and not _problem(shapes, (size[0], size[1]), scale, channels, pixels)
            for size in dict.fromkeys(cropped)
        )

    with suppress(ValueError):  # of images that the network does not take
        enlargement = shapes.enlargement(channels, min(next(iter(problems))))
        if enlargement != scale:
            return (
                f"; the network enlarges by {enlargement} and the scale is {scale}: expected "
                f"--scale {enlargement}, or degraded images of that scale"
            )
    multiple = next((m for m in MULTIPLES if m % crop_to == 0 and fit(m, pad)), None)
    if multiple is not None:
        return f"; expected --crop-to {multiple}, or other images"
    pixels = next((k for k in range(pad + 1, MOST_PAD + 1) if fit(crop_to, k)), None)
    if pixels is not None:
        return f"; expected --pad {pixels}, or other images"
    return "; expected images that fit, another --scale, --crop-to a multiple, or --pad"


def _text(sides: tuple[int, ...]) -> str:
    return "×".join(map(str, sides))
