"""Cases of path operations by the C++ kernels."""

from contextlib import contextmanager

import torch
from cases.path_operations import assert_near, expected, found, poisoned

from faigfast.ops.registry import Use, using

BOUND = 1e-5  # relative L2 of every value and gradient; 2e-6 is what was seen


@contextmanager
def kernels():
    """Nothing may be left to plain PyTorch."""
    use = Use("cpu")
    with using(use):
        yield
    assert not use.refused


def assert_right(case, bound=BOUND):
    case = case.to(torch.float32)
    with kernels(), poisoned():
        result = found(case)
    assert_near(result, expected(case.to(torch.float64)), bound)
