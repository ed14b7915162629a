"""What every part needs of a network: its tensors, its identity, a call without a trace."""

import copy
import hashlib
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain
from numbers import Number
from operator import is_
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.func import functional_call

from faigfast.precision import proper_float32


def unwrap(model: nn.Module, name: str) -> nn.Module:
    """Take the user's own module out of DataParallel, DistributedDataParallel or torch.compile.

    Raises
    ------
    TypeError
        If `model` is not a module, or a scripted one.
    ValueError
        If it has lazy parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"{name} is a {type(model).__name__}; expected a torch.nn.Module "
            "(faigfast.load_model reads one from a file)"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"{name} is a scripted module; expected the torch.nn.Module it came from")
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError(f"{name} has parameters without a shape; run it once before")
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        model = getattr(model, "module" if isinstance(model, wrappers) else "_orig_mod")
    return model


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give the tensors of a module's state dict, detached, by key."""
    return {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}


def own_type(model: nn.Module) -> torch.dtype:
    """Type of a network's first real parameter, and so of its images; float32 without one."""
    types = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(types, torch.float32)


def check_same_layout(
    baseline: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    in_baseline: str = "the baseline",
    in_target: str = "the target",
) -> None:
    """Refuse two state dicts that are not of one architecture.

    Parameters
    ----------
    baseline, target : mapping of str to Tensor
        State dicts without prefixes.
    in_baseline, in_target : str
        What the message calls the two.

    Raises
    ------
    ValueError
        Naming the first tensor that only one has, or whose shape differs, with both shapes.
    """
    for key, value in target.items():
        if key not in baseline:
            raise ValueError(
                f"the networks differ: {key!r} {list(value.shape)} is in {in_target} and not in "
                f"{in_baseline}; expected two networks of one architecture"
            )
        if baseline[key].shape != value.shape:
            raise ValueError(
                f"the networks differ: {key!r} is {list(baseline[key].shape)} in {in_baseline} and "
                f"{list(value.shape)} in {in_target}; expected two networks of one architecture"
            )
    for key, value in baseline.items():
        if key not in target:
            raise ValueError(
                f"the networks differ: {key!r} {list(value.shape)} is in {in_baseline} and not in "
                f"{in_target}; expected two networks of one architecture"
            )


def all_finite(value: Tensor) -> bool:
    """Whether a tensor holds neither infinities nor NaN, which its sum shows in one reading."""
    # A sum of finite values can overflow; then all are looked at.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def slots(model: nn.Module) -> dict[str, Tensor]:
    """Give every place of a tensor in a module once, also where two names lead to one module."""
    return {
        f"{name}.{key}".lstrip("."): value
        for name, module in model.named_modules()
        for key, value in chain(module._parameters.items(), module._buffers.items())
        if value is not None
    }


def identity(value: Tensor) -> tuple[Any, ...]:
    """Tell tensors apart: what is equal shares one memory, shape and layout."""
    return value.data_ptr() or id(value), value.shape, value.stride()


def copy_of(model: nn.Module) -> nn.Module:
    """Copy a module deeply, tensors that it computed for itself included."""
    # deepcopy refuses what hooks such as weight norm's leave on a module: results with a history.
    kept = [value for module in model.modules() for value in vars(module).values()]
    computed = [v for v in kept if isinstance(v, Tensor) and not v.is_leaf]
    with torch.inference_mode(False):
        return copy.deepcopy(model, {id(v): v.detach().clone() for v in computed})


def attributes(model: nn.Module) -> str:
    """Fingerprint what a module's results depend on beside its state dict, as far as it shows.

    Classes, hooks, attributes and buffers outside the state dict are read, and what they hold:
    containers, tensors and arrays by their values, functions by their code, closures and defaults,
    other objects by their attributes, to a few levels. Of classes their functions are read, with
    the globals that these name, and what else of them is plain.
    """
    found: list[str] = []
    seen: dict[int, tuple[int, Any]] = {}  # objects are kept, so that none takes another's id

    def read(value: Any, depth: int) -> None:
        if _is_plain(value):
            found.append(f"{value!r};")
            return
        found.append(f"{type(value).__qualname__}(")
        if id(value) in seen:
            found.append(f"{seen[id(value)][0]}")
        else:
            seen[id(value)] = len(seen), value
            inside = depth - (not isinstance(value, dict | list | tuple | nn.Module))
            for part in _parts(value, depth):
                read(part, inside)
        found.append(")")

    read(model, LEVELS)
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        read(_class_parts(kind), LEVELS)
    read([hooks for hooks in map(_global_hooks.get, _GLOBAL_HOOKS) if hooks], 1)
    return hashlib.sha256("".join(found).encode()).hexdigest()


SHORT = 100  # entries of dicts and lists

# Most of what a module holds is of these; the others take longer to tell.
_PLAIN = frozenset((bool, int, float, str, type(None)))


def _is_plain(value: Any) -> bool:
    """Whether its text is all that there is of a value, also of a tuple or short list of such."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is tuple or (kind is list and len(value) < SHORT):
        return _PLAIN.issuperset(map(type, value))
    return isinstance(value, type | torch.dtype | torch.device | str | bytes | Number)


# Hooks on all modules.
_global_hooks = vars(torch.nn.modules.module)
_GLOBAL_HOOKS = sorted(key for key in _global_hooks if key.startswith("_global_"))


def _class_parts(kind: type) -> list[Any]:
    """Give what of a module's class its results may depend on."""
    found: list[Any] = []
    for each in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for name, value in vars(each).items():
            function = getattr(value, "__func__", getattr(value, "fget", value))
            if isinstance(function, FunctionType):
                names = function.__globals__
                of_torch = each.__module__.startswith("torch.")
                used = [] if of_torch else [names.get(n) for n in function.__code__.co_names]
                found += [name, function, [value for value in used if _tells(value)]]
            elif not name.startswith("__") and _is_plain(value):
                found += [name, value]
    return found


def _tells(value: Any) -> bool:
    """Whether a global is read: a setting, some of them, or a function, not what may be large."""
    if isinstance(value, dict) and len(value) < SHORT:
        return all(map(_is_plain, value.values()))
    return _is_plain(value) or isinstance(value, FunctionType)


_CONTAINERS = (dict, list, tuple, set)
_MUTABLE = (dict, list, set, deque)
LEVELS = 4  # of objects within objects that `attributes` reads


def _parts(value: Any, depth: int) -> Iterable[Any]:
    """Take a value apart for `attributes`."""
    if isinstance(value, Tensor):
        octets = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        return [value.dtype, *value.shape, b"" if value.is_meta else octets.numpy().tobytes()]
    if isinstance(value, np.ndarray):
        return [repr(value.dtype), *value.shape, value.tobytes()]
    if isinstance(value, nn.Module):
        # Most of a module's attributes are empty: hooks that nobody registered.
        plain: list[tuple[str, Any]] = []
        own: dict[str, Any] = {}
        for key, part in vars(value).items():
            if type(part) not in _PLAIN and isinstance(part, _CONTAINERS) and not part:
                continue
            if _is_plain(part):
                plain.append((key, part))
            elif key not in ("_parameters", "_buffers"):
                own[key] = part
        names = value._non_persistent_buffers_set
        if names:
            own["_buffers"] = {k: v for k, v in value._buffers.items() if k in names}
        return [type(value), repr(plain), own] if own else [type(value), repr(plain)]
    if isinstance(value, Mapping):
        return list(chain.from_iterable(value.items()))
    if isinstance(value, list | tuple | deque):
        return value
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    of_torch = str(getattr(value, "__module__", "")).startswith("torch._")
    if depth <= 0 or of_torch or isinstance(value, ModuleType):
        return []
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        held = [cell.cell_contents for cell in cells if cell != CellType()]
        code = value.__code__
        return [code.co_code, repr(code.co_names), code.co_consts, value.__defaults__, held]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    slots = [name for each in type(value).__mro__ for name in vars(each).get("__slots__", ())]
    slotted = [getattr(value, name, None) for name in slots if not name.startswith("__")]
    return [getattr(value, "__dict__", {}), slotted]


def _held(values: Iterable[Any]) -> Iterable[Any]:
    """Give values and what they hold, as deep as `attributes` reads, each object once."""
    seen: dict[int, Any] = {}

    def read(value: Any, depth: int) -> None:
        if id(value) in seen or isinstance(value, type | str | bytes | Number | None):
            return
        seen[id(value)] = value
        if isinstance(value, Tensor | np.ndarray):
            return
        for part in [vars(value)] if isinstance(value, nn.Module) else _parts(value, depth):
            read(part, depth - (not isinstance(value, (*_MUTABLE, tuple, nn.Module))))

    for value in values:
        read(value, LEVELS)
    return seen.values()


@contextmanager
def without_fakes(model: nn.Module) -> Iterator[None]:
    """Take tensors without data, which tracing leaves, out of all that a module holds."""
    before = [(part, part.copy()) for part in _held([model]) if isinstance(part, _MUTABLE)]
    try:
        yield
    finally:
        for part, kept in before:
            old = {id(value) for value in _entries(kept)}
            new = _held(value for value in _entries(part) if id(value) not in old)
            if any(map(_is_fake, new)):
                part.clear()
                (part.extend if isinstance(part, list | deque) else part.update)(kept)


def _entries(part: Any) -> Iterable[Any]:
    return list(part.values() if isinstance(part, dict) else part)


def _is_fake(value: Any) -> bool:
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return isinstance(value, FakeTensor) or (isinstance(value, Tensor) and wrapped(value))


@contextmanager
def blaming(what: str, kind: type[Exception]) -> Iterator[None]:
    """Turn an error of torch or the network into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except kind as problem:
        message = (str(problem) or type(problem).__name__).splitlines()[0]
        raise ValueError(f"{what}: {message}") from problem


def call_as_is(model: nn.Module, x: Tensor) -> Any:
    """Evaluate a module on its own tensors, copied, since it may write on its buffers."""
    own = {key: value.clone() for key, value in slots(model).items()}
    with blaming(f"the networks do not take x {list(x.shape)} of {x.dtype}", Exception):
        return functional_call(model, own, (x.clone(),), tie_weights=False)


def _is_same(place: dict[str, Any], kept: dict[str, Any]) -> bool:
    """Whether the same things stand in a place in the same order; a tensor has no plain `==`."""
    if len(place) != len(kept):
        return False
    return all(map(is_, place, kept)) and all(map(is_, place.values(), kept.values()))


@contextmanager
def undisturbed(*models: nn.Module) -> Iterator[None]:
    """Evaluate models inside, with gradients and exact types, and leave no trace of it.

    Modes of all submodules, tensors they keep as attributes or buffers, and every random
    generator, Python's and NumPy's included, are restored on leaving; what else a network keeps of
    its own (a list, a number) is not. `no_grad`, `inference_mode`, autocast and TF32 of the caller
    do not reach inside.
    """
    modules = [module for model in models for module in model.modules()]
    modes = [module.training for module in modules]
    # Hooks such as weight norm's leave what they computed on the module.
    scripted = torch.jit.ScriptModule  # whose buffers are not a dict
    places = [vars(m) for m in modules]
    places += [m._buffers for m in modules if not isinstance(m, scripted)]
    left = [(place, dict(place)) for place in places]
    own = [v for m in modules for v in vars(m).values() if isinstance(v, Tensor)]
    # Tensors of inference mode cannot be written on here.
    contents = [(v, v._version, v.detach().clone()) for v in own if not v.is_inference()]
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    parameters = (p for m in modules for p in m._parameters.values() if p is not None)
    types = {parameter.device.type for parameter in parameters} - {"meta"}
    device = types.pop() if len(types) == 1 else "cpu"
    with (
        torch.random.fork_rng(cuda),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(device, enabled=False),
        proper_float32(),  # cuDNN convolves float32 in TF32 unless told otherwise
    ):
        states = random.getstate(), np.random.get_state()
        try:
            for model in models:
                # To tell every module takes longer than to look.
                if any(module.training for module in model.modules()):
                    model.eval()
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            for module, mode in zip(modules, modes, strict=True):
                if type(module).train is not nn.Module.train:  # it may do more, as merge weights
                    module.train(mode)
            for module, mode in zip(modules, modes, strict=True):
                if module.training != mode:
                    module.training = mode
            for place, kept in left:
                if _is_same(place, kept):
                    continue
                made = {key for key, value in place.items() if isinstance(value, Tensor)}
                for key in made - kept.keys():
                    del place[key]
                place.update((k, v) for k, v in kept.items() if k in made or isinstance(v, Tensor))
            for value, version, content in contents:
                if value._version != version:
                    value.data.copy_(content)
