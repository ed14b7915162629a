"""The C++ kernel of a layer, weights in the kernel's order, and gradient sums in that order."""

import math
from threading import Lock
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from faigfast.backend.cpu import extension as _extension
from faigfast.backend.cpu.allocator import empty
from faigfast.ops.conv.spec import ConvSpec
from faigfast.ops.path_values import address
from faigfast.ops.registry import in_use

# A square of 3×3 taps takes 36 multiplications for 16 results, however few taps are not zero: with
# fewer taps to a square, products tap by tap were as fast.
LEAST_TAPS = 4
# Vectors hold channels: with fewer in the weights' second dimension, torch's own kernels were
# faster, except for one square, 1×1 and depthwise.
LEAST_CHANNELS = 5

Taps = tuple[str, tuple[int, ...]]  # result of `taps_of`


def taps_of(w0: Tensor, spec: ConvSpec) -> Taps:
    """Kind of the C++ kernel, and its numbers of squares, or taps, down and across."""
    stride, padding, dilation, transposed, _, groups = spec.geometry
    size = tuple(w0.shape[2:])
    if transposed or (*stride, *dilation) != (1, 1, 1, 1):
        return "direct", size
    if groups > 1:
        return "depthwise" if w0.shape[:2] == (groups, 1) else "direct", size
    if size == (1, 1) and not any(padding):
        return "point", size
    squares = tuple(math.ceil(side / 3) for side in size)
    enough = math.prod(size) >= LEAST_TAPS * math.prod(squares)
    if enough and (w0.shape[1] >= LEAST_CHANNELS or squares == (1, 1)):
        return "squares", squares
    return "direct", size


# For kernels of the forward, for those of its input gradient, and as kernels read them in place.
Order = Literal["forward", "flipped", "plain"]
# Channels on either side from which gradients in bfloat16 pay: a tile has 16.
LEAST_BF16 = 16


def multiplies_bf16(w0: Tensor, taps: Taps) -> bool:
    """Whether gradients of a convolution multiply bfloat16."""
    served = taps[0] in ("squares", "point") and min(w0.shape[:2]) >= LEAST_BF16
    return served and in_use().mode == "bf16"


_packing_lock = Lock()  # several threads reach a layer at the same time


def packed(
    w0: Tensor, dw: Tensor | None, taps: Taps, shuffle: int, order: Order
) -> tuple[Tensor, Tensor | None]:
    """Weights in an order of the kernels; cached for weights on the line."""
    if dw is None:  # may hold one point, and change for the next
        return _pack(w0, taps, shuffle, order), None
    if taps[0] != "squares":
        order = "plain"
    cache = in_use().packed_weights
    key = w0.data_ptr(), dw.data_ptr(), w0.shape, w0.stride(), taps[0], shuffle, order
    with _packing_lock:
        if key not in cache:
            packed_pair = _pack(w0, taps, shuffle, order), _pack(dw, taps, shuffle, order)
            cache[key] = packed_pair, w0, dw  # held, so that no other tensor gets their addresses
        return cache[key][0]


def _pack(w: Tensor, taps: Taps, shuffle: int, order: Order) -> Tensor:
    kind, (down, across) = taps
    if kind == "direct":
        return w.movedim((0, 1), (2, 3)).contiguous()
    if kind != "squares":
        plain = w.flatten(1)
        return (plain.T if kind == "depthwise" else plain).contiguous()
    missing = 3 * across - w.shape[3], 3 * down - w.shape[2]
    if any(missing):
        w = F.pad(w, (0, missing[0], 0, missing[1]))
    if down == across == 1:
        plain = w.movedim(1, 3).contiguous()
    else:  # [squares, O, 3, 3, C]
        plain = w.unflatten(3, (-1, 3)).unflatten(2, (-1, 3)).permute(2, 4, 0, 3, 5, 1).contiguous()
    packing = _extension.module.Packing(  # type: ignore[union-attr]
        outputs=w.shape[0],
        inputs=w.shape[1],
        squares=down * across,
        shuffle=shuffle,
        turned=order == "flipped",
    )
    size = 0 if order == "plain" else packing.size()
    if not size:  # this kernel reads them in that order
        return plain
    packed_weights = empty(size)
    _extension.module.pack(  # type: ignore[union-attr]
        packing, w=address(plain), packed=address(packed_weights), threads=torch.get_num_threads()
    )
    return packed_weights


def shape_of_sums(w0: Tensor, taps: Taps) -> tuple[int, ...]:
    """Shape of a weight gradient in the kernel, for one image."""
    kind, grid = taps
    if kind == "direct":
        return *grid, *w0.shape[:2]
    if kind == "squares" and w0.shape[2:] != (3, 3):
        return *grid, *w0.shape[:2], 3, 3
    return tuple(w0.shape)


def as_weights(sums: Tensor, w0: Tensor, taps: Taps) -> Tensor:
    """Lay sums [N, *shape_of_sums] out as [N, *w]."""
    if taps[0] == "direct":
        return sums.movedim((1, 2), (3, 4)).contiguous()
    if taps[0] == "squares" and w0.shape[2:] != (3, 3):
        unfolded = sums.permute(0, 3, 4, 1, 5, 2, 6).flatten(5, 6).flatten(3, 4)
        return unfolded[..., : w0.shape[2], : w0.shape[3]].contiguous()
    return sums
