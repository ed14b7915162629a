"""Σ |Δ·total| over every kernel: the compiled operation beside its plain twin."""

import pytest
import torch

from faigfast.backend.cpu import extension as _extension
from faigfast.ops import score_reduction, score_reduction_reference

WAYS = {"compiled": score_reduction, "plain": score_reduction_reference}
SHAPES = [(1, 64, 64, 3, 3), (16, 64, 64, 3, 3), (1, 512, 128, 3, 3), (4, 64, 64, 1, 1)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_score_reduction(shape, dtype, way, benchmark):
    if way == "compiled" and _extension.module is None:
        pytest.skip(_extension.describe())
    generator = torch.Generator().manual_seed(0)
    total = torch.randn(shape, generator=generator, dtype=dtype)
    delta = torch.randn(shape[1:], generator=generator, dtype=dtype)
    expected = score_reduction_reference(total.double(), delta.double())
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(
        WAYS[way](total, delta).double(), expected, rtol=tolerance, atol=tolerance
    )
    benchmark.group = f"score reduction, {'×'.join(map(str, shape))}, {dtype}"
    moved = total.nbytes + delta.nbytes + expected.numel() * total.element_size()
    benchmark.extra_info["bytes"] = moved
    benchmark(WAYS[way], total, delta)
