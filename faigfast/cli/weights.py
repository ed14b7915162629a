"""Networks from the options of checkpoints: --key and its like, --dtype and --noise_level."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import faigfast
from faigfast.cli.output import note
from faigfast.cli.own_code import own_function, own_network
from faigfast.models.fused import fused
from faigfast.models.state import copy_of
from faigfast.zoo.checkpoints import state_like

KEYS = ("baseline_key", "target_key")
WEIGHTS = ("key", *KEYS, "dtype", "noise_level")


def pair_keys(options: Any) -> tuple[str | None, str | None]:
    """Give the entries of the baseline's and of the target's checkpoint; None: the default.

    Raises
    ------
    ValueError
        If --key is given beside an entry for each of the two files.
    """
    baseline, target = (options.get(name) for name in KEYS)
    if options.key is not None and None not in (baseline, target):
        raise ValueError(
            f"key is {options.key!r} beside baseline_key and target_key; expected --key for both "
            "files, or for the file without a key of its own"
        )
    return (
        options.key if baseline is None else baseline,
        options.key if target is None else target,
    )


def weights_identity(options: Any) -> dict[str, Any]:
    """Give the options of checkpoints on which results depend, where they are given."""
    keys = pair_keys(options)
    named = {"key": keys[0]} if keys[0] == keys[1] else dict(zip(KEYS, keys, strict=True))
    named |= {name: options[name] for name in ("dtype", "noise_level")}
    return {name: value for name, value in named.items() if value is not None}


def refuse_without_checkpoints(options: Any) -> None:
    """Refuse options of checkpoints beside a shipped pair."""
    for name in WEIGHTS:
        if (value := options.get(name)) is not None:
            raise ValueError(
                f"{name} is {value!r} without checkpoints; expected a baseline and a target"
            )


def check_savable(options: Any, network: nn.Module, like: Path) -> None:
    """Refuse to save a merged network that the keys of the target's file cannot hold.

    A copy with other weights is written under these keys, read and merged again: a merging that
    keeps the names, but overwrites a kernel by its branches, would lose what was changed.

    Parameters
    ----------
    options : Namespace
        Of the command; nothing is checked without --fuse.
    network : nn.Module
        The merged target.
    like : Path
        The target's file.

    Raises
    ------
    ValueError
        Naming the first tensor that differs.
    """
    if not options.fuse:
        return
    other = copy_of(network)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in other.state_dict().values():
            if value.is_floating_point():
                value += torch.rand(value.shape, generator=generator).to(value) * value.abs().mean()
    problem = "the file has other tensors: "
    try:
        state = state_like(other, like, pair_keys(options)[1])
        problem = ""
        into = own_network(options.into, options.into_kwargs) if options.into else None
        again = faigfast.load_model(state, into, dtype=options.dtype)
        again = fused(own_function("fuse", options.fuse), again, "the network")
        lost = _first_difference(other.state_dict(), again.state_dict())
        if lost is not None:
            raise ValueError(f"merging again overwrites {lost!r}")
    except ValueError as error:
        raise ValueError(
            f"fuse is {options.fuse!r}, and what it merges cannot be saved under the keys of "
            f"{like}: {problem}{error}; expected checkpoints that are merged already, without "
            "--fuse"
        ) from None


def _first_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor that differs, apart from rounding."""
    for name, value in a.items():
        if name not in b or not torch.allclose(value, b[name].to(value), rtol=1e-3, atol=1e-6):
            return name
    return None


def loaded_pair(options: Any, into: nn.Module | None) -> tuple[nn.Module, nn.Module]:
    """Load the two networks; notes name entries that were passed over and what was changed."""
    pair = faigfast.load_pair(
        options.baseline, options.target, into, key=pair_keys(options), dtype=options.dtype
    )
    for network in pair:
        _finish(network, options)
    return pair


def loaded_target(options: Any, into: nn.Module | None) -> nn.Module:
    """Load the target alone, with the notes of `loaded_pair`."""
    key = pair_keys(options)[1]
    network = faigfast.load_model(options.target, into, key=key, dtype=options.dtype)
    _finish(network, options)
    return network


def _finish(network: nn.Module, options: Any) -> None:
    """Note what was passed over, and set the noise level."""
    source: Any = network.faigfast_source
    if not source.is_plain:
        note(source.note, options.quiet)
    if options.noise_level is not None:
        if not isinstance(getattr(network, "noise_level", None), float):
            raise ValueError(
                f"noise_level is {options.noise_level:g} and {type(network).__name__} takes "
                "none; expected no such option"
            )
        network.noise_level = options.noise_level
