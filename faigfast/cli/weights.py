"""Networks from the options of checkpoints: --key, --dtype and --noise_level."""

from typing import Any

from torch import nn

import faigfast
from faigfast.cli.output import note

WEIGHTS = ("key", "dtype", "noise_level")


def weights_identity(options: Any) -> dict[str, Any]:
    """Give the options of checkpoints on which results depend, where they are given."""
    return {name: options[name] for name in WEIGHTS if options[name] is not None}


def refuse_without_checkpoints(options: Any) -> None:
    """Refuse options of checkpoints beside a shipped pair."""
    for name, value in weights_identity(options).items():
        raise ValueError(
            f"{name} is {value!r} without checkpoints; expected a baseline and a target"
        )


def loaded_pair(options: Any, into: nn.Module | None) -> tuple[nn.Module, nn.Module]:
    """Load the two networks; notes name entries that were passed over and what was changed."""
    pair = faigfast.load_pair(
        options.baseline, options.target, into, key=options.key, dtype=options.dtype
    )
    for network in pair:
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
    return pair
