"""Attention of windows by a C++ kernel: float32 on a CPU."""

import torch
from torch import Tensor

from faigfast.backend.cpu import extension as _extension
from faigfast.ops.attention import operation as _attention  # noqa: F401  registers the operation
from faigfast.ops.path_values import address
from faigfast.ops.registry import kernel


def _refuses(*parts: Tensor | bool | None) -> str:
    if _extension.module is None:
        return f"the extension is missing: {_extension.missing}"
    for part in parts:
        if not isinstance(part, Tensor):
            continue
        if part.device.type != "cpu":
            return f"tensors are on {part.device}"
        if part.dtype != torch.float32:
            return f"tensors are of {part.dtype}"
        if not part.numel():
            return "there is nothing to compute"
    return ""


def _strided(part: Tensor | None, shape: torch.Size) -> tuple[int, list[int]]:
    if part is None:
        return 0, [0] * 4
    return address(part), list(part.expand(shape).stride())


def _attention_arguments(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None
) -> object:
    windows, heads, rows, depth = q.shape
    columns, width = k.shape[3], v.shape[3]
    sizes = [windows, heads, rows, columns, depth, width]
    scores = torch.Size(sizes[:4])
    return _extension.module.Attention(  # type: ignore[union-attr]
        sizes=sizes, q=_strided(q, q.shape),
        k=_strided(k, torch.Size((windows, heads, depth, columns))),
        v=_strided(v, torch.Size((windows, heads, columns, width))),
        bias=_strided(bias, scores), mask=_strided(mask, scores),
        threads=torch.get_num_threads(),
    )  # fmt: skip


@kernel("simd", "attention", _refuses, "cpu")
def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """As `faigfast.ops.attention.operation.attention`."""
    bias, mask = _dense(bias, k), _dense(mask, k)
    y, stats = q.new_empty(*q.shape[:3], v.shape[3]), q.new_empty(*q.shape[:3], 2)
    _extension.module.attend(  # type: ignore[union-attr]
        _attention_arguments(q, k, v, bias, mask), y=address(y), stats=address(stats)
    )
    return y, stats


@kernel("simd", "attention_backward", _refuses, "cpu")
def attention_backward(
    gy: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None,
    stats: Tensor, with_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As `faigfast.ops.attention.operation.attention_backward`."""
    bias, mask, gy = _dense(bias, k), _dense(mask, k), gy.contiguous()
    windows, heads, rows, depth = q.shape
    columns, width = k.shape[3], v.shape[3]
    gq = q.new_empty(windows, heads, rows, depth)
    gk = q.new_empty(windows, heads, depth, columns)
    gv = q.new_empty(windows, heads, width, columns)
    gbias = q.new_empty((heads, rows, columns) if with_bias else 0)
    _extension.module.attend_backward(  # type: ignore[union-attr]
        _attention_arguments(q, k, v, bias, mask), gy=address(gy), stats=address(stats),
        gq=address(gq), gk=address(gk), gv=address(gv), gbias=address(gbias) if with_bias else 0,
    )  # fmt: skip
    return gq, gk, gv.mT, gbias


def _dense(part: Tensor | None, k: Tensor) -> Tensor | None:
    """Expand and copy a bias or mask so that its columns are contiguous."""
    if part is None or (part.shape[3] == k.shape[3] and part.stride(3) == 1):
        return part
    return part.expand(*part.shape[:3], k.shape[3]).contiguous()
