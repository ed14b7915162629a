"""γ(α) = w0 + αΔ at all points of a chunk, from float32 to the type of the products."""

import triton
import triton.language as tl
from torch import Tensor

from faigfast.kernels.launch import Launch
from faigfast.kernels.parts import on_line

BLOCK = 1024


@triton.jit(do_not_specialize=("size",))
def path_weights(w0, dw, alpha, w, size, BLOCK: tl.constexpr):
    """Form BLOCK weights at one point."""
    point = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = on_line(w0, dw, at, at < size, tl.load(alpha + point))
    tl.store(w + point * size + at, value.to(w.dtype.element_ty), mask=at < size)


def launch(w0: Tensor, dw: Tensor, alpha: Tensor, w: Tensor) -> Launch:
    """Fill w [P, *w0]; all contiguous."""
    size = w0.numel()
    arguments = {"w0": w0, "dw": dw, "alpha": alpha, "w": w, "size": size, "BLOCK": BLOCK}
    return Launch(path_weights, (triton.cdiv(size, BLOCK), len(alpha)), arguments)
