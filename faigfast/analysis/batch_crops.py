"""The batches that `faigfast.attribute` takes, as crops to measure networks on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from faigfast.analysis.evaluation import Crops, MetricValues
from faigfast.integration.batch import Batch, Batches, batches, is_one_batch
from faigfast.models.state import unwrap

T = TypeVar("T")


def repeatable(batch: Batches) -> Batches:
    """Keep the batches of an iterator, so that they can be read more than once."""
    if is_one_batch(batch) or isinstance(batch, Tensor | str | bytes):
        return batch
    return cast(Batches, list(batch)) if isinstance(batch, Iterable) else batch


class BatchCrops:
    """Images of batches, in parts of equal sizes and one ground truth each.

    Parameters
    ----------
    batch : tuple, mapping or iterable
        As in `faigfast.attribute`, without further inputs of the networks.
    target : nn.Module
        Network whose type and device the images have.
    pad : int
        Pixels of reflection around every image.
    border : int, optional
        Pixels left out of measurements on every side; None: the enlargement from x to gt.

    Raises
    ------
    TypeError, ValueError
        As `faigfast.attribute`; also if a batch holds `inputs`.
    """

    def __init__(
        self, batch: Batches, target: nn.Module, pad: int = 0, border: int | None = None
    ) -> None:
        weights = (p for p in unwrap(target, "target").parameters() if p.is_floating_point())
        first = next(weights, None)
        if first is None:
            raise ValueError("target has no parameters: nothing to measure")
        if border is not None and (isinstance(border, bool) or not isinstance(border, int)):
            raise TypeError(f"border is {border!r}; expected a number of pixels, or None")
        if border is not None and border < 0:
            raise ValueError(f"border is {border}; expected 0 pixels or more")
        # By batch, then by ground truth.
        self.parts: list[list[Crops]] = []
        before = 0
        for one in batches(batch, first.device, first.dtype):
            if one.inputs:
                raise ValueError("batch holds inputs; expected networks that take images alone")
            self.parts.append(_by_truth(one, before, pad))
            before += one.images
        first_part = self.parts[0][0]
        enlargement = first_part.gt.shape[-1] // next(iter(first_part.lq.values())).shape[-1]
        self.border = enlargement if border is None else border

    @property
    def degradations(self) -> tuple[str, ...]:
        """Names of the degradations."""
        return tuple(name for part in self.parts[0] for name in part.lq)

    def measured(self, run: Callable[[Crops], T]) -> "list[list[T]]":
        """Run an analysis on every part: by batch, then by ground truth."""
        return [[run(part) for part in same_images] for same_images in self.parts]


def _by_truth(one: Batch, before: int, pad: int) -> list[Crops]:
    """Group the degradations of a batch that have one ground truth."""
    images = range(one.images)
    # A photograph and a place in it, as `Crops` names them.
    names = tuple(f"{one.names[n] if one.names else before + n} 0,0" for n in images)
    groups: list[tuple[Tensor, dict[str, Tensor]]] = []
    for name, x in one.lq.items():
        gt = one.gt[name]
        lq = next((lq for other, lq in groups if other is gt), None)
        if lq is None:
            groups.append((gt, {name: x}))
        else:
            lq[name] = x
    return [Crops(lq, gt, names, pad) for gt, lq in groups]


def joined_values(parts: Sequence[Sequence[MetricValues]]) -> MetricValues:
    """Join metric values: degradations of the same images, then images of all batches.

    Parameters
    ----------
    parts : sequence of sequence of dict
        Metric to degradation to [N], by batch, then by ground truth.

    Returns
    -------
    dict of str to dict of str to Tensor
        Metric to degradation to the numbers of all images.
    """
    by_batch: list[MetricValues] = []
    for same_images in parts:
        joined: MetricValues = {}
        for values in same_images:
            for metric, by_degradation in values.items():
                joined.setdefault(metric, {}).update(by_degradation)
        by_batch.append(joined)
    return {
        metric: {name: torch.cat([one[metric][name] for one in by_batch]) for name in by_name}
        for metric, by_name in by_batch[0].items()
    }


def joined_by_name(
    parts: Sequence[Sequence[Mapping[str, MetricValues]]],
) -> dict[str, MetricValues]:
    """Join the metric values of several networks, by name."""
    return {
        name: joined_values([[part[name] for part in same_images] for same_images in parts])
        for name in parts[0][0]
    }
