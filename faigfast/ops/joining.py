"""Channels joined to channels, in memory that has room for those that follow.

A dense block joins the result of every convolution to all that was before it. Where the memory of
the first join has room for the last, only what is new is written.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from faigfast.ops.cpu_memory import empty


class Room:
    """Memory for images whose channels come one after the other.

    Parameters
    ----------
    like : Tensor
        [..., C, H, W], whose type it has.
    lead : sequence of int
        Dimensions before the channels.
    channels : int
        For how many there is room.
    """

    def __init__(self, like: Tensor, lead: Sequence[int], channels: int) -> None:
        shape = *lead, *like.shape[-2:], channels
        plain = type(like) is Tensor and like.dtype == torch.float32
        self._pixels = empty(*shape) if plain else like.new_empty(shape)
        self.used = 0

    def fits(self, width: int, more: int) -> bool:
        """Whether those that are there are the first `width`, with room for more."""
        return self.used == width and width + more <= self._pixels.shape[-1]

    def put(self, part: Tensor) -> None:
        """Write channels [..., C, H, W] behind those that are there."""
        width = part.shape[-3]
        # By `data`, since earlier channels, which others hold on to, do not change.
        self._pixels.data.narrow(-1, self.used, width).copy_(part.movedim(-3, -1))
        self.used += width

    def channels(self) -> Tensor:
        """Give all that are there."""
        return self._pixels.data.narrow(-1, 0, self.used).movedim(-1, -3)


def join(room: Room, parts: Sequence[Tensor]) -> Tensor:
    """Concatenate channels [..., C, H, W]; the first part may stand in the room already."""
    return _Join.apply(room, *parts)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, room: Room, *parts: Tensor) -> Tensor:
        ctx.widths = [part.shape[-3] for part in parts]
        for part in parts[1:] if room.used else parts:
            room.put(part)
        return room.channels()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return None, *gradient.split(ctx.widths, -3)
