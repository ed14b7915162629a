"""Checkpoints: networks from files, and weights written in a file's own form."""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faigfast.io.atomic import atomic_write
from faigfast.io.tensor_file import write_safetensors
from faigfast.models.state import check_same_layout, unwrap
from faigfast.zoo.building import computed_names, fit, fit_pair, state_of, with_weights
from faigfast.zoo.checkpoint_source import Checkpoint, PathLike, Source, path_of, read_checkpoint
from faigfast.zoo.name_prefixes import wrapper_prefix
from faigfast.zoo.ncnn import check_same_graph, write_network
from faigfast.zoo.weight_types import weight_type
from faigfast.zoo.written_names import closest_names

__all__ = ["Checkpoint", "Source", "load_model", "load_pair", "read_checkpoint", "save_model"]

TORCH_SUFFIXES = (".pth", ".pt", ".ckpt")
NCNN_SUFFIX = ".param"

State = Mapping[str, Any]
Keys = str | tuple[str | None, str | None] | None
log = logging.getLogger("faigfast")


def load_model(
    path: PathLike | State,
    into: nn.Module | None = None,
    key: str | None = None,
    dtype: torch.dtype | str | None = None,
) -> nn.Module:
    """Read a network from a checkpoint.

    Parameters
    ----------
    path : path-like or mapping
        A PyTorch file (.pth, .pt, .ckpt), a safetensors file, or the .param file of an ncnn
        network with its .bin file beside it; or a state dict in memory.
    into : nn.Module, optional
        A network of your own with the file's names and shapes. It is copied, without DataParallel
        or torch.compile, never changed. Without it the file must fit a network in `faigfast.zoo`
        or, where the package spandrel is installed, one of its architectures.
    key : str, optional
        The entry of the file with the weights, such as "params", dotted where it is nested, such
        as "generator.ema". By default averages (`params_ema`, `params-ema`, `ema`) come before
        `params`, `state_dict`, `model`, `net`, `netG` and others.
    dtype : torch.dtype or str, optional
        Type of the weights: float64, float32, bfloat16 or float16. By default the file's (a
        half-precision file gives a half-precision network), or float32 where the file mixes types.

    Returns
    -------
    nn.Module
        In eval mode. Its attribute `faigfast_source` is the `Source` of its weights: the entry,
        entries passed over, and what loading changed; the logger "faigfast" reports it at level
        INFO. The prefixes "module.", "_orig_mod.", "model.", "net.", "generator.", "netG." and the
        like are removed where all names have them and a network then fits. A network of spandrel
        is its raw module.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If `path` is neither a path nor a mapping, `into` is not a module or is a scripted one, or
        `key` or `dtype` is of another type.
    ValueError
        If the file is unusable, has no entry `key`, its network is unknown, its names or shapes
        differ from `into` (the first difference is named), or `dtype` is another.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"params": nn.Conv2d(3, 8, 3).state_dict()}, f"{folder}/net.pth")
    ...     print(load_model(f"{folder}/net.pth", into=nn.Conv2d(3, 8, 3)).faigfast_source)
    params of net.pth
    """
    wanted = weight_type(dtype)
    return with_weights(fit(read_checkpoint(path, key), into, wanted))


def load_pair(
    a: PathLike | State,
    b: PathLike | State,
    into: nn.Module | None = None,
    key: Keys = None,
    dtype: torch.dtype | str | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Read a baseline and a target of one architecture.

    Parameters
    ----------
    a, b : path-like or mapping
        Checkpoints of the baseline and of the target.
    into : nn.Module, optional
        As in `load_model`; both are copies of it.
    key : str or tuple of two, optional
        As in `load_model`: an entry of both files, or one entry for each file, such as
        `("params", "params_ema")`. None in a tuple is the default of that file.
    dtype : torch.dtype or str, optional
        As in `load_model`.

    Returns
    -------
    baseline, target : nn.Module
        As from `load_model`. Two SwinIR trained on patches of different sizes get the masks of one
        size, since masks are computed.

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
    wanted = weight_type(dtype)
    first_key, second_key = _two_keys(key)
    first, second = read_checkpoint(a, first_key, "a"), read_checkpoint(b, second_key, "b")
    if first.network is not None and second.network is not None:
        places = f"the baseline {first.place}", f"the target {second.place}"
        check_same_layout(first.state, second.state, *places)
        check_same_graph(first.network, second.network, *places)
    pair = fit_pair(fit(first, into, wanted), fit(second, into, wanted))
    return with_weights(pair[0]), with_weights(pair[1])


def _two_keys(key: Keys) -> tuple[str | None, str | None]:
    """Give the entries of the two files of a pair."""
    if key is None or isinstance(key, str):
        return key, key
    expected = "expected the name of an entry, or a tuple of two such names or None"
    if not isinstance(key, tuple | list):
        raise TypeError(f"key is a {type(key).__name__}; {expected}")
    if len(key) != 2:
        raise ValueError(f"key holds {len(key)} items; {expected}")
    first, second = key
    return first, second


def save_model(
    model: nn.Module, path: PathLike, like: PathLike | None = None, key: str | None = None
) -> None:
    """Write a network's weights, whole or not at all.

    Parameters
    ----------
    model : nn.Module
        The network, without any wrapper; its weights are written in their own dtypes.
    path : path-like
        The suffix chooses the format: .safetensors, .pth, .pt or .ckpt for PyTorch's, or .param
        for ncnn's, which needs such a file as `like` and writes the .bin file beside it too.
    like : path-like, optional
        A checkpoint whose names, order and prefix the new one takes. Where both are PyTorch
        files, it takes the other entries too: only the entry that `load_model` reads is replaced
        and all others (`params` beside `params_ema`, say) stay the same. Where both are
        safetensors, the metadata is kept. Where both are ncnn's, layers and storage (float16 or
        float32) are kept. The older names of ESRGAN are written back. A SPAN with branches gets its
        own branches back where they merge into the network's kernel; other kernels get new
        branches that merge into them exactly, and the logger "faigfast" warns that training
        cannot go on from these. Without `like` a plain state dict is written.
    key : str, optional
        The entry of `like`, as in `load_model`.

    Raises
    ------
    TypeError
        If `model` is not a module or is a scripted one, or `path` or `like` is not a path.
    ValueError
        If the suffix is unknown, the network holds more than tensors, `like` is unusable or has
        other names or shapes, or the file cannot be written. For ncnn also if `like` is no .param
        file or a weight is too large for its float16.
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
    network = unwrap(model, "model")
    stored = state_of(network, "model")
    path = checkpoint_path(path)
    suffix = path.suffix.lower()
    state = {name: value.cpu().contiguous() for name, value in stored.items()}
    content: Mapping[str, Any] = state
    metadata = None
    if like is None and suffix == NCNN_SUFFIX:
        raise ValueError(f"path {path} needs a network's layers; expected `like`, a .param file")
    if like is None and key is not None:
        raise ValueError(f"key is {key!r} without `like`; expected both, or none of them")
    if like is not None:
        like_checkpoint = read_checkpoint(path_of("like", like), key)
        own_prefix = wrapper_prefix(state)
        unprefixed = {name[len(own_prefix) :]: value for name, value in state.items()}
        if suffix == NCNN_SUFFIX:
            check_same_layout(unprefixed, like_checkpoint.state, "`model`", f"`like` ({like})")
            if like_checkpoint.network is None:
                raise ValueError(f"`like` ({like}) is no ncnn network; expected a .param file")
            write_network(path, unprefixed, like_checkpoint.network)
            return
        state = _in_form(unprefixed, like_checkpoint, computed_names(network), f"`like` ({like})")
        content, metadata = state, like_checkpoint.metadata
        if suffix != ".safetensors" and metadata is None:
            content = _with_weights(like_checkpoint, state)
    if suffix == ".safetensors":
        # The format refuses tensors that share memory, as tied weights do.
        copies = {name: value.clone() for name, value in state.items()}
        write_safetensors(path, copies, metadata)
        return
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def state_like(model: nn.Module, like: PathLike, key: str | None = None) -> dict[str, Tensor]:
    """Give a network's weights under a checkpoint's names, as `save_model` writes them.

    Parameters
    ----------
    model, like, key
        As in `save_model`.

    Returns
    -------
    dict of str to Tensor
        In the order of the checkpoint, without the prefix of wrappers.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `save_model`.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(nn.Conv2d(3, 8, 3), f"{folder}/net.pth")
    ...     list(state_like(nn.Conv2d(3, 8, 3), f"{folder}/net.pth"))
    ['weight', 'bias']
    """
    network = unwrap(model, "model")
    state = state_of(network, "model")
    prefix = wrapper_prefix(state)
    state = {name[len(prefix) :]: value.cpu() for name, value in state.items()}
    checkpoint = read_checkpoint(path_of("like", like), key)
    names = closest_names(checkpoint.state, state)
    return names.write(state, computed_names(network), f"`like` ({like})")[0]


def checkpoint_path(path: PathLike) -> Path:
    """Refuse a file name with a suffix that `save_model` does not write."""
    path = path_of("path", path)
    if path.suffix.lower() not in (".safetensors", *TORCH_SUFFIXES, NCNN_SUFFIX):
        raise ValueError(
            f"path {path} ends in {path.suffix!r}; expected .safetensors or one of "
            f"{', '.join((*TORCH_SUFFIXES, NCNN_SUFFIX))}"
        )
    return path


def _in_form(
    state: dict[str, Tensor], like: Checkpoint, computed: tuple[str, ...], place: str
) -> dict[str, Tensor]:
    """Give a network's weights under the names and in the order of a checkpoint's entry.

    Parameters
    ----------
    state : dict of str to Tensor
        The network's weights.
    like : Checkpoint
        The checkpoint.
    computed : tuple of str
        Ends of the names of tensors that the network computes; the checkpoint's are kept.
    place : str
        Name of the checkpoint for messages.
    """
    wanted = closest_names(like.state, state)
    start = f"{like.entry.start}{like.source.prefix}{wanted.prefix}"
    written, remark = wanted.write(state, computed, place)
    if remark:
        log.warning("%s", remark)
    renamed = {start + name: value for name, value in written.items()}
    # Other tensors of the dict, such as a counter of averages, stay as they are.
    return {name: renamed.get(name, value) for name, value in like.entry.stored.items()}


def _with_weights(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """Give the content of a checkpoint with other tensors as its weights."""
    content: Any = copy.copy(checkpoint.content)
    inner = content
    for name in checkpoint.entry.path:
        inner[name] = copy.copy(inner[name])
        inner = inner[name]
    inner.update(state)
    return content
