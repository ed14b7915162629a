"""Averaged activations by a C++ kernel: float32 on a CPU."""

from typing import Any

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.averaged_activation import (
    operation as _operation,  # noqa: F401  registers the operation
)
from faigfast.ops.path_values import address
from faigfast.ops.registry import kernel


def _refuses(z: Tensor, *_: Any) -> str:
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    if z.device.type != "cpu":
        return f"tensors are on {z.device}"
    if z.dtype != torch.float32:
        return f"tensors are of {z.dtype}"
    return "" if z.numel() else "there is nothing to compute"


@kernel("simd", "averaged_activation", _refuses, "cpu", notes_refusal=False)
def averaged_activation(
    z: Tensor, neighbours: list[int], coefficients: list[float], slope: float
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.averaged_activation.operation.averaged_activation`."""
    order = sorted(range(1, z.ndim), key=z.stride, reverse=True)
    values = z.permute(0, *order).contiguous()  # a view where z is dense, in any order but points
    y, factors = torch.empty_like(values), torch.empty_like(values)
    cells = torch.tensor(neighbours), torch.tensor(coefficients)
    _extension.module.run(  # type: ignore[union-attr]
        [task(values, y, factors, *cells, slope)]
    )
    back = [0, *(1 + order.index(dim) for dim in range(1, z.ndim))]
    return y.permute(back), factors.permute(back)


def task(
    z: Tensor, y: Tensor, factors: Tensor, neighbours: Tensor, coefficients: Tensor, slope: float
) -> Any:
    """Describe an activation to the extension; y may be z itself.

    Parameters
    ----------
    z, y, factors : Tensor
        [P, ...], contiguous float32.
    neighbours, coefficients : Tensor
        [2·P] of int64 and [3·P] of float32; they live until the task has run.
    """
    return _extension.module.averaged_activation(  # type: ignore[union-attr]
        points=len(z), elements=z.numel() // len(z), z=address(z), y=address(y),
        factors=address(factors), neighbours=address(neighbours),
        coefficients=address(coefficients), slope=slope, threads=torch.get_num_threads(),
    )  # fmt: skip
