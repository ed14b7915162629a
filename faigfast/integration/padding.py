"""Padding: images padded by reflection, and the middle of an output that fits the ground truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from faigfast.integration.objective import Objective


def checked_pad(pad: Any) -> int:
    """Check a number of pixels.

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is negative.
    """
    if isinstance(pad, bool) or not isinstance(pad, Integral):
        raise TypeError(f"pad is {pad!r}; expected a number of pixels")
    if pad < 0:
        raise ValueError(f"pad is {pad}; expected a number of pixels from 0 up")
    return int(pad)


def reflected(x: Tensor, pad: int) -> Tensor:
    """Pad images by reflection, without repeating the border, on every side.

    Parameters
    ----------
    x : Tensor
        [N, C, *spatial].
    pad : int
        Pixels K.

    Returns
    -------
    Tensor
        [N, C, *(side + 2K)].

    Raises
    ------
    ValueError
        If a side is not longer than K pixels.

    Examples
    --------
    >>> reflected(torch.arange(4.0).view(1, 1, 4), 2)[0, 0].tolist()
    [2.0, 1.0, 0.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    """
    if not pad:
        return x
    if x.ndim < 3 or pad >= min(x.shape[2:]):
        raise ValueError(
            f"pad is {pad} for an image of {_sides(x.shape[2:])}; reflection reaches one pixel "
            "less than its shortest side: expected a smaller pad or a larger image"
        )
    for axis in range(2, x.ndim):
        side = x.shape[axis]
        positions = torch.arange(-pad, side + pad, device=x.device).abs()
        positions = side - 1 - (side - 1 - positions).abs()
        x = x.index_select(axis, positions)
    return x


def middle(output: Tensor, sides: Sequence[int], pad: int) -> Tensor:
    """Take the middle of the last axes of an output.

    Parameters
    ----------
    output : Tensor
        [..., *spatial].
    sides : sequence of int
        Sides of the ground truth.
    pad : int
        Pixels by which images are padded, for the messages.

    Raises
    ------
    ValueError
        If the output is smaller than `sides`, or its middle lies between two pixels.
    """
    given = output.shape[output.ndim - len(sides) :]
    for axis, (have, want) in enumerate(zip(given, sides, strict=True), start=-len(sides)):
        if have < want:
            raise ValueError(
                f"with pad={pad} the network makes {_sides(given)} and gt is {_sides(sides)}; "
                "expected an output no smaller than gt: a larger pad"
            )
        if (have - want) % 2:
            raise ValueError(
                f"with pad={pad} the network makes {_sides(given)} and gt is {_sides(sides)}; "
                "expected an even difference, so that gt lies in the middle"
            )
        output = output.narrow(axis, (have - want) // 2, want)
    return output


def own_part(output: Tensor, x: Tensor, pad: int) -> Tensor:
    """Take the part of an output that shows the image x, without the padding.

    The enlargement is the least integer that explains the output: networks of valid convolutions
    lose pixels. An output that is smaller than the enlarged image is taken whole.

    Parameters
    ----------
    output : Tensor
        [N, C, *spatial], of the padded image.
    x : Tensor
        [N, C, *spatial], without padding.
    pad : int
        Pixels of padding on every side.
    """
    sides = []
    for have, side in zip(output.shape[2:], x.shape[2:], strict=True):
        want = side * -(-have // (side + 2 * pad))
        sides.append(have if want > have or (have - want) % 2 else want)
    return middle(output, sides, pad)


@dataclass(frozen=True, eq=False)
class OnMiddle:
    """An objective on the middle of the output, which has the shape of the ground truth.

    Parameters
    ----------
    objective : callable
        L, of (output, gt).
    pad : int
        Pixels by which images are padded, for the messages.
    """

    objective: Objective
    pad: int

    def __post_init__(self) -> None:
        """Take the objective's module as its own; see `is_ours`."""
        module = getattr(self.objective, "__module__", "")
        object.__setattr__(self, "__module__", module)

    def __call__(self, output: Any, gt: Tensor) -> Tensor:
        """Compute the losses [B] of an output [B, C, *spatial]."""
        if not isinstance(output, Tensor) or output.ndim != gt.ndim or gt.ndim < 3:
            kind = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(
                f"with pad={self.pad} the network's output is {kind} and gt {list(gt.shape)}; "
                "expected images [N, C, *spatial] of one rank"
            )
        return self.objective(middle(output, gt.shape[2:], self.pad), gt)


def on_middle(objective: Objective, pad: int) -> Objective:
    """Give an objective for images padded by `pad` pixels; 0 leaves the objective as it is."""
    return OnMiddle(objective, pad) if pad else objective


def without_padding(objective: Objective) -> Objective:
    """Give the objective of the whole output that `on_middle` took."""
    return objective.objective if isinstance(objective, OnMiddle) else objective


def _sides(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides)) or "no sides"
