"""Arguments that all public findings share: a batch or a result, sets of filters, contrasts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from faigfast.analysis.batch_crops import repeatable
from faigfast.analysis.contrasts import Contrast, check_contrasts, one_against_rest
from faigfast.analysis.swap_units import check_pair
from faigfast.attribution.one_call import attribute
from faigfast.filters.filter_set import FilterSet
from faigfast.integration.batch import Batches
from faigfast.result import Attribution

Contrasts = Sequence[Contrast | str]
FRACTION = 0.01


def attributed(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    result: Attribution | Mapping[str, Attribution] | None,
    pad: int,
    progress: bool,
    options: dict[str, Any],
) -> tuple[Batches, Attribution | Mapping[str, Attribution]]:
    """Give batches that can be read again, and their result unless one is given."""
    batch = repeatable(batch)
    if result is None:
        made = attribute(baseline, target, batch, pad=pad, progress=progress, **options)
        return batch, made
    _refuse_options(options, "result")
    results = {"result": result} if isinstance(result, Attribution) else result
    if not isinstance(results, Mapping) or not results:
        raise TypeError(f"result is {result!r}; expected an Attribution, or several by method")
    for one in results.values():
        if not isinstance(one, Attribution):
            raise TypeError(f"result is or holds a {type(one).__name__}; expected an Attribution")
        check_pair(one, baseline, target)
    return batch, result


def one_result(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches | None,
    result: Attribution | None,
    pad: int,
    progress: bool,
    options: dict[str, Any],
) -> Attribution:
    """Attribute the batch, or give the result; refuse both and neither."""
    if (batch is None) == (result is None):
        given = "neither" if result is None else "both"
        raise TypeError(f"batch and result: {given} given; expected one of them")
    if batch is not None:
        return attribute(baseline, target, batch, pad=pad, progress=progress, **options)
    _, known = attributed(baseline, target, (), result, pad, progress, options)
    if not isinstance(known, Attribution):
        raise TypeError(f"result is a {type(known).__name__}; expected an Attribution")
    return known


def filter_sets(
    baseline: nn.Module,
    target: nn.Module,
    batch: Batches,
    result: Attribution | None,
    sets: Mapping[str, FilterSet] | None,
    fraction: float,
    contrasts: Contrasts | None,
    pad: int,
    progress: bool,
    options: dict[str, Any],
) -> tuple[Batches, Mapping[str, FilterSet]]:
    """Give batches that can be read again, and the given sets or the best of each contrast."""
    if sets is None:
        batch, known = attributed(baseline, target, batch, result, pad, progress, options)
        if not isinstance(known, Attribution):
            raise TypeError(f"result is a {type(known).__name__}; expected an Attribution")
        ranked = read_contrasts(contrasts, known)
        return batch, {contrast.name: contrast.top(known, fraction) for contrast in ranked}
    if result is not None or contrasts is not None:
        name = "result" if result is not None else "contrasts"
        raise TypeError(f"sets and {name} are both given; expected one of them")
    _refuse_options(options, "sets")
    if not isinstance(sets, Mapping) or not sets:
        raise TypeError(f"sets are {sets!r}; expected filter sets by name")
    for name, one in sets.items():
        if not isinstance(one, FilterSet) or not len(one):
            kind = "an empty set" if isinstance(one, FilterSet) else f"a {type(one).__name__}"
            raise ValueError(f"the set {name!r} is {kind}; expected a FilterSet with filters")
        one.check_pair(baseline, target)
    return repeatable(batch), sets


def read_contrasts(given: Contrasts | None, result: Attribution) -> tuple[Contrast, ...]:
    """Read contrasts; None: each degradation against all others."""
    if given is None:
        return one_against_rest(result.degradations)
    if isinstance(given, str | Contrast) or not isinstance(given, Iterable):
        raise TypeError(f"contrasts are {given!r}; expected a list of contrasts or their texts")
    for one in given:
        if not isinstance(one, str | Contrast):
            raise TypeError(f"contrasts hold {one!r}; expected a Contrast or its text")
    ranked = tuple(Contrast.parse(one) if isinstance(one, str) else one for one in given)
    check_contrasts(ranked, result.degradations)
    return ranked


def _refuse_options(options: Mapping[str, Any], instead: str) -> None:
    if options:
        raise TypeError(
            f"{next(iter(options))} is given beside {instead}; expected options of attribute only "
            "where the batch is attributed"
        )
