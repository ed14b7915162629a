"""The two names of each network among the arguments: model_a or baseline, model_b or target."""

from torch import nn


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
    return _one(model_a, "model_a", baseline, "baseline"), _one(
        model_b, "model_b", target, "target"
    )


def _one(model: nn.Module | None, name: str, other: nn.Module | None, alias: str) -> nn.Module:
    if model is not None and other is not None:
        raise TypeError(
            f"{name} and {alias} are both given; expected one of them, since they name one network"
        )
    given = model if model is not None else other
    if given is None:
        raise TypeError(f"{name} is a NoneType; expected a torch.nn.Module, as {name} or {alias}")
    return given
