"""Path linear layers by kernels of convolutions: with a kernel of 1 over rows of one pixel."""

from collections.abc import Callable

import torch
from torch import Tensor

from faigfast.backend.gpu import triton_conv
from faigfast.ops.conv import cpu as cpu_conv
from faigfast.ops.conv.spec import Backward, ConvSpec, PathParameters
from faigfast.ops.linear import operation as _linear  # noqa: F401  registers the operation
from faigfast.ops.registry import kernel

_SPEC = ConvSpec(padding=(0, 0))


def _pixels(x: Tensor) -> Tensor:
    """Bring [P, N, L, I] into [P, N, I, L, 1], channels-last."""
    return x.unsqueeze(3).movedim(-1, 2)


def _rows(y: Tensor) -> Tensor:
    return y.movedim(2, -1).squeeze(3)


def _taps(w: Tensor | None) -> Tensor | None:
    return None if w is None else w[..., None, None]


def _triton_refuses(x: Tensor, w0: Tensor, alpha: Tensor) -> str:
    why, rows = triton_conv.refuses_products(x, w0, alpha), x.shape[1] * x.shape[2]
    if why or rows < triton_conv.MOST_PIXELS:
        return why
    return f"one point has {rows} rows, more than 32 bits count"


def _register(
    name: str, backend: str, refuses: Callable[..., str],
    conv: Callable[..., tuple[Tensor, Tensor]], conv_backward: Callable[..., tuple[Tensor, ...]],
) -> None:  # fmt: skip
    @kernel(name, "linear", lambda x, w0, dw, b0, db, alpha, *_: refuses(x, w0, alpha), backend)
    def linear(
        x: Tensor, w0: Tensor, dw: Tensor | None, b0: Tensor | None, db: Tensor | None,
        alpha: Tensor, sum_w: Tensor | None, sum_b: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """As `faigfast.ops.linear.operation.linear`."""
        parameters = PathParameters(w0[..., None, None], _taps(dw), b0, db, None, None, alpha)
        y, _ = conv(_pixels(x), parameters, None, _SPEC)
        return _rows(y)

    @kernel(
        name, "linear_backward", lambda gy, x, w0, dw, alpha, *_: refuses(x, w0, alpha), backend
    )
    def linear_backward(
        gy: Tensor, x: Tensor, w0: Tensor, dw: Tensor | None, alpha: Tensor, needs: list[bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `faigfast.ops.linear.operation.linear_backward`."""
        empty = torch.empty(0, dtype=x.dtype, device=x.device)
        parameters = PathParameters(w0[..., None, None], _taps(dw), None, None, None, None, alpha)
        gx, gw, gb, _ = conv_backward(
            Backward(_pixels(gy), _pixels(x), empty, parameters, x.shape[1], [*needs, False], _SPEC)
        )
        return _rows(gx) if needs[0] else gx, gw.flatten(2) if needs[1] else gw, gb


_register("triton", "triton", _triton_refuses, triton_conv.conv, triton_conv.conv_backward)
_register(
    "simd", "cpu", lambda x, w0, alpha: cpu_conv.refuses(x, w0[..., None, None], _SPEC),
    cpu_conv.conv, cpu_conv.conv_backward,
)  # fmt: skip
