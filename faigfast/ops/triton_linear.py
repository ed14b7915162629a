"""Path linear layers by Triton kernels: convolutions with a kernel of 1 over rows of one pixel."""

from typing import Any

import torch
from torch import Tensor

from faigfast.ops import linear as _linear  # noqa: F401  the table knows what is served
from faigfast.ops.table import kernel
from faigfast.ops.triton_conv import MOST_PIXELS, conv, conv_backward, refuses

_GEOMETRY: tuple[Any, ...] = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1)
_NO_SLOPE = (None, None)


def _pixels(x: Tensor) -> Tensor:
    """Bring [P, N, L, I] into [P, N, I, L, 1], channels-last."""
    return x.unsqueeze(3).movedim(-1, 2)


def _rows(y: Tensor) -> Tensor:
    return y.movedim(2, -1).squeeze(3)


def _taps(w: Tensor | None) -> Tensor | None:
    return None if w is None else w[..., None, None]


def _refuses(x: Tensor, w0: Tensor, alpha: Tensor) -> str:
    why, rows = refuses(x, w0, alpha), x.shape[1] * x.shape[2]
    if why or rows < MOST_PIXELS:
        return why
    return f"one point has {rows} rows, more than 32 bits count"


@kernel("triton", "linear", lambda x, w0, dw, b0, db, alpha, *_: _refuses(x, w0, alpha), "triton")
def linear(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None, alpha: Tensor,
    sum_w: Tensor | None, sum_b: Tensor | None,
) -> Tensor:  # fmt: skip
    """As `faigfast.ops.linear.linear`."""
    y, _ = conv(
        _pixels(x), w0[..., None, None], _taps(dw), b0, db, *_NO_SLOPE, alpha, None, None, None,
        None, *_GEOMETRY, "none", 0.0, 1.0, 1,
    )  # fmt: skip
    return _rows(y)


@kernel(
    "triton", "linear_backward", lambda gy, x, w0, dw, alpha, *_: _refuses(x, w0, alpha), "triton"
)
def linear_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """As `faigfast.ops.linear.linear_backward`."""
    empty = torch.empty(0, dtype=x.dtype, device=x.device)
    gx, gw, gb, _ = conv_backward(
        _pixels(gy), _pixels(x), empty, w0[..., None, None], _taps(dw), None, *_NO_SLOPE, alpha,
        None, x.shape[1], [*needs, False], *_GEOMETRY, "none", 0.0, 1.0, 1,
    )  # fmt: skip
    return _rows(gx) if needs[0] else gx, gw.flatten(2) if needs[1] else gw, gb
