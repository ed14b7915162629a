"""Readers: how the product reads a file of each kind, and what a good one holds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INDICES = [5, 0, 11, 3]
PICTURE = (3, 12, 8)


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read.

    Attributes
    ----------
    write_good : callable
        Writes a good file into a folder and gives its path.
    read : callable
        Gives what the product reads from a path.
    right : callable
        Whether this is the content of the good file.
    """

    write_good: Callable[[Path], Path]
    read: Callable[[Path], Any]
    right: Callable[[Any], bool]


def network() -> nn.Module:
    """Give a network of two convolutions with fixed weights."""
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in made.parameters():
            value.copy_(torch.rand(value.shape, generator=generator))
    return made


def write_checkpoint(folder: Path) -> Path:
    """Write the network's weights as PyTorch does."""
    torch.save(network().state_dict(), folder / "good")
    return folder / "good"


def write_safetensors(folder: Path) -> Path:
    """Write the network's weights as safetensors does."""
    from safetensors.torch import save_file

    save_file(dict(network().state_dict()), folder / "good")
    return folder / "good"


def write_legacy(folder: Path) -> Path:
    """Write the network's weights as PyTorch did before version 1.6."""
    torch.save(network().state_dict(), folder / "good", _use_new_zipfile_serialization=False)
    return folder / "good"


def write_known(folder: Path) -> Path:
    """Write the weights of a network of the zoo."""
    from faigfast.zoo import SRResNet

    torch.save(SRResNet(width=4, blocks=1, scale=2).state_dict(), folder / "good")
    return folder / "good"


def _load(path: Path) -> nn.Module:
    from faigfast import load_model

    return load_model(path, into=network())


def _load_known(path: Path) -> nn.Module:
    from faigfast import load_model

    return load_model(path)


def _load_second(path: Path) -> nn.Module:
    from faigfast import load_pair

    return load_pair(path.parent / "good", path, into=network())[1]


def _is_network(loaded: nn.Module) -> bool:
    own, given = network().state_dict(), loaded.state_dict()
    return own.keys() == given.keys() and all(torch.equal(own[key], given[key]) for key in own)


def attribution() -> Any:
    """Give an attribution of two images and two degradations."""
    from faigfast import attribute

    torch.manual_seed(3)
    baseline, target = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
    x, gt = torch.rand(2, 3, 6, 5), torch.rand(2, 4, 6, 5)
    batch = {"lq": {"blur": x, "noise": x.flip(-1)}, "gt": gt}
    return attribute(baseline, target, batch, steps=2, backend="reference")


def write_attribution(folder: Path) -> Path:
    """Save the attribution."""
    attribution().save(folder / "good")
    return folder / "good"


def _load_attribution(path: Path) -> Any:
    from faigfast import Attribution

    return Attribution.load(path)


def _is_attribution(loaded: Any) -> bool:
    own = attribution()
    pairs = zip(own.by_degradation.values(), loaded.by_degradation.values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and own.setting == loaded.setting


def write_indices(folder: Path) -> Path:
    """Write filter indices in the authors' format."""
    (folder / "good").write_text("\n".join(map(str, INDICES)) + "\n")
    return folder / "good"


def _load_indices(path: Path, total: int | None = None) -> Any:
    from faigfast import FilterSet

    return FilterSet.load(path, total)


def _is_indices(loaded: Any) -> bool:
    return loaded.indices.tolist() == INDICES


def picture() -> Tensor:
    """Give a picture [3, H, W] of 8 bits."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(256, PICTURE, generator=generator) / 255


def write_picture(folder: Path) -> Path:
    """Write the picture."""
    from faigfast.data import write_image

    write_image(folder / "good.png", picture())
    return folder / "good.png"


def _load_picture(path: Path) -> Tensor:
    from faigfast.data import read_image

    return read_image(path)


def write_folders(folder: Path, name: str = "good") -> Path:
    """Write a folder of ground truths and one of degraded images."""
    from faigfast.data import write_image

    for part in ("gt", "lq"):
        for stem in ("a", "b"):
            write_image(folder / name / part / f"{stem}.png", picture())
    return folder / name


def _load_folders(path: Path) -> list[Tensor]:
    from faigfast.data import PairedFolders

    return [item["lq"]["lq"] for item in PairedFolders(path / "gt", path / "lq")]


def _degrade_folder(path: Path) -> list[Tensor]:
    from faigfast.data import DegradedFolder

    def unchanged(gt: Tensor, seed: int) -> Tensor:
        return gt

    unchanged.scale = 1
    return [item["lq"]["same"] for item in DegradedFolder(path / "gt", {"same": unchanged})]


def _are_pictures(loaded: list[Tensor]) -> bool:
    return len(loaded) == 2 and all(torch.equal(image, picture()) for image in loaded)


READERS = {
    "checkpoint": Reader(write_checkpoint, _load, _is_network),
    "second checkpoint": Reader(write_checkpoint, _load_second, _is_network),
    "checkpoint of the zoo": Reader(write_known, _load_known, lambda loaded: False),
    "attribution": Reader(write_attribution, _load_attribution, _is_attribution),
    "indices": Reader(write_indices, _load_indices, _is_indices),
    "indices of 12": Reader(write_indices, partial(_load_indices, total=12), _is_indices),
    "picture": Reader(write_picture, _load_picture, lambda x: torch.equal(x, picture())),
    "paired folders": Reader(write_folders, _load_folders, _are_pictures),
    "degraded folder": Reader(write_folders, _degrade_folder, _are_pictures),
}
