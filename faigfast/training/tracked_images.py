"""The images that a tracker attributes again and again, wherever the network is by then."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.integration.batch import Batches, batches, is_one_batch
from faigfast.models.fingerprint import digest_of
from faigfast.models.state import own_type


class TrackedImages:
    """Images in any form of a batch.

    Parameters
    ----------
    images : tuple, mapping or iterable
        One batch is checked; an iterator is read once and kept.
    network : nn.Module
        Takes the images.

    Attributes
    ----------
    degradations : tuple of str
        Of one batch; () for an iterable of batches, which is not read before it is used.
    digest : str
        Of one batch; "" for an iterable of batches.

    Raises
    ------
    TypeError, ValueError
        If one batch does not have the form that `attribute` takes.
    """

    def __init__(self, images: Batches, network: nn.Module) -> None:
        self._images = list(images) if isinstance(images, Iterator) else images
        self.degradations: tuple[str, ...] = ()
        self.digest = ""
        if not is_one_batch(self._images):
            return
        device, dtype = next(network.parameters()).device, own_type(network)
        (batch,) = batches(self.placed(device, dtype), device, dtype)
        named = {f"lq.{name}": x for name, x in batch.lq.items()}
        named |= {f"gt.{name}": gt for name, gt in batch.gt.items()}
        self.degradations, self.digest = tuple(batch.lq), digest_of(named)

    def placed(self, device: torch.device, dtype: torch.dtype) -> Batches:
        """Give the images on a device; those of floating point take the type too."""
        images: Any = self._images
        if is_one_batch(images):
            return _placed(images, device, dtype)
        if isinstance(images, Tensor) or not hasattr(images, "__iter__"):  # `attribute` refuses it
            return images
        return _placed_parts(images, device, dtype)

    def check_degradation(self, name: str | None) -> None:
        """Refuse a name that one batch does not hold; None is the only one.

        Raises
        ------
        ValueError
            Naming the degradations.
        """
        known = self.degradations
        if known and name not in known and not (name is None and len(known) == 1):
            raise ValueError(f"degradation is {name!r}; expected one of {known}")


def _placed_parts(parts: Any, device: torch.device, dtype: torch.dtype) -> Iterator[Any]:
    """Move batch after batch."""
    # Not a generator expression, whose first `iter` runs where it is written: that of a data loader
    # draws a random number, and the attributor restores the generators only around its own work.
    for part in parts:
        yield _placed(part, device, dtype)


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Move the tensors within a batch."""
    if isinstance(value, Tensor):
        return value.to(device, dtype) if value.is_floating_point() else value.to(device)
    if isinstance(value, Mapping):
        return {key: _placed(part, device, dtype) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_placed(part, device, dtype) for part in value)
    return value
