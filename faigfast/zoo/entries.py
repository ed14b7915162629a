"""Entries: the state dict among the other content of a checkpoint file."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from faigfast.io.regular_file import shortened

EMA_ENTRIES = (
    "params_ema",
    "params-ema",
    "ema",
    "ema_params",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_state_dict",
    "netG_ema",
    "net_g_ema",
    "g_ema",
)  # fmt: skip
ENTRIES = (
    *EMA_ENTRIES,
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "netG",
    "net_g",
    "generator",
    "weights",
)  # fmt: skip
MAX_DEPTH = 8  # of dicts within dicts
MAX_DICTS = 500  # searched at most
SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Entry:
    """A state dict in the content of a file.

    Attributes
    ----------
    path : tuple of str
        Names of the dicts from the file down to the state dict; empty for the file itself.
    start : str
        Start of the names that belong to the entry, if the dict has tensors of other entries too;
        "" if all its names belong to the entry.
    stored : mapping of str to Any
        The dict at the end of the path, complete.
    passed_over : tuple of str
        Other entries that could have been taken, dotted.
    """

    path: tuple[str, ...]
    start: str
    stored: Mapping[str, Any]
    passed_over: tuple[str, ...]

    @property
    def key(self) -> str | None:
        """Name for `key=`; None for the file itself."""
        return ".".join([*self.path, *([self.start[:-1]] if self.start else [])]) or None

    @property
    def own(self) -> dict[str, Any]:
        """Items of the entry alone, under their stored names."""
        return {k: v for k, v in self.stored.items() if not self.start or k.startswith(self.start)}


def find_entry(content: Mapping[str, Any], key: str | None, place: str) -> Entry:
    """Find the state dict in the content of a file.

    Parameters
    ----------
    content : mapping
        Content of the file.
    key : str or None
        The entry's name, dotted where it is nested. By default the first of `ENTRIES` that is a
        dict, at every depth; averages of weights come first.
    place : str
        Name of the file in messages.

    Returns
    -------
    Entry

    Raises
    ------
    TypeError
        If `key` is not a str.
    ValueError
        If there is no such entry; the message names the entries of the file.
    """
    if key is None:
        return _likely_entry(content)
    if not isinstance(key, str):
        raise TypeError(f"key is a {type(key).__name__}; expected the name of an entry")
    entry = _named_entry(content, key, ())
    if entry is None:
        names = list(_state_dicts(content))
        shown = ", ".join(map(shortened, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
        expected = f"one of {shown}" if names else "no key, since it has no entries"
        raise ValueError(f"key is {shortened(key)}, no entry of {place}; expected {expected}")
    return entry


def _likely_entry(content: Mapping[str, Any]) -> Entry:
    path: tuple[str, ...] = ()
    passed_over: list[str] = []
    while len(path) < MAX_DEPTH:
        dicts = [name for name in ENTRIES if _is_dict(content.get(name))]
        # An entry with tensors comes before an entry without.
        dicts.sort(key=lambda name: not _holds_tensors(content[name]))
        others = [
            name for name, value in content.items() if isinstance(name, str) and _is_state(value)
        ]
        if not dicts and not any(isinstance(value, Tensor) for value in content.values()):
            dicts = others if len(others) == 1 else []
        if not dicts:
            break
        name = dicts[0]
        beside = [n for n in dicts[1:] if _holds_tensors(content[n])]
        beside += [n for n in others if n != name and n not in beside]
        passed_over += [".".join([*path, other]) for other in beside]
        path, content = (*path, name), content[name]
    return Entry(path, "", content, tuple(passed_over))


def _named_entry(content: Mapping[str, Any], key: str, path: tuple[str, ...]) -> Entry | None:
    """Find a dotted key; its parts may have dots themselves."""
    if _is_dict(content.get(key)):
        return Entry((*path, key), "", content[key], ())
    start = f"{key}."
    if any(isinstance(k, str) and k.startswith(start) for k, v in content.items() if _is_tensor(v)):
        return Entry(path, start, content, ())
    if len(path) < MAX_DEPTH:
        for name, value in content.items():
            if isinstance(name, str) and _is_dict(value) and key.startswith(f"{name}."):
                entry = _named_entry(value, key[len(name) + 1 :], (*path, name))
                if entry is not None:
                    return entry
    return None


def _state_dicts(content: Mapping[str, Any], seen: set[int] | None = None) -> list[str]:
    """Name all dicts of tensors within a dict, dotted; each dict once, since they may be shared."""
    seen = set() if seen is None else seen
    names = []
    for name, value in content.items():
        if isinstance(name, str) and _is_dict(value) and id(value) not in seen:
            seen.add(id(value))
            if _is_state(value):
                names.append(name)
            elif len(seen) < MAX_DICTS:
                names += [f"{name}.{inner}" for inner in _state_dicts(value, seen)]
    return names


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def _is_state(value: Any) -> bool:
    return _is_dict(value) and all(map(_is_tensor, value.values()))


def _holds_tensors(value: Any) -> bool:
    """Whether a dict holds a tensor, itself or in a dict within."""
    waiting, seen = [value], {id(value)}
    while waiting and len(seen) < MAX_DICTS:
        for inner in waiting.pop().values():
            if _is_tensor(inner):
                return True
            if isinstance(inner, Mapping) and id(inner) not in seen:
                seen.add(id(inner))
                waiting.append(inner)
    return False
