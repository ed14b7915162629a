"""Prefixes that wrappers and training code put before all names of a state dict."""

from collections.abc import Iterable, Mapping

from torch import Tensor

WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile: no network has such names
# A network may have these names itself, as ESRGAN and DnCNN have "model.".
OWNERS = ("model.", "net.", "generator.", "netG.", "net_g.", "params_ema.", "params.", "ema.")
AVERAGE = "n_averaged"  # AveragedModel's counter, the only name without its prefix "module."


def wrapper_prefix(names: Iterable[str]) -> str:
    """Give the prefix that wrappers (DataParallel, torch.compile) gave to all names."""
    return _shared(list(names), "", WRAPPERS)


def without_counter(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the counter of AveragedModel, if all other names are of a wrapped module."""
    rest = {name: value for name, value in state.items() if name != AVERAGE}
    is_averaged = rest and all(name.startswith("module.") for name in rest)
    return rest if is_averaged else dict(state)


def likely_prefixes(names: Iterable[str]) -> list[str]:
    """Give the prefixes that all names have, from "" to the longest.

    Examples
    --------
    >>> likely_prefixes(["netG.model.0.weight", "netG.model.0.bias"])
    ['', 'netG.', 'netG.model.']
    """
    names = list(names)
    prefixes = [wrapper_prefix(names)]
    while True:
        longer = _shared(names, prefixes[-1], WRAPPERS + OWNERS, once=True)
        if longer == prefixes[-1]:
            return prefixes
        prefixes.append(longer)


def _shared(names: list[str], prefix: str, parts: tuple[str, ...], once: bool = False) -> str:
    """Add parts to a prefix while all names have them."""
    first, last = min(names, default=""), max(names, default="")
    # All names between the first and the last in order begin as both do.
    while part := next(
        (p for p in parts if first.startswith(prefix + p) and last.startswith(prefix + p)), None
    ):
        prefix += part
        if once:
            break
    return prefix
