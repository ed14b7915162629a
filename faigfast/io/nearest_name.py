"""Hints after a wrong word: "did you mean" the nearest of some names."""

from collections.abc import Iterable
from difflib import get_close_matches

NEAR = 0.65  # share of letters in common


def hint(word: str, names: Iterable[str]) -> str:
    """Write " (did you mean 'blur'?)", or "" where no name is near.

    Examples
    --------
    >>> hint("mehtods", ["methods", "metrics"])
    " (did you mean 'methods'?)"
    """
    names = list(names)
    near = get_close_matches(word.lower(), names, 1, NEAR) or [
        name for name in names if len(word) > 2 and name.startswith(word.lower())
    ]
    return f" (did you mean {near[0]!r}?)" if near else ""


def refuse_unknown(what: str, given: Iterable[object], known: Iterable[str]) -> None:
    """Refuse names that are not known, with the nearest known one.

    Raises
    ------
    ValueError
        Naming the first unknown name.

    Examples
    --------
    >>> refuse_unknown("the plan", ["pears"], ["pairs", "images"])
    Traceback (most recent call last):
    ValueError: the plan holds 'pears' (did you mean 'pairs'?); expected some of pairs, images
    """
    known = list(known)
    for name in given:
        if name not in known:
            guess = hint(name, known) if isinstance(name, str) else ""
            raise ValueError(f"{what} holds {name!r}{guess}; expected some of {', '.join(known)}")
