"""The user's own architecture, functions and objective, imported from the current folder."""

from typing import Any

from torch import nn

from faigfast.data.degradations.identity import function_identity
from faigfast.integration.objective import Objective, resolve_objective
from faigfast.io.own_function import own_function


def own_network(place: str, arguments: dict[str, Any]) -> nn.Module:
    """Build the user's architecture from "module:factory"."""
    return own_function("into", place)(**arguments)


def chosen_objective(text: str) -> str | Objective:
    """Read --objective: the name of a loss, or the user's own function as "module:function".

    Raises
    ------
    ValueError
        If there is no such name.
    TypeError
        If the function does not take (output, gt).
    ImportError
        If the function cannot be imported.
    """
    objective = own_function("objective", text) if ":" in text else text
    resolve_objective(objective)
    return objective


def objective_identity(text: str) -> str:
    """Identify --objective, in JSON types; another source text of a function is another loss."""
    objective = chosen_objective(text)
    return text if isinstance(objective, str) else function_identity(objective) or text
