"""Notes of an attribution that depend on all of its images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from faigfast.integration.cautions import CAUTIONS, cautions
from faigfast.io.text_table import counted

if TYPE_CHECKING:
    from faigfast.filters.index import FilterIndex
    from faigfast.result import Attribution

NAMES_SHOWN = 3
_PREFIXES = ("gradient: ", "scores: ", "tol ", *CAUTIONS)


def with_result_notes(notes: Sequence[str], result: "Attribution") -> tuple[str, ...]:
    """Replace the notes that depend on all images by those of a result."""
    kept = [note for note in notes if not note.startswith(_PREFIXES)]
    return (*kept, *(caution.note for caution in cautions(result)), *_result_notes(result))


def named(names: Sequence[str]) -> str:
    """Quote the first few names, and count the others."""
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _result_notes(result: "Attribution") -> Iterator[str]:
    if result.zero_gradient:
        yield zero_gradient_note(result.zero_gradient, result.index)
    zero = [name for name, scores in result.by_degradation.items() if not scores.any()]
    if zero:
        yield f"scores: exactly 0 for all filters under {named(zero)}, which cannot be ranked"
    undefined = ~result.completeness.isfinite()  # [D, N]
    images = counted(result.images, "image")
    if undefined.any():
        yield (
            f"completeness: undefined for {int(undefined.any(0).sum())} of {images}, whose two "
            "losses are equal in this precision; expected an objective that differs between the "
            "networks, or precision='fp64'"
        )
    missed = ~result.reached  # [D, N]
    if missed.any():
        errors = result.error[missed]
        known = errors[errors.isfinite()]
        worst = f"up to {float(known.max()):.1e}" if len(known) else "undefined"
        yield (
            f"tol {result.setting.tol:g} was not reached by {int(missed.any(0).sum())} of {images}"
            f": estimated error {worst}; more steps allow more points"
        )


def zero_gradient_note(layers: Sequence[str], index: "FilterIndex") -> str:
    """Name scored layers without a gradient, and the unused copy of a network that has them."""
    text = (
        f"gradient: exactly 0 in every image for {named(layers)}, and so the scores (not used, "
        "detached, under no_grad, or rounded)"
    )
    if copy := unused_copy(layers, index):
        unused, used = copy
        return (
            f"{text}: part {unused!r} has the layers of part {used!r} and looks like a copy that "
            f"the network does not use; then pass the part {used!r} alone as model_a and model_b"
        )
    return f"{text}; merge branches first by fuse=, or leave these layers out by parameters="


def unused_copy(layers: Sequence[str], index: "FilterIndex") -> tuple[str, str] | None:
    """Find the part of a network that holds just the given layers, and its copy with all others.

    Parameters
    ----------
    layers : sequence of str
        Layers that the network does not use.
    index : FilterIndex
        All layers.

    Returns
    -------
    unused, used : str
        Names of two parts with equal layers; None where there is no such pair.
    """
    shapes = dict(zip(index.layers, index.shapes, strict=True))
    pieces = layers[0].split(".")
    for length in range(1, len(pieces)):
        unused = ".".join(pieces[:length])
        own = _below(shapes, unused)
        if len(own) < 2 or {f"{unused}.{tail}" for tail in own} != set(layers):
            continue  # a part of one layer is no network
        tail = next(iter(own))
        others = shapes.keys() - set(layers)
        for key in others:
            used = key.removesuffix(f".{tail}")
            if {f"{used}.{name}" for name in own} == others and _below(shapes, used) == own:
                return unused, used
    return None


def _below(shapes: dict[str, tuple[int, ...]], part: str) -> dict[str, tuple[int, ...]]:
    """Layers of a part of a network, by their names within the part."""
    start = f"{part}."
    return {key[len(start) :]: shapes[key] for key in shapes if key.startswith(start)}
