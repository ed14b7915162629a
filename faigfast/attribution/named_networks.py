"""The two names of each network among the arguments: model_a or baseline, model_b or target."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

ALIASES = {"model_a": "baseline", "model_b": "target"}


def named_networks(
    model_a: nn.Module | None,
    model_b: nn.Module | None,
    baseline: nn.Module | None,
    target: nn.Module | None,
) -> tuple[nn.Module, nn.Module]:
    """Give baseline and target, each passed under one of its two names.

    Raises
    ------
    TypeError
        If a network is missing or passed under both names.
    """
    aliases = names_given(model_a, model_b, baseline, target)
    return _one(model_a, "model_a", baseline, aliases), _one(model_b, "model_b", target, aliases)


def names_given(model_a: object, model_b: object, baseline: object, target: object) -> set[str]:
    """Give those of model_a and model_b that the caller passed as baseline and target.

    A missing network is named as the other one was.
    """
    by_name = {"model_a": (model_a, baseline), "model_b": (model_b, target)}
    any_alias = baseline is not None or target is not None
    return {
        name
        for name, (own, alias) in by_name.items()
        if alias is not None or (own is None and any_alias)
    }


@contextmanager
def renamed_in_errors(names: set[str]) -> Iterator[None]:
    """Write baseline and target for some of model_a and model_b in the errors of arguments."""
    try:
        yield
    except (TypeError, ValueError) as problem:
        if names and problem.args and isinstance(problem.args[0], str):
            words = re.compile(rf"\b({'|'.join(names)})\b")
            text = words.sub(lambda match: ALIASES[match[1]], problem.args[0])
            problem.args = (text, *problem.args[1:])
        raise


def _one(
    model: nn.Module | None, name: str, other: nn.Module | None, aliases: set[str]
) -> nn.Module:
    alias = ALIASES[name]
    if model is not None and other is not None:
        raise TypeError(
            f"{name} and {alias} are both given; expected one of them, since they name one network"
        )
    given = model if model is not None else other
    if given is None:
        shown = alias if name in aliases else name
        raise TypeError(f"{shown} is a NoneType; expected a torch.nn.Module, as {name} or {alias}")
    return given
