"""The grammar of recipes: steps joined by "+", each NAME or NAME=VALUE:VALUE."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches

from faigfast.data.degradations import steps
from faigfast.data.degradations.real_esrgan import RealESRGAN
from faigfast.data.degradations.steps import Step

CLEAN = "clean"
LARGEST_INTEGER = 2**53  # first integer that a float cannot tell from its neighbour
STEPS: dict[str, type[Step]] = {
    kind.name: kind
    for kind in (
        steps.Blur, steps.Anisotropic, steps.Motion, steps.Defocus, steps.Sinc, steps.Resize,
        steps.Noise, steps.GrayNoise, steps.Poisson, steps.Speckle, steps.SaltAndPepper,
        steps.Jpeg, steps.Webp, RealESRGAN, steps.Down,
    )
}  # fmt: skip


def parse_steps(text: str) -> tuple[Step, ...]:
    """Read the steps of a recipe, in the order in which they are written.

    Parameters
    ----------
    text : str
        Such as "blur=2+noise=0.1+jpeg=40" or "anisotropic=2:0.8:30"; "clean" has no steps.

    Returns
    -------
    tuple of Step

    Raises
    ------
    ValueError
        If a name is unknown, or a value is missing, superfluous, no number or out of range.
    """
    if text.strip() == CLEAN:
        return ()
    return tuple(_parse_step(part.strip(), text) for part in text.split("+"))


def _parse_step(part: str, text: str) -> Step:
    """Read NAME or NAME=VALUE:VALUE."""
    name, equals, rest = part.partition("=")
    name = name.strip()
    kind = STEPS.get(name)
    if kind is None:
        raise ValueError(f"degradation {text!r} is unknown{_hint(name)}")
    usage = f"{name}={kind.form}" if kind.form else name
    values = [value.strip() for value in rest.split(":")] if equals else []
    wanted = fields(kind)
    required = [field for field in wanted if field.default is MISSING]
    if not len(required) <= len(values) <= len(wanted) or "" in values:
        raise ValueError(f"degradation {text!r} has {part!r}; expected {usage}")
    arguments: dict[str, float | str] = {}
    for field, value in zip(wanted, values, strict=False):
        if field.type is str:
            arguments[field.name] = value
        else:
            number = _number(value, usage, text)
            exact = field.type is int and number.is_integer() and abs(number) < LARGEST_INTEGER
            arguments[field.name] = int(number) if exact else number
    try:
        return kind(**arguments)
    except ValueError as problem:
        raise ValueError(f"degradation {text!r}: {problem}") from None


def _number(value: str, usage: str, text: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(
            f"degradation {text!r} has the strength {value!r}; expected a number, as {usage}"
        ) from None


def _hint(name: str) -> str:
    """Name the nearest step, and what is expected."""
    expected = f"expected 'clean' or steps of {', '.join(STEPS)}, joined by '+'"
    if name == CLEAN:
        return f": 'clean' stands alone; {expected}"
    spelled = name.lower().replace("_", "-").replace(" ", "-")
    near = get_close_matches(spelled, (*STEPS, CLEAN), 1)
    near += [other for other in STEPS if spelled and other.startswith(spelled)]
    guess = f" (did you mean {near[0]!r}?)" if near else ""
    return f": no step is called {name!r}{guess}; {expected}"


def split_named(item: str) -> tuple[str, str]:
    """Read NAME=RECIPE, or a RECIPE alone, which is named after its steps.

    Parameters
    ----------
    item : str
        Such as "mist=blur=2", "mine=realesrgan", or "blur=2+jpeg=40", which is named "blur+jpeg".

    Returns
    -------
    name, recipe : str
    """
    name, _, recipe = item.partition("=")
    first = recipe.partition("+")[0].strip()
    head = first.partition("=")[0].strip()
    alone = name.strip() in STEPS and head not in (*STEPS, CLEAN)
    if "=" in first or head in (*STEPS, CLEAN) or (head[:1].isalpha() and not alone):
        return name, recipe
    return "+".join(part.partition("=")[0].strip() for part in item.split("+")), item


def joined(parts: Sequence[object]) -> str:
    """Give the text of a recipe, "clean" without steps."""
    return "+".join(map(str, parts)) or CLEAN
