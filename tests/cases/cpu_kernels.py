"""Path operations by the C++ kernels."""

from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from cases.path_operations import assert_near, expected, operation_values, poisoned

from faigfast.backend.cpu.allocator import empty
from faigfast.ops.conv import channel_buffer, cpu_queue, cpu_weights
from faigfast.ops.registry import Use, using

BOUND = 1e-5  # relative L2 of every value and gradient; 2e-6 measured


@contextmanager
def kernels():
    """Fail if an operation falls back to plain PyTorch."""
    use = Use("cpu")
    with using(use):
        yield
    assert not use.refused


@contextmanager
def poisoned_results():
    """Fill the memory of torch and of the kernels with NaN before a kernel writes to it."""
    with poisoned(), ExitStack() as patches:
        for module in (channel_buffer, cpu_queue, cpu_weights):
            patches.enter_context(
                mock.patch.object(module, "empty", lambda *shape: empty(*shape).fill_(torch.nan))
            )
        yield


def assert_right(case, bound=BOUND):
    case = case.to(torch.float32)
    with kernels(), poisoned_results():
        result = operation_values(case)
    assert_near(result, expected(case.to(torch.float64)), bound)
