"""Functions that run as they are inside code that torch.compile compiles."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def uncompiled(function: Callable[P, T]) -> Callable[P, T]:
    """Keep torch.compile from compiling a function and all that it calls.

    `torch.compiler.disable` itself would import the compiler, half a second, with this package.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        if "torch._dynamo" not in sys.modules:  # nothing has been compiled
            return function(*args, **kwargs)
        return torch.compiler.disable(function)(*args, **kwargs)

    run._torchdynamo_disable = True  # type: ignore[attr-defined]
    return run
