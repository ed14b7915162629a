"""Path affine maps and PReLU of channels by Triton kernels."""

import torch
from torch import Tensor

from faigfast.backend.gpu.triton_conv import refuses
from faigfast.backend.gpu.triton_mask import contiguous
from faigfast.ops import affine as _affine  # noqa: F401  registers the operation
from faigfast.ops import prelu as _prelu  # noqa: F401
from faigfast.ops.registry import kernel


def _refuses(x: Tensor, *parts: Tensor | None) -> str:
    why = refuses(x, *(part for part in parts if part is not None))
    if why:
        return why
    fits = x[0, 0].numel() < 2**31
    return "" if fits else "one image has more numbers than 32 bits count"


def _shared(x: Tensor) -> Tensor:
    """Reduce points that share memory to one [1, ...]."""
    return (x[:1] if len(x) > 1 and x.stride(0) == 0 else x).contiguous()


def _forward(
    x: Tensor, w: tuple[Tensor, Tensor | None], b: tuple[Tensor | None, Tensor | None],
    alpha: Tensor,
) -> Tensor:  # fmt: skip
    from faigfast.kernels.channels import forward_launch

    y = x.new_empty(len(alpha), *x.shape[1:])
    weights = w[0].contiguous(), contiguous(w[1])
    forward_launch(
        _shared(x), weights, (contiguous(b[0]), contiguous(b[1])), alpha.float().contiguous(), y
    ).run()
    return y


def _backward(
    gy: Tensor, x: Tensor, w: tuple[Tensor, Tensor | None], alpha: Tensor,
    needs: list[bool], prelu: bool,
) -> list[Tensor]:  # fmt: skip
    """Compute gx, and gw and gb [N, C] summed over points; empty where not needed."""
    from faigfast.kernels.channels import backward_launch

    points, images, channels = len(alpha), x.shape[1], x.shape[3]
    gx = x.new_empty(points, *x.shape[1:]) if needs[0] else None
    gw, gb = (
        x.new_empty(points, images, channels, dtype=torch.float32) if need else None
        for need in needs[1:]
    )
    weights = w[0].contiguous(), contiguous(w[1])
    backward_launch(
        gy.contiguous(), _shared(x), weights, alpha.float().contiguous(), gx, gw, gb, prelu
    ).run()
    sums = [x.new_empty(0) if part is None else part.sum(0) for part in (gw, gb)]
    return [x.new_empty(0) if gx is None else gx, *sums]


@kernel(
    "triton", "affine",
    lambda x, w0, dw, b0, db, alpha, *_: _refuses(x, w0, dw, b0, db, alpha), "triton",
)  # fmt: skip
def affine(
    x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor, db: Tensor | None, alpha: Tensor,
    sum_w: Tensor | None, sum_b: Tensor | None,
) -> Tensor:  # fmt: skip
    """As `faigfast.ops.affine.affine`."""
    return _forward(x, (w0, dw), (b0, db), alpha)


@kernel(
    "triton", "affine_backward", lambda gy, x, w0, dw, alpha, *_: _refuses(x, w0, dw, alpha),
    "triton",
)  # fmt: skip
def affine_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """As `faigfast.ops.affine.affine_backward`."""
    gx, gw, gb = _backward(gy, x, (w0, dw), alpha, needs, prelu=False)
    return gx, gw, gb


@kernel(
    "triton", "prelu", lambda x, w0, dw, alpha, *_: _refuses(x, w0, dw, alpha), "triton"
)  # fmt: skip
def prelu(x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, sum_w: Tensor | None) -> Tensor:
    """As `faigfast.ops.prelu.prelu`."""
    return _forward(x, (w0, dw), (None, None), alpha)


@kernel(
    "triton", "prelu_backward", lambda gy, x, w0, dw, alpha, *_: _refuses(x, w0, dw, alpha),
    "triton",
)  # fmt: skip
def prelu_backward(
    gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.prelu.prelu_backward`."""
    gx, gw, _ = _backward(gy, x, (w0, dw), alpha, [*needs, False], prelu=True)
    if needs[1] and len(w0) == 1:
        gw = gw.sum(1, keepdim=True)
    return gx, gw
