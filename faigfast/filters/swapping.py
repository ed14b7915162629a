"""Copies of a target in which some filters lie elsewhere on the line to the baseline."""

import math
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import nn

from faigfast.filters.index import FilterIndex
from faigfast.filters.output_channels import complete_biases
from faigfast.filters.same_network import check_order, checked_pair
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import copy_of, tensors

if TYPE_CHECKING:
    from faigfast.filters.filter_set import FilterSet


def swapped(
    filters: "FilterSet",
    baseline: nn.Module,
    target: nn.Module,
    strength: float,
    *,
    biases: bool,
) -> nn.Module:
    """Copy the target with filters at baseline + strength·(target − baseline).

    Arguments and errors are those of `FilterSet.swap`.
    """
    if not isinstance(strength, Real):
        raise TypeError(f"strength is {strength!r}; expected a finite number")
    try:
        strength = float(strength)
    except OverflowError:
        raise ValueError(
            "strength is an integer beyond float64; expected a finite number"
        ) from None
    if not math.isfinite(strength):
        raise ValueError(f"strength is {strength!r}; expected a finite number")
    if not isinstance(biases, bool):
        raise TypeError(f"biases is {biases!r}; expected True or False")
    baseline, target = checked_pair(baseline, target)
    index = FilterIndex.of(target)
    masks = filters.masks(index)
    if biases:
        masks |= complete_biases(target, index, masks)
    if filters.baseline and filters.baseline != filters.target:
        check_order(filters, *fingerprints(baseline, target))
    edited = copy_of(target)
    vars(edited).pop("faigfast_source", None)  # the copy differs from the checkpoint
    start, end = tensors(baseline), tensors(edited)
    with torch.inference_mode(False), torch.no_grad():
        for key, mask in masks.items():
            mask = mask.to(end[key].device)
            changed = start[key].to(end[key])
            if strength != 0:  # at 0, lerp makes 0 of -0
                changed = torch.lerp(changed, end[key], strength)
            end[key][mask] = changed[mask]
    return edited
