"""Identities of results, compared."""

from typing import Any


def difference(old: Any, new: Any, place: str = "") -> str:
    """Name the first entry that differs, with both values; "" where none does."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            inner = f"{place}.{key}" if place else key
            if text := difference(old.get(key), new.get(key), inner):
                return text
        return ""
    return "" if old == new else f"{place} was {old!r} and is {new!r}"
