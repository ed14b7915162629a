"""Checkpoints: reading weights from a file, and writing them in the file's own form."""

import copy
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.io.atomic import atomic_write
from faigfast.io.regular_file import shown
from faigfast.io.tensor_file import write_safetensors
from faigfast.models.state import check_same_layout, copy_of, unwrap
from faigfast.zoo import infer_network
from faigfast.zoo.checkpoint_file import read_content
from faigfast.zoo.checkpoint_limits import check_size, check_tensors, outline, with_memory
from faigfast.zoo.spandrel import spandrel_network

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")

PathLike = str | os.PathLike[str]
log = logging.getLogger("faigfast")


@dataclass(frozen=True)
class Source:
    """Origin of a network's weights, in words by `str()`.

    Attributes
    ----------
    path : Path
        The file.
    key : str or None
        The entry of the file with the weights; None where the file is the state dict itself.
    prefix : str
        Start of every name in the file that the network's names lack, such as "module.".
    """

    path: Path
    key: str | None
    prefix: str

    def __str__(self) -> str:
        """Say "params_ema of baseline.pth"."""
        return f"{self.key or 'plain state dict'} of {self.path.name}"


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
    """

    source: Source
    state: dict[str, Tensor]
    content: Mapping[str, Any]
    metadata: dict[str, str] | None = None


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Read the weights of a PyTorch or safetensors file without running code in it.

    The content decides the format, not the suffix. In a PyTorch file the weights are the first of
    `params_ema`, `params`, `state_dict` and `model_state_dict` that is not empty;
    otherwise the file itself must be a dict of tensors. "module." and "_orig_mod.", which wrappers
    put before every name, are removed.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Checkpoint
        Its tensors and their entry in the file.

    Raises
    ------
    TypeError
        If `path` is not a path.
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no regular file, empty, damaged, of another kind, asks for code to be run, holds
        no dict of tensors, or more tensors or longer names than any network has.
    """
    path = _path("path", path)
    content, metadata = read_content(path)
    key = next((k for k in WRAPPERS if isinstance(content.get(k), Mapping) and content[k]), None)
    stored = content if key is None else content[key]
    place = shown(path) if key is None else f"{key!r} of {shown(path)}"
    if not stored:
        raise ValueError(f"{place} is an empty dict; expected a dict of tensors")
    check_tensors(stored, place, WRAPPERS)
    prefix = _prefix(stored)
    state = {name[len(prefix) :]: value.detach() for name, value in stored.items()}
    return Checkpoint(Source(path, key, prefix), state, content, metadata)


def load_model(path: PathLike, into: nn.Module | None = None) -> nn.Module:
    """Read a network from a checkpoint.

    Parameters
    ----------
    path : path-like
        A PyTorch file (.pth, .pt, .ckpt) or a safetensors file; see `read_checkpoint`.
    into : nn.Module, optional
        A network of your own with the file's names and shapes. It is copied, without DataParallel
        or torch.compile, never changed. Without it the file must fit a network in `faigfast.zoo`
        or, where the package spandrel is installed, one of its architectures.

    Returns
    -------
    nn.Module
        In eval mode, tensors of the file's dtypes (a half-precision file gives a half-precision
        network). Its attribute `faigfast_source` is the `Source` of its weights;
        the logger "faigfast" reports it at level INFO. A network of spandrel is its raw module.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is not a path, or `into` is not a module or is a scripted one.
    ValueError
        If the file is unusable (see `read_checkpoint`), its network is unknown, or its names or
        shapes differ from `into`; the first difference is named.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"params": nn.Conv2d(3, 8, 3).state_dict()}, f"{folder}/net.pth")
    ...     print(load_model(f"{folder}/net.pth", into=nn.Conv2d(3, 8, 3)).faigfast_source)
    params of net.pth
    """
    return _build(read_checkpoint(path), into)


def load_pair(
    a: PathLike, b: PathLike, into: nn.Module | None = None
) -> tuple[nn.Module, nn.Module]:
    """Read a baseline and a target of one architecture.

    Parameters
    ----------
    a, b : path-like
        Checkpoints of the baseline and of the target.
    into : nn.Module, optional
        As in `load_model`; both are copies of it.

    Returns
    -------
    baseline, target : nn.Module
        As from `load_model`.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As `load_model`, and ValueError if a name or a shape differs between the files; the first
        is named, with both shapes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(nn.Conv2d(3, 8, 3), f"{folder}/a.pth")
    ...     baseline, target = load_pair(*[f"{folder}/a.pth"] * 2, into=nn.Conv2d(3, 8, 3))
    >>> torch.equal(baseline.weight, target.weight)
    True
    """
    first, second = read_checkpoint(_path("a", a)), read_checkpoint(_path("b", b))
    check_same_layout(first.state, second.state, f"the baseline {a}", f"the target {b}")
    return _build(first, into), _build(second, into)


def save_model(model: nn.Module, path: PathLike, like: PathLike | None = None) -> None:
    """Write a network's weights, whole or not at all.

    Parameters
    ----------
    model : nn.Module
        The network, without any wrapper; its weights are written in their own dtypes.
    path : path-like
        The suffix chooses the format: .safetensors, or .pth, .pt or .ckpt for PyTorch's.
    like : path-like, optional
        A checkpoint whose names, order and prefix the new one takes. Where both are PyTorch
        files, it takes the other entries too: only the entry that `load_model` reads is replaced
        and all others (`params` beside `params_ema`, say) stay the same. Where both are
        safetensors, the metadata is kept. Without `like` a plain state dict is written.

    Raises
    ------
    TypeError
        If `model` is not a module or is a scripted one, or `path` or `like` is not a path.
    ValueError
        If the suffix is unknown, the network holds more than tensors, `like` is unusable or has
        other names or shapes, or the file cannot be written.
    FileNotFoundError
        If there is no file `like`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(nn.Conv2d(3, 8, 3), f"{folder}/net.pth")
    ...     list(read_checkpoint(f"{folder}/net.pth").state)
    ['weight', 'bias']
    """
    stored = _state(unwrap(model, "model"), "model")
    path = checkpoint_path(path)
    suffix = path.suffix.lower()
    state = {name: value.cpu().contiguous() for name, value in stored.items()}
    content: Mapping[str, Any] = state
    metadata = None
    if like is not None:
        like_checkpoint = read_checkpoint(_path("like", like))
        own_prefix = _prefix(state)
        unprefixed = {name[len(own_prefix) :]: value for name, value in state.items()}
        check_same_layout(unprefixed, like_checkpoint.state, "`model`", f"`like` ({like})")
        prefix = like_checkpoint.source.prefix
        content = state = {prefix + name: unprefixed[name] for name in like_checkpoint.state}
        metadata = like_checkpoint.metadata
        if suffix != ".safetensors" and metadata is None:
            content = _with_weights(like_checkpoint, state)
    if suffix == ".safetensors":
        # The format refuses tensors that share memory, as tied weights do.
        copies = {name: value.clone() for name, value in state.items()}
        write_safetensors(path, copies, metadata)
        return
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def checkpoint_path(path: PathLike) -> Path:
    """Refuse a file name with a suffix that `save_model` does not write."""
    path = _path("path", path)
    if path.suffix.lower() not in (".safetensors", *TORCH_SUFFIXES):
        raise ValueError(
            f"path {path} ends in {path.suffix!r}; expected .safetensors or one of "
            f"{', '.join(TORCH_SUFFIXES)}"
        )
    return path


def _path(argument: str, value: object) -> Path:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument} is a {type(value).__name__}; expected the path of a file")
    return Path(value)


def _prefix(names: Mapping[str, Tensor]) -> str:
    """Return the prefix that wrappers (DataParallel, torch.compile) gave to all names."""
    prefix, first, last = "", min(names, default=""), max(names, default="")
    # All names between the first and the last in order begin as both do.
    while candidate := next(
        (p for p in PREFIXES if first.startswith(prefix + p) and last.startswith(prefix + p)), None
    ):
        prefix += candidate
    return prefix


def _state(network: nn.Module, whose: str) -> dict[str, Tensor]:
    """Give the state dict of a network; refuse entries that are not tensors."""
    state = network.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{whose} holds {name!r}, a {type(value).__name__}; expected tensors")
    return state


def _build(checkpoint: Checkpoint, into: nn.Module | None) -> nn.Module:
    """Make the network of a checkpoint and put the weights in."""
    path = checkpoint.source.path
    if into is None:
        try:
            check_size(checkpoint.state, path.stat().st_size)
        except ValueError as error:
            raise ValueError(f"{shown(path)}: {error}") from None
        try:
            outlined = outline(checkpoint.state, infer_network)
            whose = type(outlined).__name__
            check_same_layout(outlined.state_dict(), checkpoint.state, whose, shown(path))
        except ValueError as unknown:
            return _of_spandrel(checkpoint, unknown)
        network = with_memory(outlined)  # all of it is in the file
    else:
        network = copy_of(unwrap(into, "into"))
    whose = "`into`" if into is not None else type(network).__name__
    wanted = _state(network, whose)
    own_prefix = _prefix(wanted)
    state = {own_prefix + name: value for name, value in checkpoint.state.items()}
    check_same_layout(wanted, state, whose, shown(path))
    owners: dict[int, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise ValueError(
                f"{shown(path)} holds {name!r} of {state[name].dtype}; {whose} has {tensor.dtype}"
            )
        owner = owners.setdefault(id(tensor), name)
        if owner != name and not torch.equal(state[owner], state[name]):
            raise ValueError(
                f"{shown(path)} holds two values for {owner!r} and {name!r}, one in {whose}"
            )
    network.zero_grad()
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if name in state:  # load_state_dict keeps dtypes; the file's dtype is wanted
            tensor.data = tensor.data.to(state[name].dtype)
    network.load_state_dict(state)
    return _sourced(network, checkpoint.source)


def _of_spandrel(checkpoint: Checkpoint, unknown: ValueError) -> nn.Module:
    """Give the network that spandrel makes of a checkpoint which is `unknown` to the zoo."""
    path = checkpoint.source.path
    try:
        network = spandrel_network(checkpoint.state, path.stat().st_size)
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {unknown}; {error}") from error.__cause__
    return _sourced(network, checkpoint.source)


def _sourced(network: nn.Module, source: Source) -> nn.Module:
    """Note on a network in eval mode which file its weights are of."""
    network.faigfast_source = source  # type: ignore[assignment]
    log.info("%s: took %s", source.path, source)
    return network.eval()


def _with_weights(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """Give the content of a checkpoint with other tensors as its weights."""
    content: Any = copy.copy(checkpoint.content)
    if checkpoint.source.key is None:
        content.update(state)
    else:
        content[checkpoint.source.key] = copy.copy(content[checkpoint.source.key])
        content[checkpoint.source.key].update(state)
    return content
