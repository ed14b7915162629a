"""Hints after a wrong word: "did you mean" the nearest of some names."""

import re

from faigfast.io.nearest_name import hint

# Of a message such as "method is 'fiag'; expected one of faig, input".
WRONG_NAME = re.compile(
    r"(?:is|hold|holds|names) '([^']+)'(?=; expected (?:one of |some of )?(.+))"
)


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
