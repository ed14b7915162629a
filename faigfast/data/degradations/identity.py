"""Identity of a function as a degradation: it decides whether a stopped run may go on."""

import hashlib
import inspect
import sys
from collections.abc import Callable
from typing import Any


def function_identity(function: Callable[..., Any]) -> str | None:
    """Name a function so that no other function has the same name.

    Parameters
    ----------
    function : callable
        Any callable.

    Returns
    -------
    str or None
        Module, qualified name and a hash of the source text; None for a lambda, a function within
        a function, a partial or an object, whose behaviour no name determines, and for a
        function without source text. Functions that it calls are not part of the identity.
    """
    name, module = getattr(function, "__qualname__", None), getattr(function, "__module__", None)
    value: Any = sys.modules.get(module or "")
    for part in (name or "").split("."):
        value = getattr(value, part, None)
    if not name or value is not function:
        return None
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt, or written in C
        return None
    return f"{module}.{name}@{hashlib.sha256(source.encode()).hexdigest()[:16]}"
