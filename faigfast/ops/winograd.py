"""Path convolutions 3×3 by Winograd's transforms in C++: float32 on a CPU."""

from typing import Any

import torch
from torch import Tensor

from faigfast import _extension
from faigfast.ops.activation import activate, activation_backward
from faigfast.ops.line import on_line
from faigfast.ops.table import kernel

# Those that the kernels apply themselves; any other follows in PyTorch.
_FUSED = {"none": "none", "relu": "relu", "leaky_relu": "leaky_relu", "prelu": "leaky_relu"}
_LEAST_CHANNELS = 1


def dense(x: Tensor) -> Tensor:
    """[P, M, C, H, W] with every sample channels-last and one after the other, copied if need be.

    What all points share, [1, M, ...] or expanded, stays so.
    """
    if len(x) > 1 and x.stride(0) == 0:
        x = x[:1]
    return x.movedim(2, -1).contiguous().movedim(-1, 2)
