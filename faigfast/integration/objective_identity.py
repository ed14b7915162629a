"""Identity of an objective: equal for functions of the same code and values."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

from torch.utils.weak import WeakIdRef as AnyWeakIdRef

DEEPEST = 4  # functions within functions that are followed
_NUMBERS_AND_TEXT = (bool, int, complex, str, bytes, type(None))


class WeakIdRef(AnyWeakIdRef):
    """A weak reference that differs from anything else; torch's fails to compare."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Whether both refer to one object, which exists."""
        return isinstance(other, WeakIdRef) and super().__eq__(other)

    __hash__ = AnyWeakIdRef.__hash__


class _Unknown(Exception):
    """A value that may have changed unnoticed."""


@dataclass(frozen=True)
class ObjectiveIdentity:
    """What an objective computes, as far as its code and values tell.

    Two identities are equal if both objectives are one object, or functions of the same code,
    globals, defaults and closure. Closed-over numbers, texts and tuples compare by value, other
    objects by themselves. An identity keeps no object alive except code.

    Parameters
    ----------
    parts : hashable
        Code, values and weak references.
    references : tuple of WeakIdRef
        The weak references among the parts.
    """

    parts: Hashable
    references: tuple[WeakIdRef, ...]

    @classmethod
    def of(cls, objective: Any, otherwise: Any) -> "ObjectiveIdentity":
        """Identify an objective; one without weak references is identified by `otherwise`."""
        for value in (objective, otherwise):
            try:
                parts = _parts(value, DEEPEST)
            except _Unknown:
                continue
            return cls(parts, tuple(_references(parts)))
        raise TypeError(
            f"otherwise is a {type(otherwise).__name__}; expected weak references to it"
        )

    @property
    def alive(self) -> bool:
        """Whether every object that it refers to exists."""
        return all(reference() is not None for reference in self.references)


def _parts(value: Any, depth: int) -> Hashable:
    if depth:
        try:
            return _of_code(value, depth - 1)
        except _Unknown:
            pass
    return _itself(value)


def _itself(value: Any) -> WeakIdRef:
    try:
        return WeakIdRef(value)
    except TypeError:
        raise _Unknown from None


def _of_code(value: Any, depth: int) -> Hashable:
    """Identify a function by code, globals, defaults and closure."""
    if isinstance(value, partial):
        given = tuple(_value(part, depth) for part in value.args)
        named = tuple((name, _value(part, depth)) for name, part in value.keywords.items())
        return partial, _parts(value.func, depth), given, named
    if isinstance(value, MethodType):
        return MethodType, _parts(value.__func__, depth), _itself(value.__self__)
    if type(value) is not FunctionType or vars(value):
        raise _Unknown
    try:
        closure = tuple(_value(cell.cell_contents, depth) for cell in value.__closure__ or ())
    except ValueError:  # an empty cell
        raise _Unknown from None
    defaults = tuple(_value(part, depth) for part in value.__defaults__ or ())
    named = tuple((n, _value(part, depth)) for n, part in (value.__kwdefaults__ or {}).items())
    code = value.__code__
    return code, code.co_filename, id(value.__globals__), closure, defaults, named


def _value(value: Any, depth: int) -> Hashable:
    """Identify a closed-over value, by itself where it may change."""
    if type(value) in _NUMBERS_AND_TEXT:
        return type(value), value
    if type(value) is float:
        return float, value.hex()  # tells 0.0 from -0.0, and NaN equals NaN
    if type(value) in (tuple, frozenset):
        return type(value), tuple(_value(part, depth) for part in value)
    return _parts(value, depth)


def _references(parts: Any) -> Iterator[WeakIdRef]:
    if isinstance(parts, WeakIdRef):
        yield parts
    elif isinstance(parts, tuple):
        for part in parts:
            yield from _references(part)
