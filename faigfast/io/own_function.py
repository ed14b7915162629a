"""The user's own functions, imported from the current folder."""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

FACTORIES = ("into",)  # options that name what builds a network


def own_function(option: str, place: str) -> Callable[..., Any]:
    """Import a function of the user from "module:function".

    Raises
    ------
    ImportError
        If there is no such function.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    name, _, function = place.partition(":")
    try:
        return getattr(import_module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        kind = "FACTORY" if option in FACTORIES else "FUNCTION"
        raise ImportError(
            f"{option} is {place!r}: {error}; expected MODULE:{kind}, importable from here"
        ) from error
