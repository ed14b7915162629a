"""Checkpoints: reading weights from a file, and writing them in the file's own form."""

import copy
import logging
import os
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.io.atomic import atomic_write
from faigfast.io.tensor_file import write_safetensors
from faigfast.models.state import check_same_layout, copy_of, unwrap
from faigfast.zoo import infer_network

WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
SAFETENSORS_HEADER_LIMIT = 100_000_000  # of the format itself, in bytes

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
        If it is a folder, empty, damaged, of another kind, asks for code to be run or holds no
        dict of tensors.
    """
    path = _path("path", path)
    content, metadata = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    key = next((k for k in WRAPPERS if isinstance(content.get(k), Mapping) and content[k]), None)
    stored = content if key is None else content[key]
    place = f"{path}" if key is None else f"{key!r} of {path}"
    if not stored:
        raise ValueError(f"{place} is an empty dict; expected a dict of tensors")
    for name, value in stored.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise ValueError(
                f"{place} holds {name!r}, a {type(value).__name__}; expected a dict of tensors, "
                f"plain or under one of {', '.join(WRAPPERS)}"
            )
        if value.is_meta or value.layout != torch.strided:
            raise ValueError(
                f"{place} holds {name!r} as {value.layout} on {value.device}; expected dense "
                "tensors with their values"
            )
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
        or torch.compile, never changed. Without it the file must fit a network in `faigfast.zoo`.

    Returns
    -------
    nn.Module
        In eval mode, tensors of the file's dtypes (a half-precision file gives a half-precision
        network). Its attribute `faigfast_source` is the `Source` of its weights;
        the logger "faigfast" reports it at level INFO.

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


def _is_safetensors(path: Path) -> bool:
    """Tell the two formats apart by their first bytes; refuse other files."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a PyTorch or safetensors file")
    try:
        with open(path, "rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; expected a checkpoint") from None
    if not head:
        raise ValueError(f"{path} is empty; expected a PyTorch or safetensors file")
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < SAFETENSORS_HEADER_LIMIT:
        return True
    if head[:2] == b"PK" or head[:1] == b"\x80":  # a zip archive, or a pickle of old torch
        return False
    raise ValueError(
        f"{path} begins with {head!r}, as neither a PyTorch nor a safetensors file does"
    )


def _read_safetensors(path: Path) -> tuple[Mapping[str, Any], dict[str, str] | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            content = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return content, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read as safetensors, truncated or damaged: {error}"
        ) from error


def _read_torch(path: Path) -> tuple[Mapping[str, Any], None]:
    try:
        with open(path, "rb") as file:  # torch would judge a path by its suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        wanted = re.search(r"GLOBAL (\w+(?:\.\w+)+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and wanted:
            raise ValueError(
                f"{path} asks for {wanted[1]}, which could run code and was refused; expected "
                "weights only, as torch.save(model.state_dict(), path) writes them"
            ) from error
        reason = re.split(r"\. |\n", str(error))[0] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a PyTorch file of weights, truncated, damaged or of "
            f"another kind: {reason}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}; expected a dict of tensors")
    return content, None


def _prefix(names: Mapping[str, Tensor]) -> str:
    """Return the prefix that wrappers (DataParallel, torch.compile) gave to all names."""
    prefix = ""
    while names:
        for candidate in PREFIXES:
            if all(name.startswith(prefix + candidate) for name in names):
                prefix += candidate
                break
        else:
            break
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
            network = infer_network(checkpoint.state)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    else:
        network = copy_of(unwrap(into, "into"))
    whose = "`into`" if into is not None else type(network).__name__
    wanted = _state(network, whose)
    own_prefix = _prefix(wanted)
    state = {own_prefix + name: value for name, value in checkpoint.state.items()}
    check_same_layout(wanted, state, whose, str(path))
    owners: dict[int, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if state[name].is_floating_point() != tensor.is_floating_point():
            raise ValueError(
                f"{path} holds {name!r} of {state[name].dtype}; {whose} has {tensor.dtype}"
            )
        owner = owners.setdefault(id(tensor), name)
        if owner != name and not torch.equal(state[owner], state[name]):
            raise ValueError(f"{path} holds two values for {owner!r} and {name!r}, one in {whose}")
    network.zero_grad()
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if name in state:  # load_state_dict keeps dtypes; the file's dtype is wanted
            tensor.data = tensor.data.to(state[name].dtype)
    network.load_state_dict(state)
    network.faigfast_source = checkpoint.source  # type: ignore[assignment]
    log.info("%s: took %s", path, checkpoint.source)
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
