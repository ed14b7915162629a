"""Networks from the options of checkpoints: --key and its like, --dtype and --noise_level."""

from typing import Any

from torch import nn

import faigfast
from faigfast.cli.output import note

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
