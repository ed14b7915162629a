"""Hints after a wrong word: "did you mean" the nearest of some names."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

# Of a message such as "method is 'fiag'; expected one of faig, input".
WRONG_NAME = re.compile(
    r"(?:is|hold|holds|names) '([^']+)'(?=; expected (?:one of |some of )?(.+))"
)


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


def with_hint(message: str) -> str:
    """Add a hint to a message that refuses a name and lists the accepted ones.

    Examples
    --------
    >>> with_hint("method is 'fiag'; expected one of faig, input")
    "method is 'fiag' (did you mean 'faig'?); expected one of faig, input"
    """
    match = WRONG_NAME.search(message)
    if match is None:
        return message
    place = match.end(1) + 1  # behind the quotation mark
    return message[:place] + hint(match[1], words_of(match[2])) + message[place:]


def words_of(text: str) -> list[str]:
    """Read the names of a list such as "a, 'b', or a description", which holds two."""
    parts = (part.removeprefix("or ").strip("'\"") for part in text.split(", "))
    return [part for part in parts if re.fullmatch(r"[A-Za-z0-9][\w.+-]*", part)]
