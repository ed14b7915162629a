"""Functions of the user, asked whether they take the arguments that they will get."""

import inspect
from collections.abc import Callable
from typing import Any


def misfit(function: Callable[..., Any], *arguments: Any) -> str:
    """Say why a function does not take some arguments; "" where it does or does not tell."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as problem:
        return str(problem)
    except ValueError:  # a built-in function without a signature
        pass
    return ""
