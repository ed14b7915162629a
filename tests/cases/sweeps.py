"""Images and observations for the tests of sweeps."""

import torch

from faigfast.data import write_image


def add_photo(folder, n):
    """Write an image of one of two sizes."""
    generator = torch.Generator().manual_seed(n)
    side = 16 if n % 2 else 12
    write_image(folder / f"p{n}.png", torch.rand(3, 12, side, generator=generator))


def computed_units(tasks):
    """Degradation and images of tasks."""
    return [(task.level.name, tuple(image.name for image in task.images)) for task in tasks]


def files_of(output):
    """Content of the files of scores, by name."""
    return {path.name: path.read_bytes() for path in (output / "scores").rglob("*.safetensors")}
