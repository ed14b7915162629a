"""Weights of a checkpoint, and what they come from."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from faigfast.io.regular_file import shown
from faigfast.zoo.checkpoint_file import read_content
from faigfast.zoo.checkpoint_limits import check_tensors
from faigfast.zoo.entries import Entry, find_entry
from faigfast.zoo.name_prefixes import without_counter, wrapper_prefix
from faigfast.zoo.ncnn import NcnnNetwork, is_ncnn, read_network

ENTRIES_NAMED = ("params_ema", "params", "state_dict", "model_state_dict", "...")

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Source:
    """Origin of a network's weights, in words by `str()`.

    Attributes
    ----------
    path : Path or None
        The file; None for a state dict in memory.
    key : str or None
        The entry of the file with the weights, dotted where it is nested; None where the file is
        the state dict itself.
    prefix : str
        Start of every name in the entry that the network's names lack, such as "module.".
    passed_over : tuple of str
        Other entries of the file that could have been taken.
    remarks : tuple of str
        What loading changed: types of the weights, names, branches that were merged.
    """

    path: Path | None
    key: str | None
    prefix: str
    passed_over: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say "params_ema of baseline.pth"."""
        if self.path is None:
            return f"{self.key or 'all'} of a state dict in memory"
        plain = "ncnn network" if self.path.suffix == ".param" else "plain state dict"
        return f"{self.key or plain} of {self.path.name}"

    @property
    def note(self) -> str:
        """Say "took params_ema of baseline.pth; passed over params", and the remarks."""
        parts = [f"took {self}"]
        if self.passed_over:
            parts.append(f"passed over {', '.join(self.passed_over)}")
        return "; ".join([*parts, *self.remarks])

    @property
    def is_plain(self) -> bool:
        """Whether there was no choice and nothing was changed."""
        return not (self.passed_over or self.remarks)


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes
    ----------
    source : Source
        The file and the entry with the weights.
    state : dict of str to Tensor
        The tensors on the CPU, names without the source's prefix.
    content : mapping
        The complete file as stored.
    metadata : dict of str to str, or None
        Metadata of a safetensors file.
    entry : Entry
        The entry's place in the content.
    network : NcnnNetwork or None
        The network that a `.param` file describes.
    """

    source: Source
    state: dict[str, Tensor]
    content: Mapping[str, Any]
    metadata: dict[str, str] | None
    entry: Entry
    network: NcnnNetwork | None = None

    @property
    def place(self) -> str:
        """Name for messages."""
        return "the state dict" if self.source.path is None else shown(self.source.path)

    @property
    def size(self) -> int:
        """Bytes of the file, or of the tensors in memory."""
        if self.source.path is None:
            return sum(value.nbytes for value in self.state.values())
        return self.source.path.stat().st_size


def read_checkpoint(
    path: PathLike | Mapping[str, Any], key: str | None = None, argument: str = "path"
) -> Checkpoint:
    """Read the weights of a PyTorch, safetensors or ncnn file without running code in it.

    The content decides the format, not the suffix. "module." and "_orig_mod.", which wrappers put
    before every name, are removed.

    Parameters
    ----------
    path : path-like or mapping
        The file, or a state dict or the content of such a file in memory.
    key : str, optional
        The entry with the weights, dotted where it is nested (`generator.ema`). By default the
        first of `faigfast.zoo.entries.ENTRIES` that is a dict, at every depth: averages
        (`params_ema`, `params-ema`, `ema`) before `params`, `state_dict`, `model`, `net`, `netG`
        and others. A file without such entries must be a dict of tensors itself, or hold only one.
    argument : str
        Name of `path` in messages.

    Returns
    -------
    Checkpoint
        Its tensors and their entry in the file.

    Raises
    ------
    TypeError
        If `path` is neither a path nor a mapping, or `key` no str.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file, empty, damaged, of another kind, asks for code to be run, has no
        entry `key`, holds no dict of tensors, or more tensors or longer names than any network has.
    """
    if isinstance(path, Mapping):
        file, content, metadata, name = None, path, None, f"`{argument}`"
    else:
        file = path_of(argument, path)
        if is_ncnn(file):
            return _read_ncnn(file, key)
        content, metadata = read_content(file)
        name = shown(file)
    entry = find_entry(content, key, name)
    stored = entry.own
    place = name if entry.key is None else f"{entry.key!r} of {name}"
    if not stored:
        raise ValueError(f"{place} is an empty dict; expected a dict of tensors")
    check_tensors(stored, place, ENTRIES_NAMED)
    start = len(entry.start)
    state = {key[start:]: value.detach().cpu() for key, value in stored.items()}
    state = without_counter(state)
    prefix = wrapper_prefix(state)
    state = {key[len(prefix) :]: value for key, value in state.items()}
    source = Source(file, entry.key, prefix, entry.passed_over)
    return Checkpoint(source, state, content, metadata, entry)


def path_of(argument: str, value: object) -> Path:
    """Refuse what is no path."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument} is a {type(value).__name__}; expected the path of a file")
    return Path(value)


def _read_ncnn(path: Path, key: str | None) -> Checkpoint:
    if key is not None:
        raise ValueError(f"key is {key!r}; expected no key for {shown(path)}, which has no entries")
    network = read_network(path)
    state = {name: value.detach() for name, value in network.state_dict().items()}
    entry = Entry((), "", dict(state), ())
    return Checkpoint(Source(path, None, ""), state, dict(state), None, entry, network)
