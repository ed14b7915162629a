"""Whether sets of filters and networks belong to one pair."""

from typing import TYPE_CHECKING, Any

from torch import nn

from faigfast.filters.index import FilterIndex
from faigfast.models.fingerprint import fingerprints
from faigfast.models.state import check_same_layout, tensors, unwrap

if TYPE_CHECKING:
    from faigfast.filters.filter_set import FilterSet

# Field of a FilterSet → its name in messages.
FINGERPRINTS = {
    "index": "layers",
    "total": "number of filters",
    "baseline": "baseline",
    "target": "target",
}


def common_network(first: "FilterSet", second: "FilterSet") -> dict[str, Any]:
    """Join what two sets know about their network.

    Parameters
    ----------
    first, second : FilterSet
        Two sets; either may lack fingerprints.

    Returns
    -------
    dict of str to Any
        Fields of a `FilterSet` other than its indices.

    Raises
    ------
    ValueError
        If both sets know a fingerprint and the two differ.
    """
    for name, words in FINGERPRINTS.items():
        own, other = getattr(first, name), getattr(second, name)
        if own and other and own != other:
            raise ValueError(
                f"the sets belong to different networks: their {words} are {own} and {other}; "
                "expected filters of one pair (faigfast.analysis.contrasts.overlap compares sets "
                "of several pairs)"
            )
    known = {name: getattr(first, name) or getattr(second, name) for name in FINGERPRINTS}
    listed = first.filter_index if first.filter_index is not None else second.filter_index
    return {**known, "filter_index": listed}


def check_same_pair(filters: "FilterSet", baseline: nn.Module, target: nn.Module) -> None:
    """Refuse networks other than the pair whose attribution gave the filters.

    Arguments and errors are those of `FilterSet.check_pair`.
    """
    baseline, target = checked_pair(baseline, target)
    filters.masks(FilterIndex.of(target))
    known = {"baseline": filters.baseline, "target": filters.target}
    if not any(known.values()):
        return
    own = fingerprints(baseline, target)
    if filters.baseline != filters.target:
        check_order(filters, *own)
    for (role, expected), given in zip(known.items(), own, strict=True):
        if expected not in ("", given):
            raise ValueError(f"the filters' {role} is the network {expected}, not {given}")


def check_order(filters: "FilterSet", baseline: str, target: str) -> None:
    """Refuse baseline and target in exchanged order, by their fingerprints."""
    if target == filters.baseline or baseline == filters.target:
        raise ValueError(
            "baseline and target are in the other order than when the filters were found"
        )


def checked_pair(baseline: nn.Module, target: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Take both modules out of their wrappers; refuse meta tensors and other layouts."""
    baseline, target = unwrap(baseline, "baseline"), unwrap(target, "target")
    for role, module in (("baseline", baseline), ("target", target)):
        for key, value in tensors(module).items():
            if value.is_meta:
                raise ValueError(
                    f"{role} holds {key!r} on the device meta, without values; expected a network "
                    "with values"
                )
    check_same_layout(tensors(baseline), tensors(target))
    return baseline, target
