"""Float32 stays float32: cuDNN and cuBLAS must not round to tf32."""

import pytest
import torch
from cases.networks import images, pair

from faigfast import attribute
from faigfast.backend.precision import proper_float32


def flags():
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    return cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, products.fp32_precision


@pytest.fixture
def tf32():
    """A caller allows tf32 everywhere, by one flag per operation."""
    before = flags()
    parts = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    for part in parts:
        part.fp32_precision = "tf32"
    yield
    for part, own in zip(parts, before, strict=True):
        part.fp32_precision = own


def test_only_inside(tf32):
    with proper_float32():
        assert flags() == ("ieee",) * 3
    assert flags() == ("tf32",) * 3
    with pytest.raises(KeyError), proper_float32():
        raise KeyError
    assert flags() == ("tf32",) * 3


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_an_attribution_asks_for_it(tf32, backend):
    seen = set()

    def objective(output, gt):
        seen.add(flags())
        return (output - gt).square().flatten(1).sum(1)

    attribute(*pair(), images(1), steps=2, backend=backend, objective=objective)
    assert seen == {("ieee",) * 3}
    assert flags() == ("tf32",) * 3


def test_where_one_operation_was_set_apart():
    """Torch's older flags cannot be read in this case."""
    conv, before = torch.backends.cudnn.conv, torch.backends.cudnn.conv.fp32_precision
    conv.fp32_precision = "tf32" if before == "ieee" else "ieee"
    try:
        own = flags()
        with proper_float32():
            assert flags() == ("ieee",) * 3
        assert flags() == own
    finally:
        conv.fp32_precision = before
